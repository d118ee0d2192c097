"""The blocks of a run in their order: looks, generations of servers, who is left out, when to stop.

A **look** is a number of blocks of each case after which it is asked what is known well enough.
Without a wanted precision there is one; with one there are at most three, and the later ones hold
only what is not settled.
"""

from __future__ import annotations

import math
import random
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from bench import durable, gpus, machine
from bench.block import Block
from bench.capacity import capacity
from bench.ceilings import ceilings, measure_ceilings
from bench.estimate import job_seconds
from bench.evidence import Group, groups_of
from bench.failures import steady_failures
from bench.interpreters import OWN, Interpreters
from bench.launch import OutOfTime, Start, Team
from bench.looks import unsettled
from bench.naming import step_name
from bench.noise import Gate
from bench.oracle import NoOracle, ask_oracle
from bench.outcome import in_own_worker
from bench.peaks import Peaks
from bench.record import Job, Record, Setting, Status
from bench.selection import absent_backends
from bench.sources import WorkerDied, WorkerHung
from bench.store import Run, Store
from bench.sweep import Sweep
from bench.watch import with_memory

#: What has begun may take so many budgets, since estimates err, and is cut off then. One that does
#: not answer for that share of a budget hangs: it must not take the others' time.
OVERRUN = 1.25
HANG_SHARE = 1 / 3

#: A probe imports a framework and asks it for its devices.
DESCRIBE_LIMIT_S = 180.0


class Progress(Protocol):
    """Progress observer. Durations are estimates."""

    def begin(self, total_s: float) -> None:
        """The run starts and is estimated at so many seconds."""

    def extend(self, seconds: float) -> None:
        """So many more have become necessary."""

    def advance(self, seconds: float, label: str) -> None:
        """So many of them are done; `label` says what was."""

    def end(self) -> None:
        """The run is over, however it ended."""


class _Halted(Exception):
    """The run ends before its plan does; the message is the manifest's status."""


class Engine:
    """The state of a run while it goes."""

    def __init__(
        self,
        sweep: Sweep,
        store: Store,
        manifest: dict[str, Any],
        *,
        cpus: Sequence[int],
        start: Start,
        gate: Gate,
        stopping: Callable[[], bool],
        earlier: Sequence[Record] = (),
        interpreters: Interpreters = OWN,
    ) -> None:
        """`earlier` are the records of a run that is resumed; `stopping` says to start no more."""
        self._sweep = sweep
        self._store = store
        self._manifest = manifest
        self._cpus, self._start = cpus, start
        self._gate = gate
        self._stopping = stopping
        self._records = list(earlier)
        self._done = {(record.job, record.block) for record in earlier}
        self._order = random.Random(manifest["seed"])
        self._expected: dict[Setting, Path] = {}
        self._peaks: Mapping[str, Peaks] = {}
        self._jobs: dict[Setting, list[Job]] = defaultdict(list)
        for job in (job for measure in sweep.sampling.counts() for job in sweep.jobs(measure)):
            self._jobs[job.setting].append(job)
        self._interpreters = interpreters
        self._lookout = gpus.lookout(gate, sweep.axes.device)
        self._absent = absent_backends(sweep, interpreters)

    def run(self, progress: Progress) -> str:
        """Measure every block that has no record yet; returns the manifest's status."""
        self._progress = progress
        self._began_s, self._spent_s = time.monotonic(), 0.0
        sampling = self._sweep.sampling
        self._budget_s = sampling.budget_s or math.inf
        n, end = sampling.blocks, max(sampling.counts().values())
        looks = [range(end)]
        if sampling.precision is not None:
            looks += [range(end, end + n), range(end + n, end + 3 * n)]
        settings: Sequence[Setting] = list(self._jobs)
        progress.begin(self._seconds(settings, looks[0]))
        try:
            with durable.full_disk_told(self._store.folder), self._scratch() as scratch:
                for number, blocks in enumerate(looks):
                    if number and sampling.precision is not None:
                        # What a resumed run has of this look already must not make another one.
                        settings = unsettled(self._groups(blocks.start), sampling.precision)
                        progress.extend(self._seconds(settings, blocks))
                    for few in _parts(blocks, sampling.blocks_per_server):
                        self._generation(settings, few, scratch)
        except _Halted as halted:
            return str(halted)
        except OutOfTime:
            return "out of budget"
        return "finished"

    def _groups(self, end: int) -> list[Group]:
        """Groups of jobs as the blocks before this one leave them."""
        before = [record for record in self._records if record.block < end]
        folder = self._store.folder
        run = Run(folder=folder, manifest=self._manifest, records=before, faults=[])
        return groups_of(run, folder.name)[0]

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        """A folder within the run's, so that what a killed run leaves is found and removed."""
        folder = self._store.folder / "scratch"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        self._expected.clear()
        try:
            yield folder.resolve()
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _generation(
        self, settings: Sequence[Setting], blocks: Sequence[int], scratch: Path
    ) -> None:
        """Some blocks of each setting, their workers forked from the same servers."""
        if not any(self._open(setting, block) for setting in settings for block in blocks):
            return
        present = sorted(set(self._sweep.backends()) - self._absent.keys())
        with Team(
            present,
            threads=self._sweep.threads(),
            cpus=self._cpus,
            start=self._start,
            log=self._store.folder / "workers.log",
            scratch=scratch,
            deadline_s=self._began_s + OVERRUN * self._budget_s,
            longest_s=HANG_SHARE * self._budget_s,
            interpreters=self._interpreters,
        ) as team:
            if not self._manifest["backends"]:
                self._manifest["backends"] = {name: describe(team, name) for name in present}
                if self._sweep.sampling.blocks:
                    self._manifest["peaks"] = measure_ceilings(team, self._sweep, present)
                self._store.write_manifest(self._manifest)
            self._peaks = ceilings(self._manifest)
            self._manifest["notes"].update(team.notes)
            for block in blocks:
                shuffled = list(settings)
                self._order.shuffle(shuffled)
                for setting in shuffled:
                    self._block(team, block, setting)

    def _open(self, setting: Setting, block: int) -> list[Job]:
        """The jobs of a setting that this block holds and that have no record of it."""
        counts = self._sweep.sampling.counts()
        later = block >= max(counts.values())
        return [
            job
            for job in self._jobs[setting]
            if (job, block) not in self._done
            and (block < counts[job.measure] or (later and job.measure == "steady"))
        ]

    def _seconds(self, settings: Sequence[Setting], blocks: Sequence[int]) -> float:
        """Estimated seconds of all that is open."""
        return sum(
            self._estimate(job)
            for setting in settings
            for block in blocks
            for job in self._open(setting, block)
            if job.backend not in self._absent and self._sweep.cap(job) is None
        )

    def _block(self, team: Team, block: int, setting: Setting) -> None:
        """The steady block of a setting, then its other jobs in random order."""
        jobs = self._open(setting, block)
        if not jobs:
            return
        self._go_on(0.0)
        try:
            expected = self._oracle(team, setting)
        except NoOracle as error:
            # Without it nothing of this case can be believed; the other cases go on.
            waiting = self._settle(jobs, block)
            self._keep([unmeasured(job, block, error.status, str(error)) for job in waiting])
            for job in waiting:
                self._advance(job, 1.0)
            return
        device = setting[0].device
        steady = self._settle([job for job in jobs if job.measure == "steady"], block)
        if steady:
            self._gate.wait()
            self._go_on(sum(self._estimate(job) for job in steady))
            watch = self._lookout.begin(device)
            work = Block(
                [team],
                steady,
                self._expected,
                self._sweep.sampling,
                self._order,
                self._half_done,
                attempt=self._next_attempt(setting, block),
                kernels=block == 0,
                watch=watch,
                peaks=self._peaks,
            )
            (records,) = work.run(block)
            self._keep(records, self._lookout.end(device))
            for job in steady:
                self._half_done(job)
        others = self._settle([job for job in jobs if job.measure != "steady"], block)
        self._order.shuffle(others)
        if not self._sweep.sampling.blocks and any(job.measure == "cold" for job in others):
            self._gate.wait()  # where steady blocks are, theirs is the wait
        for job in others:
            self._go_on(self._estimate(job))
            watch = self._lookout.begin(device)
            with watch.during(None):
                if job.measure == "capacity":
                    record = capacity(team, job, block, self._sweep, lambda: self._go_on(0.0))
                else:
                    record = in_own_worker(team, job, block, expected)
            self._keep([with_memory(record, watch)], self._lookout.end(device))
            self._advance(job, 1.0)

    def _settle(self, jobs: Sequence[Job], block: int) -> list[Job]:
        """Write the records of jobs whose end is known without running; return the others.

        What was wrong, unsupported or crashed in the steady block of the same case is not measured
        in another way either.
        """
        failed = steady_failures(self._records, block)
        waiting: list[Job] = []
        known: list[Record] = []
        for job in jobs:
            reason, cap = self._absent.get(job.backend), self._sweep.cap(job)
            before = failed.get((job.implementation, job.case, job.mode))
            if reason is not None:
                known.append(unmeasured(job, block, Status.UNAVAILABLE, reason))
            elif cap is not None:
                known.append(unmeasured(job, block, Status.CAPPED, cap))
            elif before is not None and job.measure != "steady":
                known.append(unmeasured(job, block, before.status, before.reason))
            else:
                waiting.append(job)
        self._keep(known)
        return waiting

    def _keep(self, records: Sequence[Record], noise: Mapping[str, Any] | None = None) -> None:
        """Write records of one moment together: what is paired is there whole or not at all."""
        if not records:
            return
        kept = stamped(records, noise)
        self._store.extend(kept)
        self._records += kept
        self._done |= {(record.job, record.block) for record in kept}

    def _next_attempt(self, setting: Setting, block: int) -> int:
        """The number of the next turns of a block: a resumed run may have some of it."""
        taken = [
            record.attempt
            for record in self._records
            if record.block == block
            and record.job.measure == "steady"
            and record.job.setting == setting
        ]
        return max(taken, default=-1) + 1

    def _oracle(self, team: Team, setting: Setting) -> Path:
        """The file with what every implementation of a setting must compute; once a run."""
        if setting not in self._expected:
            path = team.scratch / f"expected-{len(self._expected)}.npz"
            ask_oracle(team, *setting, path)
            self._expected[setting] = path
        return self._expected[setting]

    def _go_on(self, next_s: float) -> None:
        """Raise `_Halted` where the run was told to stop, or where `next_s` more do not fit in."""
        if self._stopping():
            raise _Halted("interrupted")
        budget_s = self._budget_s
        if math.isinf(budget_s):
            return
        elapsed_s = time.monotonic() - self._began_s
        # Estimates are of another machine: held against what has been seen of this one so far.
        pace = elapsed_s / self._spent_s if self._spent_s > 0.02 * budget_s else 1.0
        if elapsed_s + next_s * pace > budget_s:
            raise _Halted("out of budget")

    def _estimate(self, job: Job) -> float:
        return job_seconds(job, self._sweep.sampling, longest=self._sweep.longest(job))

    def _half_done(self, job: Job) -> None:
        """Tell of a steady job once when it has been built, and once when it has been timed."""
        self._advance(job, 0.5)

    def _advance(self, job: Job, share: float) -> None:
        seconds = share * self._estimate(job)
        self._spent_s += seconds
        self._progress.advance(seconds, step_name(job))


def describe(team: Team, backend: str) -> dict[str, Any]:
    """Ask a backend for its description in a worker of its own; {"error": reason} if it fails."""
    try:
        with team.worker(backend) as worker:
            reply = worker.request({"op": "describe"}, limit_s=DESCRIBE_LIMIT_S)
    except (WorkerDied, WorkerHung) as error:
        return {"error": str(error)}
    if reply["status"] != Status.OK:
        return {"error": str(reply["reason"]).strip().splitlines()[-1]}
    return {name: value for name, value in reply.items() if name not in ("status", "pid")}


def _parts(blocks: range, size: int) -> list[range]:
    return [blocks[start : start + size] for start in range(0, len(blocks), size)]


def stamped(records: Sequence[Record], noise: Mapping[str, Any] | None = None) -> list[Record]:
    """Records with when they were kept, and what disturbed them where that was watched."""
    state: dict[str, Any] = {"at": machine.timestamp(), "load": machine.load()}
    if noise is not None:
        state["noise"] = noise
    return [replace(record, worker={**record.worker, **state}) for record in records]


def unmeasured(job: Job, block: int, status: Status, reason: str) -> Record:
    """The record of a job whose end is known without running it."""
    return Record(job=job, block=block, status=status, reason=reason)
