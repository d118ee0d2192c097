"""Ratios -> words: what may be said of two arms, and when enough has been measured to say it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bench.stats.ratios import CONFIDENCE, Ratio

Verdict = Literal["faster", "slower", "cannot tell"]

#: The same, where a difference that was not shown may have been shown to be small.
Finding = Literal["faster", "slower", "equivalent", "cannot tell"]

#: How a claim about a ratio ends.
Answer = Literal["holds", "refuted", "inconclusive", "no data"]

#: Two identical arms may differ by this much; a smaller effect is not called a difference.
FLOOR = 0.01

#: A difference up to this much does not matter, unless another margin was declared before the run.
MARGIN = 0.05

#: The share of wrong verdicts that is put up with.
ALPHA = 0.05


@dataclass(frozen=True, kw_only=True)
class Floor:
    """Floor by identical arms (A/A): the difference that a real one must exceed.

    `value` and `bound` are relative (0.01 is 1 %). `bound` is the end of the A/A interval that is
    further from 1, NaN where no A/A pair was measured in two blocks or more; then `value` is the
    least floor. `failed`: the identical arms were called different. `missing`: there must be such
    a pair for anything to be said at all, and there is none.
    """

    value: float = FLOOR
    bound: float = math.nan
    failed: bool = False
    missing: bool = False

    @property
    def measured(self) -> bool:
        """Whether there was an A/A pair to take it from."""
        return not math.isnan(self.bound)

    @property
    def needed(self) -> Floor:
        """This floor, `missing` if there was no A/A pair: no value is assumed in its place."""
        return self if self.measured else replace(self, missing=True)

    @property
    def withholds(self) -> bool:
        """Whether nothing that rests on it gets a verdict."""
        return self.failed or self.missing

    @property
    def wide(self) -> bool:
        """Whether it is too coarse to show that a difference is within the usual margin."""
        return self.too_wide_for(MARGIN)

    def too_wide_for(self, margin: float) -> bool:
        """Whether the A/A bound, or what is assumed without one, is more than half the margin."""
        return (self.bound if self.measured else self.value) > margin / 2

    @property
    def least(self) -> float:
        """Smallest difference that is called one.

        A floor that is too coarse to show that two things are equally fast shows a difference only
        where it is beyond floor and margin together.
        """
        return (1 + self.value) * (1 + MARGIN) - 1 if self.wide else self.value


#: What holds where no A/A pair was measured.
UNMEASURED = Floor()


def floor_of(
    *pairs: Ratio | None, confidence: float = CONFIDENCE, among: int | None = None
) -> Floor:
    """The floor that A/A pairs set; `UNMEASURED` where none of them has an interval.

    Of several pairs the widest bound at `confidence` counts. It has `failed` where one of them was
    called different (`called_different`) among so many, by default among these.
    """
    known = [pair.at(confidence) for pair in pairs if pair is not None and not math.isnan(pair.low)]
    if not known:
        return UNMEASURED
    bound = max(max(pair.high, pair.inverse().high) for pair in known) - 1
    number = len(known) if among is None else among
    failed = any(called_different(pair, number, confidence) for pair in known)
    return Floor(value=max(FLOOR, bound), bound=bound, failed=failed)


def called_different(pair: Ratio | None, among: int, confidence: float = CONFIDENCE) -> bool:
    """Whether one of so many A/A pairs fails: its interval excludes 1, and its effect is above 1 %.

    At the usual level one in twenty of them would fail by chance, so the interval is the one at
    1 - (1 - confidence) / among (Bonferroni).
    """
    level = 1 - (1 - confidence) / max(1, among)
    return pair is not None and judge(pair.at(level)) != "cannot tell"


def coarsest(*floors: Floor) -> Floor:
    """The floor of what rests on all of them: the widest bound, failed where any of them is."""
    bounds = [floor.bound for floor in floors if floor.measured]
    return Floor(
        value=max(floor.value for floor in floors),
        bound=max(bounds, default=math.nan),
        failed=any(floor.failed for floor in floors),
        missing=any(floor.missing for floor in floors),
    )


def compounded(a: Floor, b: Floor) -> Floor:
    """The floor of a ratio of two ratios, each with its own: what both can be off by together."""
    widest = coarsest(a, b)
    bounds = [floor.bound if floor.measured else floor.value for floor in (a, b)]
    return replace(
        widest,
        value=(1 + a.value) * (1 + b.value) - 1,
        bound=(1 + bounds[0]) * (1 + bounds[1]) - 1 if widest.measured else math.nan,
    )


def judge(ratio: Ratio | None, floor: float | Floor = FLOOR) -> Verdict:
    """Whether a is faster or slower than b: the interval excludes 1 and the effect the floor.

    The interval is taken as it is, at the ratio's own level.
    """
    if isinstance(floor, Floor):
        if floor.withholds:
            return "cannot tell"
        floor = floor.least
    if ratio is None:
        return "cannot tell"
    if ratio.high < 1 and ratio.ratio * (1 + floor) < 1:
        return "faster"
    if ratio.low > 1 and ratio.ratio > 1 + floor:
        return "slower"
    return "cannot tell"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Answers to declared questions about a ratio t_a / t_b, at level `alpha`.

    `faster`, `slower` and "by at least" rest on the interval at 1 - alpha, `as_fast_as` and
    `equivalent` on the one at 1 - 2 alpha, of which each bound is wrong with probability alpha. The
    ratio's own level does not matter: it is converted.

    "refuted" means that the contrary was shown, and not that nothing was; "no data" that there is
    no ratio. One block has no interval, so that everything is "inconclusive", as is everything
    whose A/A pair failed or lacks. Raises `ValueError` for a margin that is not above 0, and for an
    alpha that is not between 0 and 0.5.
    """

    ratio: Ratio | None
    floor: Floor = UNMEASURED
    margin: float = MARGIN
    alpha: float = ALPHA

    def __post_init__(self) -> None:
        if not 0 < self.margin < math.inf:
            raise ValueError(f"margin {self.margin}: must be above 0 and finite")
        if not 0 < self.alpha < 0.5:
            raise ValueError(f"alpha {self.alpha}: must be above 0 and below 0.5")

    @property
    def verdict(self) -> Verdict:
        """Faster or slower, if either was shown."""
        return judge(self._two_sided, self.floor)

    @property
    def faster(self) -> Answer:
        """A takes less time than b."""
        return self._answer(holds=self.verdict == "faster", refuted=self.verdict == "slower")

    @property
    def slower(self) -> Answer:
        """A takes more time than b."""
        return self._answer(holds=self.verdict == "slower", refuted=self.verdict == "faster")

    def faster_by(self, x: float) -> Answer:
        """B takes at least x times as long as a. Raises `ValueError` for x below 1."""
        return self._by_at_least(x, self._two_sided.inverse(), self.verdict == "faster")

    def slower_by(self, x: float) -> Answer:
        """A takes at least x times as long as b. Raises `ValueError` for x below 1."""
        return self._by_at_least(x, self._two_sided, self.verdict == "slower")

    @property
    def as_fast_as(self) -> Answer:
        """A takes at most a margin more than b: non-inferiority (ICH E9, 1998, section 3.3.2).

        A wide floor cannot show that; but that a is faster, by more than the floor.
        """
        limit = 1 + self.margin
        within = 1 / (1 + self.floor.value) if self._is_wide else limit
        return self._answer(
            holds=self._one_sided.high < within,
            refuted=self._one_sided.low > limit * self._slack,
        )

    @property
    def equivalent(self) -> Answer:
        """Neither takes a margin more than the other: two one-sided tests (Schuirmann 1987)."""
        limit, interval = 1 + self.margin, self._one_sided
        beyond = limit * self._slack
        return self._answer(
            holds=interval.high < limit and interval.low * limit > 1 and not self._is_wide,
            refuted=interval.low > beyond or interval.high * beyond < 1,
        )

    @property
    def _is_wide(self) -> bool:
        return self.floor.too_wide_for(self.margin)

    @property
    def _slack(self) -> float:
        """Excess over the margin that a refutation needs.

        A wide floor cannot show that a difference is small. It can show one that is larger than
        margin and floor together: twice as slow is not as fast, however coarse the instrument.
        """
        return 1 + self.floor.value if self._is_wide else 1.0

    @property
    def _two_sided(self) -> Ratio:
        return _NOTHING if self.ratio is None else self.ratio.at(1 - self.alpha)

    @property
    def _one_sided(self) -> Ratio:
        return _NOTHING if self.ratio is None else self.ratio.at(1 - 2 * self.alpha)

    def _by_at_least(self, x: float, interval: Ratio, shown: bool) -> Answer:
        if not 1 <= x < math.inf:
            raise ValueError(f"by at least {x}: must be 1 or more, and finite")
        wide = self.floor.too_wide_for(x - 1 or MARGIN)
        slack = 1 + self.floor.value if wide else 1.0
        holds = shown and interval.low > x * slack
        return self._answer(holds=holds, refuted=interval.high * slack < x)

    def _answer(self, *, holds: bool, refuted: bool) -> Answer:
        if self.ratio is None:
            return "no data"
        if self.floor.withholds:
            return "inconclusive"
        return "holds" if holds else "refuted" if refuted else "inconclusive"


#: Stands for a ratio that there is not: no comparison with it is true.
_NOTHING = Ratio(ratio=math.nan, low=math.nan, high=math.nan, blocks=0)


def finding(ratio: Ratio | None, floor: Floor = UNMEASURED, margin: float = MARGIN) -> Finding:
    """The verdict on a ratio, and "equivalent" where there is none but it is within the margin.

    At the ratio's own level, as `judge`.
    """
    if ratio is None:
        return "cannot tell"
    found = Judgement(ratio=ratio, floor=floor, margin=margin, alpha=1 - ratio.confidence)
    if found.verdict == "cannot tell" and found.equivalent == "holds":
        return "equivalent"
    return found.verdict


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for the number of questions asked, in the order given (Holm 1979).

    Calling what is at most alpha keeps the chance of any wrong call in the family at alpha, however
    the tests depend on each other. Raises `ValueError` for what is no probability.
    """
    for p in p_values:
        if not 0 <= p <= 1:
            raise ValueError(f"p-value {p}: must be between 0 and 1")
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def look_confidence(alpha: float = ALPHA, looks: int = 3) -> float:
    """The level of each interval where one may look `looks` times and stop at any of them.

    Bonferroni: alpha is shared out equally, so that all looks together are wrong with probability
    alpha at most. Raises `ValueError` for an alpha outside (0, 1) or fewer than one look.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha {alpha}: must be above 0 and below 1")
    if looks < 1:
        raise ValueError(f"looks {looks}: must be 1 or more")
    return 1 - alpha / looks


def settled(
    ratio: Ratio | None, precision: float, floor: Floor = UNMEASURED, margin: float = MARGIN
) -> bool:
    """Whether more blocks would add little: the ratio is precise enough, or there is a verdict.

    Precise: the interval reaches no further than `precision` (0.02 is 2 %) from its middle. A
    verdict: faster, slower or equivalent. All of it at the ratio's own level, which must be that of
    a look (`look_confidence`) where one stops by this. Raises `ValueError` for a precision that is
    not above 0.
    """
    if not 0 < precision < math.inf:
        raise ValueError(f"precision {precision}: must be above 0 and finite")
    if ratio is None:
        return False
    if ratio.high <= ratio.low * (1 + precision) ** 2:
        return True
    return finding(ratio, floor, margin) != "cannot tell"
