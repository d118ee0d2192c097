"""Whether samples that were taken one after the other are samples of one thing.

A drift is flagged and never trimmed away: what to leave out would be chosen by looking at it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bench.stats.samples import Blocks, Values, checked, medians, paired_palindromes, palindromes

#: A change between the halves of a block that is larger than this is flagged.
DRIFT = 0.02


def drift(samples: Sequence[float]) -> float:
    """Relative change of the median from the first half of the samples to the second.

    Above 0 it became slower. An odd sample in the middle is in neither half; NaN below two samples.
    """
    return _change(np.log(checked(samples)))


def paired_drift(a: Sequence[float], b: Sequence[float]) -> float:
    """The same of the ratio a / b of two arms of one block; NaN below two shared palindromes.

    The arms may drift together, as the host does: only what moves their ratio is here.
    """
    return _change(palindromes(a, b))


def paired_drifts(a: Blocks, b: Blocks) -> list[float]:
    """The same for each block that both have, in order."""
    rows = paired_palindromes(a, b)
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
