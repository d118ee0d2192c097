"""Records of schema 1 and 2, in which one worker of a framework interleaved the calls of its arms.

Their steady samples are palindromes, A B C C B A: a drift that is linear over one falls out of the
difference of two arms' means. Turns had names instead of numbers.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from backends.api import Case, Mode
from bench.record import Record


class Older:
    """Reads the records of one run, in their order."""

    def __init__(self) -> None:
        self._turns: dict[tuple[int, Case, Mode], dict[str, int]] = defaultdict(dict)

    def upgraded(self, record: Record) -> Record:
        """Convert a record: a sample for each palindrome, an attempt in place of named turns."""
        if record.job.measure != "steady":
            return record
        seen = self._turns[record.block, record.job.case, record.job.mode]
        turns = record.worker.get("turns")
        # Without turns nothing was sampled: it is paired with nothing.
        attempt = 0 if turns is None else seen.setdefault(str(turns), len(seen))
        samples = dict(record.samples)
        if "steady" in samples:
            samples["steady"] = merged(samples["steady"])
        return replace(record, attempt=attempt, samples=samples)


def merged(samples: Sequence[float]) -> list[float]:
    """The geometric mean of each palindrome, samples 2p and 2p + 1.

    The difference of two arms' logarithms is then that of their means over the palindrome. A value
    that no clock reads stays, for `bench.belief` to find; so does a sample without a partner.
    """
    if len(samples) < 2:
        return list(samples)
    pairs = zip(samples[::2], samples[1::2], strict=False)
    return [_mean(one, other) for one, other in pairs]


def _mean(one: float, other: float) -> float:
    for value in (one, other):
        if not (math.isfinite(value) and value > 0):
            return value
    return math.sqrt(one) * math.sqrt(other)
