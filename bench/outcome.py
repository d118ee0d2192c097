"""State of a job while it is measured, and the requests to its worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.launch import OutOfTime, Team, Worker
from bench.record import Job, Record, Status
from bench.sources import ServerDied, WorkerDied, WorkerHung

#: Limit of a request that builds: compiling an unrolled network may take minutes.
PREPARE_LIMIT_S = 600.0


@dataclass(kw_only=True, eq=False)
class Outcome:
    """State of a job while its block runs.

    `side` is the number of its team, `call_s` what a call takes when the arm is warm. An arm that
    is `blamed` ended its fork server again and again: it is not begun once more.
    """

    job: Job
    side: int = 0
    attempt: int = 0
    call_s: float = 0.0
    blamed: bool = False
    status: Status | None = None
    reason: str = ""
    samples: dict[str, list[float]] = field(default_factory=dict)
    inner: int = 1
    values: Mapping[str, float] = field(default_factory=dict)
    errors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    worker: dict[str, Any] = field(default_factory=dict)

    def begin(self) -> None:
        """Forget an attempt that came to nothing."""
        if self.blamed:
            return
        self.status, self.reason, self.samples, self.worker = None, "", {}, {}

    def fail(self, error: WorkerDied | WorkerHung) -> None:
        self.status = Status.TIMEOUT if isinstance(error, WorkerHung) else Status.CRASHED
        self.reason = str(error)

    def take(self, reply: Mapping[str, Any]) -> None:
        self.status = Status(reply["status"])
        self.reason = reply["reason"]
        self.values = reply.get("values", self.values)
        self.errors = reply.get("errors", self.errors)

    def record(self, block: int) -> Record:
        if self.status is None:
            raise RuntimeError(f"{self.job.arm} was left without an outcome")
        return Record(
            job=self.job,
            block=block,
            attempt=self.attempt,
            status=self.status,
            reason=self.reason,
            samples=self.samples if self.status == Status.OK else {},
            inner=self.inner,
            values=self.values,
            errors=self.errors,
            worker=self.worker,
        )


def request(op: str, job: Job, expected: Path) -> dict[str, Any]:
    """The message that asks a worker for something of a job."""
    return {
        "op": op,
        "implementation": job.implementation,
        "case": asdict(job.case),
        "mode": job.mode,
        "expected": str(expected),
    }


def in_own_worker(team: Team, job: Job, block: int, expected: Path) -> Record:
    """A cold, a memory or a behaviour job, in a fresh worker of its own."""
    outcome = Outcome(job=job)
    try:
        try:
            _measure(team, outcome, expected)
        except ServerDied:
            _measure(team, outcome, expected)  # no fault of the job's
    except (WorkerDied, WorkerHung) as error:
        outcome.fail(error)
    return outcome.record(block)


def _measure(team: Team, outcome: Outcome, expected: Path) -> None:
    job = outcome.job
    with team.worker(job.backend, job.case.threads, fresh_cache=True) as worker:
        outcome.worker = {"pid": worker.pid}
        reply = worker.request(request(job.measure, job, expected), limit_s=PREPARE_LIMIT_S)
        outcome.take(reply)
        outcome.samples = reply.get("samples", {})
        outcome.worker |= reply.get("worker", {})


def look_at_kernels(worker: Worker, outcome: Outcome, *, limit_s: float) -> None:
    """Record which kernels a call of an arm runs, or why that is not known; raises nothing.

    It is the last thing that is asked of an arm: its profiler may slow down what comes after.
    """
    try:
        reply = worker.request({"op": "kernels"}, limit_s=limit_s)
    except (WorkerDied, WorkerHung, OutOfTime) as error:
        reply = {"status": Status.CRASHED, "reason": str(error)}
    found = reply["kernels"] if reply["status"] == Status.OK else reply["reason"]
    if found is not None:
        outcome.worker["kernels"] = found
