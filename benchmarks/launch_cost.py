"""Cost of starting a worker: forked by a server that has imported, or a fresh interpreter.

    python benchmarks/launch_cost.py [--repetitions 7] [--out FILE]

In each repetition, which has servers of its own, both ways take turns in being first:

- answer: from nothing until a worker has answered a request that is next to nothing, the oracle's
  results of a network of one unit; end: until it is gone then.
- child: a whole cold job of a small network: start, create, build, load, first call, check, end.
  "outside" is what of it is in none of the measured phases. Goal: 0.1 s or less when forked. (A
  fresh interpreter's import is outside, too.)
- steady: one job in a forked and in a spawned worker that take turns; the ratio has an interval.

Outputs, loss and gradients are compared with those of a plain process that knows nothing of the
harness: they are the same bit by bit where every difference is exactly zero.

What a worker does in a job outside its phases is taken from a profile of it. Prints medians with
their range, and writes every repetition. Takes some six minutes.
"""

from __future__ import annotations

import itertools
import random
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any, get_args

sys.path.insert(0, str(Path(__file__).parents[1]))

from backends.api import MODES, Case, Mode
from bench import stats
from bench.block import Block
from bench.launch import Start, Team
from bench.measure import clock
from bench.outcome import in_own_worker
from bench.record import TO_FIRST, Job, Record, Status
from benchmarks import instrument
from benchmarks.by_itself import elsewhere

CASE = Case(cell="lstm", seq_len=10, batch=4, inputs=32, hidden=32)
ONE_UNIT = Case(cell="lstm", seq_len=1, batch=1, inputs=1, hidden=1)

#: The phases that a cold job measures; the stages of a build are part of it.
PHASES = ("create", *TO_FIRST)

STARTS: tuple[Start, ...] = get_args(Start)

GOAL_S = 0.1

#: Of steady samples, in each repetition.
STEADY_S = 0.3

#: A fresh interpreter imports its framework before it answers.
LIMIT_S = 180.0


def job_of(implementation: str, mode: Mode) -> Job:
    return Job(implementation=implementation, case=CASE, mode=mode, measure="cold")


def seconds_of(action: Callable[[], object]) -> float:
    began_ns = clock()
    action()
    return (clock() - began_ns) / 1e9


def answer_and_end(team: Team, backend: str) -> dict[str, float]:
    """Seconds until a worker has answered, and until it is gone."""
    path = team.scratch / "one-unit.npz"
    message = {"op": "expect", "case": asdict(ONE_UNIT), "mode": "train", "path": str(path)}
    began_ns = clock()
    worker = team.worker(backend)
    try:
        worker.request(message, limit_s=LIMIT_S)
        answered_ns = clock()
    finally:
        worker.close()
    ended_ns = clock()
    return {"answer_s": (answered_ns - began_ns) / 1e9, "end_s": (ended_ns - answered_ns) / 1e9}


def cold(team: Team, job: Job, path: Path) -> dict[str, Any]:
    """A whole child: its seconds, those of its phases, and whether it computed just the same."""
    records: list[Record] = []
    child_s = seconds_of(lambda: records.append(in_own_worker(team, job, 0, path)))
    (record,) = records
    if record.status != Status.OK:
        return {"failure": f"{record.status}: {record.reason}"}
    phases = {phase: sum(record.samples[phase]) for phase in PHASES}
    return {
        "failure": None,
        "child_s": child_s,
        "phases_s": phases,
        "outside_s": child_s - sum(phases.values()),
        "identical": all(error["absolute"] == 0 for error in record.errors.values()),
    }


def repetition(
    implementation: str, number: int, expected: Mapping[Mode, Path], folder: Path
) -> list[dict[str, Any]]:
    """A row for each way of starting, first the one that is first this time."""
    backend = job_of(implementation, "forward").backend
    rows = []
    with ExitStack() as stack:
        teams: dict[Start, Team] = {}
        ready_s = {}
        for start in STARTS:
            began_ns = clock()
            teams[start] = stack.enter_context(instrument.team([backend], folder, start))
            ready_s[start] = (clock() - began_ns) / 1e9
        for start in STARTS if number % 2 == 0 else STARTS[::-1]:
            team = teams[start]
            row = {"implementation": implementation, "start": start, "repetition": number}
            row |= {"server_s": ready_s[start], **answer_and_end(team, backend)}
            colds = {
                mode: cold(team, job_of(implementation, mode), path)
                for mode, path in expected.items()
            }
            rows.append({**row, "cold": colds})
        job = replace(job_of(implementation, "forward"), measure="steady")
        block = Block(
            [teams[start] for start in STARTS],
            [job],
            {(CASE, "forward"): expected["forward"]},
            instrument.default_sampling(steady_s=STEADY_S),
            random.Random(),
            lambda _job: None,
        )
        for start, (record,) in zip(STARTS, block.run(number), strict=True):
            (row,) = (row for row in rows if row["start"] == start)
            row["steady"] = record.samples.get("steady", [])
            row["steady_failure"] = None if record.status == Status.OK else record.reason
    return rows


def steady_ratio(rows: Sequence[Mapping[str, Any]], implementation: str) -> stats.Ratio | None:
    """Time of a call in a spawned worker over that in a forked one."""
    chosen = [row for row in rows if row["implementation"] == implementation and row["steady"]]
    spawned, forked = (
        {row["repetition"]: row["steady"] for row in chosen if row["start"] == start}
        for start in ("spawn", "fork")
    )
    return stats.steady_ratio(spawned, forked)


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """A line for each implementation and way of starting."""
    lines = []
    for name, start in itertools.product(
        dict.fromkeys(row["implementation"] for row in rows), ("fork", "spawn")
    ):
        chosen = [r for r in rows if r["implementation"] == name and r["start"] == start]
        colds = {
            mode: [row["cold"][mode] for row in chosen if row["cold"][mode]["failure"] is None]
            for mode in MODES
        }
        every = [cold for found in colds.values() for cold in found]
        line = {
            "implementation": name,
            "start": start,
            "server [s]": spread(row["server_s"] for row in chosen) if start == "fork" else "",
            "answer [s]": spread(row["answer_s"] for row in chosen),
            "end [s]": spread(row["end_s"] for row in chosen),
        }
        for mode, found in colds.items():
            line[f"child, {mode} [s]"] = spread(cold["child_s"] for cold in found)
            line[f"outside, {mode} [s]"] = spread(cold["outside_s"] for cold in found)
        same = sum(cold["identical"] for cold in every)
        line["same bits"] = f"{same} of {len(every)}"
        ratio = steady_ratio(rows, name) if start == "spawn" else None
        if ratio is not None:
            line["steady, spawn / fork"] = f"{ratio.ratio:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"
        lines.append(line)
    return lines


def spread(values: Iterable[float]) -> str:
    """Median and range, in seconds."""
    known = list(values)
    if not known:
        return "failed"
    return f"{median(known):.3f} ({min(known):.3f} to {max(known):.3f})"


def measured(implementations: Sequence[str], repetitions: int, out: Path) -> dict[str, Any]:
    """Rows of all repetitions, written one by one, and the parts of what is outside."""
    rows: list[dict[str, Any]] = []
    inside: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="rnn-bench-") as name:
        folder, began_ns = Path(name), clock()
        expected: dict[str, dict[Mode, Path]] = {}
        for entry in implementations:
            expected[entry] = {}
            for mode in MODES:
                path = folder / f"{entry.replace('/', '-')}-{mode}.npz"
                elsewhere("compute", job_of(entry, mode), path)
                found = elsewhere("profile", job_of(entry, mode), path)
                inside.append({"implementation": entry, "mode": mode, "parts_s": found})
                expected[entry][mode] = path
        for number in range(repetitions):
            for entry in implementations:
                rows += repetition(entry, number, expected[entry], folder)
            settings = {"repetitions": repetitions, "case": asdict(CASE), "steady_s": STEADY_S}
            instrument.write(out, settings=settings, rows=rows, parts=inside, goal_s=GOAL_S)
            instrument.progress("repetitions", number + 1, repetitions, began_ns)
    return {"rows": rows, "parts": inside}


def failures(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    said = []
    for row in rows:
        found = {mode: cold["failure"] for mode, cold in row["cold"].items()}
        for what, reason in {**found, "steady": row["steady_failure"]}.items():
            if reason is not None:
                said.append(f"{row['implementation']} {row['start']} {what}: {reason}")
    return said


def main() -> None:
    parser = instrument.options(__doc__, "launch_cost")
    parser.add_argument("--repetitions", type=instrument.count, default=7)
    parser.add_argument("--implementations", default=instrument.DYNAMIC, metavar="A,B,...")
    arguments = parser.parse_args()
    names = instrument.implementations(arguments.implementations)
    found = measured(names, arguments.repetitions, arguments.out)
    instrument.print_table(summary(found["rows"]))
    print("\nWithin a cold job, outside its phases [ms]:\n")
    instrument.print_table(
        [
            {
                "implementation": row["implementation"],
                "mode": row["mode"],
                **{what: f"{1e3 * seconds:.1f}" for what, seconds in row["parts_s"].items()},
            }
            for row in found["parts"]
        ]
    )
    for said in failures(found["rows"]):
        print(f"failed: {said}")


if __name__ == "__main__":
    instrument.run_script(main)
