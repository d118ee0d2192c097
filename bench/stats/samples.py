"""Samples of an arm by block, and how two arms are compared within blocks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

#: Samples of one arm by block, or by what else pairs them, in the order in which they were taken.
Blocks = Mapping[Any, Sequence[float]]

Values = npt.NDArray[np.float64]


def checked(samples: Sequence[float], what: str = "samples") -> Values:
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


class Samples(dict[Any, Sequence[float]]):
    """`Blocks` of an arm that is held against many: it remembers what is made of them."""

    @cached_property
    def rows(self) -> _Rows | None:
        """The samples, if all blocks have as many and all are good."""
        return _rows(self)

    @cached_property
    def logs(self) -> _Rows | None:
        """Their logarithms."""
        return None if self.rows is None else self.rows.logs()


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """Values [blocks, n] of an arm, its blocks in order."""

    blocks: Sequence[Any]
    values: Values

    def logs(self) -> _Rows:
        return _Rows(blocks=self.blocks, values=np.log(self.values))


def _rows(samples: Blocks) -> _Rows | None:
    """They are None where blocks have unequal numbers of samples, or bad ones."""
    blocks = sorted(samples)
    if len({len(samples[block]) for block in blocks}) != 1:
        return None
    values = np.array([samples[block] for block in blocks], np.float64)
    if not (values.size and values.min() > 0 and values.max() < math.inf):
        return None
    return _Rows(blocks=blocks, values=values)


def _logs(blocks: Blocks) -> _Rows | None:
    if isinstance(blocks, Samples):
        return blocks.logs
    rows = _rows(blocks)
    return None if rows is None else rows.logs()


def paired(a: Sequence[float], b: Sequence[float]) -> Values:
    """Log ratio of two arms of one block by round [n]; those that both have count.

    Samples with the same place are of the same round: what moves the host moves both.
    """
    log_a, log_b = np.log(checked(a, "a")), np.log(checked(b, "b"))
    n = min(log_a.size, log_b.size)
    difference: Values = log_a[:n] - log_b[:n]
    return difference


def steady_difference(a: Sequence[float], b: Sequence[float]) -> float:
    """Log ratio of two arms of one block: the median over rounds, without bursts of other load."""
    return float(np.median(paired(a, b)))


def paired_rounds(a: Blocks, b: Blocks) -> Values | list[Values]:
    """The `paired` rounds of each block that both have, in order: [blocks, n], or a list."""
    one, two = _logs(a), _logs(b)
    if one is not None and two is not None and one.blocks == two.blocks:
        n = min(one.values.shape[1], two.values.shape[1])
        difference: Values = one.values[:, :n] - two.values[:, :n]
        return difference
    return [paired(a[block], b[block]) for block in sorted(a.keys() & b.keys())]


def medians(rows: Values | list[Values]) -> list[float]:
    """The median of each row that has anything."""
    if isinstance(rows, list):
        return [float(np.median(row)) for row in rows if row.size]
    n = rows.shape[1]
    if n == 0:
        return []
    rows = np.sort(rows, axis=1)
    middle: list[float] = ((rows[:, (n - 1) // 2] + rows[:, n // 2]) / 2).tolist()
    return middle
