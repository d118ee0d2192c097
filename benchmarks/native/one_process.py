"""The process that `compare.py` starts for one implementation: checks both arms, then times them.

Prints a line of JSON a mode, as soon as it has it: the samples of either arm in seconds.
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
from bench.measure import PALINDROMES_PER_TURN, Arm, turn, warm_up

#: Training steps after which the weights of the arms are compared.
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


def agree(name: str, hand: np.ndarray, adapter: np.ndarray, tolerance: float) -> None:
    """Raise `AssertionError` where two arrays differ in shape or by more than the tolerance."""
    assert hand.shape == adapter.shape, f"{name}: {hand.shape} by hand, {adapter.shape} by adapter"
    error = np.abs(hand - adapter).max()
    assert error <= tolerance, f"{name}: arms differ by {error:.1e}, allowed {tolerance:.1e}"


def check_forward(runner: Runner, adapter: Any, hand: Mapping[str, np.ndarray]) -> None:
    """Outputs and final state of the arms agree."""
    got = runner.fetch(adapter)
    for name, value in {"outputs": got.outputs, **got.state[0]}.items():
        agree(name, hand[name], value, 1e-5)


def check_train(
    runner: Runner, adapter: Any, hand: Mapping[str, np.ndarray], before: Mapping[str, np.ndarray]
) -> None:
    """The loss agrees, and so does what the steps have changed of the weights."""
    loss = np.asarray(runner.fetch_loss(adapter))
    agree("loss", np.asarray(hand["loss"]), loss, 1e-5 * float(loss))
    after = plain_weights(runner.weights()[0])
    for name in hand.keys() - {"loss"}:
        change = after[name] - before[name]
        most = float(np.abs(change).max())
        assert most > 1e-5, f"{name}: the adapter's step leaves it as it is"
        agree(f"change of {name}", hand[name] - before[name], change, 1e-3 * most)


def measure(job: Mapping[str, Any], backend: backends.Backend, mode: str, seq_len: int) -> Any:
    """The samples of adapter and hand, which have been found to compute the same."""
    case = Case(cell="lstm", seq_len=seq_len, batch=16, inputs=128, hidden=128)
    strategy = job["implementation"].split("/")[1]
    data = plain_data(case)
    script = importlib.import_module(job["script"])
    # Who is built first lies elsewhere in memory: processes take it in turns.
    if job["hand_first"]:
        by_hand, read = script.build(strategy, mode, data)
    runner = backend.build(case, strategy, mode)
    runner.load(make_weights(case))
    runner.bind(make_batch(case))
    if not job["hand_first"]:
        by_hand, read = script.build(strategy, mode, data)
    call = runner.forward if mode == "forward" else runner.train
    for _ in range(CHECKED_STEPS):
        adapter, hand = call(), by_hand()
        runner.sync(adapter)
    if mode == "forward":
        check_forward(runner, adapter, read(hand))
    else:
        check_train(runner, adapter, read(hand), plain_weights(make_weights(case)[0]))
    del adapter, hand
    arms = [
        Arm(name="adapter", call=call, sync=runner.sync),
        Arm(name="hand", call=by_hand, sync=lambda _out: None),
    ]
    # One size for both: a sample of two calls is another thing than a sample of one.
    call_s = min(warm_up(arm, calls=20, seconds=0.3) for arm in arms)
    arms = [arm.sized(call_s) for arm in arms]
    gc.collect()
    gc.freeze()  # each turn collects garbage: of a framework's objects that takes 0.2 s
    samples: dict[str, list[float]] = {"adapter": [], "hand": []}
    for number in range(job["turns"]):
        order = arms if number % 2 else arms[::-1]
        for name, values in turn(order, palindromes=PALINDROMES_PER_TURN).items():
            samples[name] += values
    return samples


def main() -> None:
    job = json.loads(sys.argv[1])
    os.sched_setaffinity(0, {machine.available_cpus()[-1]})
    backend = backends.create(job["implementation"].split("/")[0], threads=1)
    for mode, seq_len in job["modes"].items():
        samples = measure(job, backend, mode, seq_len)
        print(json.dumps({"mode": mode, **samples}), flush=True)


if __name__ == "__main__":
    main()
