"""One job of two runs -> the ratio of what it took in one to what it took in the other."""

from __future__ import annotations

from bench import stats
from bench.evidence import Evidence
from bench.record import TO_FIRST


def values_of(evidence: Evidence) -> dict[int, float]:
    """One number a block: the median call [s], the time to the first result [s], or bytes."""
    if evidence.job.measure == "steady":
        return evidence.medians
    if evidence.job.measure == "cold":
        return evidence.single(*TO_FIRST)
    return evidence.values("peak_bytes")


def unpaired_ratio(a: Evidence, b: Evidence) -> stats.Ratio:
    """A over b, each over all of its blocks. Raises `ValueError` where either has no value."""
    return stats.unpaired_ratio(list(values_of(a).values()), list(values_of(b).values()))


def paired_ratio(a: Evidence, b: Evidence) -> stats.Ratio | None:
    """A over b by block, for runs that took turns; None where they share no block.

    Steady samples are paired by round where both are of the same turns, see `Record.pairing`. A
    block of which the sides have other turns is left out: the two were measured at two moments, so
    that not even its medians are a pair.
    """
    if a.job.measure == "steady":
        return stats.steady_ratio(a.paired, b.paired)
    return stats.single_ratio(values_of(a), values_of(b))
