"""A run that was never measured: records drawn from known ratios, for tests of what reads them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from backends.api import Mode
from bench.axes import Axes
from bench.record import MEASURES, Job, Record, Status
from bench.sampling import Sampling
from bench.store import SCHEMA, Run
from bench.sweep import Sweep

#: Steady seconds a time step, forward; training takes three times as long.
STEP_S: Mapping[str, float] = {
    "reference/products": 60e-6,
    "torch/products": 30e-6,
    "jax/products": 24e-6,
    "tensorflow/products": 35e-6,
    "torch/launches": 20e-6,
    "jax/launches": 15e-6,
    "tensorflow/launches": 25e-6,
    "torch/fused": 45e-6,
    "torch/graphed": 48e-6,
    "jax/fused": 47e-6,
    "torch/static": 50e-6,
    "torch/traced": 110e-6,
    "torch/dynamic": 140e-6,
    "torch/scripted": 110e-6,
    "jax/static": 50e-6,
    "jax/dynamic": 60e-6,
    "jax/scan-unroll-8": 57e-6,
}

#: Seconds to the first result: a constant, and a part for each time step.
FIRST_S: Mapping[str, tuple[float, float]] = {
    "torch/fused": (0.010, 0.0),
    "torch/graphed": (0.050, 0.001),
    "jax/fused": (0.2, 0.0),
    "torch/static": (2.0, 1.0),
    "torch/traced": (0.030, 0.004),
    "torch/dynamic": (0.020, 0.0),
    "torch/scripted": (0.080, 0.0),
    "jax/static": (0.100, 0.050),
    "jax/dynamic": (0.210, 0.0),
    "jax/scan-unroll-8": (0.300, 0.0),
}

Change = Callable[[Record], Record]


def sweep(
    *,
    seq_len: Sequence[int] = (10, 50),
    mode: Sequence[Mode] = ("forward", "train"),
    backend: Sequence[str] = ("torch", "jax"),
    blocks: int = 5,
    device: Sequence[str] = ("cpu",),
) -> Sweep:
    """LSTM over sequence length, PyTorch and JAX, `torch/static` capped at T=10."""
    return Sweep(
        name="synthetic",
        title="LSTM, drawn at random",
        axes=Axes(
            cell=("lstm",),
            seq_len=tuple(seq_len),
            batch=(16,),
            layers=(1,),
            hidden=(128,),
            inputs=(128,),
            lengths=("full",),
            dtype=("float32",),
            device=tuple(device),
            mode=tuple(mode),
            backend=tuple(backend),
            strategy=_strategies(backend),
        ),
        sampling=Sampling(
            blocks=blocks, cold_blocks=min(blocks, 3), memory_blocks=min(blocks, 2), **_SECONDS
        ),
        caps={"torch/static": {"forward": 10, "train": 10}},
    )


def _strategies(backends: Sequence[str]) -> tuple[str, ...]:
    """The strategies of these backends that have times here, each once."""
    names = [name.split("/") for name in FIRST_S]
    return tuple(dict.fromkeys(strategy for backend, strategy in names if backend in backends))


_SECONDS: Mapping[str, Any] = {"steady_s": 0.1, "warmup_s": 0.1}


def manifest(plan: Sweep, **changes: object) -> dict[str, Any]:
    """What the engine writes about a run."""
    return {
        "schema": SCHEMA,
        "id": "drawn",
        "created": "2026-01-02T03:04:05+00:00",
        "finished": "2026-01-02T03:14:05+00:00",
        "status": "finished",
        "command": "rnn-bench run synthetic",
        "sweep": plan.to_json(),
        "start": "fork",
        "host": {
            "hostname": "here",
            "cpu": "A CPU @ 2.50GHz",
            "cores": 4,
            "memory_bytes": 16_000_000_000,
            "system": "Linux 6.1",
            "python": "3.11.9",
        },
        "versions": {"jax": "0.10.2", "torch": "2.13.0"},
        "backends": {
            "torch": {"versions": {}, "threads": {"intra": 2}, "devices": {"cpu": "CPU"}},
            "jax": {"error": "it crashed when asked"},
        },
        "load_before": 0.4213,
        "load_after": 1.9,
    } | changes


def run(
    plan: Sweep | None = None,
    *,
    seed: int = 0,
    pace: float = 1.0,
    change: Change = lambda record: record,
    **changes: object,
) -> Run:
    """Every record that a whole run of the sweep leaves, each handed through `change`."""
    plan = plan or sweep()
    # Twins are drawn from their own source: whether they are there changes nothing of the others.
    rng, twins_rng = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    sampling = plan.sampling
    counts = (sampling.blocks, sampling.cold_blocks, sampling.memory_blocks)
    records: list[Record] = []
    for measure, count in zip(MEASURES, counts, strict=True):
        for block in range(count):
            # What the host does to everything in a block: drift between workers is far larger
            # than what is left between arms of one.
            drift = pace * math.exp(rng.normal(0.0, 0.10))
            jobs = plan.jobs(measure)
            records += [
                change(_record(plan, job, block, drift, twins_rng if job.replica else rng))
                for job in jobs
            ]
    return Run(
        folder=Path("results", "drawn"),
        manifest=manifest(plan, **changes),
        records=records,
        faults=[],
    )


def only(implementation: str, change: Change, **where: object) -> Change:
    """A change of one implementation's records; `where` names further attributes of the record."""

    def changed(record: Record) -> Record:
        fits = all(
            getattr(record, name, getattr(record.job, name, None)) == value
            for name, value in where.items()
        )
        return change(record) if record.job.implementation == implementation and fits else record

    return changed


def ends(status: Status, reason: str) -> Change:
    """The record of a job that failed."""
    return lambda record: replace(record, status=status, reason=reason, samples={}, values={})


def _record(plan: Sweep, job: Job, block: int, drift: float, rng: np.random.Generator) -> Record:
    cap = plan.cap(job)
    if cap is not None:
        return Record(job=job, block=block, status=Status.CAPPED, reason=cap)
    steps, factor = job.case.seq_len, 3.0 if job.mode == "train" else 1.0
    scale = factor * drift * math.exp(rng.normal(0.0, 0.004))
    ok = Record(job=job, block=block, status=Status.OK)
    if job.measure == "steady":
        noise = np.exp(rng.normal(0.0, 0.01, 40))
        samples = STEP_S[job.implementation] * steps * scale * noise
        values = {"program_nodes": 7.0 * steps} if "static" in job.implementation else {}
        return replace(ok, samples={"steady": samples.tolist()}, values=values, errors=_errors(job))
    constant, by_step = FIRST_S[job.implementation]
    if job.measure == "cold":
        total = (constant + by_step * steps) * scale
        parts = {"create": 0.02, "build": 0.3 * total, "load": 0.001, "first": 0.7 * total - 0.001}
        return replace(ok, samples={name: [value] for name, value in parts.items()})
    peak = 2e6 + 4e3 * steps * (6 if "static" in job.implementation else 1) * factor * 16
    values = {"build_peak_bytes": 0.4 * peak, "peak_bytes": peak * math.exp(rng.normal(0, 0.01))}
    return replace(ok, values=values)


def _errors(job: Job) -> dict[str, dict[str, float]]:
    parts = ("outputs", "state") if job.mode == "forward" else ("loss", "gradients")
    return {part: {"absolute": 3e-7, "relative": 4e-7} for part in parts}
