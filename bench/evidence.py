"""Records -> what a run knows of each of its jobs. Every planned job is there, measured or not."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from statistics import median
from typing import Any

from backends import IMPLEMENTATIONS
from backends.api import Case, Kind, Mode
from backends.devices import is_gpu
from bench import stats
from bench.axes import RIDING
from bench.belief import doubt
from bench.errors import UsageError
from bench.floors import Floors, steady_blocks
from bench.hosts import session_of
from bench.record import Job, Measure, Record, Setting, Status
from bench.store import Run
from bench.sweep import Sweep

#: Outcomes that only reading can find.
BAD_SAMPLES = "bad samples"

#: What a job is called whose blocks did not all end the same way.
_WORST_FIRST: tuple[str, ...] = (
    BAD_SAMPLES,
    Status.WRONG_OUTPUT,
    Status.NAN,
    Status.IMPLAUSIBLE,
    Status.CRASHED,
    Status.OOM,
    Status.TIMEOUT,
    Status.INTERRUPTED,
    Status.UNAVAILABLE,
    Status.UNSUPPORTED,
    Status.CAPPED,
    Status.OK,
)

#: One of these in any block, measured in any way: it does not compute the case, so that none of its
#: times or bytes mean anything.
_VOID = frozenset({Status.WRONG_OUTPUT, Status.NAN, Status.IMPLAUSIBLE})

#: Blocks that an interruption took away say nothing against those that were finished.
_RANKED = frozenset({str(Status.OK), str(Status.INTERRUPTED)})


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Outcome of a job over its blocks: the worst status, its reason, and the share that was ok."""

    status: str
    reason: str
    ok: int
    planned: int

    @property
    def counted(self) -> str:
        return f"{self.ok} of {self.planned}"

    @property
    def rankable(self) -> bool:
        return self.status in _RANKED and self.ok > 0


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Records of one job over the blocks of a run.

    `void` is the record that shows the implementation to be wrong in this case and mode; then
    nothing here counts as measured. `absent` says why there may be no record.
    """

    job: Job
    records: Sequence[Record]
    planned: int
    void: Record | None = None
    absent: str = ""
    calibration_at_start: float = math.nan

    @cached_property
    def _faults(self) -> Mapping[tuple[int, int], str]:
        """Faults in the samples of records with the status ok, by block and attempt."""
        ok = (record for record in self.records if record.status == Status.OK)
        return {record.pairing: reason for record in ok if (reason := doubt(record)) is not None}

    @cached_property
    def believed(self) -> list[Record]:
        """The records that count as measured; a reference arm has one for each of its groups."""
        if self.void is not None:
            return []
        return [
            record
            for record in self.records
            if record.status == Status.OK and record.pairing not in self._faults
        ]

    @cached_property
    def outcome(self) -> Outcome:
        if self.void is not None:
            return Outcome(
                status=str(self.void.status), reason=self.void.reason, ok=0, planned=self.planned
            )
        ends = [
            (BAD_SAMPLES, self._faults[r.pairing])
            if r.pairing in self._faults
            else (str(r.status), r.reason)
            for r in self.records
        ] or [(Status.INTERRUPTED, self.absent)]
        status, reason = min(ends, key=lambda end: _WORST_FIRST.index(end[0]))
        ok = len({record.block for record in self.believed})
        return Outcome(status=status, reason=reason, ok=ok, planned=self.planned)

    def blocks(self, phase: str) -> dict[int, Sequence[float]]:
        """Samples [s] of a phase by block, of the blocks that were ok."""
        found: dict[int, Sequence[float]] = {}
        for record in self.believed:
            if phase in record.samples:
                found[record.block] = [*found.get(record.block, ()), *record.samples[phase]]
        return found

    @cached_property
    def paired(self) -> stats.Blocks:
        """Steady samples [s] by what pairs them with those of another job."""
        return stats.Samples(steady_blocks(self.believed))

    @cached_property
    def medians(self) -> dict[int, float]:
        """The median call [s] by block."""
        return {block: median(samples) for block, samples in self.blocks("steady").items()}

    def single(self, *phases: str) -> dict[int, float]:
        """Seconds by block that phases with one sample took together."""
        return {
            record.block: sum(sum(record.samples[phase]) for phase in phases)
            for record in self.believed
            if all(phase in record.samples for phase in phases)
        }

    def values(self, name: str) -> dict[int, float]:
        """A value (bytes or a count) by block."""
        return {r.block: r.values[name] for r in self.believed if name in r.values}

    @property
    def calibration_error(self) -> float:
        """Error of the reading of a known allocation, at the start of the run or after the job.

        At worst; NaN where none was.
        """
        readings = [self.calibration_at_start, *self.values("calibration_error").values()]
        known = [error for error in readings if not math.isnan(error)]
        return max(known, key=abs, default=math.nan)

    def phases(self) -> list[str]:
        """Every phase that a block that was ok has samples of."""
        return list(dict.fromkeys(p for record in self.believed for p in record.samples))

    @cached_property
    def steady(self) -> stats.Estimate | None:
        """Seconds a call, or None where no block was ok."""
        return stats.steady_estimate(self.paired) if self.paired else None


NO_FLOORS = Floors()

#: A framework that reads a known allocation further off than this is not calibrated.
CALIBRATION = 0.05

#: Below this a constant error of the method, 0.2 to 0.3 MB, is a share of a peak that matters.
SMALL_BYTES = 8e6


def is_misread(evidence: Evidence) -> bool:
    """Whether peaks are of a framework that is not calibrated. On a GPU an allocator counts."""
    return not is_gpu(evidence.job.case.device) and abs(evidence.calibration_error) > CALIBRATION


def is_small(job: Job, peaks: Iterable[float]) -> bool:
    """Whether the method's error is a share of one of these peaks that matters: on a GPU never."""
    return not is_gpu(job.case.device) and min(peaks, default=math.inf) < SMALL_BYTES


@dataclass(frozen=True, kw_only=True)
class Group:
    """All jobs of one case and mode of one run: what is compared with each other.

    A/A twins are not among the jobs: they make `floors`, those of the case's device and threads.
    `confidence` is the level of intervals, `sweep` the name of what was measured, "" where it
    cannot be told.
    """

    run: str
    case: Case
    mode: Mode
    jobs: Mapping[tuple[str, Measure], Evidence]
    floors: Floors = NO_FLOORS
    confidence: float = stats.CONFIDENCE
    sweep: str = ""

    @property
    def setting(self) -> Setting:
        """Setting of the blocks in which these jobs were measured."""
        return replace(self.case, threads=1), self.mode

    def get(self, implementation: str, measure: Measure) -> Evidence:
        """Evidence of a job; empty if no such job was planned or recorded."""
        key = implementation, measure
        known = self.jobs.get(key) or self._absent.get(key)
        if known is None:
            job = Job(
                implementation=implementation, case=self.case, mode=self.mode, measure=measure
            )
            known = self._absent[key] = Evidence(job=job, records=(), planned=0)
        return known

    def steady_ratio(self, a: str, b: str) -> stats.Ratio | None:
        """The steady time of a over that of b, paired within blocks; None where none has both.

        Of two arms that memory did not hold at once, through the arm that both took turns with.
        """
        one, other = (self.get(name, "steady").paired for name in (a, b))
        reference = self.get(self.reference, "steady").paired if self.reference else None
        return stats.steady_ratio(one, other, self.confidence, reference=reference)

    @cached_property
    def reference(self) -> str:
        """The implementation that all groups of this group's blocks share; "" if there is one."""
        for evidence in self.jobs.values():
            for record in evidence.believed:
                if isinstance(name := record.worker.get("reference"), str):
                    return name
        return ""

    def steady_floor(self, a: str, b: str) -> stats.Floor:
        """Floor under a difference of two steady times; zero for an implementation and itself."""
        if a == b:
            return stats.UNMEASURED
        first, second = (self.get(name, "steady").job.backend for name in (a, b))
        if first == second:
            return self.floors.within(first, self.mode, "steady")
        return self.floors.between(first, second, self.mode)

    @cached_property
    def _absent(self) -> dict[tuple[str, Measure], Evidence]:
        return {}

    def implementations(self, *measures: Measure) -> list[str]:
        """Those with a job of one of these measures; the fastest first, then as registered."""
        names = {name for name, measure in self.jobs if measure in measures}
        return [name for name in self._in_order if name in names]

    @cached_property
    def _in_order(self) -> list[str]:
        places = {name: place for place, name in enumerate(IMPLEMENTATIONS)}

        def key(name: str) -> tuple[float, int, str]:
            steady = self.get(name, "steady").steady
            return steady.value if steady else math.inf, places.get(name, len(places)), name

        return sorted({name for name, _ in self.jobs}, key=key)

    def outcomes(self, implementation: str, *measures: Measure) -> dict[str, Outcome]:
        """Outcomes of an implementation's jobs, by measure."""
        return {
            measure: self.jobs[implementation, measure].outcome
            for measure in measures
            if (implementation, measure) in self.jobs
        }

    def limit(self) -> str | None:
        """The fastest of the limits, by its median over all blocks."""
        for name in self.implementations("steady"):
            if kind_of(name) == "limit" and self.get(name, "steady").steady is not None:
                return name
        return None

    def launches(self, backend: str) -> str | None:
        """The floor of a backend's loops that launch a kernel for each step, where it is known."""
        for name in self.implementations("steady"):
            job = self.get(name, "steady")
            if kind_of(name) == "launches" and job.job.backend == backend and job.steady:
                return name
        return None


def rides_along(implementation: str) -> bool:
    """Whether it is no implementation: bare products, or bare launches."""
    return kind_of(implementation) in RIDING


def kind_of(implementation: str) -> Kind | None:
    """The kind of an implementation; None for one that this version does not know."""
    entry = IMPLEMENTATIONS.get(implementation)
    return None if entry is None else entry.kind


def groups_of(run: Run, label: str) -> tuple[list[Group], list[str]]:
    """The groups of a run in reading order, and what is wrong with its plan, if anything."""
    sweep, faults = _sweep(run.manifest)
    counts = {} if sweep is None else sweep.sampling.counts()
    left: dict[Job, list[Record]] = defaultdict(list)
    for record in run.records:
        left[record.job].append(record)
    records = {job: left.get(job, []) for job in _planned_jobs(sweep)} | left
    seen: dict[tuple[Case, Mode, Measure], set[int]] = defaultdict(set)
    for job, found in records.items():
        seen[job.case, job.mode, job.measure].update(record.block for record in found)
    void = _void(run.records)
    absent = absent_reason(run.manifest)
    calibration = _calibration(run.manifest)
    tables: dict[tuple[Case, Mode], dict[tuple[str, Measure], Evidence]] = defaultdict(dict)
    for job, found in records.items():
        if job.replica:
            continue
        # A sweep that was asked for a precision adds blocks to what needs them.
        extended = len(seen[job.case, job.mode, job.measure])
        tables[job.case, job.mode][job.implementation, job.measure] = Evidence(
            job=job,
            records=sorted(found, key=lambda record: record.pairing),
            planned=max(counts.get(job.measure, 0), extended),
            void=void.get((job.implementation, job.case, job.mode)),
            absent=absent,
            calibration_at_start=calibration.get(job.backend, math.nan),
        )
    looked = sweep is not None and sweep.sampling.precision is not None
    confidence = stats.look_confidence() if looked else stats.CONFIDENCE
    floors = {
        where: Floors.of(run.records, *where, confidence)
        for where in {(case.device, case.threads) for case, _ in tables}
    }
    groups = [
        Group(
            run=label,
            case=c,
            mode=m,
            jobs=jobs,
            floors=floors[c.device, c.threads],
            confidence=confidence,
            sweep="" if sweep is None else sweep.name,
        )
        for (c, m), jobs in tables.items()
    ]
    return sorted(groups, key=reading_order), faults


def _calibration(manifest: Mapping[str, Any]) -> dict[str, float]:
    """Error of each backend's reading of a known allocation at the start, if it has one."""
    backends = manifest.get("backends")
    found: dict[str, float] = {}
    for name, info in backends.items() if isinstance(backends, Mapping) else ():
        error = info.get("calibration_error") if isinstance(info, Mapping) else None
        # A file may hold anything: what is no error of a reading is none.
        if isinstance(error, int | float) and abs(error) < _LARGEST_ERROR:
            found[name] = float(error)
    return found


#: Relative errors are below this.
_LARGEST_ERROR = 1e6

#: Why a planned job of a run with this status may have left no record.
_ABSENT: Mapping[str, str] = {
    "interrupted": "the run was interrupted before it",
    "out of budget": "the run's budget was spent before it",
    "failed": "the run failed before it",
    "running": "the run has not come to it, or was killed before it",
}


def absent_reason(manifest: Mapping[str, Any]) -> str:
    """Reason for missing records, by how the run ended."""
    reason = _ABSENT.get(str(manifest.get("status")))
    if reason is None:
        return "it left no record"
    # A side of two that took turns cannot be gone on with: the other one's turns are over.
    return reason if session_of(manifest) else f"{reason}; --resume measures it"


def _planned_jobs(sweep: Sweep | None) -> Iterable[Job]:
    if sweep is None:
        return ()
    return (job for measure in sweep.sampling.counts() for job in sweep.jobs(measure))


def _void(records: Iterable[Record]) -> dict[tuple[str, Case, Mode], Record]:
    """The first record that shows an implementation to be wrong, by implementation, case, mode."""
    wrong: dict[tuple[str, Case, Mode], Record] = {}
    for record in records:
        if record.status in _VOID:
            job = record.job
            wrong.setdefault((job.implementation, job.case, job.mode), record)
    return wrong


def _sweep(manifest: Mapping[str, Any]) -> tuple[Sweep | None, list[str]]:
    """The sweep as it was planned, or None and why it cannot be told."""
    try:
        return Sweep.from_json(manifest.get("sweep")), []
    except UsageError as error:
        return None, [f"{error}: jobs that left no record are not listed"]


def reading_order(group: Group) -> tuple[Any, ...]:
    """Shapes first (T, B, L, H, D), then words, then mode."""
    case = group.case
    shape = (case.seq_len, case.batch, case.layers, case.hidden, case.inputs)
    return (*shape, *(str(getattr(case, field.name)) for field in fields(case)), group.mode)
