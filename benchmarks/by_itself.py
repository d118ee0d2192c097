"""A job in a fresh interpreter without the launcher, the process that `launch_cost.py` starts.

    python benchmarks/by_itself.py compute|profile JOB PATH

`compute` does the job without the harness and writes what it computed to PATH as what is expected
of others; `profile` lets a worker do it and prints where its time went. JOB is a job as JSON.
"""

from __future__ import annotations

import cProfile
import gc
import json
import os
import pstats
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import backends
from backends.api import Expected, LayerState, Output
from backends.data import make_batch, make_weights
from bench import outputs
from bench.expectation import write_expected
from bench.outcome import request
from bench.record import Job, Status
from bench.worker import Worker

#: What a cold job calls within its phases.
IN_PHASES = ("build", "load", "call", "sync", "_backend", "helper", "__enter__", "__exit__")


def compute(job: Job, path: Path) -> None:
    """Do a job in this process, without the harness, and write it as what is expected."""
    case, mode = job.case, job.mode
    backend, strategy = job.implementation.split("/")
    weights, batch = make_weights(case), make_batch(case)
    runner = backends.create(backend, threads=1).build(case, strategy, mode)
    runner.load(weights)
    runner.bind(batch)
    nothing: tuple[LayerState, ...] = tuple({} for _ in range(case.layers))
    if mode == "forward":
        out = runner.forward()
        runner.sync(out)
        found = Expected(output=runner.fetch(out), loss=0.0, gradients=nothing)
    else:
        loss, gradients = outputs.probe_gradients(runner, weights, batch)
        unasked = Output(outputs=np.zeros(0), state=nothing)
        found = Expected(output=unasked, loss=loss, gradients=gradients)
    write_expected(path, found)


def profile(job: Job, path: Path) -> dict[str, float]:
    """Seconds of what a worker does in a cold job besides its phases, as its profile in here says.

    By the name of what its `_cold` calls, in order of time.
    """
    backend = job.backend
    worker = Worker(backend, threads=1)
    worker.answer({"op": "describe"})  # creates the backend
    gc.collect()
    gc.freeze()  # as a server does
    profiler = cProfile.Profile()
    reply = profiler.runcall(worker.answer, request("cold", job, path))
    if reply["status"] != Status.OK:
        raise RuntimeError(f"{job.implementation}: {reply['status']}: {reply['reason']}")
    found: dict[str, float] = {}
    # Files, lines and names of functions; of each, its callers, and its seconds for each of them.
    statistics: Mapping[Any, Any] = vars(pstats.Stats(profiler))["stats"]
    for called, (_calls, _primitive, _own_s, _all_s, callers) in statistics.items():
        for caller, (*_counts, seconds) in callers.items():
            if caller[2] == "_cold" and called[2] not in IN_PHASES:
                found[called[2]] = seconds
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def elsewhere(what: Literal["compute", "profile"], job: Job, path: Path) -> dict[str, float]:
    """The same in a fresh interpreter, with its backend's environment; what a profile has found."""
    environment = backends.BACKENDS[job.backend].environment(1)
    done = subprocess.run(
        [sys.executable, __file__, what, json.dumps(asdict(job)), str(path)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{what} {job.implementation}: {done.stderr.strip()}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    what, job, path = sys.argv[1], Job.from_json(json.loads(sys.argv[2])), Path(sys.argv[3])
    found: dict[str, float] = {}
    if what == "compute":
        compute(job, path)
    else:
        found = profile(job, path)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
