"""Samples -> estimates and ratios. Pure functions of numbers; the block is the unit of repetition.

Samples within a worker are never independent, so they are never pooled: a worker is reduced to one
number first, and an interval is a t-interval over workers. (A percentile bootstrap of the mean over
three to five of them is wrong three times as often as it says.)
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

#: Samples of one arm by block, in the order in which they were taken.
Blocks = Mapping[int, Sequence[float]]

Verdict = Literal["faster", "slower", "cannot tell"]

CONFIDENCE = 0.95

#: Two identical arms may differ by this much; a smaller effect is not called a difference.
FLOOR = 0.01


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Median over workers of each worker's median, and the range over workers (no interval)."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """What a takes divided by what b takes, with its interval.

    One block has no interval: both bounds are NaN, so that no comparison with them is ever true.
    """

    ratio: float
    low: float
    high: float
    blocks: int
    confidence: float = CONFIDENCE

    def inverse(self) -> Ratio:
        """The ratio of b to a."""
        return Ratio(
            ratio=1 / self.ratio,
            low=1 / self.high,
            high=1 / self.low,
            blocks=self.blocks,
            confidence=self.confidence,
        )


@dataclass(frozen=True, kw_only=True)
class BreakEven:
    """After how many steady calls the one that is cheaper to start has lost its lead.

    `calls` is infinite where it never does. `low` and `high` are what the bounds of the ratios and
    the ranges of the times allow together, which is wider than a 95 % interval.
    """

    leader: Literal["a", "b"]
    calls: float
    low: float
    high: float


def checked(samples: Sequence[float], what: str = "samples") -> npt.NDArray[np.float64]:
    """Samples [n] in seconds as an array.

    Raises `ValueError` that names the sample where there is none, or where one is not a number, not
    finite, zero or negative: a clock that reads so has not measured anything.
    """
    array = np.asarray(samples, np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{what}: has no samples")
    bad = ~(np.isfinite(array) & (array > 0))
    if bad.any():
        index = int(bad.argmax())
        raise ValueError(f"{what}: sample {index} is {array[index]:g}, must be finite and above 0")
    return array


def estimate(workers: Collection[float]) -> Estimate:
    """Median and range of one number a worker. Raises `ValueError` where one is not finite."""
    if not workers or not all(math.isfinite(value) for value in workers):
        raise ValueError(f"workers' values {list(workers)}: must be finite, and one or more")
    return Estimate(
        value=float(median(workers)),
        low=float(min(workers)),
        high=float(max(workers)),
        n=len(workers),
    )


def steady_estimate(blocks: Blocks) -> Estimate:
    """Median over workers of the worker's median. Raises `ValueError` for a bad sample."""
    return estimate([float(np.median(checked(s, f"block {b}"))) for b, s in blocks.items()])


def steady_difference(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Log ratio of two arms of one block, or None where they share no whole palindrome.

    Samples 2p and 2p + 1 of either arm belong to palindrome p (A B B A): a drift that is linear in
    time falls out of the difference of their means. The median over palindromes leaves bursts of
    other load out. Where an arm stopped early, the palindromes that both have count.
    """
    log_a, log_b = np.log(checked(a, "a")), np.log(checked(b, "b"))
    n = min(log_a.size, log_b.size) // 2 * 2
    if n == 0:
        return None
    difference = (log_a[:n] - log_b[:n]).reshape(-1, 2).mean(axis=1)
    return float(np.median(difference))


def ratio_of(differences: Sequence[float]) -> Ratio:
    """The exponential of the mean log ratio over blocks, with its t-interval.

    One block says nothing about how blocks differ: it gives a ratio without an interval.
    """
    d = np.asarray(differences, np.float64)
    if d.size == 0 or not np.isfinite(d).all():
        raise ValueError(f"log ratios {list(differences)}: must be finite, and one or more")
    mean = float(d.mean())
    if d.size == 1:
        return Ratio(ratio=math.exp(mean), low=math.nan, high=math.nan, blocks=1)
    t = float(stats.t.ppf(0.5 + CONFIDENCE / 2, d.size - 1))
    half = t * float(d.std(ddof=1)) / math.sqrt(d.size)
    return Ratio(
        ratio=math.exp(mean),
        low=math.exp(mean - half),
        high=math.exp(mean + half),
        blocks=int(d.size),
    )


def steady_ratio(a: Blocks, b: Blocks) -> Ratio | None:
    """Steady time of a over that of b, paired within blocks; None where they share no block."""
    both = (steady_difference(a[block], b[block]) for block in sorted(a.keys() & b.keys()))
    differences = [d for d in both if d is not None]
    return ratio_of(differences) if differences else None


def single_ratio(a: Mapping[int, float], b: Mapping[int, float]) -> Ratio | None:
    """The same for one value a block: seconds of a cold phase, or bytes."""
    shared = sorted(a.keys() & b.keys())
    if not shared:
        return None
    values_a = checked([a[block] for block in shared], "a")
    values_b = checked([b[block] for block in shared], "b")
    return ratio_of((np.log(values_a) - np.log(values_b)).tolist())


def judge(ratio: Ratio | None, floor: float = FLOOR) -> Verdict:
    """Whether a is faster or slower than b: the interval excludes 1 and the effect the floor."""
    if ratio is None:
        return "cannot tell"
    if ratio.high < 1 and ratio.ratio * (1 + floor) < 1:
        return "faster"
    if ratio.low > 1 and ratio.ratio > 1 + floor:
        return "slower"
    return "cannot tell"


def break_even(
    start: Ratio | None, steady: Ratio | None, *, start_b: Estimate, steady_b: Estimate
) -> BreakEven | None:
    """When a lead at the start is used up; None where one cannot tell.

    `start` is the ratio a / b of the times to the first result, `steady` that of the steady times;
    `start_b` and `steady_b` [s] are b's own. After n calls that follow the first, a has taken
    start_b * start + n * steady_b * steady seconds and b start_b + n * steady_b. The ratios are
    paired, so the differences are taken from them rather than from two medians.
    """
    by_start, by_steady = judge(start), judge(steady)
    if start is None or steady is None or "cannot tell" in {by_start, by_steady}:
        return None
    leader: Literal["a", "b"] = "a" if by_start == "faster" else "b"
    if by_start == by_steady:
        return BreakEven(leader=leader, calls=math.inf, low=math.inf, high=math.inf)
    # Low with low and high with high are the extremes: both ratios move the count the same way.
    corners = ((start.low, steady.low), (start.ratio, steady.ratio), (start.high, steady.high))
    low, calls, high = sorted((s - 1) / (1 - r) for s, r in corners)
    return BreakEven(
        leader=leader,
        calls=calls * start_b.value / steady_b.value,
        low=low * start_b.low / steady_b.high,
        high=high * start_b.high / steady_b.low,
    )
