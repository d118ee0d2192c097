"""Rough durations of jobs: for the dry run, and as weights of the progress bar.

Off by a factor of two on another machine, and nothing that is reported rests on it. The figures are
of a 2-core virtual machine, with forked workers.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np

from backends import IMPLEMENTATIONS
from backends.api import Case, Kind, Mode
from backends.products import flops
from backends.stack import layers
from bench.capacity import Trial, data_bytes, search
from bench.measure import BURST_S, DISCARDED_S, FEWEST_CALLS, FEWEST_ROUNDS
from bench.record import Job, Measure
from bench.sampling import Sampling
from bench.sweep import Sweep

#: Seconds until a forked worker answers, and until it is gone.
WORKER_S = 0.5

#: Seconds for which a block waits for a backend's fork server to import its framework.
IMPORT_S = 3.0

#: Seconds a floating-point operation in a large matrix product.
FLOP_S = 6e-12

#: A training step has about this many times the operations of a forward pass.
TRAIN = 3.0

#: Calls that checking the outputs or the gradients makes, of two batches, before and after.
CHECK_CALLS = 6

#: Seconds from one arm's burst to the next one's, with the new values of its inputs.
BETWEEN_BURSTS_S = 5e-3

#: Runners that a behaviour job builds, at most, and calls that it makes.
BEHAVIOUR_BUILDS: Mapping[Mode, int] = {"forward": 2, "train": 4}
BEHAVIOUR_CALLS: Mapping[Mode, int] = {"forward": 5, "train": 32}

#: Arrays [B, H] that a step of a layer leaves in memory, and bytes of its program if unrolled.
KEPT: Mapping[Mode, int] = {"forward": 8, "train": 60}
PROGRAM_STEP_BYTES: Mapping[Mode, float] = {"forward": 0.4e6, "train": 1.3e6}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Cost of an implementation beside its matrix products.

    `build_s` seconds to build, load and call once, `build_step_s` the same for each step of each
    layer that is unrolled, `step_s` seconds that a call spends on each step of each layer.
    """

    build_s: float
    build_step_s: float
    step_s: float


#: By kind, for an implementation that is not in `_COSTS`.
_DEFAULTS: Mapping[Kind, Cost] = {
    "static": Cost(build_s=0.5, build_step_s=2e-2, step_s=4e-5),
    "dynamic": Cost(build_s=0.5, build_step_s=0.0, step_s=4e-5),
    "fused": Cost(build_s=0.2, build_step_s=0.0, step_s=1e-5),
    "limit": Cost(build_s=0.05, build_step_s=0.0, step_s=5e-6),
    "launches": Cost(build_s=0.2, build_step_s=0.0, step_s=1e-5),
    "oracle": Cost(build_s=0.0, build_step_s=0.0, step_s=5e-4),
}

_COSTS: Mapping[str, Cost] = {
    "tensorflow/static": Cost(build_s=0.3, build_step_s=1.5e-2, step_s=4e-5),
    "tensorflow/dynamic": Cost(build_s=0.3, build_step_s=0.0, step_s=6e-5),
    "tensorflow/dynamic-v2": Cost(build_s=0.4, build_step_s=0.0, step_s=7e-5),
    "tensorflow/fused": Cost(build_s=0.2, build_step_s=0.0, step_s=2e-5),
    "tensorflow/keras": Cost(build_s=0.4, build_step_s=0.0, step_s=1.1e-4),
    "tensorflow/keras-unrolled": Cost(build_s=0.3, build_step_s=1.5e-2, step_s=8e-5),
    "tensorflow/xla": Cost(build_s=1.0, build_step_s=0.0, step_s=6e-5),
    "tensorflow/products": Cost(build_s=0.1, build_step_s=1e-4, step_s=5e-6),
    "torch/static": Cost(build_s=10.0, build_step_s=0.5, step_s=5e-5),
    "torch/traced": Cost(build_s=0.1, build_step_s=5e-3, step_s=8e-5),
    # Four of torch/dynamic's calls to build, and a guess: no GPU has been measured.
    "torch/graphed": Cost(build_s=0.1, build_step_s=4e-4, step_s=2e-5),
    "torch/dynamic": Cost(build_s=0.01, build_step_s=0.0, step_s=1e-4),
    "torch/scripted": Cost(build_s=0.1, build_step_s=0.0, step_s=8e-5),
    "torch/fused": Cost(build_s=0.02, build_step_s=0.0, step_s=5e-5),
    "jax/static": Cost(build_s=0.5, build_step_s=6e-2, step_s=2e-5),
    "jax/dynamic": Cost(build_s=0.7, build_step_s=0.0, step_s=2e-5),
    "jax/scan-unroll-2": Cost(build_s=0.8, build_step_s=0.0, step_s=2e-5),
    "jax/scan-unroll-4": Cost(build_s=0.9, build_step_s=0.0, step_s=2e-5),
    "jax/scan-unroll-8": Cost(build_s=1.0, build_step_s=0.0, step_s=2e-5),
    "jax/scan-unroll-16": Cost(build_s=1.4, build_step_s=0.0, step_s=2e-5),
    "jax/scan-unroll-32": Cost(build_s=2.2, build_step_s=0.0, step_s=2e-5),
    "jax/fori": Cost(build_s=0.7, build_step_s=0.0, step_s=2e-5),
    "jax/while": Cost(build_s=0.7, build_step_s=0.0, step_s=2e-5),
    "jax/fused": Cost(build_s=0.7, build_step_s=0.0, step_s=1e-5),
    "jax/products": Cost(build_s=0.7, build_step_s=0.0, step_s=5e-6),
}


def job_seconds(job: Job, sampling: Sampling, *, longest: int | None = None) -> float:
    """Seconds that one block of a job takes. Pure: the same on every machine.

    `longest` bounds the T of a capacity job's trials.
    """
    if job.measure == "capacity":
        return sum(trials(job, sampling, longest=longest))
    ready, call = _ready_seconds(job), _call_seconds(job)
    if job.measure == "behaviour":
        return WORKER_S + BEHAVIOUR_BUILDS[job.mode] * ready + BEHAVIOUR_CALLS[job.mode] * call
    if job.measure != "steady":
        return WORKER_S + ready + CHECK_CALLS * call
    warm = max(sampling.warmup_s, min(sampling.warmup_calls, FEWEST_CALLS) * call)
    rounds = max(FEWEST_ROUNDS, sampling.steady_s / max(call, BURST_S) / 2)
    burst = max(2 * call, BURST_S + DISCARDED_S) + BETWEEN_BURSTS_S
    return WORKER_S + ready + CHECK_CALLS * call + warm + rounds * burst


def trials(job: Job, sampling: Sampling, *, longest: int | None) -> list[float]:
    """Seconds of each trial of a capacity job."""
    limit_bytes, took = sampling.memory_limit_bytes or 0, []

    def attempt(seq_len: int) -> Trial:
        tried = replace(job, case=replace(job.case, seq_len=seq_len))
        seconds = _ready_seconds(tried) + _call_seconds(tried)
        took.append(WORKER_S + min(seconds, sampling.probe_limit_s))
        if seconds > sampling.probe_limit_s:
            return Trial(fits=None)
        return Trial(fits=_needed_bytes(tried) <= limit_bytes)

    search(job.case.seq_len, longest, attempt)
    return took


def sweep_seconds(sweep: Sweep, *, absent: Collection[str] = ()) -> float:
    """Seconds that a sweep takes, without what it caps and without the `absent` backends."""
    sampling = sweep.sampling
    counts = sampling.counts()
    jobs = {measure: runnable(sweep, measure, absent) for measure in counts}
    measuring_s = sum(
        counts[measure] * job_seconds(job, sampling, longest=sweep.longest(job))
        for measure, found in jobs.items()
        for job in found
    )
    servers = {job.backend for found in jobs.values() for job in found}
    generations = math.ceil(max(counts.values()) / sampling.blocks_per_server)
    return measuring_s + generations * len(servers) * IMPORT_S


def runnable(sweep: Sweep, measure: Measure, absent: Collection[str]) -> list[Job]:
    """The jobs that a sweep does not cap, of no `absent` backend, that nobody refuses."""
    return [job for job in sweep.jobs(measure) if job.backend not in absent and sweep.runs(job)]


def _ready_seconds(job: Job) -> float:
    """Seconds to build, load and call once."""
    cost, case = _cost(job), job.case
    unrolled = cost.build_step_s * case.seq_len * _steps(case)
    factor = TRAIN if job.mode == "train" else 1.0
    return cost.build_s + factor * unrolled


def _call_seconds(job: Job) -> float:
    """Seconds of a steady call."""
    case = job.case
    factor = TRAIN if job.mode == "train" else 1.0
    steps = case.seq_len * _steps(case)
    bare = IMPLEMENTATIONS[job.implementation].kind == "launches"
    products_s = 0.0 if bare else flops(case, job.mode) * FLOP_S
    return products_s + factor * _cost(job).step_s * steps


def _steps(case: Case) -> int:
    """Steps of plain layers that a step of the case is like: a window of a grid counts as one."""
    return sum(
        max(product.times for product in layer.cell.products(layer.inputs, layer.hidden))
        for layer in layers(case)
    )


def _needed_bytes(job: Job) -> float:
    """Bytes that a call takes with all that comes before it."""
    case = job.case
    wide = sum(max(layer.hidden, layer.outputs) for layer in layers(case))
    kept = KEPT[job.mode] * case.batch * wide * np.dtype(case.dtype).itemsize
    program = PROGRAM_STEP_BYTES[job.mode] if _cost(job).build_step_s else 0.0
    return data_bytes(case) + (kept + program * _steps(case)) * case.seq_len


def _cost(job: Job) -> Cost:
    return _COSTS.get(job.implementation, _DEFAULTS[IMPLEMENTATIONS[job.implementation].kind])


def words(seconds: float) -> str:
    """A time to the precision that an estimate deserves: "40 s", "3 min", "1 h 20 min"."""
    if seconds <= 59:
        return f"{max(1, math.ceil(seconds))} s"
    minutes = math.ceil(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"
