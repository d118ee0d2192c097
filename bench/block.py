"""One block: a case in one mode, over all its implementations at once.

Each framework has one worker that holds its strategies. The parent hands the token round: worker
by worker the arms are built and checked, then warmed, then they take turns, in an order that is
reversed every other round. So every ratio within a block is a paired one.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from backends.api import Case
from backends.devices import is_gpu
from bench import outcome as outcomes
from bench.beacon import Beacon
from bench.launch import Team, Worker
from bench.measure import PALINDROMES_PER_TURN, SAMPLE_S, turns_needed
from bench.outcome import Outcome, Seat, request
from bench.record import Job, Record, Status
from bench.sampling import Sampling
from bench.sources import ServerDied, WorkerDied, WorkerHung
from bench.watch import Unwatched

#: What a turn may take beyond what its calls took when they were warm, times `PATIENCE`.
TURN_LIMIT_S = 300.0
PATIENCE = 10

#: So many times in a block is the end of a fork server nobody's fault.
EXCUSES = 2


class _ArmLost(Exception):
    """An arm failed in its turn, and the others' samples are of turns that were cut short."""


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
        kernels: bool = False,
        rivals: Team | None = None,
        watch: Unwatched | None = None,
    ) -> None:
        """Jobs differ in their `Job.arm`; `expected` has the oracle's file of each one's case.

        `built` is told each job that has been built; `alone` adds samples of each arm alone, and
        `kernels` what it runs. With `rivals`, another team's workers do the same jobs in turns with
        the first one's. `watch` looks at the GPU in turns; those at a low clock are set aside.
        """
        self._case = jobs[0].case
        self._teams = [team] if rivals is None else [team, rivals]
        self._expected = expected
        self._sampling = sampling
        self._watch = watch or Unwatched()
        outcomes = [Outcome(job=job, side=n) for n in range(len(self._teams)) for job in jobs]
        self._outcomes = {outcome.arm: outcome for outcome in outcomes}
        self._workers: dict[Seat, Worker] = {}
        self._built = built
        self._told: set[str] = set()
        self._alone_too, self._kernels_too = alone, kernels
        self._excuses = EXCUSES
        self._seats = list(dict.fromkeys(outcome.seat for outcome in self._outcomes.values()))
        self._order = order
        order.shuffle(self._seats)
        self._call_s: dict[str, float] = {}
        # By the number of arms: who has which place in the design. Two workers with the same arms
        # have the same order in a turn, too.
        self._places: dict[int, list[int]] = {}
        self._row = order.randrange(1 << 16)

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
        self._call_s = {o.arm: self._warm(o) for o in self._of(None, Status.OK)}
        if not self._call_s:
            return
        turns = turns_needed(self._call_s.values(), seconds=self._sampling.steady_s)
        self._take_turns(turns)
        for outcome in self._of(None, Status.OK):
            self._recheck(outcome)
        for seat in list(self._workers):
            if self._alone_too:
                self._by_itself(seat, "alone", max(4, turns))
            if is_gpu(self._case.device):
                self._by_itself(seat, "device", max(4, turns))
        self._kernels()

    def _of(self, seat: Seat | None, status: Status | None) -> list[Outcome]:
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

    def _fill(self, worker: Worker, waiting: Sequence[Outcome]) -> bool:
        for outcome in waiting:
            expected = self._expected[outcome.job.case]
            message = request("prepare", outcome.job, expected, outcome.arm)
            try:
                outcome.take(worker.request(message, limit_s=outcomes.PREPARE_LIMIT_S))
            except (WorkerDied, WorkerHung) as error:
                self._lose(outcome, error)
                return False
            finally:
                self._tell(outcome)
            outcome.worker = {"pid": worker.pid}
        return True

    def _lose(self, outcome: Outcome, error: WorkerDied | WorkerHung) -> None:
        """Blame an arm for the end of its worker, unless a server was killed: then all go again."""
        if isinstance(error, ServerDied) and self._excuses:
            self._excuses -= 1
        else:
            outcome.fail(error)

    def _tell(self, outcome: Outcome) -> None:
        """Say that a job has been built, the first time that it is."""
        if outcome.arm not in self._told:
            self._told.add(outcome.arm)
            self._built(outcome.job)

    def _ask(self, outcome: Outcome, message: Mapping[str, Any], limit_s: float) -> dict[str, Any]:
        """Ask for something of one arm. Raises `_ArmLost` where it fails, whose fault is plain."""
        try:
            reply = self._workers[outcome.seat].request(message, limit_s=limit_s)
        except (WorkerDied, WorkerHung) as error:
            self._lose(outcome, error)
            raise _ArmLost from error
        return reply

    def _warm(self, outcome: Outcome) -> float:
        """Seconds a call of an arm that is warm."""
        message = {
            "op": "warm",
            "arm": outcome.arm,
            "calls": self._sampling.warmup_calls,
            "seconds": self._sampling.warmup_s,
        }
        reply = self._ask(outcome, message, outcomes.PREPARE_LIMIT_S)
        outcome.take(reply)
        if outcome.status != Status.OK:
            raise _ArmLost
        outcome.inner = reply["inner"]
        return float(reply["call_s"])

    def _take_turns(self, turns: int) -> None:
        token = uuid.uuid4().hex
        for outcome in self._of(None, Status.OK):
            outcome.worker["turns"] = token
        self._watch.begin()
        for number in range(turns):
            self._row += 1
            seats = [seat for seat in self._seats if seat in self._workers]
            for seat in seats if number % 2 == 0 else reversed(seats):
                self._turn(seat, number)
        self._set_aside(self._watch.low_turns())

    def _set_aside(self, turns: Collection[int]) -> None:
        """Take out what all arms were timed at in these turns: they stay paired."""
        size = 2 * PALINDROMES_PER_TURN
        for outcome in self._of(None, Status.OK):
            samples = outcome.samples["steady"]
            outcome.samples["steady"] = [
                sample for n, sample in enumerate(samples) if n // size not in turns
            ]

    def _turn(self, seat: Seat, number: int) -> None:
        """A turn of a worker's arms, by number. Raises `_ArmLost` where one of them fails."""
        arms = self._ordered([outcome.arm for outcome in self._of(seat, Status.OK)])
        if not arms:
            return
        calls = 1 + 2 * PALINDROMES_PER_TURN
        how = {"op": "turn", "palindromes": PALINDROMES_PER_TURN}
        with self._watch.during(number):
            reply, running, error = self._timed(seat, arms, how, calls=calls)
        if error is not None:
            self._lose(self._outcomes[running], error)
            raise _ArmLost from error
        if reply["status"] != Status.OK:
            self._outcomes[reply["culprit"]].take(reply)
            raise _ArmLost
        for name, samples in reply["samples"].items():
            outcome = self._outcomes[name]
            outcome.samples.setdefault("steady", []).extend(samples)
            switches = outcome.worker.get("involuntary_switches", 0)
            outcome.worker["involuntary_switches"] = switches + reply["involuntary_switches"]

    def _by_itself(self, seat: Seat, op: str, samples: int) -> None:
        """Each arm of a worker by itself: timed as in turns, or by the GPU's clock.

        What fails here costs these samples and no others.
        """
        arms = [outcome.arm for outcome in self._of(seat, Status.OK)]
        if not arms:
            return
        how = {"op": op, "samples": samples}
        reply, running, error = self._timed(seat, arms, how, calls=2 * (samples + 1))
        if error is None and reply["status"] == Status.OK:
            for name, found in reply["samples"].items():
                self._outcomes[name].samples[op] = found
            return
        why = reply["reason"] if error is None else str(error)
        self._outcomes[running].worker[op] = f"failed by itself, after the turns: {why}"

    def _kernels(self) -> None:
        for outcome in self._of(None, Status.OK):
            if self._kernels_too and not outcome.job.replica:
                limit_s = TURN_LIMIT_S + PATIENCE * self._call_s[outcome.arm]
                outcomes.look_at_kernels(self._workers[outcome.seat], outcome, limit_s=limit_s)

    def _timed(
        self, seat: Seat, arms: Sequence[str], how: Mapping[str, Any], *, calls: int
    ) -> tuple[dict[str, Any], str, WorkerDied | WorkerHung | None]:
        """Ask a worker to time arms, so many samples each: its reply, who ran last, what broke."""
        worker = self._workers[seat]
        path = self._teams[seat[0]].scratch / f"beacon-{worker.pid}"
        # A sample of short calls is a loop of them; one of a long call is that call.
        expected_s = calls * sum(max(SAMPLE_S, self._call_s[arm]) for arm in arms)
        message = {**how, "order": arms, "beacon": str(path)}
        with Beacon(path) as beacon:
            try:
                reply = worker.request(message, limit_s=TURN_LIMIT_S + PATIENCE * expected_s)
            except (WorkerDied, WorkerHung) as error:
                return {}, arms[beacon.read()], error
            return reply, arms[beacon.read()], None

    def _ordered(self, arms: Sequence[str]) -> list[str]:
        """The order of arms in this turn: a row of a design that is balanced over the turns.

        An arm at an end of a palindrome follows itself, and finds its data in the caches; another
        one follows its neighbours, whose data it finds there. Who has which place is chosen anew in
        each block.
        """
        n = len(arms)
        places = self._places.setdefault(n, self._order.sample(range(n), n))
        return [arms[places[place]] for place in balanced(n, self._row)]

    def _recheck(self, outcome: Outcome) -> None:
        """Void what is not right after the timing either: its samples are of something else."""
        message = {"op": "recheck", "arm": outcome.arm}
        reply = self._ask(outcome, message, TURN_LIMIT_S)
        if reply["status"] != Status.OK:
            outcome.take({**reply, "reason": f"after the timing: {reply['reason']}"})


def balanced(n: int, row: int) -> list[int]:
    """A row of n things; over any n rows in sequence each has had each place once.

    Read there and back, as palindromes are, each has also followed every other one twice (Williams
    1949: a zigzag, moved on by one in each row).
    """
    zigzag = [(place + 1) // 2 if place % 2 else -(place // 2) for place in range(n)]
    return [(step + row) % n for step in zigzag]
