"""Whether samples that were taken one after the other are samples of one thing.

A drift is flagged and never trimmed away: what to leave out would be chosen by looking at it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.stats.samples import Blocks, Values, checked, medians, paired, paired_rounds

#: A change between the halves of a block that is larger than this is flagged.
DRIFT = 0.02


def drift(samples: Sequence[float]) -> float:
    """Relative change of the median from the first half of the samples to the second.

    Above 0 it became slower. An odd sample in the middle is in neither half; NaN below two samples.
    """
    return _change(np.log(checked(samples)))


def paired_drift(a: Sequence[float], b: Sequence[float]) -> float:
    """Drift of the ratio a / b of two arms of one block; NaN below two shared rounds.

    The arms may drift together, as the host does: only what moves their ratio is here.
    """
    return _change(paired(a, b))


def paired_drifts(a: Blocks, b: Blocks) -> list[float]:
    """Drift of each block that both have, in order."""
    rows = paired_rounds(a, b)
    if isinstance(rows, list):
        return [_change(row) for row in rows]
    half = rows.shape[1] // 2
    if half == 0:
        return [math.nan] * len(rows)
    halves = zip(medians(rows[:, :half]), medians(rows[:, -half:]), strict=True)
    return [_relative(second - first) for first, second in halves]


def drifted(change: float) -> bool:
    """Whether a `drift` or a `paired_drift` is large enough to be flagged."""
    return abs(change) > DRIFT


def _change(logs: Values) -> float:
    half = logs.size // 2
    if half == 0:
        return math.nan
    return _relative(float(np.median(logs[-half:]) - np.median(logs[:half])))


def _relative(change: float) -> float:
    # Beyond a factor of 1e15 either way the change would round to -100 %, or overflow.
    return math.expm1(min(max(change, -36.0), 36.0))


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Spread of the log ratio of two arms between blocks, and its uncertainty within one.

    `between` is the standard deviation of the blocks' log ratios, `within` the standard error of a
    block's own (the median over blocks); `low` and `high` are the extreme ratios of `blocks`.
    """

    between: float
    within: float
    low: float
    high: float
    blocks: int


def median_error(values: Values) -> float:
    """Standard error of the median of values [n]: 1.25 of a mean's.

    Their standard deviation is taken from the median deviation, which outliers do not move.
    """
    deviation = 1.4826 * float(np.median(np.abs(values - np.median(values))))
    return 1.25 * deviation / math.sqrt(len(values))


def between_processes(a: Blocks, b: Blocks) -> Spread | None:
    """The spread of a ratio over blocks, each with its own processes; None below three blocks."""
    rows = [row for row in paired_rounds(a, b) if len(row) > 1]
    if len(rows) < 3:
        return None
    ratios = [float(np.median(row)) for row in rows]
    errors = [median_error(row) for row in rows]
    return Spread(
        between=float(np.std(ratios, ddof=1)),
        within=float(np.median(errors)),
        low=math.exp(min(ratios)),
        high=math.exp(max(ratios)),
        blocks=len(rows),
    )
