"""A/A: what two identical things differ by, measured through the same pipeline as any others."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from backends.api import Mode
from bench import stats
from bench.belief import doubt
from bench.record import OTHER_WORKER, TO_FIRST, Job, Measure, Record, Status


@dataclass(frozen=True, kw_only=True)
class Twins:
    """A job measured twice in each block, and what the second took over what the first took.

    `job` is the second of them; `ratio` None where no block has both. `alone_change` is how much
    their log ratio is another with each by itself than in turns, None where it was not looked at.
    """

    job: Job
    ratio: stats.Ratio | None
    alone_change: float | None = None

    @property
    def floor(self) -> stats.Floor:
        return stats.floor_of(self.ratio)


@dataclass(frozen=True, kw_only=True)
class Floors:
    """The floors of a run: those within a backend's worker, and those across two workers."""

    twins: Sequence[Twins] = ()

    @classmethod
    def of(cls, records: Iterable[Record]) -> Floors:
        """Read the A/A twins of a run; others' records are passed over."""
        found: dict[Job, list[Record]] = defaultdict(list)
        for record in records:
            if record.status == Status.OK and doubt(record) is None:
                found[record.job].append(record)
        twins = [job for job in found if job.replica]
        return cls(
            twins=[
                Twins(
                    job=job,
                    ratio=_ratio(job, found[job], found.get(job.original, [])),
                    alone_change=alone_change(found[job], found.get(job.original, [])),
                )
                for job in twins
            ]
        )

    def within(self, backend: str, mode: Mode, measure: Measure) -> stats.Floor:
        """For two arms of one worker, or two cold or memory jobs of one backend."""
        return stats.floor_of(*self.ratios([backend], mode, measure, across=False))

    def across(self, mode: Mode) -> stats.Floor:
        """For the steady times of two workers that take turns: the second worker's twins say."""
        return stats.floor_of(*self.ratios([], mode, "steady"))

    def between(self, a: str, b: str, mode: Mode) -> stats.Floor:
        """For steady times of two backends: what holds in either's worker, and across workers."""
        return stats.floor_of(*self.ratios([a, b], mode, "steady"))

    def ratios(
        self, backends: Collection[str], mode: Mode, measure: Measure, *, across: bool = True
    ) -> list[stats.Ratio | None]:
        """Of identical pairs in a worker of the backends; `across`: and of those in two workers."""
        return [
            twins.ratio
            for twins in self.twins
            if (twins.job.mode, twins.job.measure) == (mode, measure)
            and (across if twins.job.replica == OTHER_WORKER else twins.job.backend in backends)
        ]


def _ratio(job: Job, second: Sequence[Record], first: Sequence[Record]) -> stats.Ratio | None:
    if job.measure == "steady":
        return stats.steady_ratio(steady_blocks(second), steady_blocks(first))
    of = _first_result if job.measure == "cold" else _peak
    return stats.single_ratio(of(second), of(first))


def steady_blocks(records: Iterable[Record]) -> stats.Blocks:
    """Steady samples by what pairs them: block and turns."""
    return {r.pairing: r.samples["steady"] for r in records if "steady" in r.samples}


def alone_change(a: Iterable[Record], b: Iterable[Record]) -> float | None:
    """The log ratio a / b of arms alone less that of arms in turns: the median over blocks.

    None where no block looked at them alone.
    """
    others = {r.pairing: r.samples for r in b if "alone" in r.samples}
    changes = []
    for record in a:
        if "alone" in record.samples and record.pairing in others:
            one, two = record.samples, others[record.pairing]
            paired = stats.steady_difference(one["steady"], two["steady"])
            if paired is not None:
                alone = stats.checked(one["alone"]), stats.checked(two["alone"])
                changes.append(math.log(median(alone[0]) / median(alone[1])) - paired)
    return median(changes) if changes else None


def _first_result(records: Iterable[Record]) -> Mapping[int, float]:
    return {
        record.block: sum(sum(record.samples[phase]) for phase in TO_FIRST)
        for record in records
        if all(phase in record.samples for phase in TO_FIRST)
    }


def _peak(records: Iterable[Record]) -> Mapping[int, float]:
    return {
        record.block: record.values["peak_bytes"]
        for record in records
        if record.values.get("peak_bytes", 0) > 0
    }
