"""Samples -> estimates, ratios, verdicts. Pure functions of numbers.

The block is the unit of repetition. Samples within a worker are never independent, so they are
never pooled: a worker is reduced to one number first, and an interval is a t-interval over workers.
(A percentile bootstrap of the mean over three to five of them is wrong three times as often as it
says.)
"""

from __future__ import annotations

from bench.stats.hypotheses import Conjunction, Hypothesis, Statement, adjusted
from bench.stats.leads import BreakEven, break_even
from bench.stats.ratios import (
    CONFIDENCE,
    Estimate,
    Ratio,
    estimate,
    p_value,
    ratio_of,
    single_ratio,
    steady_estimate,
    steady_ratio,
    t_interval,
    unpaired_ratio,
)
from bench.stats.samples import Blocks, Samples, checked, steady_difference
from bench.stats.stability import (
    DRIFT,
    Spread,
    between_processes,
    drift,
    drifted,
    median_error,
    paired_drift,
    paired_drifts,
)
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
    compounded,
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
    "Conjunction",
    "Estimate",
    "Finding",
    "Floor",
    "Hypothesis",
    "Judgement",
    "Ratio",
    "Samples",
    "Spread",
    "Statement",
    "Verdict",
    "adjusted",
    "between_processes",
    "break_even",
    "called_different",
    "checked",
    "coarsest",
    "compounded",
    "drift",
    "drifted",
    "estimate",
    "finding",
    "floor_of",
    "holm",
    "judge",
    "look_confidence",
    "median_error",
    "p_value",
    "paired_drift",
    "paired_drifts",
    "ratio_of",
    "settled",
    "single_ratio",
    "steady_difference",
    "steady_estimate",
    "steady_ratio",
    "t_interval",
    "unpaired_ratio",
]
