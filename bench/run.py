"""A run on this host: what it is made on, who may stop it, and where its records go."""

from __future__ import annotations

import os
import random
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, get_args

from backends import BACKENDS
from backends.devices import is_gpu
from bench import gpus, machine, strict
from bench.ceilings import ceilings
from bench.engine import Engine, Progress, describe
from bench.errors import UsageError
from bench.hosts import session_of
from bench.interpreters import OWN, Interpreters
from bench.launch import Start, Team
from bench.noise import Gate
from bench.record import EXPECTED, Record
from bench.resume import require_same, sweep_of
from bench.sources import is_flags
from bench.store import Run, Store, read_run
from bench.sweep import Sweep

#: Variables of the caller's that reach the workers and can move a figure.
_FLAG_PREFIXES = (
    "CUDA_",
    "JAX_",
    "KMP_",
    "MKL_",
    "OMP_",
    "OPENBLAS_",
    "PJRT_",
    "TF_",
    "TORCH",
    "XLA_",
)

#: Terraform's, which has the same first letters.
_OTHERS_PREFIXES = ("TF_CLI_", "TF_DATA_", "TF_VAR_")


class Silent:
    """A `Progress` that shows nothing."""

    def begin(self, total_s: float) -> None:
        pass

    def extend(self, seconds: float) -> None:
        pass

    def advance(self, seconds: float, label: str) -> None:
        pass

    def end(self) -> None:
        pass


def chosen_cpus(threads: int) -> list[int]:
    """CPUs to pin workers to: the last ones, since others' work tends to the first.

    Raises `UsageError` where there are not as many as threads.
    """
    available = machine.available_cpus()
    if not 1 <= threads <= len(available):
        raise UsageError(
            f"threads {threads}: must be between 1 and {len(available)}, the CPUs here"
        )
    return available[-threads:]


def describe_backends(interpreters: Interpreters = OWN) -> dict[str, dict[str, Any]]:
    """Describe each backend from a worker of its own: versions, threads, devices.

    A backend that is not there has the one key "error".
    """
    result: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="rnn-bench-") as scratch:
        names = [name for name in BACKENDS if interpreters.missing(name) is None]
        with Team(
            names,
            cpus=chosen_cpus(1),
            start="spawn",
            log=Path(scratch, "log"),
            scratch=Path(scratch),
            interpreters=interpreters,
        ) as team:
            for name in BACKENDS:
                reason = interpreters.missing(name)
                result[name] = {"error": reason} if reason else describe(team, name)
    return result


def check_devices(sweep: Sweep, interpreters: Interpreters = OWN) -> None:
    """Raise `UsageError` for a device that no chosen framework finds on this host."""
    wanted = [device for device in sweep.axes.device if device != "cpu"]
    if not wanted:
        return
    chosen = {entry.backend for entry in sweep.implementations()}
    here = describe_backends(interpreters=interpreters)
    for device in wanted:
        if not any(device in here[name].get("devices", {}) for name in chosen):
            there = dict.fromkeys(d for name in chosen for d in here[name].get("devices", {}))
            reasons = [info["no_gpu"] for name in chosen if (info := here[name]).get("no_gpu")]
            said = "; ".join([f"here: {', '.join(there)}", *sorted(reasons)])
            raise UsageError(f"device {device!r}: no framework finds it; {said}")


def conditions(sweep: Sweep, *, start: Start, interpreters: Interpreters = OWN) -> dict[str, Any]:
    """Conditions that must be the same for all records of one run: host, versions, settings.

    Raises `UsageError` where the sweep has more threads than this host has CPUs.
    """
    threads = sweep.threads()
    return {
        "cpus": chosen_cpus(threads[-1]),
        "start": start,
        "host": _host(sweep),
        "commit": machine.commit(),
        "versions": interpreters.versions(),
        "interpreters": interpreters.to_json(),
        # Of the workers with the most threads.
        "environment": {
            name: dict(BACKENDS[name].environment(threads[-1])) for name in sorted(sweep.backends())
        },
        "inherited": _inherited(sweep),
    }


def _host(sweep: Sweep) -> dict[str, Any]:
    """Describe the host; its GPUs too if the sweep is measured on one."""
    host = machine.describe()
    if any(is_gpu(device) for device in sweep.axes.device):
        host["gpus"] = [gpu.to_json() for gpu in gpus.found()]
    return host


def _inherited(sweep: Sweep) -> dict[str, str]:
    """The caller's variables that reach a worker: not those that its backend replaces."""
    ours = [BACKENDS[name].environment(1) for name in sweep.backends()]
    common = set(ours[0]).intersection(*ours)
    replaced = {name for name in common if not is_flags(name, os.environ.get(name))}
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith(_FLAG_PREFIXES)
        and not name.startswith(_OTHERS_PREFIXES)
        and name not in replaced
    }


def new_manifest(
    sweep: Sweep,
    name: str,
    *,
    start: Start,
    command: str,
    interpreters: Interpreters = OWN,
) -> dict[str, Any]:
    """The manifest of a run that starts now. Raises `UsageError` for too many threads."""
    return {
        "id": name,
        "created": machine.timestamp(),
        "finished": None,
        "status": "running",
        "command": command,
        "sweep": sweep.to_json(),
        **conditions(sweep, start=start, interpreters=interpreters),
        "seed": random.SystemRandom().randrange(1 << 32),
        "backends": {},
        "notes": {},
    }


def _state(when: str) -> dict[str, Any]:
    return {f"load_{when}": machine.load(), f"pressure_{when}": machine.pressure()}


def execute(
    sweep: Sweep,
    folder: Path,
    *,
    start: Start,
    command: str,
    progress: Progress,
    interpreters: Interpreters = OWN,
) -> Run:
    """Run a sweep into a new folder and read it back.

    Raises `UsageError` where the folder holds anything, `StoreError` where it cannot be written to
    any more. Ctrl-C once lets the block that runs end and is told by the manifest's status; a
    second one, or SIGTERM, raises `KeyboardInterrupt` at once. Either way records are kept.
    """
    manifest = new_manifest(
        sweep,
        folder.name,
        start=start,
        command=command,
        interpreters=interpreters,
    )
    manifest |= _state("before")
    with Store.create(folder, manifest) as store:
        return _measure(sweep, store, manifest, interpreters, earlier=[], progress=progress)


def resume(folder: Path, *, progress: Progress) -> Run:
    """Complete a run: each of its jobs has one record afterwards, and none a second one.

    Raises `UsageError` for a folder without a run, for one side of two that took turns, for a run
    that another process writes, and where this host, its versions or settings are not those of the
    run. A run that is whole stays as it is.
    """
    earlier = read_run(folder)
    if session_of(earlier.manifest):
        raise UsageError(
            f"run {folder}: is one of two that `versus` measured in turns, and cannot be resumed; "
            "start versus again"
        )
    if earlier.protocol != "bursts":
        raise UsageError(
            f"run {folder}: was begun by an earlier version, which took turns in another way, and "
            "cannot be completed; start it again"
        )
    sweep = sweep_of(earlier.manifest)
    start = earlier.manifest.get("start")
    if start not in get_args(Start):
        raise UsageError(f"run {folder}: its manifest does not say start")
    how: Start = "spawn" if start == "spawn" else "fork"
    interpreters = Interpreters.again(earlier.manifest.get("interpreters"))
    now = conditions(sweep, start=how, interpreters=interpreters)
    require_same(earlier.manifest, now)
    with Store.resume(folder) as store:
        # Read again: what the other process wrote before it let go of the folder is there now.
        earlier = read_run(folder)
        manifest: dict[str, Any] = {**earlier.manifest, "status": "running", "finished": None}
        manifest |= {"cpus": now["cpus"], **_carried(earlier)}
        manifest["resumed"] = [
            *manifest["resumed"],
            {"at": machine.timestamp(), "records": len(earlier.records), **_state("before")},
        ]
        store.write_manifest(manifest)
        return _measure(
            sweep, store, manifest, interpreters, earlier=earlier.records, progress=progress
        )


def _carried(run: Run) -> dict[str, Any]:
    """State with which a manifest is resumed. Raises `UsageError` if it is of another kind."""
    held = run.manifest
    try:
        ceilings(held)
        return {
            "backends": strict.mapping(held.get("backends") or {}, "backends"),
            "notes": strict.mapping(held.get("notes") or {}, "notes"),
            "seed": strict.whole(held.get("seed"), "seed", least=0),
            "resumed": strict.listed(held.get("resumed", []), "resumed"),
        }
    except ValueError as error:
        raise UsageError(f"run {run.folder}: manifest not readable ({error})") from error


def _measure(
    sweep: Sweep,
    store: Store,
    manifest: dict[str, Any],
    interpreters: Interpreters,
    *,
    earlier: list[Record],
    progress: Progress,
) -> Run:
    cpus: list[int] = manifest["cpus"]
    try:
        with stop_signals() as stopping, elsewhere(cpus):
            engine = Engine(
                sweep,
                store,
                manifest,
                cpus=cpus,
                start=manifest["start"],
                gate=Gate(cpus, wait_s=sweep.sampling.quiet_wait_s),
                stopping=stopping,
                earlier=earlier,
                interpreters=interpreters,
            )
            manifest["status"] = engine.run(progress)
    except BaseException as error:
        manifest["status"] = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        raise
    finally:
        progress.end()
        manifest.update(finished=machine.timestamp(), **_state("after"))
        store.write_manifest(manifest)
    return read_run(store.folder)


@contextmanager
def elsewhere(cpus: Sequence[int]) -> Iterator[None]:
    """Keep this process, which draws a bar now and then, off the CPUs that are measured on.

    Where there are no others it stays: it mostly sleeps.
    """
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, before - set(cpus) or before)
        yield
    finally:
        os.sched_setaffinity(0, before)


class _Stopping:
    """Whether somebody has asked, politely, for an end."""

    def __init__(self) -> None:
        self._asked = False

    def __call__(self) -> bool:
        return self._asked

    def interrupt(self, _signal: int, _frame: FrameType | None) -> None:
        """The first time: let what runs end. The second time: now."""
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True

    def terminate(self, _signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt


@contextmanager
def stop_signals() -> Iterator[_Stopping]:
    """Within the body Ctrl-C asks for an end, twice demands it, and so does SIGTERM once."""
    stopping = _Stopping()
    handlers = {signal.SIGINT: stopping.interrupt, signal.SIGTERM: stopping.terminate}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def failed(run: Run) -> list[Record]:
    """Records of jobs that ended in a way that nobody planned."""
    return [record for record in run.records if record.status not in EXPECTED]
