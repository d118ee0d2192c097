"""Each adapter against the same LSTM written by hand in its framework, in turns by bursts.

    python benchmarks/native/compare.py [--workers 10] [--seq-len 50] [--out results/native]

For each implementation and mode some pairs of fresh processes, one with the adapter and one with
the script, take turns as the arms of a block do. Both must have computed the same before. A pair
gives one number, the median log ratio over rounds; the interval is a t-interval over pairs. Above 1
the adapter is slower. Writes the raw numbers beside the table.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[2]))

import backends
from bench import machine
from bench.ending import wait_until_asleep
from bench.stats import ratio_of, steady_difference

MODES = ("forward", "train")


@dataclass(frozen=True)
class Pair:
    """The script that has an implementation by hand, and the T at which a mode stops.

    Unrolled loops take seconds a step to compile.
    """

    script: str
    caps: dict[str, int] = field(default_factory=dict)


PAIRS = {
    "tensorflow/static": Pair("by_hand_tensorflow"),
    "tensorflow/dynamic": Pair("by_hand_tensorflow"),
    "tensorflow/dynamic-v2": Pair("by_hand_tensorflow"),
    "tensorflow/fused": Pair("by_hand_tensorflow"),
    "tensorflow/keras": Pair("by_hand_tensorflow_function"),
    "tensorflow/keras-unrolled": Pair("by_hand_tensorflow_function", {"forward": 20, "train": 20}),
    "tensorflow/xla": Pair("by_hand_tensorflow_function"),
    "torch/static": Pair("by_hand_torch", {"forward": 10, "train": 10}),
    "torch/dynamic": Pair("by_hand_torch"),
    "torch/traced": Pair("by_hand_torch", {"train": 20}),
    "torch/scripted": Pair("by_hand_torch"),
    "torch/fused": Pair("by_hand_torch"),
    "jax/static": Pair("by_hand_jax", {"train": 10}),
    "jax/dynamic": Pair("by_hand_jax"),
    "jax/scan-unroll-2": Pair("by_hand_jax"),
    "jax/scan-unroll-4": Pair("by_hand_jax"),
    "jax/scan-unroll-8": Pair("by_hand_jax"),
    "jax/scan-unroll-16": Pair("by_hand_jax"),
    "jax/scan-unroll-32": Pair("by_hand_jax"),
}


class Process:
    """One arm in a process of its own."""

    def __init__(self, job: dict[str, Any]) -> None:
        info = backends.BACKENDS[job["implementation"].split("/")[0]]
        self.results = Path(job["results"])
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("one_process.py")), json.dumps(job)],
            env={**os.environ, **info.environment(1)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def answer(self) -> Any:
        """The next line that the process prints as JSON. Raises `RuntimeError` where it ended."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(("{", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9")):
                return json.loads(line)
        _, said = self._process.communicate()
        last = said.strip().splitlines()[-1:] or [""]
        raise RuntimeError(f"exit status {self._process.returncode}: {last[0]}")

    def burst(self, size_s: float) -> float:
        """Seconds a call of one burst, sized for calls of `size_s`."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps(size_s)}\n")
        self._process.stdin.flush()
        found = float(self.answer())
        wait_until_asleep(self._process.pid)
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def agree(mode: str, adapter: Path, hand: Path) -> None:
    """Raise `RuntimeError` where the results of two arms differ.

    Outputs and state by 1e-5, the loss by 1e-5 of itself, what the steps have changed of the
    weights by 1e-3 of the largest change; and where a step leaves weights as they were.
    """
    with np.load(adapter) as one, np.load(hand) as other:
        for name in other.files:
            got, want = one[name], other[name]
            most = float(np.abs(want).max())
            limit = 1e-5 if mode == "forward" else (1e-5 if name == "loss" else 1e-3) * most
            if got.shape != want.shape or not float(np.abs(got - want).max()) <= limit:
                raise RuntimeError(f"{mode}: {name} of the arms differs")
            if mode == "train" and most < 1e-5:
                raise RuntimeError(f"{mode}: {name} stays as it was")


def one_pair(job: dict[str, Any], number: int, folder: Path) -> dict[str, list[float]]:
    """Samples of either arm, round by round, from two fresh processes."""
    with ExitStack() as stack:
        arms = {}
        for name in ("adapter", "hand"):
            path = folder / f"{name}.npz"
            arms[name] = Process({**job, "arm": name, "results": str(path)})
            stack.callback(arms[name].close)
        call_s = {name: arm.answer()["call_s"] for name, arm in arms.items()}
        agree(job["mode"], arms["adapter"].results, arms["hand"].results)
        size_s = min(call_s.values())
        samples: dict[str, list[float]] = {name: [] for name in arms}
        for turn in range(job["rounds"]):
            for name in list(arms)[:: 1 if (turn + number) % 2 else -1]:
                samples[name].append(arms[name].burst(size_s))
        return samples


def compare(implementation: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Raw rows of an implementation, one a mode."""
    pair = PAIRS[implementation]
    rows = []
    for mode in MODES:
        seq_len = min(arguments.seq_len, pair.caps.get(mode, sys.maxsize))
        row: dict[str, Any] = {
            "implementation": implementation,
            "mode": mode,
            "seq_len": seq_len,
            "log_ratios": [],
            "adapter_s": [],
            "hand_s": [],
            "failure": None,
        }
        rows.append(row)
        job = {
            "implementation": implementation,
            "script": pair.script,
            "mode": mode,
            "seq_len": seq_len,
            "rounds": arguments.rounds,
        }
        with tempfile.TemporaryDirectory(prefix="rnn-bench-") as folder:
            for number in range(arguments.workers):
                try:
                    found = one_pair(job, number, Path(folder))
                except RuntimeError as error:  # the next pair would fail alike
                    row["failure"] = str(error)
                    break
                row["log_ratios"].append(steady_difference(found["adapter"], found["hand"]))
                row["adapter_s"].append(median(found["adapter"]))
                row["hand_s"].append(median(found["hand"]))
    return rows


def table_row(row: dict[str, Any]) -> dict[str, Any]:
    """Table row of a raw row."""
    shown = {"implementation": row["implementation"], "mode": row["mode"], "T": row["seq_len"]}
    if row["log_ratios"]:
        ratio = ratio_of(row["log_ratios"])
        interval = f" [{ratio.low:.3f}, {ratio.high:.3f}]" if ratio.blocks > 1 else ""
        shown |= {
            "adapter [ms]": f"{1e3 * median(row['adapter_s']):.3f}",
            "by hand [ms]": f"{1e3 * median(row['hand_s']):.3f}",
            "adapter / by hand": f"{ratio.ratio:.3f}{interval}",
        }
    return {**shown, "processes": len(row["log_ratios"]), "failure": row["failure"] or ""}


def write(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Write raw numbers and table; called after each implementation, so that none is lost."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = {
        "created": machine.timestamp(),
        "commit": machine.commit(),
        "host": machine.describe(),
        "versions": machine.versions(),
        "case": {"cell": "lstm", "batch": 16, "inputs": 128, "hidden": 128},
        "rows": rows,
    }
    (folder / "native.json").write_text(json.dumps(raw, indent=1) + "\n")
    table = pd.DataFrame([table_row(row) for row in rows]).fillna("")
    (folder / "native.md").write_text(table.to_markdown(index=False, disable_numparse=True) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=10, help="pairs of processes a mode")
    parser.add_argument("--seq-len", type=int, default=50, help="T, where nothing stops earlier")
    parser.add_argument("--rounds", type=int, default=12, help="bursts of either arm a pair")
    parser.add_argument("--only", help="implementations, separated by commas")
    parser.add_argument("--out", type=Path, default=Path("results/native"))
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for implementation in arguments.only.split(",") if arguments.only else PAIRS:
        rows += compare(implementation, arguments)
        for row in rows[-len(MODES) :]:
            print(" ".join(str(value) for value in table_row(row).values()), flush=True)
        write(arguments.out, rows)


if __name__ == "__main__":
    main()
