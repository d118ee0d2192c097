"""Break-even points: the call at which a lead at the start is used up."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from bench.stats.ratios import Estimate, Ratio
from bench.stats.verdicts import UNMEASURED, Floor, judge


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


def break_even(
    start: Ratio | None,
    steady: Ratio | None,
    *,
    start_b: Estimate,
    steady_b: Estimate,
    start_floor: Floor = UNMEASURED,
    steady_floor: Floor = UNMEASURED,
) -> BreakEven | None:
    """Number of calls after which a lead at the start is used up; None if undecided.

    `start` is the ratio a / b of the times to the first result, `steady` that of the steady times;
    `start_b` and `steady_b` [s] are b's own. After n calls that follow the first, a has taken
    start_b * start + n * steady_b * steady seconds and b start_b + n * steady_b. The ratios are
    paired, so the differences are taken from them rather than from two medians. Both leads must
    exceed their floors.
    """
    by_start, by_steady = judge(start, start_floor), judge(steady, steady_floor)
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
