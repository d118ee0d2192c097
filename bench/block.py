"""One block: a case in one mode, over all its implementations at once.

Each framework has one worker that holds its strategies. The parent hands the token round: worker
by worker the arms are built and checked, then warmed, then they take turns, in an order that is
reversed every other round. So every ratio within a block is a paired one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from backends import IMPLEMENTATIONS
from bench.launch import Team, Worker, WorkerDied, WorkerHung
from bench.measure import turns_needed
from bench.record import Job, Record, Status
from bench.sweep import Sampling

#: Limits of a request. Compiling an unrolled network may take minutes; a turn may not.
PREPARE_LIMIT_S = 600.0
TURN_LIMIT_S = 300.0


@dataclass(kw_only=True)
class _Outcome:
    """What is known of a job while its block runs."""

    job: Job
    status: Status | None = None
    reason: str = ""
    samples: list[float] = field(default_factory=list)
    inner: int = 1
    values: Mapping[str, float] = field(default_factory=dict)
    errors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    worker: dict[str, Any] = field(default_factory=dict)

    def fail(self, error: WorkerDied | WorkerHung) -> None:
        self.status = Status.TIMEOUT if isinstance(error, WorkerHung) else Status.CRASHED
        self.reason = str(error)

    def take(self, reply: Mapping[str, Any]) -> None:
        self.status = Status(reply["status"])
        self.reason = reply["reason"]
        self.values = reply.get("values", {})
        self.errors = reply.get("errors", {})

    def record(self, block: int) -> Record:
        if self.status is None:
            raise RuntimeError(f"{self.job.implementation} was left without an outcome")
        return Record(
            job=self.job,
            block=block,
            status=self.status,
            reason=self.reason,
            samples={"steady": self.samples} if self.status == Status.OK else {},
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


def backend_of(job: Job) -> str:
    """The backend whose worker runs the job."""
    return IMPLEMENTATIONS[job.implementation].backend


class Block:
    """Steady-state jobs of one case and mode, one for each implementation."""

    def __init__(
        self,
        team: Team,
        jobs: Sequence[Job],
        expected: Path,
        sampling: Sampling,
        order: random.Random,
        built: Callable[[Job], None],
    ) -> None:
        self._team = team
        self._expected = expected
        self._sampling = sampling
        self._outcomes = {job.implementation: _Outcome(job=job) for job in jobs}
        self._workers: dict[str, Worker] = {}
        self._built = built
        self._backends = list(dict.fromkeys(backend_of(job) for job in jobs))
        order.shuffle(self._backends)
        # Which strategy stands at an end of the palindrome, and so beside itself, varies by block.
        self._rotation = order.randrange(1 << 16)

    def run(self, block: int) -> list[Record]:
        """Build, check, warm and take turns; one record a job, whatever happened."""
        try:
            for backend in self._backends:
                self._prepare(backend)
            call_s: dict[str, float] = {}
            for backend in list(self._workers):
                call_s.update(self._warm(backend))
            if call_s:
                self._take_turns(turns_needed(call_s, seconds=self._sampling.steady_s))
                for backend in list(self._workers):
                    self._recheck(backend)
        finally:
            for worker in self._workers.values():
                worker.close()
        return [outcome.record(block) for outcome in self._outcomes.values()]

    def _of(self, backend: str, status: Status | None) -> list[_Outcome]:
        return [
            outcome
            for outcome in self._outcomes.values()
            if backend_of(outcome.job) == backend and outcome.status == status
        ]

    def _prepare(self, backend: str) -> None:
        """Fill a worker with arms. One that it dies of is left out, and a new worker filled."""
        while True:
            waiting = self._of(backend, None)
            if not waiting:
                return
            try:
                worker = self._team.worker(backend)
            except (WorkerDied, WorkerHung) as error:
                for outcome in waiting:
                    outcome.fail(error)
                return
            self._workers[backend] = worker
            if self._fill(worker, waiting):
                return
            del self._workers[backend]
            worker.close()
            for outcome in self._of(backend, Status.OK):
                outcome.status = None

    def _fill(self, worker: Worker, waiting: Sequence[_Outcome]) -> bool:
        for outcome in waiting:
            message = request("prepare", outcome.job, self._expected)
            try:
                outcome.take(worker.request(message, limit_s=PREPARE_LIMIT_S))
            except (WorkerDied, WorkerHung) as error:
                outcome.fail(error)
                self._built(outcome.job)
                return False
            outcome.worker = {"pid": worker.pid}
            self._built(outcome.job)
        return True

    def _lose(self, backend: str, error: WorkerDied | WorkerHung) -> None:
        for outcome in self._of(backend, Status.OK):
            outcome.fail(error)
        self._workers.pop(backend).close()

    def _warm(self, backend: str) -> dict[str, float]:
        if not self._of(backend, Status.OK):
            return {}
        message = {
            "op": "warm",
            "calls": self._sampling.warmup_calls,
            "seconds": self._sampling.warmup_s,
        }
        try:
            reply = self._workers[backend].request(message, limit_s=PREPARE_LIMIT_S)
        except (WorkerDied, WorkerHung) as error:
            self._lose(backend, error)
            return {}
        if reply["status"] != Status.OK:
            self._fail_all(backend, reply)
            return {}
        for name, inner in reply["inner"].items():
            self._outcomes[name].inner = inner
        call_s: dict[str, float] = reply["call_s"]
        return call_s

    def _fail_all(self, backend: str, reply: Mapping[str, Any]) -> None:
        for outcome in self._of(backend, Status.OK):
            outcome.take(reply)

    def _take_turns(self, turns: int) -> None:
        for number in range(turns):
            backends = [name for name in self._backends if self._of(name, Status.OK)]
            for backend in backends if number % 2 == 0 else reversed(backends):
                self._turn(backend)

    def _turn(self, backend: str) -> None:
        arms = [outcome.job.implementation for outcome in self._of(backend, Status.OK)]
        shift = self._rotation % len(arms)
        message = {"op": "turn", "order": arms[shift:] + arms[:shift]}
        try:
            reply = self._workers[backend].request(message, limit_s=TURN_LIMIT_S)
        except (WorkerDied, WorkerHung) as error:
            self._lose(backend, error)
            return
        if reply["status"] != Status.OK:
            self._fail_all(backend, reply)
            return
        for name, samples in reply["samples"].items():
            self._outcomes[name].samples += samples

    def _recheck(self, backend: str) -> None:
        """Void what is not right after the timing either: its samples are of something else."""
        for outcome in self._of(backend, Status.OK):
            message = {"op": "recheck", "implementation": outcome.job.implementation}
            try:
                reply = self._workers[backend].request(message, limit_s=TURN_LIMIT_S)
            except (WorkerDied, WorkerHung) as error:
                self._lose(backend, error)
                return
            if reply["status"] != Status.OK:
                outcome.status = Status(reply["status"])
                outcome.reason = f"after the timing: {reply['reason']}"
                outcome.errors = reply.get("errors", outcome.errors)


def alone(team: Team, job: Job, block: int, expected: Path) -> Record:
    """A cold or a memory job, in a fresh worker of its own."""
    outcome = _Outcome(job=job)
    reply: Mapping[str, Any] = {}
    try:
        with team.worker(backend_of(job), fresh_cache=True) as worker:
            outcome.worker = {"pid": worker.pid}
            reply = worker.request(request(job.measure, job, expected), limit_s=PREPARE_LIMIT_S)
            outcome.take(reply)
    except (WorkerDied, WorkerHung) as error:
        outcome.fail(error)
    record = outcome.record(block)
    samples = reply.get("samples", {}) if record.status == Status.OK else {}
    return Record(**{**vars(record), "samples": samples})
