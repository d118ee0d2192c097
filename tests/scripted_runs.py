"""Small real runs of the scripted backend, which misbehaves as its strategies say."""

from __future__ import annotations

import errno
import os
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import pytest

import backends
from bench import block, engine, run
from bench.axes import Axes
from bench.launch import Start
from bench.record import Record
from bench.sampling import Sampling
from bench.store import Run
from bench.sweep import Sweep
from tests import scripted

#: Whatever a run starts has this variable, with a value of its own.
_MARK = "SCRIPTED_RUN"

AXES = Axes(
    cell=("lstm",),
    seq_len=(3,),
    batch=(2,),
    layers=(1,),
    hidden=(4,),
    inputs=(3,),
    lengths=("full",),
    dtype=("float64",),
    device=("cpu",),
    mode=("forward",),
)
SAMPLING = Sampling(
    blocks=2,
    cold_blocks=1,
    memory_blocks=1,
    steady_s=0.01,
    warmup_s=0.001,
    warmup_calls=2,
    quiet_wait_s=0,
)


def preset(*axes: str, mode: str, blocks: int, cold_blocks: int) -> str:
    """A preset file with a sweep of the same kind; `axes` are lines for more of them."""
    return "\n".join(
        [
            "[axes]",
            *('cell = ["lstm"]', "seq_len = [3]", "batch = [2]", "layers = [1]"),
            *("hidden = [4]", "inputs = [3]", 'lengths = ["full"]', 'dtype = ["float32"]'),
            *('device = ["cpu"]', f"mode = {mode}", *axes),
            "[sampling]",
            *(f"blocks = {blocks}", f"cold_blocks = {cold_blocks}", "memory_blocks = 1"),
            *("steady_s = 0.01", "warmup_s = 0.001", "warmup_calls = 2", "quiet_wait_s = 0"),
        ]
    )


PRESET = preset('backend = ["scripted"]', mode='["forward"]', blocks=6, cold_blocks=2)


def sweep(
    *strategies: str,
    mode: str = "forward",
    dtype: str = "float64",
    hidden: tuple[int, ...] = (4,),
    blocks: int = 2,
    **sampling: Any,
) -> Sweep:
    axes = replace(AXES, mode=(mode,), dtype=(dtype,), hidden=hidden)
    return Sweep(
        name="test",
        title="test",
        axes=replace(axes, backend=("scripted",), strategy=strategies),
        sampling=replace(SAMPLING, blocks=blocks, **sampling),
    )


def execute(
    folder: Path,
    plan: Sweep,
    start: Start = "fork",
    progress: run.Progress | None = None,
    *,
    peaks: bool = False,
) -> Run:
    """Run a sweep into `folder`/run. Without `peaks` no figure is doubted, which saves seconds."""
    with ExitStack() as stack:
        # These calls are short, and their times nobody's.
        stack.enter_context(patch.object(block, "BURST_S", 2e-3))
        if not peaks:
            stack.enter_context(patch.object(engine, "measure_ceilings", lambda *_: {}))
        return run.execute(
            plan,
            folder / "run",
            start=start,
            command="test",
            progress=progress or run.Silent(),
        )


def on_devices(folder: Path, plan: Sweep, monkeypatch: pytest.MonkeyPatch, *devices: str) -> Run:
    """A run on these devices, of a backend that finds the CPU and one GPU."""
    monkeypatch.setenv(scripted.DEVICES_VARIABLE, "cpu,gpu")
    return execute(folder, replace(plan, axes=replace(plan.axes, device=devices)))


@contextmanager
def registered() -> Iterator[str]:
    """Within the body the scripted backend is known, here and in every worker that starts.

    Gives the mark of the processes that are started meanwhile, for `left_behind`.
    """
    mark = uuid.uuid4().hex
    entries = [
        backends.Implementation(backend="scripted", strategy=strategy)
        for strategy in scripted.INFO.strategies
    ]
    variables = {
        _MARK: mark,
        backends.EXTRA_VARIABLE: "tests.scripted",
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }
    with (
        patch.dict(os.environ, variables),
        patch.dict(backends.BACKENDS, {"scripted": scripted.INFO}),
        patch.dict(backends.IMPLEMENTATIONS, {entry.name: entry for entry in entries}),
    ):
        yield mark


def left_behind(mark: str) -> list[psutil.Process]:
    """Processes with this mark that are there, orphans too; what nobody has reaped yet is gone."""
    found = []
    for process in psutil.process_iter():
        # Of others' processes, and of those that end meanwhile, nothing is known.
        with suppress(psutil.Error):
            if process.environ().get(_MARK) == mark and process.pid != os.getpid():
                found.append(process)
    return [process for process in found if process.status() != psutil.STATUS_ZOMBIE]


class Acting(run.Silent):
    """Does something when a job with this measure has been measured, the n-th time."""

    def __init__(self, act: Callable[[], Any], measure: str = "cold", after: int = 1) -> None:
        self._act, self._measure, self._left = act, measure, after

    def advance(self, seconds: float, label: str) -> None:
        if label.endswith(self._measure):
            self._left -= 1
            if self._left == 0:
                self._act()


def signal_server(number: int) -> int:
    """Send a signal to the scripted backend's fork server; its process id."""
    (server,) = (
        child
        for child in psutil.Process().children()
        if {"--serve", "scripted"} <= set(child.cmdline())
    )
    server.send_signal(number)
    return server.pid


def missing(plan: Sweep, result: Run) -> list[str]:
    """Planned jobs that have not exactly one record in each of their blocks, and what is foreign.

    For sweeps without a precision, which know their blocks beforehand.
    """
    planned = {
        (job.key, number): f"{job.arm} {job.measure} of block {number}"
        for measure, blocks in plan.sampling.counts().items()
        for job in plan.jobs(measure)
        for number in range(blocks)
    }
    found = Counter((record.job.key, record.block) for record in result.records)
    return [
        *(f"{text}: {found[what]} records" for what, text in planned.items() if found[what] != 1),
        *(f"{key} of block {number}: not planned" for key, number in found.keys() - planned.keys()),
        *result.faults,
    ]


def of(result: Run, strategy: str, measure: str) -> list[Record]:
    """The records of a job, its twins' left out."""
    return [
        record
        for record in result.records
        if record.job.implementation == f"scripted/{strategy}"
        and record.job.measure == measure
        and record.job.replica == 0
    ]


def full_disk_after(writes: int) -> Callable[[Path], None]:
    """A stand-in for `shorten`, which writes for each worker: the last of so many finds no room."""
    left = writes

    def shorten(path: Path) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return shorten


def limited_files(largest: int | None) -> list[str]:
    """A Python command whose files may be so many bytes long: a disk that is full.

    The limit is set by the process itself. `preexec_fn` would fork this one, which JAX, where a
    test has loaded it, warns of.
    """
    if largest is None:
        return [sys.executable]
    limit = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({largest}, {largest}))"
    become = "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    return [sys.executable, "-c", f"import os, resource, sys; {limit}; {become}"]
