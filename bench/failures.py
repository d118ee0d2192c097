"""What failed in a steady block: it is not measured in another way in that block either."""

from __future__ import annotations

from collections.abc import Iterable

from backends.api import Case, Mode
from bench.record import Record, Status


def steady_failures(records: Iterable[Record], block: int) -> dict[tuple[str, Case, Mode], Record]:
    """Steady records of a block that are not ok, by implementation, case and mode; no twins'."""
    return {
        (record.job.implementation, record.job.case, record.job.mode): record
        for record in records
        if record.block == block
        and record.job.measure == "steady"
        and record.job.replica == 0
        and record.status != Status.OK
    }
