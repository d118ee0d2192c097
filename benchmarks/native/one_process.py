"""The process that `compare.py` starts for one arm: the adapter, or the same written by hand.

Computes, writes its results for the comparison, warms up, says how long a call takes, and then
answers each line of its input with one burst in seconds a call.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

import backends
from backends.api import Case, LayerWeights, Runner
from backends.data import make_batch, make_weights, zero_state
from backends.layout import Fused
from bench import machine
from bench.measure import Arm, burst, calls_needed, discarded_needed, warm_up

#: Calls after which the results of the arms are compared; in training the weights have moved.
CHECKED_STEPS = 3


def plain_weights(layer: LayerWeights) -> dict[str, np.ndarray]:
    """A layer's weights in the two gate orders of the frameworks; `ifgo` has a forget bias of 1."""
    arrays: dict[str, np.ndarray] = {}
    for order in ("igfo", "ifgo"):
        arrays[f"kernel_{order}"] = Fused(("W", "U"), tuple(order)).pack(layer)
        arrays[f"bias_{order}"] = Fused(("b",), tuple(order)).pack(layer)
    hidden = len(layer["b_f"])
    arrays["bias_ifgo"][hidden : 2 * hidden] += 1.0
    return arrays


def plain_data(case: Case) -> dict[str, np.ndarray]:
    """All that the scripts written by hand are given; c and h are the initial state."""
    batch = make_batch(case)
    data = {"x": batch.x, "targets": batch.targets, **zero_state(case)[0]}
    return data | plain_weights(make_weights(case)[0])


def case_of(job: Mapping[str, Any]) -> Case:
    return Case(cell="lstm", seq_len=job["seq_len"], batch=16, inputs=128, hidden=128)


def adapter_results(runner: Runner, mode: str, out: Any) -> dict[str, np.ndarray]:
    """Outputs and final state, or the loss and the weights after the steps, by name."""
    if mode == "forward":
        got = runner.fetch(out)
        return {"outputs": got.outputs, **got.state[0]}
    return {"loss": np.asarray(runner.fetch_loss(out)), **plain_weights(runner.weights()[0])}


def prepared(job: Mapping[str, Any]) -> tuple[Arm, dict[str, np.ndarray]]:
    """The arm of a job, and the results of its first calls."""
    mode, case = job["mode"], case_of(job)
    name, strategy = job["implementation"].split("/")
    backend = backends.create(name, threads=1)
    if job["arm"] == "hand":
        script = importlib.import_module(job["script"])
        call, read = script.build(strategy, mode, plain_data(case))
        for _ in range(CHECKED_STEPS):
            out = call()
        arm = Arm(call=call, sync=lambda _out: None, advance=lambda: None)
        return arm, {key: np.asarray(value) for key, value in read(out).items()}
    runner = backend.build(case, strategy, mode)
    runner.load(make_weights(case))
    runner.bind(make_batch(case))
    call = runner.forward if mode == "forward" else runner.train
    for _ in range(CHECKED_STEPS):
        out = call()
        runner.sync(out)
    arm = Arm(call=call, sync=runner.sync, advance=lambda: None)
    return arm, adapter_results(runner, mode, out)


def main() -> None:
    job = json.loads(sys.argv[1])
    os.sched_setaffinity(0, {machine.available_cpus()[-1]})
    arm, results = prepared(job)
    if job["mode"] == "train":  # how the steps have moved the weights, not where they are
        for name, before in plain_weights(make_weights(case_of(job))[0]).items():
            if name in results:
                results[name] = results[name] - before
    np.savez(job["results"], **results)
    call_s = warm_up(arm, calls=20, seconds=0.3)
    gc.collect()
    gc.freeze()  # each burst collects garbage: of a framework's objects that takes 0.2 s
    print(json.dumps({"call_s": call_s}), flush=True)
    for line in sys.stdin:
        # One size for both arms: the parent says how long the shorter call takes.
        size_s = json.loads(line)
        calls, discarded = calls_needed(size_s), discarded_needed(size_s)
        print(json.dumps(burst(arm, calls=calls, discarded=discarded)), flush=True)


if __name__ == "__main__":
    main()
