"""A whole run: generations of workers, blocks in random order, records as they come."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

from backends import BACKENDS, missing
from backends.api import Case, Mode
from bench import machine
from bench.block import Block, alone, backend_of
from bench.errors import UsageError
from bench.estimate import job_seconds, runnable
from bench.launch import Start, Team, WorkerDied, WorkerHung
from bench.record import EXPECTED, Job, Measure, Record, Run, Status, Store, read_run
from bench.selection import absent_backends
from bench.sweep import Sweep

#: A probe imports a framework and asks it for its devices.
DESCRIBE_LIMIT_S = 180.0

#: The oracle is slow and obvious, not fast.
ORACLE_LIMIT_S = 1800.0


#: Variables of the caller's that reach the workers and can move a figure.
_FLAG_PREFIXES = ("JAX_", "KMP_", "MKL_", "OMP_", "OPENBLAS_", "PJRT_", "TF_", "TORCH", "XLA_")


class Progress(Protocol):
    """Somebody who watches. Seconds are estimates: shares of the whole, not promises."""

    def begin(self, total_s: float) -> None:
        """The run starts and is estimated at so many seconds."""

    def advance(self, seconds: float, label: str) -> None:
        """So many of them are done; `label` says what was."""

    def end(self) -> None:
        """The run is over, however it ended."""


class Silent:
    """A `Progress` that shows nothing."""

    def begin(self, total_s: float) -> None:
        pass

    def advance(self, seconds: float, label: str) -> None:
        pass

    def end(self) -> None:
        pass


def chosen_cpus(threads: int) -> list[int]:
    """CPUs to pin workers to: the last ones, since others' work tends to the first."""
    available = machine.available_cpus()
    if not 1 <= threads <= len(available):
        raise UsageError(
            f"threads {threads}: must be between 1 and {len(available)}, the CPUs here"
        )
    return available[-threads:]


def describe_backends(threads: int = 1) -> dict[str, dict[str, Any]]:
    """What each backend says of itself in a worker of its own: versions, threads, devices.

    A backend that is not there has the one key "error".
    """
    result: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="rnn-bench-") as scratch:
        names = [name for name in BACKENDS if missing(name) is None]
        with Team(
            names,
            threads=threads,
            cpus=chosen_cpus(threads),
            start="spawn",
            log=Path(scratch, "log"),
            scratch=Path(scratch),
        ) as team:
            for name in BACKENDS:
                reason = missing(name)
                result[name] = {"error": reason} if reason else _describe(team, name)
    return result


def _describe(team: Team, backend: str) -> dict[str, Any]:
    try:
        with team.worker(backend) as worker:
            reply = worker.request({"op": "describe"}, limit_s=DESCRIBE_LIMIT_S)
    except (WorkerDied, WorkerHung) as error:
        return {"error": str(error)}
    if reply["status"] != Status.OK:
        return {"error": str(reply["reason"]).strip().splitlines()[-1]}
    return {key: reply[key] for key in ("versions", "threads", "devices")}


def check_devices(sweep: Sweep) -> None:
    """Raise `UsageError` for a device that no chosen framework finds on this host."""
    wanted = [device for device in sweep.axes.device if device != "cpu"]
    if not wanted:
        return
    chosen = {entry.backend for entry in sweep.implementations()}
    found = {name: info.get("devices", {}) for name, info in describe_backends().items()}
    there = sorted({device for name in chosen for device in found[name]})
    for device in wanted:
        if device not in there:
            raise UsageError(f"device {device!r}: not found on this host; here: {', '.join(there)}")


def execute(
    sweep: Sweep,
    folder: Path,
    *,
    threads: int,
    start: Start,
    command: str,
    progress: Progress,
) -> Run:
    """Run a sweep into a new folder and read it back.

    Raises `UsageError` where the folder holds anything. An interrupted run keeps its records, says
    so in its manifest, and raises `KeyboardInterrupt` again.
    """
    cpus = chosen_cpus(threads)
    manifest: dict[str, Any] = {
        "id": folder.name,
        "created": machine.timestamp(),
        "finished": None,
        "status": "running",
        "command": command,
        "sweep": sweep.to_json(),
        "threads": threads,
        "cpus": cpus,
        "start": start,
        "seed": random.SystemRandom().randrange(1 << 32),
        "host": machine.describe(),
        "commit": machine.commit(),
        "versions": machine.versions(),
        "environment": {
            name: dict(BACKENDS[name].environment(threads)) for name in sorted(_backends_of(sweep))
        },
        "inherited": {
            name: value for name, value in os.environ.items() if name.startswith(_FLAG_PREFIXES)
        },
        "load_before": machine.load(),
        "pressure_before": machine.pressure(),
        "backends": {},
        "notes": {},
    }
    store = Store.create(folder, manifest)
    engine = _Engine(sweep, store, manifest, threads=threads, cpus=cpus, start=start)
    try:
        engine.run(progress)
        manifest["status"] = "finished"
    except BaseException as error:
        manifest["status"] = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        raise
    finally:
        progress.end()
        manifest.update(
            finished=machine.timestamp(),
            load_after=machine.load(),
            pressure_after=machine.pressure(),
        )
        store.write_manifest(manifest)
    return read_run(folder)


def _backends_of(sweep: Sweep) -> set[str]:
    return {entry.backend for entry in sweep.implementations() + sweep.limits()}


class _Engine:
    """The state of a run while it goes."""

    def __init__(
        self,
        sweep: Sweep,
        store: Store,
        manifest: dict[str, Any],
        *,
        threads: int,
        cpus: Sequence[int],
        start: Start,
    ) -> None:
        self._sweep = sweep
        self._store = store
        self._manifest = manifest
        self._threads, self._cpus, self._start = threads, cpus, start
        self._order = random.Random(manifest["seed"])
        self._expected: dict[Case, Path] = {}

    def run(self, progress: Progress) -> None:
        """Every block of the sweep. A generation of servers lives for one block of each case."""
        self._progress = progress
        sampling = self._sweep.sampling
        counts = sampling.counts()
        absent = absent_backends(self._sweep)
        progress.begin(
            sum(
                n * job_seconds(job, sampling)
                for measure, n in counts.items()
                for job in runnable(self._sweep, measure, absent)
            )
        )
        present = sorted(_backends_of(self._sweep) - absent.keys())
        with self._scratch() as scratch:
            for block in range(max(counts.values())):
                with self._team(present, scratch) as team:
                    if block == 0:
                        self._describe(team, present)
                    measures = [m for m, n in counts.items() if block < n]
                    groups = self._groups()
                    self._order.shuffle(groups)
                    for case, mode in groups:
                        self._block(team, block, case, mode, measures)

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        folder = Path(tempfile.mkdtemp(prefix="rnn-bench-"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _team(self, names: Sequence[str], scratch: Path) -> Team:
        return Team(
            names,
            threads=self._threads,
            cpus=self._cpus,
            start=self._start,
            log=self._store.folder / "workers.log",
            scratch=scratch,
        )

    def _describe(self, team: Team, present: Sequence[str]) -> None:
        self._manifest["backends"] = {name: _describe(team, name) for name in present}
        self._manifest["notes"] = dict(team.notes)
        self._store.write_manifest(self._manifest)

    def _groups(self) -> list[tuple[Case, Mode]]:
        return [(case, mode) for case in self._sweep.cases() for mode in self._sweep.modes()]

    def _oracle(self, team: Team, case: Case) -> Path:
        """The file with what every implementation of the case must compute; once a run."""
        if case not in self._expected:
            path = team.scratch / f"expected-{len(self._expected)}.npz"
            with team.worker("reference") as worker:
                message = {"op": "expect", "case": asdict(case), "path": str(path)}
                reply = worker.request(message, limit_s=ORACLE_LIMIT_S)
            if reply["status"] != Status.OK:
                raise RuntimeError(f"the oracle failed on {case}: {reply['reason']}")
            self._expected[case] = path
        return self._expected[case]

    def _block(
        self, team: Team, block: int, case: Case, mode: Mode, measures: Sequence[Measure]
    ) -> None:
        """The steady block of a case and mode, then its cold and memory jobs in random order."""
        expected = self._oracle(team, case)
        settled: dict[str, Record] = {}
        if "steady" in measures:
            waiting = self._settle(block, case, mode, "steady", settled)
            steady = Block(
                team, waiting, expected, self._sweep.sampling, self._order, self._half_done
            )
            for record in steady.run(block):
                self._keep(record)
                self._half_done(record.job)
                if record.status != Status.OK:
                    settled[record.job.implementation] = record
        for measure in ("cold", "memory"):
            if measure in measures:
                jobs = self._settle(block, case, mode, measure, settled)
                self._order.shuffle(jobs)
                for job in jobs:
                    self._keep(alone(team, job, block, expected))
                    self._advance(job, 1.0)

    def _settle(
        self, block: int, case: Case, mode: Mode, measure: Measure, settled: Mapping[str, Record]
    ) -> list[Job]:
        """Write the records of jobs whose end is known without running; return the others.

        What was wrong, unsupported or crashed in the steady block of the same case is not measured
        in another way either.
        """
        waiting: list[Job] = []
        for job in self._sweep.jobs(measure):
            if job.case != case or job.mode != mode:
                continue
            reason, cap = missing(backend_of(job)), self._sweep.cap(job)
            before = settled.get(job.implementation)
            if reason is not None:
                self._keep(_unmeasured(job, block, Status.UNAVAILABLE, reason))
            elif cap is not None:
                self._keep(_unmeasured(job, block, Status.CAPPED, cap))
            elif before is not None:
                self._keep(_unmeasured(job, block, before.status, before.reason))
            else:
                waiting.append(job)
        return waiting

    def _keep(self, record: Record) -> None:
        state = {"at": machine.timestamp(), "load": machine.load()}
        self._store.append(replace(record, worker={**record.worker, **state}))

    def _half_done(self, job: Job) -> None:
        """Tell of a steady job once when it has been built, and once when it has been timed."""
        self._advance(job, 0.5)

    def _advance(self, job: Job, share: float) -> None:
        label = f"{job.implementation} T={job.case.seq_len} {job.mode} {job.measure}"
        self._progress.advance(share * job_seconds(job, self._sweep.sampling), label)


def _unmeasured(job: Job, block: int, status: Status, reason: str) -> Record:
    return Record(job=job, block=block, status=status, reason=reason)


def failed(run: Run) -> list[Record]:
    """Records of jobs that ended in a way that nobody planned."""
    return [record for record in run.records if record.status not in EXPECTED]
