"""Samples -> estimates, ratios, verdicts. Pure functions of numbers.

The block is the unit of repetition. Samples within a worker are never independent, so they are
never pooled: a worker is reduced to one number first, and an interval is a t-interval over workers.
(A percentile bootstrap of the mean over three to five of them is wrong three times as often as it
says.)
"""

from __future__ import annotations

from bench.stats.leads import BreakEven, break_even
from bench.stats.ratios import (
    CONFIDENCE,
    Blocks,
    Estimate,
    Ratio,
    checked,
    estimate,
    p_value,
    ratio_of,
    single_ratio,
    steady_difference,
    steady_estimate,
    steady_ratio,
    unpaired_ratio,
)
from bench.stats.stability import DRIFT, drift, drifted, paired_drift
from bench.stats.verdicts import (
    ALPHA,
    FLOOR,
    MARGIN,
    UNMEASURED,
    Answer,
    Finding,
    Floor,
    Judgement,
    Verdict,
    called_different,
    coarsest,
    finding,
    floor_of,
    holm,
    judge,
    look_confidence,
    settled,
)

__all__ = [
    "ALPHA",
    "CONFIDENCE",
    "DRIFT",
    "FLOOR",
    "MARGIN",
    "UNMEASURED",
    "Answer",
    "Blocks",
    "BreakEven",
    "Estimate",
    "Finding",
    "Floor",
    "Judgement",
    "Ratio",
    "Verdict",
    "break_even",
    "called_different",
    "checked",
    "coarsest",
    "drift",
    "drifted",
    "estimate",
    "finding",
    "floor_of",
    "holm",
    "judge",
    "look_confidence",
    "p_value",
    "paired_drift",
    "ratio_of",
    "settled",
    "single_ratio",
    "steady_difference",
    "steady_estimate",
    "steady_ratio",
    "unpaired_ratio",
]
