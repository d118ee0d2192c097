"""Each adapter against the same LSTM written by hand in its framework, interleaved in one process.

    python benchmarks/native/compare.py [--workers 10] [--seq-len 50] [--out results/native]

For each implementation and mode, some fresh processes each hold both arms and call them A B B A. A
process gives one number, the median paired log ratio; the interval is a t-interval over
processes. Above 1 the adapter is slower. Writes the raw numbers beside the table.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2]))

import backends
from backends.api import Case
from backends.data import fuse, make_batch, make_weights
from bench import machine
from bench.measure import Arm, turn, warm_up
from bench.stats import ratio_of, steady_difference

PAIRS = [
    ("tensorflow/static", "tensorflow"),
    ("tensorflow/dynamic", "tensorflow"),
    ("tensorflow/dynamic-v2", "tensorflow"),
    ("tensorflow/fused", "tensorflow"),
    ("torch/dynamic", "torch"),
    ("torch/traced", "torch"),
    ("torch/scripted", "torch"),
    ("torch/fused", "torch"),
    ("jax/static", "jax"),
    ("jax/dynamic", "jax"),
    ("jax/scan-unroll", "jax"),
]
MODES = ("forward", "train")


def plain_data(case: Case) -> dict[str, np.ndarray]:
    """The case's arrays in the two layouts that frameworks use, forget bias folded into one."""
    layer, batch = make_weights(case)[0], make_batch(case)
    data = {"x": batch.x, "targets": batch.targets}
    for order in ("igfo", "ifgo"):
        kernel = np.concatenate([fuse(layer, "W", order), fuse(layer, "U", order)])
        data[f"kernel_{order}"] = kernel
        data[f"bias_{order}"] = fuse(layer, "b", order)
    forget = slice(case.hidden, 2 * case.hidden)
    data["bias_ifgo"][forget] += 1.0
    return data


def one_pair(implementation: str, module: str, mode: str, case: Case) -> float:
    """The median paired log ratio of adapter to hand, in this process."""
    backend, strategy = implementation.split("/")
    runner = backends.create(backend, threads=1).build(case, strategy, mode)
    runner.load(make_weights(case))
    runner.bind(make_batch(case))
    call = runner.forward if mode == "forward" else runner.train
    by_hand = importlib.import_module(f"by_hand_{module}").build(strategy, mode, plain_data(case))
    check(runner, mode, call(), by_hand())
    arms = [
        Arm(name="adapter", call=call, sync=runner.sync),
        Arm(name="hand", call=by_hand, sync=lambda _out: None),
    ]
    arms = [arm.sized(warm_up(arm, calls=20, seconds=0.5)) for arm in arms]
    samples: dict[str, list[float]] = {"adapter": [], "hand": []}
    for number in range(15):
        for name, values in turn(arms if number % 2 else arms[::-1], palindromes=2).items():
            samples[name] += values
    return steady_difference(samples["adapter"], samples["hand"])


def one_process(command: list[str], backend: str) -> dict[str, float]:
    """Start a fresh process for both modes of a pair; its log ratios by mode."""
    done = subprocess.run(
        command,
        env={**os.environ, **backends.BACKENDS[backend].environment(1)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def check(runner: backends.api.Runner, mode: str, adapter: object, hand: object) -> None:
    """Both arms compute the same: outputs, or the loss of the first step."""
    runner.sync(adapter)
    if mode == "forward":
        got = runner.fetch(adapter).outputs
        first = hand if not isinstance(hand, tuple) else hand[0]
    else:
        got = runner.fetch_loss(adapter)
        first = hand[0] if isinstance(hand, tuple) else hand
        first = first.detach() if hasattr(first, "detach") else first
    np.testing.assert_allclose(got, np.asarray(first), rtol=1e-4, atol=1e-5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=10)
    parser.add_argument("--seq-len", type=int, default=50)
    parser.add_argument("--only", help="implementations, separated by commas")
    parser.add_argument("--out", type=Path, default=Path("results/native"))
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    case = Case(cell="lstm", seq_len=arguments.seq_len, batch=16, inputs=128, hidden=128)
    if arguments.one:
        os.sched_setaffinity(0, {machine.available_cpus()[-1]})
        print(json.dumps({mode: one_pair(*arguments.one, mode, case) for mode in MODES}))
        return
    rows = []
    for implementation, module in PAIRS:
        if arguments.only and implementation not in arguments.only.split(","):
            continue
        command = [sys.executable, __file__, "--seq-len", str(arguments.seq_len)]
        processes = [
            one_process([*command, "--one", implementation, module], implementation.split("/")[0])
            for _ in range(arguments.workers)
        ]
        for mode in MODES:
            values = [process[mode] for process in processes]
            ratio = ratio_of(values)
            rows.append(
                {
                    "implementation": implementation,
                    "mode": mode,
                    "adapter / hand": ratio.ratio,
                    "low": ratio.low,
                    "high": ratio.high,
                    "processes": ratio.blocks,
                    "log_ratios": values,
                }
            )
            print(f"{implementation} {mode}: {ratio.ratio:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]")
        write(arguments.out, case, rows)


def write(folder: Path, case: Case, rows: list[dict[str, object]]) -> None:
    """Write raw numbers and table; called after each implementation, so that none is lost."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = {"host": machine.describe(), "versions": machine.versions(), "case": vars(case)}
    text = json.dumps({**raw, "created": machine.timestamp(), "rows": rows}, indent=1)
    (folder / "native.json").write_text(text + "\n")
    table = pd.DataFrame(rows).drop(columns="log_ratios")
    (folder / "native.md").write_text(table.to_markdown(index=False, floatfmt=".3f") + "\n")


if __name__ == "__main__":
    main()
