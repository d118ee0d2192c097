"""Errors of outputs against the oracle's."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from bench import format as fmt
from bench.evidence import Group, rides_along
from bench.record import MEASURES
from bench.report.model import Layout, Table
from bench.report.rows import ends, identity

_OUTPUTS_CAPTION = """\
Largest absolute error against the float64 oracle over all blocks, and in brackets the same \
relative to the largest expected value. Forward jobs are checked by outputs and final state, \
training jobs by loss and gradients. The executable that is checked is the one that is timed. The \
least exact come first."""

_PARTS = ("outputs", "state", "loss", "gradients")


def outputs(groups: Sequence[Group], layout: Layout) -> Table | None:
    """Errors against the oracle; one row an implementation, the least exact first."""
    rows, heads, status = [], [], []
    for group in groups:
        names = [n for n in group.implementations(*MEASURES) if not rides_along(n)]
        errors = {name: _errors(group, name) for name in names}
        for name in sorted(names, key=lambda name: -_largest(errors[name])):
            outcomes = group.outcomes(name, *MEASURES)
            rows.append({**identity(group, name), **ends(outcomes), **errors[name]})
            heads.append(layout.head(group))
            status.append(layout.footnotes.cell(outcomes))
    if not rows:
        return None
    frame = pd.DataFrame(rows)
    display = pd.DataFrame(heads, columns=list(layout.heads()))
    display["implementation"] = frame["implementation"]
    for forward, train in (("outputs", "loss"), ("state", "gradients")):
        # A job is of one mode, so that the two never meet in a row.
        pair = (
            frame[f"{forward}_{kind}"].fillna(frame[f"{train}_{kind}"])
            for kind in ("absolute", "relative")
        )
        display[f"{forward} or {train}"] = fmt.each(fmt.errors, *pair)
    display["status"] = status
    return Table(
        name="outputs",
        title="Outputs against the oracle",
        caption=_OUTPUTS_CAPTION,
        frame=frame,
        display=display,
        heads=layout.heads(),
        words=("implementation", "status"),
        spare=("state or gradients",),
    )


def _errors(group: Group, name: str) -> dict[str, float]:
    """The largest errors over all records of an implementation, those that failed too."""
    records = [record for measure in MEASURES for record in group.get(name, measure).records]
    return {
        f"{part}_{kind}": max(
            (r.errors[part][kind] for r in records if part in r.errors), default=math.nan
        )
        for part in _PARTS
        for kind in ("absolute", "relative")
    }


def _largest(errors: dict[str, float]) -> float:
    known = [value for kind, value in errors.items() if not math.isnan(value) and "rel" in kind]
    return max(known, default=-1.0)
