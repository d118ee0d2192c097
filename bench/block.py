"""One block: a case in one mode, over all its implementations at once, a worker for each arm.

All workers of a group live at the same time, on the same CPUs, and block but for one. An arm has as
many threads as its job's case says, each on a CPU of its own. The parent hands the token round:
round by round each arm runs one burst of calls. So every ratio within a block is paired, and is
still the ratio of processes that run alone (docs/measuring.md).

Where memory does not hold all workers at once, the arms are measured in groups one after the
other. Each group has the reference arm and its identical twin; the other arms' ratios across two
groups go through the reference arm.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any

import numpy as np

from backends import IMPLEMENTATIONS
from backends.devices import is_gpu
from bench import outcome as outcomes
from bench import stats
from bench.axes import RANKED
from bench.ceilings import kind_of_work
from bench.ending import wait_until_asleep
from bench.launch import OutOfTime, Team, Worker
from bench.measure import BURST_S, DISCARDED_S, FEWEST_LONG_ROUNDS, FEWEST_ROUNDS, LONG_S
from bench.outcome import Outcome, request
from bench.peaks import Peaks
from bench.plausible import check
from bench.record import Job, Record, Setting, Status
from bench.room import Room
from bench.sampling import Sampling
from bench.sources import ServerDied, WorkerDied, WorkerHung
from bench.watch import Unwatched

#: Seconds that a burst may take beyond `PATIENCE` times what its calls took when they were warm.
BURST_LIMIT_S = 300.0
PATIENCE = 10

#: So many times in a block the end of a fork server is not held against an arm.
EXCUSES = 2

#: Rounds go on until half the 95 % interval of each arm's median is below this share of it.
ROUND_PRECISION = 0.005

#: Outcomes that are measured in the same group: of an implementation with each number of threads,
#: of its identical twins, of each team.
Unit = Sequence[Outcome]

#: Nothing is doubted.
NO_PEAKS: Mapping[str, Peaks] = MappingProxyType({})


class _ServerLost(Exception):
    """A fork server ended, and its workers with it."""


class Block:
    """The steady jobs of one setting: of each implementation, on each number of threads."""

    def __init__(
        self,
        teams: Sequence[Team],
        jobs: Sequence[Job],
        expected: Mapping[Setting, Path],
        sampling: Sampling,
        order: random.Random,
        built: Callable[[Job], None],
        *,
        attempt: int = 0,
        kernels: bool = False,
        watch: Unwatched | None = None,
        peaks: Mapping[str, Peaks] = NO_PEAKS,
        room: Room | None = None,
        burst_s: float | None = None,
    ) -> None:
        """Prepare a block.

        Args:
            teams: where workers come from. With two teams each has a worker for each job: two
                environments in turns.
            jobs: of one setting; they differ in their `Job.arm` and in their threads.
            expected: the oracle's file of each setting.
            sampling: how long to warm up, and for how long an arm is timed.
            order: draws the order of the arms.
            built: called once with each job, when it has been built.
            attempt: the number of this block's first turns among all that were taken of it.
            kernels: whether to record what each arm runs.
            watch: looks at the GPU in rounds; those at a low clock are set aside.
            peaks: what the host reaches at most, by kind of work (`bench.ceilings`), against
                figures that cannot be of the work.
            room: looks at memory; a `Room` of the case's device if None.
            burst_s: seconds of a burst's timed calls; `BURST_S` if None.

        """
        self._device = jobs[0].case.device
        self._teams = teams
        self._jobs = jobs
        self._expected = expected
        self._sampling = sampling
        self._order = order
        self._built = built
        self._attempts, self._rounds = count(attempt), count()
        self._kernels_too = kernels
        self._watch = watch or Unwatched()
        self._peaks = peaks
        self._room = room or Room(self._device)
        self._burst_s = BURST_S if burst_s is None else burst_s
        self._told: set[Job] = set()
        self._excuses = EXCUSES
        self._workers: dict[tuple[Job, int], Worker] = {}

    def run(self, block: int) -> list[list[Record]]:
        """Build, check, warm and take turns; the records of each team's jobs, however they ended.

        An arm that fails is left out and the others go on: their processes are their own. Where a
        fork server ends, all of the group begin again.
        """
        first = _reference(self._jobs)
        waiting = [self._unit(name) for name in dict.fromkeys(j.implementation for j in self._jobs)]
        self._order.shuffle(waiting)
        waiting.sort(key=lambda unit: _name(unit) != first)  # it is built first, and in one group
        crowded: list[Unit] = []
        done: list[Outcome] = []
        shared: str | None = None
        while waiting:
            group = self._group(waiting, shared)
            news = [unit for unit in group if unit in waiting]
            waiting = [unit for unit in waiting if unit not in news]
            if len(group) > 1:
                crowded += [unit for unit in news if _ran_out(unit)]
            group, news = ([u for u in units if u not in crowded] for units in (group, news))
            done += _kept(group, news)
            shared = shared or _reference([outcome.job for outcome in _alive(done)])
        for unit in crowded:
            group = self._group([unit], shared)
            if len(group) > 1 and _ran_out(unit):
                group = self._group([unit], None)  # without a ratio, rather than nothing
            done += _kept(group, [unit])
        if shared is not None and any(outcome.attempt != done[0].attempt for outcome in done):
            for outcome in done:
                outcome.worker["reference"] = shared
        sides = range(len(self._teams))
        return [[o.record(block) for o in done if o.side == side] for side in sides]

    def _unit(self, implementation: str, *, twin: bool = False) -> Unit:
        """The outcomes of an implementation: of the jobs that were planned, or also their twins."""
        jobs = [job for job in self._jobs if job.implementation == implementation]
        if twin:
            jobs = [
                replace(job, replica=number)
                for job in dict.fromkeys(job.original for job in jobs)
                for number in (0, 1)
            ]
        return [Outcome(job=each, side=side) for each in jobs for side in range(len(self._teams))]

    def _group(self, waiting: Sequence[Unit], shared: str | None) -> list[Unit]:
        """Measure as many of the waiting units as memory holds, beside the shared arm."""
        attempt = next(self._attempts)
        beside = [] if shared is None else [self._unit(shared, twin=True)]
        units = [*beside, *waiting]
        while True:
            for outcome in (outcome for unit in units for outcome in unit):
                outcome.begin()
            try:
                group = self._measured(units, least=len(beside) + 1)
            except _ServerLost:
                continue
            finally:
                for worker in self._workers.values():
                    worker.close()
                self._workers.clear()
            for outcome in (outcome for unit in group for outcome in unit):
                outcome.attempt = attempt
            return group

    def _measured(self, units: Sequence[Unit], *, least: int) -> list[Unit]:
        """Prepare units while there is room; warm the right ones, and have them take turns."""
        group: list[Unit] = []
        for unit in units:
            there = [worker.pid for worker in self._workers.values()]
            if len(group) >= least and not self._room.is_left(there):
                break
            for outcome in unit:
                self._prepare(outcome)
            beside = len(group) >= least and _alive_units(group)
            if beside and _ran_out(unit):
                for outcome in unit:
                    self._end(outcome)
            else:  # one that had no room beside the others is left for another group
                group.append(unit)
        if len(group) < len(units):
            self._pair(group)
        if least == 1 or _alive_units(group[least - 1 :]):
            arms = [outcome for unit in group for outcome in unit]
            for outcome in _alive(arms):
                self._warm(outcome)
            self._take_turns(arms)
            for outcome in _alive(arms):
                self._finish(outcome)
        return group

    def _pair(self, group: list[Unit]) -> None:
        """Give a group that is not all of a block an identical pair, in place of its last unit."""
        if any(outcome.job.replica for unit in group for outcome in unit):
            return
        arms = [outcome for unit in group for outcome in unit]
        shared = _reference([outcome.job for outcome in _alive(arms)])
        if shared is None:
            return
        if len(group) > 1 and _name(group[-1]) != shared:
            for outcome in group.pop():
                self._end(outcome)
        pair = [o for o in self._unit(shared, twin=True) if o.job.replica]
        group.append(pair)
        for outcome in pair:
            self._prepare(outcome)

    def _ask(
        self, outcome: Outcome, op: str, limit_s: float, **more: object
    ) -> dict[str, Any] | None:
        """Ask an arm for something; None where it failed, as its outcome says then."""
        try:
            reply = self._worker(outcome).request({"op": op, **more}, limit_s=limit_s)
        except (WorkerDied, WorkerHung) as error:
            self._lose(outcome, error)
            return None
        if reply["status"] != Status.OK:
            outcome.take(reply)
            self._end(outcome)
            return None
        return reply

    def _worker(self, outcome: Outcome) -> Worker:
        return self._workers[outcome.job, outcome.side]

    def _lose(self, outcome: Outcome, error: WorkerDied | WorkerHung) -> None:
        """Blame an arm for the end of its worker; for that of its server only the third time.

        Raises `_ServerLost` where the others' workers ended with it.
        """
        lost = isinstance(error, ServerDied)
        if lost and self._excuses:
            self._excuses -= 1
        else:
            outcome.fail(error)
            outcome.blamed = lost
            self._end(outcome)
        if lost:
            raise _ServerLost from error

    def _end(self, outcome: Outcome) -> None:
        worker = self._workers.pop((outcome.job, outcome.side), None)
        if worker is not None:
            worker.close()

    def _prepare(self, outcome: Outcome) -> None:
        """Start a worker; have it build its arm and compare it with the oracle."""
        job = outcome.job
        if outcome.blamed:
            return
        try:
            worker = self._teams[outcome.side].worker(job.backend, job.case.threads)
            self._workers[job, outcome.side] = worker
            outcome.worker = {"pid": worker.pid}
            message = request("prepare", job, self._expected[job.setting])
            outcome.take(worker.request(message, limit_s=outcomes.PREPARE_LIMIT_S))
        except (WorkerDied, WorkerHung) as error:
            self._lose(outcome, error)
        finally:
            if outcome.side == 0 and job not in self._told:
                self._told.add(job)
                self._built(job)
        if outcome.status is not Status.OK:
            self._end(outcome)

    def _warm(self, outcome: Outcome) -> None:
        how = {
            "calls": self._sampling.warmup_calls,
            "seconds": self._sampling.warmup_s,
            "burst_s": self._burst_s,
        }
        reply = self._ask(outcome, "warm", outcomes.PREPARE_LIMIT_S, **how)
        if reply is not None:
            outcome.inner, outcome.call_s = reply["inner"], reply["call_s"]
            self._rest(outcome)

    def _take_turns(self, arms: Sequence[Outcome]) -> None:
        """Rounds of bursts, one of each arm, until `rounds_needed` says that they are enough."""
        orders, rounds = self._orders(len(arms)), list[int]()
        while len(rounds) < rounds_needed(_alive(arms), self._sampling.steady_s, self._burst_s):
            rounds.append(next(self._rounds))
            with self._watch.during(rounds[-1]):
                for place in next(orders):
                    if arms[place].status is Status.OK:
                        self._burst(arms[place])
        self._set_aside(_alive(arms), rounds)

    def _orders(self, n: int) -> Iterator[list[int]]:
        """The arms in the order of each round: rows of a balanced design, each there and back."""
        places = self._order.sample(range(n), n)
        for row in count(self._order.randrange(1 << 16)):
            there = [places[place] for place in balanced(n, row)]
            yield there
            yield there[::-1]

    def _burst(self, outcome: Outcome) -> None:
        limit_s = BURST_LIMIT_S + PATIENCE * (self._burst_s + DISCARDED_S + 4 * outcome.call_s)
        reply = self._ask(outcome, "burst", limit_s)
        if reply is None:
            return
        outcome.samples.setdefault("steady", []).append(float(reply["sample"]))
        switches = outcome.worker.get("involuntary_switches", 0)
        outcome.worker["involuntary_switches"] = switches + reply["involuntary_switches"]
        self._rest(outcome)

    def _rest(self, outcome: Outcome) -> None:
        """Wait for the threads of an arm: the next arm is to have the CPUs for itself."""
        if not wait_until_asleep(self._worker(outcome).pid):
            outcome.worker["restless"] = outcome.worker.get("restless", 0) + 1

    def _set_aside(self, arms: Sequence[Outcome], rounds: Sequence[int]) -> None:
        """Take out the rounds at a low clock, of all arms: they stay paired."""
        low = self._watch.low_turns()
        for outcome in arms:
            samples = zip(rounds, outcome.samples["steady"], strict=True)
            outcome.samples["steady"] = [sample for n, sample in samples if n not in low]

    def _finish(self, outcome: Outcome) -> None:
        """Compare an arm with the oracle again, and its figure with what the host can do."""
        if self._ask(outcome, "recheck", BURST_LIMIT_S) is None:
            outcome.reason = f"after the timing: {outcome.reason}"
            return
        if is_gpu(self._device):
            self._by_device(outcome)
        if self._kernels_too and not outcome.job.replica:
            limit_s = BURST_LIMIT_S + PATIENCE * outcome.call_s
            outcomes.look_at_kernels(self._worker(outcome), outcome, limit_s=limit_s)
        case, peaks = outcome.job.case, self._peaks.get(kind_of_work(outcome.job.case))
        if peaks is not None and IMPLEMENTATIONS[outcome.job.implementation].kind in RANKED:
            call_s = median(outcome.samples["steady"])
            reason = check(case, outcome.job.mode, call_s, peaks)
            if reason is not None:
                outcome.status, outcome.reason = Status.IMPLAUSIBLE, reason

    def _by_device(self, outcome: Outcome) -> None:
        """Add samples by the GPU's clock; where that fails it costs these samples and no others."""
        samples = max(4, len(outcome.samples["steady"]))
        limit_s = BURST_LIMIT_S + PATIENCE * samples * outcome.call_s
        message = {"op": "device", "samples": samples}
        try:
            reply = self._worker(outcome).request(message, limit_s=limit_s)
        except (WorkerDied, WorkerHung, OutOfTime) as error:
            reply = {"status": Status.CRASHED, "reason": str(error)}
        if reply["status"] != Status.OK:
            outcome.worker["device"] = f"failed after the turns: {reply['reason']}"
        elif reply["samples"]:
            outcome.samples["device"] = reply["samples"]


def _alive(arms: Sequence[Outcome]) -> list[Outcome]:
    return [outcome for outcome in arms if outcome.status is Status.OK]


def _alive_units(units: Sequence[Unit]) -> bool:
    """Whether an arm of these units is right so far."""
    return any(outcome.status is Status.OK for unit in units for outcome in unit)


def _kept(group: Sequence[Unit], news: Sequence[Unit]) -> list[Outcome]:
    """The outcomes of a group's new units, with those that they took turns with."""
    beside = [unit for unit in group if _alive_units(news) and unit not in news]
    return [outcome for unit in (*beside, *news) for outcome in unit]


def _ran_out(unit: Unit) -> bool:
    """Whether memory ran out for one of these arms."""
    return any(outcome.status is Status.OOM for outcome in unit)


def _name(unit: Unit) -> str:
    return unit[0].job.implementation


def _reference(jobs: Sequence[Job]) -> str | None:
    """The implementation whose arms the groups of a block share, if there are several.

    The one that has an identical twin, else a dynamic strategy, else any other.
    """
    twinned = {job.implementation for job in jobs if job.replica}

    def rank(name: str) -> tuple[bool, bool, bool, str]:
        kind = IMPLEMENTATIONS[name].kind
        return name not in twinned, kind != "dynamic", kind not in RANKED, name

    return min({job.implementation for job in jobs if not job.replica}, key=rank, default=None)


def rounds_needed(arms: Sequence[Outcome], seconds: float, burst_s: float = BURST_S) -> int:
    """Rounds that give every arm a median that is known well enough.

    They end at `seconds` of bursts an arm on average, however noisy the arms are. Their number
    follows the noise of the samples so far, and no other property of them.
    """
    if not arms:
        return 0
    fewest = FEWEST_LONG_ROUNDS if any(arm.call_s >= LONG_S for arm in arms) else FEWEST_ROUNDS
    round_s = sum(max(burst_s, arm.call_s) for arm in arms)
    most = max(fewest, math.floor(seconds * len(arms) / round_s + 1e-9))
    taken = min(len(arm.samples.get("steady", ())) for arm in arms)
    if taken < fewest:
        return fewest
    logs = np.log([arm.samples["steady"][-taken:] for arm in arms])
    if len(arms) > 1:
        logs -= np.median(logs, axis=0)  # a drift that all arms share is no noise of a ratio
    worst = max(stats.median_error(row) for row in logs)
    enough = math.ceil(taken * (1.96 * worst / ROUND_PRECISION) ** 2)
    return min(most, max(fewest, enough))


def balanced(n: int, row: int) -> list[int]:
    """A row of n things; over any n rows in sequence each has had each place once.

    Read there and back, each has also followed every other one twice (Williams 1949: a zigzag,
    moved on by one in each row).
    """
    zigzag = [(place + 1) // 2 if place % 2 else -(place // 2) for place in range(n)]
    return [(step + row) % n for step in zigzag]
