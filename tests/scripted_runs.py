"""Small real runs of the scripted backend, which misbehaves as its strategies say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import run
from bench.launch import Start
from bench.record import Record, Run
from bench.sweep import Axes, Sampling, Sweep

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


def sweep(*strategies: str, mode: str = "forward", blocks: int = 2, **sampling: Any) -> Sweep:
    return Sweep(
        name="test",
        title="test",
        axes=replace(AXES, backend=("scripted",), strategy=strategies, mode=(mode,)),
        sampling=replace(SAMPLING, blocks=blocks, **sampling),
    )


def execute(folder: Path, plan: Sweep, start: Start = "fork") -> Run:
    return run.execute(
        plan, folder / "run", threads=1, start=start, command="test", progress=run.Silent()
    )


def of(result: Run, strategy: str, measure: str) -> list[Record]:
    """The records of a job, its twins' left out."""
    return [
        record
        for record in result.records
        if record.job.implementation == f"scripted/{strategy}"
        and record.job.measure == measure
        and record.job.replica == 0
    ]
