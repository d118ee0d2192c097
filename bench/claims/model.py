"""A claim's verdict, and the findings that it rests on, each at one place."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench import stats
from bench.format import NONE, digits, interval

#: What names a part of a claim's region; the rest of a place is its shape.
HEADS = (
    *("framework", "unrolled by", "strategy", "runner", "loop", "rival"),
    *("quantity", "size", "statement", "phase", "device"),
)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Answer of a claim's test at one place: one framework, shape and phase.

    `where` tells the place, name by name as a reader knows them ("framework", "T", "B", "layers",
    "phase", ...). `statement` is what was asked there, with its `limit`. `effect` with `low` and
    `high` is what was found, in `unit` ("x" is a ratio), NaN where there is none; its interval is
    at `confidence`. `p` is the level at which the test answers, `adjusted_p` after Holm's
    correction over all declared claims; NaN for a fact, which no sampling error touches. `rows` are
    the implementations that it rests on, `arithmetic` the lines that lead to the answer, `reason`
    why there is none.
    """

    run: str
    where: Mapping[str, str]
    answer: stats.Answer
    statement: str = ""
    limit: float = math.nan
    reason: str = ""
    effect: float = math.nan
    low: float = math.nan
    high: float = math.nan
    unit: str = "x"
    confidence: float = stats.CONFIDENCE
    p: float = math.nan
    adjusted_p: float = math.nan
    blocks: int = 0
    rows: Sequence[str] = ()
    arithmetic: Sequence[str] = ()

    @property
    def place(self) -> str:
        """The place in one line: "tensorflow static forward at cell=lstm T=10 B=1"."""
        shape = " ".join(f"{n}={value}" for n, value in self.where.items() if n not in HEADS)
        return f"{' '.join(self.head)} at {shape}"

    @property
    def head(self) -> tuple[str, ...]:
        """The part of the region that the place is in."""
        return tuple(self.where[name] for name in HEADS if name in self.where)

    @property
    def said(self) -> str:
        """The effect with its interval and unit, as it stands in a table."""
        if math.isnan(self.effect):
            return NONE
        if self.unit != "x":
            return f"{digits(self.effect)} ({self.unit})"
        # What was counted and not sampled has no interval.
        sampled = not math.isnan(self.p)
        return interval(self.effect, self.low, self.high) if sampled else digits(self.effect)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Verdict on a claim by the runs of one host.

    `answer` is over the findings within the claim's own scope, `deciding` the one that it rests on
    most, None without any; `region` says in words where it holds, where it is refuted and where
    nobody can tell. `host` names the runs' host where there are several.
    """

    id: str
    sentence: str
    source: str
    url: str
    hypothesis: str
    scope: str
    answer: stats.Answer
    reason: str
    region: Mapping[str, str]
    findings: Sequence[Finding]
    deciding: Finding | None = None
    host: str = ""
    notes: Sequence[str] = field(default=())
