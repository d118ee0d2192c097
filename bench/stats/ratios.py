"""Samples -> estimates and ratios, each ratio with its interval."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import median
from typing import Any

import numpy as np
from scipy import special

from bench.stats.samples import (
    Blocks,
    Samples,
    checked,
    medians,
    paired_rounds,
)

CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Median over workers of each worker's median, and the range over workers (no interval)."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Time of a divided by time of b, with its interval.

    The interval is a t-interval of the log ratio. One block has no interval: both bounds are NaN,
    so that no comparison with them is ever true. `freedom` are the t-distribution's degrees of
    freedom; None is one less than the blocks, as it is wherever blocks are paired.
    """

    ratio: float
    low: float
    high: float
    blocks: int
    confidence: float = CONFIDENCE
    freedom: float | None = None

    def inverse(self) -> Ratio:
        """The ratio of b to a."""
        return replace(
            self, ratio=1 / self.ratio, low=_reciprocal(self.high), high=_reciprocal(self.low)
        )

    def at(self, confidence: float) -> Ratio:
        """This ratio with its interval at another level."""
        if math.isclose(confidence, self.confidence, rel_tol=1e-12):
            return self
        wider = self._t(checked_confidence(confidence)) / self._t(self.confidence)
        middle = math.log(self.ratio)
        low, high = (
            _exp(middle + wider * (_log(bound) - middle)) for bound in (self.low, self.high)
        )
        return replace(self, low=low, high=high, confidence=confidence)

    def p_value(self, against: float = 1.0) -> float:
        """Two-sided p-value of a t-test that the true ratio is `against`.

        It is below alpha exactly where the interval at 1 - alpha leaves `against` out. Without an
        interval nothing is said, and it is 1.
        """
        error = (_log(self.high) - _log(self.low)) / (2 * self._t(self.confidence))
        if math.isnan(error) or math.isclose(self.ratio, against, rel_tol=1e-12):
            return 1.0
        if error == 0:
            return 0.0
        distance = abs(math.log(self.ratio / against))
        return float(2 * special.stdtr(self._degrees, -distance / error))

    @property
    def _degrees(self) -> float:
        return self.blocks - 1 if self.freedom is None else self.freedom

    def _t(self, confidence: float) -> float:
        """Half the interval's width in standard errors."""
        return _half_width(confidence, self._degrees)


@lru_cache(maxsize=1024)
def _half_width(confidence: float, freedom: float) -> float:
    # `scipy.stats.t` asks the same of the same functions, and takes half a second to import.
    return float(special.stdtrit(freedom, 0.5 + confidence / 2))


def _exp(value: float) -> float:
    """The exponential; infinite where it does not fit: two blocks can have a bound like that."""
    return math.inf if value > 709 else math.exp(value)


def _log(value: float) -> float:
    return -math.inf if value == 0 else math.log(value)


def _reciprocal(value: float) -> float:
    return math.inf if value == 0 else 1 / value


def checked_confidence(confidence: float) -> float:
    """A level as it is. Raises `ValueError` unless it is above 0 and below 1."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence}: must be above 0 and below 1")
    return confidence


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
    rows = blocks.rows if isinstance(blocks, Samples) else None
    if rows is not None:
        return estimate(medians(rows.values))
    return estimate([float(np.median(checked(s, f"block {b}"))) for b, s in blocks.items()])


def ratio_of(differences: Sequence[float], confidence: float = CONFIDENCE) -> Ratio:
    """The exponential of the mean log ratio over blocks, with its t-interval.

    One block says nothing about how blocks differ: it gives a ratio without an interval.
    """
    checked_confidence(confidence)
    d = np.asarray(differences, np.float64)
    if d.size == 0 or not np.isfinite(d).all():
        raise ValueError(f"log ratios {list(differences)}: must be finite, and one or more")
    # As `mean` and `std` do it, less what they are asked in general.
    mean = float(np.add.reduce(d)) / d.size
    error = math.nan
    if d.size > 1:
        off = d - mean
        error = math.sqrt(float(np.add.reduce(off * off)) / (d.size - 1)) / math.sqrt(d.size)
    return _t_ratio(mean, error, int(d.size), confidence)


def _t_ratio(
    mean: float, error: float, blocks: int, confidence: float, freedom: float | None = None
) -> Ratio:
    """The ratio whose logarithm has this mean and standard error; NaN: no interval."""
    half = _half_width(confidence, blocks - 1 if freedom is None else freedom) * error
    return Ratio(
        ratio=_exp(mean),
        low=_exp(mean - half),
        high=_exp(mean + half),
        blocks=blocks,
        confidence=confidence,
        freedom=freedom,
    )


def steady_ratio(
    a: Blocks, b: Blocks, confidence: float = CONFIDENCE, *, reference: Blocks | None = None
) -> Ratio | None:
    """Steady time of a over that of b, paired within blocks; None where they share no block.

    In a block in which the two share no turns, and both share some with `reference`, their log
    ratio is that of a to it less that of b to it, so that the spread over blocks holds the variance
    of both. What repeats is the block: of several turns in one the mean counts.
    """
    found = _by_block(a, b)
    if reference is not None:
        over_a, over_b = _by_block(a, reference), _by_block(b, reference)
        linked = {block: over_a[block] - over_b[block] for block in over_a.keys() & over_b.keys()}
        found = {**linked, **found}
    return ratio_of(list(found.values()), confidence) if found else None


def _by_block(a: Blocks, b: Blocks) -> dict[Any, float]:
    """Log ratio by block, whose number is the first of what pairs samples (block and turns)."""
    found: dict[Any, list[float]] = {}
    for key, value in zip(sorted(a.keys() & b.keys()), medians(paired_rounds(a, b)), strict=True):
        found.setdefault(key[0] if isinstance(key, tuple) else key, []).append(value)
    return {block: math.fsum(values) / len(values) for block, values in found.items()}


def single_ratio(
    a: Mapping[int, float], b: Mapping[int, float], confidence: float = CONFIDENCE
) -> Ratio | None:
    """Ratio of one value a block: seconds of a cold phase, or bytes."""
    shared = sorted(a.keys() & b.keys())
    if not shared:
        return None
    values_a = checked([a[block] for block in shared], "a")
    values_b = checked([b[block] for block in shared], "b")
    return ratio_of((np.log(values_a) - np.log(values_b)).tolist(), confidence)


def unpaired_ratio(a: Sequence[float], b: Sequence[float], confidence: float = CONFIDENCE) -> Ratio:
    """Ratio of two sets of one value a block that were not measured side by side.

    Welch's t-interval of the difference of mean logarithms (Welch 1947, degrees of freedom after
    Satterthwaite 1946). `blocks` is the smaller number of the two; where it is 1 there is no
    interval. What differs between the two occasions but not between the blocks of either (the
    host's state, its other tenants) is not in the interval.
    """
    checked_confidence(confidence)
    log_a, log_b = np.log(checked(a, "a")), np.log(checked(b, "b"))
    mean = float(log_a.mean() - log_b.mean())
    blocks = min(log_a.size, log_b.size)
    if blocks == 1:
        return _t_ratio(mean, math.nan, 1, confidence)
    part_a, part_b = (float(log.var(ddof=1)) / log.size for log in (log_a, log_b))
    freedom = float(log_a.size + log_b.size - 2)
    if part_a + part_b > 0:
        share = part_a / (part_a + part_b)
        freedom = 1 / (share**2 / (log_a.size - 1) + (1 - share) ** 2 / (log_b.size - 1))
    return _t_ratio(mean, math.sqrt(part_a + part_b), blocks, confidence, freedom)


def t_interval(
    values: Sequence[float], confidence: float = CONFIDENCE
) -> tuple[float, float, float]:
    """Mean of one value a block, with the bounds of its t-interval; NaN where there is one block.

    Raises `ValueError` where there is none, or one is not finite.
    """
    array = np.asarray(values, np.float64)
    if array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"values {list(values)}: must be finite, and one or more")
    mean = float(array.mean())
    error = float(array.std(ddof=1)) / math.sqrt(array.size) if array.size > 1 else math.nan
    half = _half_width(checked_confidence(confidence), array.size - 1) * error
    return mean, mean - half, mean + half


def p_value(differences: Sequence[float]) -> float:
    """Two-sided p-value of a t-test that the mean log ratio over blocks is 0.

    One block says nothing: 1. Blocks that agree to the last digit: 1 if their ratio is 1, else 0.
    """
    return ratio_of(differences).p_value()
