"""Jobs, and the record of a job in one block."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal

import pandas as pd

from backends.api import Case, Mode
from bench import strict

#: What the jobs of a block compute: a case, on one thread, and a mode.
Setting = tuple[Case, Mode]

Measure = Literal["steady", "cold", "memory", "behaviour", "capacity"]

#: What every run measures. "behaviour", what an implementation does whatever it takes, and
#: "capacity", the longest T within a limit of memory, are asked for.
MEASURES: tuple[Measure, ...] = ("steady", "cold", "memory")

#: The phases of a cold job that end with the first result.
TO_FIRST = ("build", "load", "first")


class Status(StrEnum):
    """End of a job. Every job ends as exactly one of these."""

    OK = "ok"
    WRONG_OUTPUT = "wrong output"
    NAN = "nan"
    OOM = "oom"
    IMPLAUSIBLE = "implausible"
    CRASHED = "crashed"
    TIMEOUT = "timeout"
    UNSUPPORTED = "unsupported"
    UNAVAILABLE = "unavailable"
    CAPPED = "capped"
    INTERRUPTED = "interrupted"


#: Ends that were decided before the run and are no failure.
EXPECTED = frozenset({Status.OK, Status.UNSUPPORTED, Status.UNAVAILABLE, Status.CAPPED})


#: Replicas that records of schema 2 can have.
_MOST_REPLICAS = 3


@dataclass(frozen=True, kw_only=True)
class Job:
    """One implementation of one case in one mode, measured in one way.

    `replica` 0 is the job itself, 1 its identical twin: the same thing measured once more in the
    same block, by a worker of its own. (Records of schema 2 have others, see `bench.store`.)
    """

    implementation: str
    case: Case
    mode: Mode
    measure: Measure
    replica: int = 0

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:  # kept: every record of a run is looked up by its job
        return hash((self.implementation, self.case, self.mode, self.measure, self.replica))

    @cached_property
    def setting(self) -> Setting:
        """Case and mode of the job's block, whatever its threads are."""
        return replace(self.case, threads=1), self.mode

    @property
    def arm(self) -> str:
        """Name of the job among those of its case: implementation and replica."""
        return f"{self.implementation}#{self.replica}" if self.replica else self.implementation

    @property
    def backend(self) -> str:
        """The backend whose worker runs the job; known of what this version has not, too."""
        return self.implementation.partition("/")[0]

    @property
    def original(self) -> Job:
        """The job that this one is a twin of; itself for what is none."""
        return replace(self, replica=0)

    @cached_property
    def key(self) -> str:
        """A hash of everything that the job is; equal jobs of different runs have equal keys."""
        what = asdict(self)
        if not self.replica:
            del what["replica"]  # so that the keys of schema 1, which had no twins, stay
        if self.case.direction == "forward":
            del what["case"]["direction"]  # so that the keys of records without directions stay
        if self.case.tf32 == "off":
            del what["case"]["tf32"]
        if self.case.threads == 1:
            del what["case"]["threads"]
        canonical = json.dumps(what, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @classmethod
    def from_json(cls, data: object) -> Job:
        """Rebuild a job. Raises `ValueError` for anything that is none."""
        job = strict.build(cls, data, "job")
        if job.implementation.count("/") != 1:
            raise strict.refused("implementation", job.implementation, "backend/strategy")
        if not 0 <= job.replica <= _MOST_REPLICAS:
            raise strict.refused("replica", job.replica, f"0 to {_MOST_REPLICAS}")
        return job


_STATUSES = tuple(Status)


@dataclass(frozen=True, kw_only=True)
class Record:
    """The result of one job in one block.

    `attempt` counts the turns that were taken of a block: a part that was lost is measured in later
    turns, and arms that memory does not hold at once have turns by the group.

    `samples` holds raw seconds by phase: "create", "build", "load", "first" (one value each),
    "steady" (one value a round, the mean of the `inner` calls of a burst, see `bench.measure`),
    "device" (calls by the GPU's own clock), and "stage:<name>" for the named parts of a build.
    Steady samples of one block and attempt with the same place are of the same round. `values`
    holds bytes, counts and lengths (of a capacity job see `bench.capacity`, of a behaviour job
    `bench.behaviour`), `errors` the largest absolute and relative error against the oracle by part.
    Numbers may be NaN or infinite: `bench.belief` says what to believe.
    """

    job: Job
    block: int
    status: Status
    attempt: int = 0
    reason: str = ""
    samples: Mapping[str, list[float]] = field(default_factory=dict)
    inner: int = 1
    values: Mapping[str, float] = field(default_factory=dict)
    errors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    worker: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pairing(self) -> tuple[int, int]:
        """Block and attempt: samples are paired that have both in common."""
        return self.block, self.attempt

    def to_json(self) -> dict[str, Any]:
        return {"key": self.job.key, **asdict(self)}

    @classmethod
    def from_json(cls, data: object, jobs: dict[str, Job] | None = None) -> Record:
        """Rebuild a record. Raises `ValueError` for what is not of the documented types.

        `jobs` remembers jobs by what they were read from: a run has many records of each.
        """
        given = strict.mapping(data, "record")
        samples = strict.mapping(given.get("samples", {}), "samples")
        errors = strict.mapping(given.get("errors", {}), "errors")
        return cls(
            job=_job(given.get("job"), {} if jobs is None else jobs),
            block=strict.whole(given.get("block"), "block", least=0),
            attempt=strict.whole(given.get("attempt", 0), "attempt", least=0),
            status=Status(strict.word(given.get("status"), "status", _STATUSES)),
            reason=strict.text(given.get("reason", ""), "reason"),
            samples={p: strict.numbers(found, f"samples, {p}") for p, found in samples.items()},
            inner=strict.whole(given.get("inner", 1), "inner", least=1),
            values=strict.numbers_by_name(given.get("values", {}), "values"),
            errors={part: _error(found, f"errors, {part}") for part, found in errors.items()},
            worker=strict.mapping(given.get("worker", {}), "worker"),
        )


def _job(data: object, jobs: dict[str, Job]) -> Job:
    """The job that this describes, the same object each time."""
    described = repr(data)  # as exact as JSON: 1, 1.0 and true are told apart
    job = jobs.get(described)
    if job is None:
        job = jobs[described] = Job.from_json(data)
    return job


def _error(data: object, what: str) -> dict[str, float]:
    found = strict.numbers_by_name(data, what)
    if not {"absolute", "relative"} <= found.keys():
        raise ValueError(f"{what}: lacks an absolute or a relative error")
    return found


def to_frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row a record: the case's fields, the job's, the outcome, samples as lists of seconds."""
    rows = [
        {
            "implementation": record.job.implementation,
            "backend": record.job.backend,
            "strategy": record.job.implementation.split("/")[1],
            **asdict(record.job.case),
            "mode": record.job.mode,
            "measure": record.job.measure,
            "replica": record.job.replica,
            "block": record.block,
            "status": str(record.status),
            "reason": record.reason,
            "inner": record.inner,
            **{f"{phase}_s": values for phase, values in record.samples.items()},
            **record.values,
            **{
                f"{part}_{kind}_error": value
                for part, error in record.errors.items()
                for kind, value in error.items()
            },
        }
        for record in records
    ]
    return pd.DataFrame(rows)
