"""One job of two runs -> the ratio of what it took in one to what it took in the other."""

from __future__ import annotations

import math

import numpy as np

from bench import stats
from bench.record import TO_FIRST
from bench.report.evidence import Evidence


def values_of(evidence: Evidence) -> dict[int, float]:
    """One number a block: the median call [s], the time to the first result [s], or bytes."""
    if evidence.job.measure == "steady":
        samples = evidence.blocks("steady")
        return {block: float(np.median(found)) for block, found in samples.items()}
    if evidence.job.measure == "cold":
        return evidence.single(*TO_FIRST)
    return evidence.values("peak_bytes")


def unpaired_ratio(a: Evidence, b: Evidence) -> stats.Ratio:
    """A over b, each over all of its blocks. Raises `ValueError` where either has no value."""
    return stats.unpaired_ratio(list(values_of(a).values()), list(values_of(b).values()))


def paired_ratio(a: Evidence, b: Evidence) -> stats.Ratio | None:
    """A over b by block, for runs that took turns; None where they share no block.

    Steady samples are paired by palindrome within a block where both have as many of them.
    """
    values_a, values_b = values_of(a), values_of(b)
    if a.job.measure != "steady":
        return stats.single_ratio(values_a, values_b)
    samples_a, samples_b = a.blocks("steady"), b.blocks("steady")
    differences = []
    for block in sorted(values_a.keys() & values_b.keys()):
        by_turn = None
        if len(samples_a[block]) == len(samples_b[block]):
            by_turn = stats.steady_difference(samples_a[block], samples_b[block])
        by_median = math.log(values_a[block] / values_b[block])
        differences.append(by_median if by_turn is None else by_turn)
    return stats.ratio_of(differences) if differences else None
