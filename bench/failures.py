"""Failures in a steady block: such a job is not measured in another way in that block either."""

from __future__ import annotations

from collections.abc import Iterable

from backends.api import Case, Mode
from bench.record import Record, Status


def steady_failures(records: Iterable[Record], block: int) -> dict[tuple[str, Case, Mode], Record]:
    """Steady records of what is ok in no turns of a block, by implementation, case and mode.

    Identical twins are passed over.
    """
    found: dict[tuple[str, Case, Mode], Record] = {}
    right: set[tuple[str, Case, Mode]] = set()
    for record in records:
        job = record.job
        if record.block == block and job.measure == "steady" and job.replica == 0:
            key = job.implementation, job.case, job.mode
            found.setdefault(key, record)
            if record.status == Status.OK:
                right.add(key)
    return {key: record for key, record in found.items() if key not in right}
