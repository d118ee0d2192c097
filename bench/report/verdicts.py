"""The verdicts on claims as a table, and every finding that they rest on."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from bench import format as fmt
from bench.claims.model import Verdict
from bench.report.model import Table

_CAPTION = """\
What was measured says of each claim: it holds where that was shown at every place within its \
scope, is refuted where the contrary was shown at one, and else is inconclusive; no data where \
nothing was measured. Shown: at a level of 5 % for all claims together (Holm), beyond the floor \
of identical pairs. The effect is that of the place named: the furthest beyond the limit where a \
claim is refuted, else the nearest to it; with its own interval, which is narrower than \
the one that decides. `python -m bench claims --explain ID` has the arithmetic."""


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """One row a claim, and a host."""
    several = len({verdict.host for verdict in verdicts}) > 1
    frame = pd.DataFrame([_row(verdict) for verdict in verdicts])
    display = pd.DataFrame(
        {
            "claim": [f"{v.id}: {v.sentence}" for v in verdicts],
            "verdict": [v.answer for v in verdicts],
            "effect": [effect(v) for v in verdicts],
            "of, and asked": [asked(v) for v in verdicts],
            "at": [where(v) for v in verdicts],
        }
    )
    if several:
        display.insert(0, "host", [verdict.host for verdict in verdicts])
    return Table(
        name="verdicts",
        title="Verdicts on claims",
        caption=_CAPTION,
        frame=frame,
        display=display,
        heads=("host",) if several else (),
        words=("claim", "verdict", "of, and asked", "at"),
        spare=("of, and asked",),
    )


def effect(verdict: Verdict) -> str:
    """Effect at the place that decides a verdict, with its interval and unit."""
    found = verdict.deciding
    return fmt.NONE if found is None else found.said


def asked(verdict: Verdict) -> str:
    """Subject of the effect, and the claim's statement about it."""
    return verdict.deciding.statement if verdict.deciding is not None else fmt.NONE


def where(verdict: Verdict) -> str:
    """The place where a verdict is decided and at how many it is, or why there is none."""
    found = verdict.deciding
    return verdict.reason if found is None else f"{found.place} ({verdict.reason})"


def _row(verdict: Verdict) -> dict[str, object]:
    found = verdict.deciding
    parts = ("effect", "low", "high", "unit", "blocks", "adjusted_p", "statement", "run")
    return {
        "claim": verdict.id,
        "sentence": verdict.sentence,
        "verdict": verdict.answer,
        "reason": verdict.reason,
        "place": "" if found is None else found.place,
        **{name: None if found is None else getattr(found, name) for name in parts},
        **{
            f"{answer.replace(' ', '_')}_at": verdict.region.get(answer, "")
            for answer in ("holds", "refuted", "inconclusive", "no data")
        },
        **{n: getattr(verdict, n) for n in ("hypothesis", "scope", "source", "url", "host")},
    }
