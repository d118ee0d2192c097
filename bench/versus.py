"""Two environments, one host, one sweep: what another version of a framework changes.

Both sides' workers take part in the same blocks and take turns, so that their ratio is paired as
any other across two workers is. Each side leaves a run of its own; the two share a `session`.
"""

from __future__ import annotations

import random
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.api import Case, Mode
from bench import gpus, machine
from bench.block import Block
from bench.ceilings import ceilings, measure_ceilings
from bench.durable import full_disk_told
from bench.engine import Progress, describe, stamped, unmeasured
from bench.errors import UsageError
from bench.estimate import job_seconds
from bench.failures import steady_failures
from bench.interpreters import Interpreters
from bench.launch import Start, Team
from bench.naming import step_name
from bench.noise import Gate
from bench.oracle import NoOracle, ask_oracle
from bench.outcome import in_own_worker
from bench.peaks import Peaks, best
from bench.record import Job, Record, Setting, Status
from bench.run import elsewhere, new_manifest, stop_signals
from bench.store import Run, Store, read_run
from bench.sweep import Sweep
from bench.watch import with_memory

#: The runs' folders within the one that is named.
SIDES = ("old", "new")

#: What a sweep may ask of its sampling, and two sides in turns do not do.
_NOT_HERE = ("precision", "budget_s", "memory_limit_bytes", "behaviour_blocks")

#: How the steady jobs of a side's block failed, by implementation, case and mode.
_Failures = Mapping[tuple[str, Case, Mode], Record]


@dataclass(kw_only=True)
class _Side:
    """One environment: its interpreter, its run, and its workers of the moment."""

    python: Path
    interpreters: Interpreters
    store: Store
    manifest: dict[str, Any]

    def team(self, names: Sequence[str], threads: Sequence[int], scratch: Path) -> Team:
        return Team(
            names,
            threads=threads,
            cpus=self.manifest["cpus"],
            start=self.manifest["start"],
            log=self.store.folder / "workers.log",
            scratch=scratch,
            interpreters=self.interpreters,
        )

    def describe(self, team: Team, names: Sequence[str]) -> None:
        """Write down what its frameworks are: the other side's are others."""
        found = {name: describe(team, name) for name in names}
        for name, said in found.items():
            if "error" in said:
                raise UsageError(f"{self.python}: {name} does not run there: {said['error']}")
        versions = {k: v for said in found.values() for k, v in said["versions"].items()}
        # Not the parent's interpreter, which measures nothing.
        host = {**self.manifest["host"], "python": next(iter(found.values()))["python"]}
        self.manifest.update(backends=found, versions=versions, host=host)
        self.store.write_manifest(self.manifest)

    def end(self, status: str) -> None:
        """Write down how it ended."""
        self.manifest.update(status=status, finished=machine.timestamp())
        self.store.write_manifest(self.manifest)

    def keep(self, records: Sequence[Record], noise: Mapping[str, Any] | None = None) -> None:
        """Write records of one moment together, with what disturbed them where that was watched."""
        if records:
            self.store.extend(stamped(records, noise))


def execute(
    sweep: Sweep,
    folder: Path,
    pythons: tuple[Path, Path],
    *,
    start: Start,
    command: str,
    progress: Progress,
) -> tuple[Run, Run]:
    """Measure a sweep in two environments at once; their runs are in `folder`/old and /new.

    Raises `UsageError` for an interpreter that is not there or lacks a framework of the sweep, and
    for a sweep that asks for more than its blocks. Ctrl-C lets the block that runs end; a second
    one raises `KeyboardInterrupt`.
    """
    check_sampling(sweep)
    environments = [Interpreters.everywhere(path, sorted(sweep.backends())) for path in pythons]
    session = uuid.uuid4().hex
    with ExitStack() as stack:
        sides = [
            _Side(
                python=python,
                interpreters=interpreters,
                store=stack.enter_context(
                    Store.create(
                        folder / name,
                        manifest := {
                            "session": session,
                            **new_manifest(
                                sweep,
                                name,
                                start=start,
                                command=command,
                                interpreters=interpreters,
                            ),
                        },
                    )
                ),
                manifest=manifest,
            )
            for name, python, interpreters in zip(SIDES, pythons, environments, strict=True)
        ]
        stopping = stack.enter_context(stop_signals())
        stack.enter_context(elsewhere(sides[0].manifest["cpus"]))
        status = "failed"
        try:
            with full_disk_told(folder):
                status = _Versus(sweep, sides, progress, stopping).run(folder / "scratch")
        except KeyboardInterrupt:
            status = "interrupted"
            raise
        finally:
            progress.end()
            shutil.rmtree(folder / "scratch", ignore_errors=True)
            with ExitStack() as ends:  # what one side cannot write keeps no other from it
                for side in sides:
                    ends.callback(side.end, status)
    old, new = (read_run(folder / name) for name in SIDES)
    return old, new


def check_sampling(sweep: Sweep) -> None:
    """Raise `UsageError` for what a preset asks for and would be left out without a word."""
    for name in _NOT_HERE:
        value = getattr(sweep.sampling, name)
        if value:
            raise UsageError(
                f"{name} {value!r} of preset {sweep.name}: versus measures a number of blocks of "
                "steady, cold and memory jobs and nothing else; take a preset without it"
            )


class _Versus:
    """The state of both runs while they go."""

    def __init__(
        self,
        sweep: Sweep,
        sides: Sequence[_Side],
        progress: Progress,
        stopping: Callable[[], bool],
    ) -> None:
        self._sweep, self._sides = sweep, sides
        self._progress, self._stopping = progress, stopping
        manifest = sides[0].manifest
        self._order = random.Random(manifest["seed"])
        self._gate = Gate(manifest["cpus"], wait_s=sweep.sampling.quiet_wait_s)
        self._lookout = gpus.lookout(self._gate, sweep.axes.device)
        self._expected: dict[Setting, Path] = {}
        self._peaks: Mapping[str, Peaks] = {}
        self._names = sorted(sweep.backends())

    def run(self, scratch: Path) -> str:
        """Every block of the sweep, both sides in each; returns the manifests' status."""
        scratch.mkdir(exist_ok=True)
        counts = self._sweep.sampling.counts()
        # Identical pairs in two workers too: the sides are two workers, and differ as those do.
        jobs = [job for measure in counts for job in self._sweep.jobs(measure)]
        self._progress.begin(
            sum(
                2 * counts[job.measure] * self._seconds(job)
                for job in jobs
                if self._sweep.cap(job) is None
            )
        )
        settings = list(dict.fromkeys(job.setting for job in jobs))
        size = self._sweep.sampling.blocks_per_server
        for first in range(0, max(counts.values()), size):
            with ExitStack() as stack:
                teams = [
                    stack.enter_context(side.team(self._names, self._sweep.threads(), scratch))
                    for side in self._sides
                ]
                if first == 0:
                    for side, team in zip(self._sides, teams, strict=True):
                        side.describe(team, self._names)
                    if counts.get("steady"):
                        self._peaks = self._ceilings(teams)
                for block in range(first, min(first + size, max(counts.values()))):
                    self._order.shuffle(settings)
                    for setting in settings:
                        if self._stopping():
                            return "interrupted"
                        held = [
                            job
                            for job in jobs
                            if job.setting == setting and block < counts[job.measure]
                        ]
                        self._block(teams, block, held, scratch)
        return "finished"

    def _ceilings(self, teams: Sequence[Team]) -> dict[str, Peaks]:
        """The host's peaks by the better of both sides; each side's manifest has its own."""
        found: dict[str, Peaks] = {}
        for side, team in zip(self._sides, teams, strict=True):
            side.manifest["peaks"] = measure_ceilings(team, self._sweep, self._names)
            side.store.write_manifest(side.manifest)
            for name, peaks in ceilings(side.manifest).items():
                found[name] = best(found[name], peaks) if name in found else peaks
        return found

    def _block(self, teams: Sequence[Team], block: int, jobs: Sequence[Job], scratch: Path) -> None:
        """A steady block of both sides, then their other jobs."""
        jobs = self._uncapped(jobs, block)
        if not jobs:
            return
        try:
            expected = self._oracle(teams[0], jobs[0].setting, scratch)
        except NoOracle as error:
            # Without it nothing of this case can be believed; the other cases go on.
            for side in self._sides:
                side.keep([unmeasured(job, block, error.status, str(error)) for job in jobs])
            for job in jobs:
                self._advance(job, 2.0)
            return
        steady = [job for job in jobs if job.measure == "steady"]
        failed = self._steady(teams, block, steady)
        others = [job for job in jobs if job.measure != "steady"]
        self._order.shuffle(others)
        for number, job in enumerate(others):
            self._alone(teams, block, job, failed, expected, first=(number + block) % 2)

    def _oracle(self, team: Team, setting: Setting, scratch: Path) -> Path:
        """The file with what every implementation of a setting must compute; for both sides."""
        if setting not in self._expected:
            path = scratch / f"expected-{len(self._expected)}.npz"
            ask_oracle(team, *setting, path)
            self._expected[setting] = path
        return self._expected[setting]

    def _steady(
        self, teams: Sequence[Team], block: int, jobs: Sequence[Job]
    ) -> tuple[_Failures, ...]:
        """Both sides' steady jobs in turns; returns what failed of each side."""
        if not jobs:
            return tuple({} for _ in self._sides)
        self._gate.wait()
        device = jobs[0].case.device
        watch = self._lookout.begin(device)
        work = Block(
            teams,
            jobs,
            self._expected,
            self._sweep.sampling,
            self._order,
            lambda job: self._advance(job, 1.0),
            kernels=block == 0,
            watch=watch,
            peaks=self._peaks,
        )
        of_sides, noise = work.run(block), self._lookout.end(device)
        for side, found in zip(self._sides, of_sides, strict=True):
            side.keep(found, noise)
        for job in jobs:
            self._advance(job, 1.0)
        return tuple(steady_failures(found, block) for found in of_sides)

    def _alone(
        self,
        teams: Sequence[Team],
        block: int,
        job: Job,
        failed: Sequence[_Failures],
        expected: Path,
        *,
        first: int,
    ) -> None:
        """A cold or a memory job on one side, then on the other; `first` says on which.

        A side on which the steady job failed has that end here too; the other one is measured.
        """
        for n in (first, 1 - first):
            before = failed[n].get((job.implementation, job.case, job.mode))
            if before is None:
                watch = self._lookout.begin(job.case.device)
                with watch.during(None):
                    record = in_own_worker(teams[n], job, block, expected)
                noise = self._lookout.end(job.case.device)
                self._sides[n].keep([with_memory(record, watch)], noise)
            else:
                self._sides[n].keep([unmeasured(job, block, before.status, before.reason)])
            self._advance(job, 1.0)

    def _uncapped(self, jobs: Sequence[Job], block: int) -> list[Job]:
        """The jobs that the sweep does not leave out; of the others both runs say why."""
        caps = {job: self._sweep.cap(job) for job in jobs}
        known = [
            unmeasured(job, block, Status.CAPPED, cap)
            for job, cap in caps.items()
            if cap is not None
        ]
        for side in self._sides:
            side.keep(known)
        return [job for job in jobs if caps[job] is None]

    def _seconds(self, job: Job) -> float:
        return job_seconds(job, self._sweep.sampling)

    def _advance(self, job: Job, share: float) -> None:
        self._progress.advance(share * self._seconds(job), step_name(job))
