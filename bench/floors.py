"""A/A: what two identical things differ by, measured through the same pipeline as any others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from backends.api import Mode
from bench import stats
from bench.belief import doubt
from bench.record import TO_FIRST, Job, Measure, Record, Status


@dataclass(frozen=True, kw_only=True)
class Twins:
    """A job measured twice in each block, and the ratio of the second to the first.

    `job` is the second of them; `ratio` None where no block has both.
    """

    job: Job
    ratio: stats.Ratio | None

    @cached_property
    def floor(self) -> stats.Floor:
        """Floor by this pair alone, at the level of its ratio."""
        level = stats.CONFIDENCE if self.ratio is None else self.ratio.confidence
        return stats.floor_of(self.ratio, confidence=level)


@dataclass(frozen=True, kw_only=True)
class Floors:
    """The floors of a run on one device, with one number of threads.

    A pair of twins is two workers of one implementation. Those that answer for the same comparisons
    are a **family**: of a backend, by mode and measure. `confidence` is the level of the run's
    intervals.
    """

    twins: Sequence[Twins] = ()
    confidence: float = stats.CONFIDENCE

    @classmethod
    def of(
        cls,
        records: Iterable[Record],
        device: str,
        threads: int = 1,
        confidence: float = stats.CONFIDENCE,
    ) -> Floors:
        """Read the A/A twins of a run on a device and so many threads; others are passed over."""
        where = device, threads
        there = [r for r in records if (r.job.case.device, r.job.case.threads) == where]
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
                )
                for job in twins
            ],
            confidence=confidence,
        )

    def within(self, backend: str, mode: Mode, measure: Measure) -> stats.Floor:
        """For two jobs of one backend."""
        key = backend, mode, measure
        if key not in self._within:
            self._within[key] = self._floor(self.family(*key))
        return self._within[key]

    def between(self, a: str, b: str, mode: Mode) -> stats.Floor:
        """For steady times of two backends: the coarser of what holds for either.

        For one without an identical pair the coarsest of the others counts: its processes may
        differ as theirs do. `missing` where no backend has one.
        """
        key = a, b, mode
        if key not in self._between:
            families = [self.within(backend, mode, "steady") for backend in (a, b)]
            if not all(floor.measured for floor in families):
                families.append(self.all_steady(mode))
            older = self._floor(self._second_workers(mode, "steady"))
            self._between[key] = stats.coarsest(*families, older)
        return self._between[key]

    def all_steady(self, mode: Mode) -> stats.Floor:
        """The coarsest of all backends' steady pairs of a mode; `missing` where there is none."""
        pairs = (t for t in self.twins if (t.job.mode, t.job.measure) == (mode, "steady"))
        return self._floor(list(pairs)).needed

    def anywhere(self, backend: str, mode: Mode, measure: Measure) -> stats.Floor:
        """For a job of two runs, measured by different workers each time."""
        key = backend, mode, measure
        if key not in self._anywhere:
            older = self._floor(self._second_workers(mode, measure))
            self._anywhere[key] = stats.coarsest(self.within(*key), older)
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
        """The twins of a backend."""
        wanted = backend, mode, measure
        return [
            twins
            for twins in self.twins
            if (twins.job.backend, twins.job.mode, twins.job.measure) == wanted
            and twins.job.replica == 1
        ]

    def _second_workers(self, mode: Mode, measure: Measure) -> list[Twins]:
        """The twins of schema 2 that were in another process than their originals."""
        return [
            twins
            for twins in self.twins
            if twins.job.replica > 1 and (twins.job.mode, twins.job.measure) == (mode, measure)
        ]

    @cached_property
    def _among(self) -> int:
        """Number of pairs that might be called different by chance: those of the whole run.

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
