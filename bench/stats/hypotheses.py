"""Statements about ratios, declared before they are measured: how sure one is of either answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bench.stats.ratios import Ratio
from bench.stats.verdicts import ALPHA, MARGIN, UNMEASURED, Answer, Floor, holm

Statement = Literal["at most", "at least", "faster", "slower", "equivalent"]


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """That a ratio is at most or at least `limit`, that a is faster or slower, or both alike.

    `label` says what the ratio is of. "at most" is non-inferiority with the margin `limit` - 1,
    "equivalent" is within it either way, "faster" and "slower" have no limit. `p_holds` is the
    chance of being so sure that the statement holds where it does not, `p_refuted` the other way
    round; both are 1 where the A/A floor withholds an answer. They are those of
    `bench.stats.Judgement`, whose answer at a level is the one whose p-value is below it.
    """

    label: str
    statement: Statement
    ratio: Ratio | None
    limit: float = 1.0
    floor: Floor = UNMEASURED

    def __post_init__(self) -> None:
        least = 1.0 if self.statement in ("at least", "faster", "slower") else 1 + 1e-9
        if not least <= self.limit < math.inf:
            raise ValueError(
                f"{self.label}: limit {self.limit} of {self.statement!r}: must be above 1"
            )

    @property
    def p_holds(self) -> float:
        return self._p(holds=True)

    @property
    def p_refuted(self) -> float:
        return self._p(holds=False)

    def _p(self, *, holds: bool) -> float:
        ratio = self.ratio
        if ratio is None or self.floor.withholds or math.isnan(ratio.low):
            return 1.0
        if self.statement == "at most":
            return self._within(ratio) if holds else self._above(ratio, self.limit)
        if self.statement == "equivalent":
            if holds:
                return max(self._below(ratio, self.limit), self._below(ratio.inverse(), self.limit))
            beyond = self._above(ratio, self.limit), self._above(ratio.inverse(), self.limit)
            return min(beyond)
        if self.statement == "at least":
            return self._at_least(ratio, holds=holds)
        faster = holds == (self.statement == "faster")
        return self._different(ratio.inverse() if faster else ratio)

    def _within(self, ratio: Ratio) -> float:
        """Of being at most the limit, one-sided.

        A coarse instrument cannot show that two are as fast to a margin; but that one is faster,
        beyond its floor.
        """
        if self.floor.too_wide_for(self.limit - 1):
            return self._under(ratio, 1 / (1 + self.floor.value))
        return self._under(ratio, self.limit)

    def _below(self, ratio: Ratio, limit: float) -> float:
        """Of being below a limit that is one of two, one-sided; not with a coarse instrument."""
        return 1.0 if self.floor.too_wide_for(self.limit - 1) else self._under(ratio, limit)

    @staticmethod
    def _under(ratio: Ratio, limit: float) -> float:
        return 1.0 if ratio.ratio >= limit else ratio.p_value(limit) / 2

    def _above(self, ratio: Ratio, limit: float) -> float:
        """Of being above a limit, one-sided, and beyond a coarse instrument's floor."""
        beyond = limit * self._slack(self.limit - 1)
        return ratio.p_value(beyond) / 2 if ratio.ratio > beyond else 1.0

    def _at_least(self, ratio: Ratio, *, holds: bool) -> float:
        slack = self._slack(self.limit - 1 or MARGIN)
        if holds:
            beyond = self.limit * slack
            shown = ratio.ratio > beyond and ratio.ratio > 1 + self.floor.least
            return ratio.p_value(beyond) if shown else 1.0
        within = self.limit / slack
        return ratio.p_value(within) if ratio.ratio < within else 1.0

    def _different(self, ratio: Ratio) -> float:
        """Of being above 1, and above the floor."""
        return ratio.p_value() if ratio.ratio > 1 + self.floor.least else 1.0

    def _slack(self, margin: float) -> float:
        return 1 + self.floor.value if self.floor.too_wide_for(margin) else 1.0


@dataclass(frozen=True, kw_only=True)
class Conjunction:
    """Hypotheses that a statement needs all of.

    It holds where every one does (each may be tested at the full level: an intersection-union
    test, Berger 1982), and is refuted where any is (Bonferroni over them). One that was not
    measured keeps it from holding, and from nothing else.
    """

    parts: Sequence[Hypothesis]

    @property
    def p_holds(self) -> float:
        return max(part.p_holds for part in self.parts)

    @property
    def p_refuted(self) -> float:
        return min(1.0, len(self.parts) * min(part.p_refuted for part in self.parts))

    @property
    def measured(self) -> bool:
        """Whether there is a ratio for any part."""
        return any(part.ratio is not None for part in self.parts)

    @property
    def asked(self) -> tuple[tuple[str, float, float, float, float], ...]:
        """Identity of a question: the statements and their subjects, to six digits."""
        return tuple(
            (part.statement, part.limit, *_digits(part.ratio), part.floor.value)
            for part in self.parts
        )

    @property
    def p(self) -> float:
        """The level at which either answer is given."""
        return min(self.p_holds, self.p_refuted)

    def answer(self, p: float, alpha: float = ALPHA) -> Answer:
        """The answer where `p`, adjusted for whatever else was asked, is at most alpha."""
        if not self.measured:
            return "no data"
        if not p <= alpha:
            return "inconclusive"
        return "holds" if self.p_holds < self.p_refuted else "refuted"

    @property
    def deciding(self) -> Hypothesis:
        """The part that the answer rests on: the one refuted most surely, or held least surely."""
        there = [part for part in self.parts if part.ratio is not None]
        if self.p_refuted <= self.p_holds:
            return min(there, key=lambda part: part.p_refuted)
        return max(there, key=lambda part: part.p_holds)


def _digits(ratio: Ratio | None) -> tuple[float, float]:
    """A ratio and the upper bound of its interval; infinite where there is none."""
    if ratio is None or math.isnan(ratio.high):
        return math.inf if ratio is None else float(f"{ratio.ratio:.6g}"), math.inf
    return float(f"{ratio.ratio:.6g}"), float(f"{ratio.high:.6g}")


def adjusted(questions: Sequence[Conjunction]) -> list[float]:
    """Their p-values after Holm's correction; NaN for what was not measured.

    Of the two answers to one question one is wrong at most, so that a question counts once
    (Shaffer 1986). So do questions that are one and the same, asked by two claims, or of a function
    that several frameworks compute alike: they are right or wrong together.
    """
    p_values = {question.asked: question.p for question in questions if question.measured}
    corrected = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    return [corrected.get(question.asked, math.nan) for question in questions]
