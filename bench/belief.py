"""Whether a record that calls itself ok can be believed: it holds what a clock can read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from bench import stats
from bench.record import TO_FIRST, Measure, Record

#: Samples that a record of each measure must have.
_PHASES: Mapping[Measure, tuple[str, ...]] = {
    "steady": ("steady",),
    "cold": TO_FIRST,
    "memory": (),
    "behaviour": (),
    "capacity": (),
}

#: Less than any call takes, and thirty years: ratios and sums of what is between are finite.
SHORTEST_S, LONGEST_S = 1e-12, 1e9

#: Bytes and counts are below this.
LARGEST = 1e18


def doubt(record: Record) -> str | None:
    """Reason not to believe a record; None if there is none."""
    try:
        _check(record)
    except ValueError as error:
        return str(error)
    return None


def _check_samples(where: str, samples: Sequence[float]) -> None:
    # Neither NaN nor infinite is any of them where their sum is not.
    finite = samples and math.isfinite(sum(samples))
    if finite and min(samples) >= SHORTEST_S and max(samples) <= LONGEST_S:
        return
    found = stats.checked(samples, where)
    for value in (found.min(), found.max()):
        if not SHORTEST_S <= value <= LONGEST_S:
            allowed = f"between {SHORTEST_S:.0g} and {LONGEST_S:.0g} s"
            raise ValueError(f"{where}: {value:.3g} s, must be {allowed}")


def _check(record: Record) -> None:
    where = f"block {record.block}"
    for phase in _PHASES[record.job.measure]:
        if phase not in record.samples:
            raise ValueError(f"{where}: has no sample of {phase}")
    for phase, samples in record.samples.items():
        _check_samples(f"{where}, {phase}", samples)
    if record.job.measure == "behaviour":
        return  # an error may be infinite, where a shape is another one, and is a finding
    for name, value in record.values.items():
        if not abs(value) < LARGEST:
            raise ValueError(f"{where}: {name} is {value:g}, must be below {LARGEST:.0g}")
