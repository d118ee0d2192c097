"""One block: a case in one mode, over all its implementations at once.

Each framework has one worker that holds its strategies. The parent hands the token round: worker
by worker the arms are built and checked, then warmed, then they take turns, in an order that is
reversed every other round. So every ratio within a block is a paired one.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from backends.api import Case
from bench.beacon import Beacon
from bench.launch import ServerDied, Team, Worker, WorkerDied, WorkerHung
from bench.measure import PALINDROMES_PER_TURN, turns_needed
from bench.record import OTHER_WORKER, Job, Record, Status
from bench.sweep import Sampling

#: Limits of a request. Compiling an unrolled network may take minutes; a turn may not.
PREPARE_LIMIT_S = 600.0
TURN_LIMIT_S = 300.0

#: So many times in a block is the end of a fork server nobody's fault.
EXCUSES = 2

#: A worker of a block: whose team it is of, its backend, and whether it is the second one of it.
Seat = tuple[int, str, bool]


@dataclass(kw_only=True)
class _Outcome:
    """What is known of a job while its block runs."""

    job: Job
    side: int = 0
    status: Status | None = None
    reason: str = ""
    samples: dict[str, list[float]] = field(default_factory=dict)
    inner: int = 1
    values: Mapping[str, float] = field(default_factory=dict)
    errors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    worker: dict[str, Any] = field(default_factory=dict)

    @property
    def seat(self) -> Seat:
        return self.side, self.job.backend, self.job.replica == OTHER_WORKER

    @property
    def arm(self) -> str:
        """What it is called in this block."""
        return f"{self.job.arm}@{self.side}" if self.side else self.job.arm

    def begin(self) -> None:
        """Forget an attempt that another arm spoilt."""
        self.status, self.samples, self.worker = None, {}, {}

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
            raise RuntimeError(f"{self.arm} was left without an outcome")
        return Record(
            job=self.job,
            block=block,
            status=self.status,
            reason=self.reason,
            samples=self.samples if self.status == Status.OK else {},
            inner=self.inner,
            values=self.values,
            errors=self.errors,
            worker=self.worker,
        )


class _ArmLost(Exception):
    """An arm failed in its turn, and the others' samples are of turns that were cut short."""


def request(op: str, job: Job, expected: Path, arm: str | None = None) -> dict[str, Any]:
    """The message that asks a worker for something of a job."""
    return {
        "op": op,
        "arm": arm or job.arm,
        "implementation": job.implementation,
        "case": asdict(job.case),
        "mode": job.mode,
        "expected": str(expected),
    }


class Block:
    """Steady-state jobs of one case and mode, one for each implementation and A/A twin."""

    def __init__(
        self,
        team: Team,
        jobs: Sequence[Job],
        expected: Mapping[Case, Path],
        sampling: Sampling,
        order: random.Random,
        built: Callable[[Job], None],
        *,
        alone: bool = False,
        rivals: Team | None = None,
    ) -> None:
        """Jobs differ in their `Job.arm`; `expected` has the oracle's file of each one's case.

        `built` is told each job that has been built; `alone` adds samples of each arm alone. With
        `rivals`, another team's workers do the same jobs in turns with the first one's.
        """
        self._teams = [team] if rivals is None else [team, rivals]
        self._expected = expected
        self._sampling = sampling
        outcomes = [_Outcome(job=job, side=n) for n in range(len(self._teams)) for job in jobs]
        self._outcomes = {outcome.arm: outcome for outcome in outcomes}
        self._workers: dict[Seat, Worker] = {}
        self._built = built
        self._told: set[str] = set()
        self._alone_too = alone
        self._excuses = EXCUSES
        self._seats = list(dict.fromkeys(outcome.seat for outcome in self._outcomes.values()))
        order.shuffle(self._seats)
        # An arm at an end of a palindrome follows itself, and finds its data in the caches: who
        # that is, is taken in turns.
        self._rotation = order.randrange(1 << 16)

    def run(self, block: int) -> list[Record]:
        """Build, check, warm and take turns; one record a job, whatever happened, rivals' last.

        An arm that fails in its turn is left out and the block begins again: nobody else pays for
        it, and all samples of a block are of the same turns.
        """
        attempts = len(self._outcomes) + EXCUSES + 1
        for _ in range(attempts):
            try:
                self._attempt()
                break
            except _ArmLost:
                for outcome in self._of(None, Status.OK):
                    outcome.begin()
            finally:
                for worker in self._workers.values():
                    worker.close()
                self._workers.clear()
        return [outcome.record(block) for outcome in self._outcomes.values()]

    def _attempt(self) -> None:
        for seat in self._seats:
            self._prepare(seat)
        call_s = {o.arm: self._warm(o) for o in self._of(None, Status.OK)}
        if not call_s:
            return
        turns = turns_needed(call_s.values(), seconds=self._sampling.steady_s)
        self._take_turns(turns)
        if self._alone_too:
            for seat in list(self._workers):
                self._timed(seat, "alone", samples=max(4, turns))
        for outcome in self._of(None, Status.OK):
            self._recheck(outcome)

    def _of(self, seat: Seat | None, status: Status | None) -> list[_Outcome]:
        """The outcomes with this status, of one seat or of all."""
        return [
            outcome
            for outcome in self._outcomes.values()
            if seat in (None, outcome.seat) and outcome.status == status
        ]

    def _prepare(self, seat: Seat) -> None:
        """Fill a worker with arms. One that it dies of is left out, and a new worker filled."""
        while waiting := self._of(seat, None):
            try:
                worker = self._teams[seat[0]].worker(seat[1])
            except (WorkerDied, WorkerHung) as error:
                for outcome in waiting:
                    outcome.fail(error)
                return
            self._workers[seat] = worker
            if self._fill(worker, waiting):
                return
            del self._workers[seat]
            worker.close()
            for outcome in self._of(seat, Status.OK):
                outcome.begin()

    def _fill(self, worker: Worker, waiting: Sequence[_Outcome]) -> bool:
        for outcome in waiting:
            expected = self._expected[outcome.job.case]
            message = request("prepare", outcome.job, expected, outcome.arm)
            try:
                outcome.take(worker.request(message, limit_s=PREPARE_LIMIT_S))
            except (WorkerDied, WorkerHung) as error:
                self._lose(outcome, error)
                return False
            finally:
                self._tell(outcome)
            outcome.worker = {"pid": worker.pid}
        return True

    def _lose(self, outcome: _Outcome, error: WorkerDied | WorkerHung) -> None:
        """Blame an arm for the end of its worker, unless a server was killed: then all go again."""
        if isinstance(error, ServerDied) and self._excuses:
            self._excuses -= 1
        else:
            outcome.fail(error)

    def _tell(self, outcome: _Outcome) -> None:
        """Say that a job has been built, the first time that it is."""
        if outcome.arm not in self._told:
            self._told.add(outcome.arm)
            self._built(outcome.job)

    def _ask(self, outcome: _Outcome, message: Mapping[str, Any], limit_s: float) -> dict[str, Any]:
        """Ask for something of one arm. Raises `_ArmLost` where it fails, whose fault is plain."""
        try:
            reply = self._workers[outcome.seat].request(message, limit_s=limit_s)
        except (WorkerDied, WorkerHung) as error:
            self._lose(outcome, error)
            raise _ArmLost from error
        return reply

    def _warm(self, outcome: _Outcome) -> float:
        """Seconds a call of an arm that is warm."""
        message = {
            "op": "warm",
            "arm": outcome.arm,
            "calls": self._sampling.warmup_calls,
            "seconds": self._sampling.warmup_s,
        }
        reply = self._ask(outcome, message, PREPARE_LIMIT_S)
        outcome.take(reply)
        if outcome.status != Status.OK:
            raise _ArmLost
        outcome.inner = reply["inner"]
        return float(reply["call_s"])

    def _take_turns(self, turns: int) -> None:
        token = uuid.uuid4().hex
        for outcome in self._of(None, Status.OK):
            outcome.worker["turns"] = token
        for number in range(turns):
            self._rotation += 1
            seats = [seat for seat in self._seats if seat in self._workers]
            for seat in seats if number % 2 == 0 else reversed(seats):
                self._timed(seat, "turn", palindromes=PALINDROMES_PER_TURN)

    def _timed(self, seat: Seat, op: str, **how: int) -> None:
        """A turn of a worker's arms, or all of them alone."""
        arms = [outcome.arm for outcome in self._of(seat, Status.OK)]
        if not arms:
            return
        shift = self._rotation % len(arms)
        arms = arms[shift:] + arms[:shift]
        worker = self._workers[seat]
        path = self._teams[seat[0]].scratch / f"beacon-{worker.pid}"
        message = {"op": op, "order": arms, "beacon": str(path), **how}
        with Beacon(path) as beacon:
            try:
                reply = worker.request(message, limit_s=TURN_LIMIT_S)
            except (WorkerDied, WorkerHung) as error:
                self._lose(self._outcomes[arms[beacon.read()]], error)
                raise _ArmLost from error
        if reply["status"] != Status.OK:
            self._outcomes[reply["culprit"]].take(reply)
            raise _ArmLost
        phase = "steady" if op == "turn" else op
        for name, samples in reply["samples"].items():
            outcome = self._outcomes[name]
            outcome.samples.setdefault(phase, []).extend(samples)
            switches = outcome.worker.get("involuntary_switches", 0)
            outcome.worker["involuntary_switches"] = switches + reply["involuntary_switches"]

    def _recheck(self, outcome: _Outcome) -> None:
        """Void what is not right after the timing either: its samples are of something else."""
        message = {"op": "recheck", "arm": outcome.arm}
        reply = self._ask(outcome, message, TURN_LIMIT_S)
        if reply["status"] != Status.OK:
            outcome.take({**reply, "reason": f"after the timing: {reply['reason']}"})


def alone(team: Team, job: Job, block: int, expected: Path) -> Record:
    """A cold or a memory job, in a fresh worker of its own."""
    outcome = _Outcome(job=job)
    try:
        try:
            _alone(team, outcome, expected)
        except ServerDied:
            _alone(team, outcome, expected)  # no fault of the job's
    except (WorkerDied, WorkerHung) as error:
        outcome.fail(error)
    return outcome.record(block)


def _alone(team: Team, outcome: _Outcome, expected: Path) -> None:
    job = outcome.job
    with team.worker(job.backend, fresh_cache=True) as worker:
        outcome.worker = {"pid": worker.pid}
        reply = worker.request(request(job.measure, job, expected), limit_s=PREPARE_LIMIT_S)
        outcome.take(reply)
        outcome.samples = reply.get("samples", {})
