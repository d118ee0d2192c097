"""Runs of a world whose laws are known: what every job would leave if they held."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from backends import refusal
from bench.preset import load_preset
from bench.record import Job, Record, Status
from bench.store import Run
from bench.sweep import Sweep
from tests import synthetic

Law = Callable[[Job], float]


def always(value: float) -> Law:
    return lambda _job: value


@dataclass(frozen=True, kw_only=True)
class World:
    """What a job takes: seconds a call, seconds to build, bytes at the peak, and what it does.

    `noise` is the standard deviation of a block's log time, and a third of it that of a sample.
    """

    steady: Law = lambda _job: 1e-2
    build: Law = lambda _job: 0.1
    peak: Law = lambda _job: 1e8
    does: Callable[[Job], Mapping[str, float]] = lambda _job: {}
    values: Callable[[Job], Mapping[str, float]] = lambda _job: {}
    noise: float = 0.005

    def run(
        self, plan: Sweep | str, *, seed: int = 0, threads: int | None = None, **changes: object
    ) -> Run:
        """All records of a sweep, or of a preset by name; on so many threads where it is said."""
        sweep = load_preset(plan) if isinstance(plan, str) else plan
        if threads is not None:
            axes = [replace(axes, threads=(threads,)) for axes in (sweep.axes, *sweep.more)]
            sweep = replace(sweep, axes=axes[0], more=tuple(axes[1:]))
        rng = np.random.default_rng(seed)
        records = [
            self._record(sweep, job, block, rng)
            for measure, count in sweep.sampling.counts().items()
            for block in range(count)
            for job in sweep.jobs(measure)
        ]
        manifest = synthetic.manifest(sweep, **{"id": sweep.name, **changes})
        return Run(folder=Path(sweep.name), manifest=manifest, records=records, faults=[])

    def _record(self, sweep: Sweep, job: Job, block: int, rng: np.random.Generator) -> Record:
        refused, cap = refusal(job.implementation, job.case, job.mode), sweep.cap(job)
        ok = Record(job=job, block=block, status=Status.OK)
        if refused is not None:
            return replace(ok, status=Status.UNSUPPORTED, reason=refused)
        if cap is not None:
            return replace(ok, status=Status.CAPPED, reason=cap)
        factor = math.exp(rng.normal(0.0, self.noise))
        if job.measure == "steady":
            samples = self.steady(job) * factor * np.exp(rng.normal(0, self.noise / 3, 20))
            return replace(ok, samples={"steady": samples.tolist()})
        if job.measure == "cold":
            build = self.build(job) * factor
            return replace(ok, samples={"build": [build], "load": [1e-3], "first": [0.01]})
        if job.measure == "memory":
            return replace(ok, values={"peak_bytes": self.peak(job) * factor, **self.values(job)})
        return replace(ok, values=self.does(job))


def times(job: Job, **by_strategy: float) -> float:
    """A factor by the strategy's name, "-" written "_"; 1 for the others."""
    return by_strategy.get(job.implementation.split("/")[1].replace("-", "_"), 1.0)


def changed(run: Run, change: Callable[[Record], Record]) -> Run:
    return replace(run, records=[change(record) for record in run.records])
