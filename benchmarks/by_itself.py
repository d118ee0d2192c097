"""A job in a process of its own without the launcher, for `launch_cost.py` and `alone.py`.

    python benchmarks/by_itself.py compute|profile JOB PATH
    python benchmarks/by_itself.py alone BACKEND < JOBS

`compute` does the job without the harness and writes its results to PATH as those that others must
have; `profile` lets a worker do it and prints where its time went. JOB is a job as JSON. `alone`
imports a framework once and times each job of its input, a line each, in a process that it forks
for it: call after call, while nothing else runs.
"""

from __future__ import annotations

import cProfile
import gc
import importlib
import json
import os
import pstats
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import backends
from backends.api import Backend, Expected, LayerState, Output, Runner
from backends.data import make_batch, make_weights, varied_batches
from bench import outputs
from bench.expectation import CHECKED_BATCHES, path_of, write_expected
from bench.measure import Arm, clock, warm_up
from bench.outcome import request
from bench.record import Job, Status
from bench.run import chosen_cpus
from bench.worker import Worker

#: Seconds of a process that is timed alone, and of the parts of which it gives the median; batches
#: that its calls read in turn.
ALONE_S, CHUNK_S, BATCHES = 0.8, 0.1, 64

#: What a cold job calls within its phases.
IN_PHASES = ("build", "load", "call", "sync", "_backend", "helper", "__enter__", "__exit__")


def compute(job: Job, path: Path) -> None:
    """Do a job in this process, without the harness, and write it as what is expected."""
    case, mode = job.case, job.mode
    backend, strategy = job.implementation.split("/")
    weights = make_weights(case)
    runner = backends.create(backend, threads=1).build(case, strategy, mode)
    nothing: tuple[LayerState, ...] = tuple({} for _ in range(case.layers))
    for number in range(CHECKED_BATCHES):
        batch = make_batch(case, number)
        runner.load(weights)
        runner.bind(batch)
        if mode == "forward":
            out = runner.forward()
            runner.sync(out)
            found = Expected(output=runner.fetch(out), loss=0.0, gradients=nothing)
        else:
            loss, gradients = outputs.probe_gradients(runner, weights, batch)
            unasked = Output(outputs=np.zeros(0), state=nothing)
            found = Expected(output=unasked, loss=loss, gradients=gradients)
        write_expected(path_of(path, number), found)


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
    """Run one of these in a fresh interpreter with its backend's environment."""
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


def prepared(backend: Backend, job: Job, batches: int) -> tuple[Runner, Arm]:
    """The runner of a job with its data, and its calls, which go round so many batches."""
    case = job.case
    runner = backend.build(case, job.implementation.split("/")[1], job.mode)
    batch = make_batch(case)
    runner.load(make_weights(case))
    runner.bind(batch)
    runner.rotate(varied_batches(case, batch, np.random.default_rng(), batches))
    call = runner.forward if job.mode == "forward" else runner.train
    return runner, Arm(call=call, sync=runner.sync, advance=runner.advance)


def seconds_a_call(job: Job) -> float:
    """Time a job's calls in this process, one after the other, each with a batch of its own."""
    backend = backends.create(job.backend, threads=job.case.threads)
    _runner, arm = prepared(backend, job, BATCHES)
    # TorchScript compiles a training step anew, for a second, at about its fourth call.
    warm_up(arm, calls=20, seconds=0.3)
    gc.collect()
    gc.freeze()
    gc.disable()
    chunks: list[float] = []
    began_ns = clock()
    while clock() - began_ns < 1e9 * ALONE_S:
        calls, total_ns = 0, 0
        while total_ns < 1e9 * CHUNK_S:
            arm.advance()
            start_ns = clock()
            arm.sync(arm.call())
            total_ns += clock() - start_ns
            calls += 1
        chunks.append(total_ns / 1e9 / calls)
    return median(chunks)


def serve_alone(backend: str) -> None:
    """Answer each job of standard input with seconds a call, from a process forked for it."""
    importlib.import_module(backends.BACKENDS[backend].module)
    gc.freeze()
    for line in sys.stdin:
        if os.fork() == 0:
            print(json.dumps(seconds_a_call(Job.from_json(json.loads(line)))), flush=True)
            os._exit(0)
        if os.wait()[1]:
            print(json.dumps(None), flush=True)


class Alone:
    """A process with a framework that times jobs alone, on the CPUs that a run would choose."""

    def __init__(self, backend: str, threads: int = 1) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "alone", backend],
            env={**os.environ, **backends.BACKENDS[backend].environment(threads)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        os.sched_setaffinity(self._process.pid, set(chosen_cpus(threads)))

    def seconds(self, job: Job) -> float:
        """Seconds a call. Raises `RuntimeError` where the job ends without a figure."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(job)) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline().strip()
        if line in ("", "null"):
            raise RuntimeError(f"{job.implementation}: ended without a figure")
        return float(line)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def main() -> None:
    if sys.argv[1] == "alone":
        serve_alone(sys.argv[2])
        return
    what, job, path = sys.argv[1], Job.from_json(json.loads(sys.argv[2])), Path(sys.argv[3])
    found: dict[str, float] = {}
    if what == "compute":
        compute(job, path)
    else:
        found = profile(job, path)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
