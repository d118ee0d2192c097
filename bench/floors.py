"""A/A: what two identical things differ by, measured through the same pipeline as any others."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median

from backends.api import Mode
from bench import stats
from bench.belief import doubt
from bench.record import TO_FIRST, Job, Measure, Record, Status


@dataclass(frozen=True, kw_only=True)
class Twins:
    """A job measured twice in each block, and what the second took over what the first took.

    `job` is the second of them; `ratio` None where no block has both. `alone_change` is how much
    their log ratio is another with each by itself than in turns, None where it was not looked at.
    """

    job: Job
    ratio: stats.Ratio | None
    alone_change: float | None = None

    @cached_property
    def floor(self) -> stats.Floor:
        """What this pair alone sets, at the level of its ratio."""
        level = stats.CONFIDENCE if self.ratio is None else self.ratio.confidence
        return stats.floor_of(self.ratio, confidence=level)


@dataclass(frozen=True, kw_only=True)
class Floors:
    """The floors of a run on one device: those within a backend's worker, and across two workers.

    Twins that answer for the same comparisons are a **family**: those within the worker of a
    backend, by mode and measure, and those in two workers, by mode. `confidence` is the level of
    the run's intervals.
    """

    twins: Sequence[Twins] = ()
    confidence: float = stats.CONFIDENCE

    @classmethod
    def of(
        cls, records: Iterable[Record], device: str, confidence: float = stats.CONFIDENCE
    ) -> Floors:
        """Read the A/A twins of a run that were measured on a device; others are passed over."""
        there = [record for record in records if record.job.case.device == device]
        wanted = {record.job for record in there if record.job.replica}
        wanted |= {job.original for job in wanted}
        found: dict[Job, list[Record]] = defaultdict(list)
        for record in there:
            if record.job in wanted and record.status == Status.OK and doubt(record) is None:
                found[record.job].append(record)
        twins = [job for job in found if job.replica]
        return cls(
            twins=[
                Twins(
                    job=job,
                    ratio=_ratio(job, found[job], found.get(job.original, []), confidence),
                    alone_change=alone_change(found[job], found.get(job.original, [])),
                )
                for job in twins
            ],
            confidence=confidence,
        )

    def within(self, backend: str, mode: Mode, measure: Measure) -> stats.Floor:
        """For two arms of one worker, or two cold or memory jobs of one backend."""
        key = backend, mode, measure
        if key not in self._within:
            self._within[key] = self._floor(self.family(*key))
        return self._within[key]

    def across(self, mode: Mode) -> stats.Floor:
        """For the steady times of two workers that take turns: the second worker's twins say.

        Without any, `missing`: how far two processes differ, unlike two arms of one, is not known.
        """
        return self._floor(self._across(mode)).needed

    def between(self, a: str, b: str, mode: Mode) -> stats.Floor:
        """For steady times of two backends: what holds in either's worker, and across workers."""
        key = a, b, mode
        if key not in self._between:
            self._between[key] = self._coarsest(*key)
        return self._between[key]

    def _coarsest(self, a: str, b: str, mode: Mode) -> stats.Floor:
        within = (self.within(backend, mode, "steady") for backend in (a, b))
        return stats.coarsest(self.across(mode), *within)

    def anywhere(self, backend: str, mode: Mode, measure: Measure) -> stats.Floor:
        """For a job of two runs, measured by different workers each time."""
        key = backend, mode, measure
        if key not in self._anywhere:
            across = self._floor(self._across(mode, measure))
            self._anywhere[key] = stats.coarsest(self.within(*key), across)
        return self._anywhere[key]

    # Every row of a table asks for a floor, and there are few.

    @cached_property
    def _within(self) -> dict[tuple[str, Mode, Measure], stats.Floor]:
        return {}

    @cached_property
    def _anywhere(self) -> dict[tuple[str, Mode, Measure], stats.Floor]:
        return {}

    @cached_property
    def _between(self) -> dict[tuple[str, str, Mode], stats.Floor]:
        return {}

    def failed(self, twins: Twins) -> bool:
        """Whether a pair is called different, so that its family's floor fails."""
        return stats.called_different(twins.ratio, self._among, self.confidence)

    def family(self, backend: str, mode: Mode, measure: Measure) -> list[Twins]:
        """The twins within a worker of a backend, or of its cold or memory jobs."""
        return [
            twins
            for twins in self.twins
            if not twins.job.has_second_worker
            and (twins.job.backend, twins.job.mode, twins.job.measure) == (backend, mode, measure)
        ]

    def _across(self, mode: Mode, measure: Measure = "steady") -> list[Twins]:
        return [
            twins
            for twins in self.twins
            if twins.job.has_second_worker
            and (twins.job.mode, twins.job.measure) == (mode, measure)
        ]

    @cached_property
    def _among(self) -> int:
        """How many pairs might be called different by chance: those of the whole run.

        Each of them alone would be in 3 % of the cases, and there are some two dozen.
        """
        return sum(twins.floor.measured for twins in self.twins)

    def _floor(self, family: Sequence[Twins]) -> stats.Floor:
        return stats.floor_of(
            *(twins.ratio for twins in family), confidence=self.confidence, among=self._among
        )


def _ratio(
    job: Job, second: Sequence[Record], first: Sequence[Record], confidence: float
) -> stats.Ratio | None:
    if job.measure == "steady":
        return stats.steady_ratio(steady_blocks(second), steady_blocks(first), confidence)
    of = _first_result if job.measure == "cold" else _peak
    return stats.single_ratio(of(second), of(first), confidence)


def steady_blocks(records: Iterable[Record]) -> stats.Blocks:
    """Steady samples by what pairs them: block and turns."""
    return {r.pairing: r.samples["steady"] for r in records if "steady" in r.samples}


#: Arms whose log ratio is another by more than this when each runs by itself disturb each other.
INTERFERENCE = stats.MARGIN


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
