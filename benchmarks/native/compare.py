"""Each adapter against the same LSTM written by hand in its framework, interleaved in one process.

    python benchmarks/native/compare.py [--workers 10] [--seq-len 50] [--out results/native]

For each implementation some fresh processes each hold both arms and call them A B B A. A process
gives one number a mode, the median paired log ratio; the interval is a t-interval over processes.
Above 1 the adapter is slower. Writes the raw numbers beside the table.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[2]))

import backends
from bench import machine
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


def one_process(job: dict[str, Any], timeout: float) -> tuple[dict[str, Any], str | None]:
    """Samples by mode from a fresh process, and why there are not all of them."""
    info = backends.BACKENDS[job["implementation"].split("/")[0]]
    command = [sys.executable, str(Path(__file__).with_name("one_process.py")), json.dumps(job)]
    failure = None
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **info.environment(1)},
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        printed = done.stdout
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            failure = f"exit status {done.returncode}: {lines[-1] if lines else ''}"
    except subprocess.TimeoutExpired as expired:
        printed = expired.stdout or b""
        failure = f"not done after {timeout:g} s"
    results = [json.loads(line) for line in printed.splitlines() if line.startswith(b"{")]
    return {result.pop("mode"): result for result in results}, failure


def compare(implementation: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Raw rows of an implementation, one a mode."""
    pair = PAIRS[implementation]
    modes = {mode: min(arguments.seq_len, pair.caps.get(mode, sys.maxsize)) for mode in MODES}
    rows = {
        mode: {
            "implementation": implementation,
            "mode": mode,
            "seq_len": seq_len,
            "log_ratios": [],
            "adapter_s": [],
            "hand_s": [],
            "failure": None,
        }
        for mode, seq_len in modes.items()
    }
    for worker in range(arguments.workers):
        job = {
            "implementation": implementation,
            "script": pair.script,
            "modes": modes,
            "turns": arguments.turns,
            "hand_first": worker % 2 == 1,
        }
        results, failure = one_process(job, arguments.timeout)
        for mode, result in results.items():
            row = rows[mode]
            row["log_ratios"].append(steady_difference(result["adapter"], result["hand"]))
            row["adapter_s"].append(median(result["adapter"]))
            row["hand_s"].append(median(result["hand"]))
        if failure:  # the next process would fail alike
            for mode in modes.keys() - results.keys():
                rows[mode]["failure"] = failure
            break
    return list(rows.values())


def table_row(row: dict[str, Any]) -> dict[str, Any]:
    """What the table says of a raw row."""
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
    parser.add_argument("--workers", type=int, default=10, help="processes an implementation")
    parser.add_argument("--seq-len", type=int, default=50, help="T, where nothing stops earlier")
    parser.add_argument("--turns", type=int, default=15, help="turns of either arm a process")
    parser.add_argument("--timeout", type=float, default=300, help="seconds a process may take")
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
