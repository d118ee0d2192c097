"""Share of the physical limit that the fastest calls reach: from it comes the margin.

    python benchmarks/plausible.py [--repetitions 1] [--seconds 0.02] [--out FILE]

A figure is called implausible where it is faster than the limit of the case by more than
`bench.plausible.MARGIN`. Each implementation is timed call after call in a process of its
framework, on one CPU, over networks that are small or middle, and its fastest call is held against
the limit: the seconds that `bench.plausible` says it takes at least, by the peaks measured in the
same processes. A share of 1 is the limit. Bare products, which are held against all their FLOPs,
say how well the peak was read. Goal: no share above 1.25, and none above 1.6, 80 % of the margin,
by the lowest peaks that any one process read.

Prints the largest shares, of each implementation and of all, and the peaks of each process; writes
every call. Takes some three minutes of one core on which nothing else runs.
"""

from __future__ import annotations

import gc
import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import backends
from backends import IMPLEMENTATIONS
from backends.api import MODES, Backend, Case, Dtype
from backends.products import flops
from bench.format import digits
from bench.measure import clock
from bench.peaks import Peaks, best, measure_peaks
from bench.plausible import MARGIN, least_seconds, true_flops
from bench.record import Job
from bench.run import chosen_cpus
from benchmarks import instrument
from benchmarks.by_itself import prepared

NAMES = (
    "reference/products,torch/products,torch/fused,torch/dynamic,onnx/fused,"
    "jax/dynamic,tensorflow/fused"
)

CELLS = ("lstm", "gru", "gru-reset-after", "rnn")

#: Hidden units and inputs, sequences, steps.
SHAPES = (
    *((8, 1, 1), (8, 1, 50), (32, 64, 1), (64, 1, 10), (128, 1, 50)),
    *((128, 64, 10), (256, 16, 10), (512, 1, 1), (512, 64, 1), (512, 64, 10)),
)

#: Of the other dtypes, one cell and these.
OTHER_DTYPES: tuple[Dtype, ...] = ("float64", "bfloat16", "float16")
OTHER_CELL, OTHER_SHAPES = "lstm", ((512, 1, 1), (256, 16, 10))

#: Hidden units of cases whose time is that of reading all weights once.
READING = (64, 128, 256, 512)

#: Batches that calls read in turn, and calls before those that are timed.
BATCHES, WARM_CALLS = 4, 3

#: Shares that are good, by the best peaks and by the lowest.
GOAL, GOAL_BY_LOWEST = 1.25, 0.8 * MARGIN

#: Rows of the table of all.
SHOWN = 25


def cases() -> list[Case]:
    """The cases that are timed, of each cell and dtype."""
    float32 = [
        Case(cell=cell, seq_len=t, batch=b, inputs=h, hidden=h)
        for cell, (h, b, t) in itertools.product(CELLS, SHAPES)
    ]
    others = [
        Case(cell=OTHER_CELL, seq_len=t, batch=b, inputs=h, hidden=h, dtype=dtype)
        for dtype, (h, b, t) in itertools.product(OTHER_DTYPES, OTHER_SHAPES)
    ]
    reading = [
        Case(cell="lstm", seq_len=1, batch=1, inputs=h, hidden=h, initial_state="random")
        for h in READING
    ]
    return float32 + others + reading


def jobs_of(name: str) -> list[Job]:
    """The jobs that an implementation does not refuse."""
    return [
        Job(implementation=name, case=case, mode=mode, measure="steady")
        for case, mode in itertools.product(cases(), MODES)
        if backends.refusal(name, case, mode) is None
    ]


def serve(backend: str, seconds: float) -> None:
    """Print the peaks of each dtype, and the fastest call of each job of standard input."""
    created = backends.create(backend, threads=1)
    for dtype in dict.fromkeys(case.dtype for case in cases()):
        case = next(case for case in cases() if case.dtype == dtype)
        limits = [e.name for e in backends.of_kind(["limit"]) if e.backend == backend]
        if any(backends.refusal(name, case, "forward") is None for name in limits):
            found = measure_peaks(created, device="cpu", dtype=dtype, tf32="off")
            print(json.dumps({"dtype": dtype, "peaks": found.to_json()}), flush=True)
    for line in sys.stdin:
        try:
            job = Job.from_json(json.loads(line))
            reply: dict[str, Any] = {"call_s": fastest_call(created, job, seconds)}
        except Exception as error:
            reply = {"failure": f"{type(error).__name__}: {error}".splitlines()[0]}
        print(json.dumps(reply), flush=True)


def fastest_call(backend: Backend, job: Job, seconds: float) -> float:
    """Seconds of the fastest of a job's calls, each with another batch."""
    runner, arm = prepared(backend, job, BATCHES)
    for _ in range(WARM_CALLS):
        arm.advance()
        arm.sync(arm.call())
    gc.collect()
    gc.disable()
    began_ns, least_ns = clock(), math.inf
    while clock() - began_ns < 1e9 * seconds:
        arm.advance()
        start_ns = clock()
        arm.sync(arm.call())
        least_ns = min(least_ns, clock() - start_ns)
    gc.enable()
    runner.close()
    return least_ns / 1e9


def replies(backend: str, jobs: Sequence[Job], seconds: float) -> Iterator[dict[str, Any]]:
    """The output of a fresh process of a backend, on the CPU that a run would choose."""
    command = [sys.executable, __file__, "serve", backend, str(seconds)]
    with subprocess.Popen(
        ["taskset", "-c", ",".join(map(str, chosen_cpus(1))), *command],
        env={**os.environ, **backends.BACKENDS[backend].environment(1)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.writelines(json.dumps(asdict(job)) + "\n" for job in jobs)
        process.stdin.close()
        yield from map(json.loads, process.stdout)


def measured(
    names: Sequence[str], repetition: int, seconds: float
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The peaks that each process read, by dtype, and a row for each job."""
    read: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for backend in dict.fromkeys(IMPLEMENTATIONS[name].backend for name in names):
        jobs = [job for n in names if n.split("/")[0] == backend for job in jobs_of(n)]
        waiting = iter(jobs)
        for reply in replies(backend, jobs, seconds):
            if "peaks" in reply:
                read.append({"backend": backend, "repetition": repetition, **reply})
            else:
                rows.append({"failure": None, **asdict(next(waiting)), **reply})
        rows += [{**asdict(job), "failure": "its process ended"} for job in waiting]
    return read, [{**row, "repetition": repetition} for row in rows]


def with_shares(
    rows: Sequence[Mapping[str, Any]], read: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Rows with their share of the limit, by the best peaks and by the lowest that were read."""
    top = {dtype: best(*of_dtype(read, dtype)) for dtype in {each["dtype"] for each in read}}
    found = []
    for row in rows:
        if row["failure"] is not None:
            found.append(dict(row))
            continue
        case = Case(**row["case"])
        shares = [share(row, case, peaks) for peaks in of_dtype(read, case.dtype)]
        found.append({**row, **share(row, case, top[case.dtype])})
        found[-1]["share_by_lowest"] = max(each["share"] for each in shares)
    return found


def of_dtype(read: Sequence[Mapping[str, Any]], dtype: str) -> list[Peaks]:
    return [Peaks.from_json(each["peaks"]) for each in read if each["dtype"] == dtype]


def share(row: Mapping[str, Any], case: Case, peaks: Peaks) -> dict[str, Any]:
    """The part of a call that its limit is, and which one that is."""
    assert peaks.flops_per_s is not None
    if IMPLEMENTATIONS[row["implementation"]].kind == "limit":
        least_s, by = flops(case, row["mode"]) / peaks.flops_per_s, "all FLOPs"
    else:
        least_s = least_seconds(case, row["mode"], peaks)
        computed_s = true_flops(case, row["mode"]) / peaks.flops_per_s
        by = "FLOPs" if least_s == computed_s else "bytes"
    return {"share": least_s / row["call_s"], "by": by}


def largest(rows: Sequence[Mapping[str, Any]], count: int) -> list[dict[str, str]]:
    """The rows with the largest shares."""
    known = [row for row in rows if row["failure"] is None]
    lines = []
    for row in sorted(known, key=lambda row: -float(row["share"]))[:count]:
        case = row["case"]
        lines.append(
            {
                "implementation": row["implementation"],
                "mode": row["mode"],
                "case": f"{case['cell']} {case['dtype']}",
                "H, B, T": f"{case['hidden']}, {case['batch']}, {case['seq_len']}",
                "a call [us]": digits(1e6 * row["call_s"]),
                "by": row["by"],
                "share of the limit": f"{row['share']:.3f}",
                "by the lowest peaks": f"{row['share_by_lowest']:.3f}",
            }
        )
    return lines


def peaks_table(read: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """A line for each process and dtype."""
    lines = []
    for each in read:
        peaks = Peaks.from_json(each["peaks"])
        lines.append(
            {
                "process": f"{each['backend']} {each['repetition']}",
                "dtype": each["dtype"],
                "GFLOP/s": digits((peaks.flops_per_s or 0) / 1e9),
                **{f"{s / 2**20:g} MB": digits(rate / 1e9) for s, rate in peaks.bandwidth},
            }
        )
    return lines


def main() -> None:
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2], float(sys.argv[3]))
        return
    parser = instrument.options(__doc__, "plausible")
    parser.add_argument("--repetitions", type=instrument.count, default=1)
    parser.add_argument("--seconds", type=float, default=0.02, help="of calls, a job")
    parser.add_argument("--implementations", default=NAMES, metavar="A,B,...")
    arguments = parser.parse_args()
    names = instrument.implementations(arguments.implementations)
    read: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    began_ns = clock()
    for repetition in range(arguments.repetitions):
        more_read, more_rows = measured(names, repetition, arguments.seconds)
        read, rows = read + more_read, rows + more_rows
        shares = with_shares(rows, read)
        instrument.write(
            arguments.out,
            settings={"seconds": arguments.seconds, "repetitions": repetition + 1},
            rows=shares,
            peaks=read,
            margin=MARGIN,
            goal={"share": GOAL, "share_by_lowest": GOAL_BY_LOWEST},
        )
        instrument.progress("repetitions", repetition + 1, arguments.repetitions, began_ns)
    networks = [row for row in shares if row.get("by") != "all FLOPs"]
    each = [[row for row in shares if row["implementation"] == name] for name in names]
    instrument.print_table([line for of_one in each for line in largest(of_one, 1)])
    print(f"\nThe {SHOWN} largest of networks:\n")
    instrument.print_table(largest(networks, SHOWN))
    print("\nThe largest by the bytes that they move:\n")
    instrument.print_table(largest([r for r in networks if r.get("by") == "bytes"], SHOWN // 3))
    print("\nPeaks by process [GFLOP/s; GB/s]:\n")
    instrument.print_table(peaks_table(read))
    for row in rows:
        if row["failure"] is not None:
            print(f"failed: {row['implementation']} {row['mode']} {row['case']}: {row['failure']}")


if __name__ == "__main__":
    instrument.run_script(main)
