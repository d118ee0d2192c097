"""Wall time until the ratio of one pair is known to +-2 %: this harness, pyperf, pytest-benchmark.

    python benchmarks/time_to_verdict.py [--a torch/fused] [--b torch/dynamic] [--precision 2]

The criterion is the same for all: a 95 % interval of the ratio that reaches no further than 2 %
from its middle, over three units of repetition or more. The clock runs from nothing to that, with
all that a tool starts by itself. A unit is what a tool repeats independently:

- this harness: a block, in which both sides take turns, in a forked process each. It looks after
  5, 10 and 20 blocks, as a run with `--precision` does, each time at the level of three looks.
- pyperf: a process of one side. Its own `Runner` calibrates and starts five processes a side, and
  five more, until a Welch interval of their means is narrow. Looking that often at 95 % is in its
  favour: such intervals are narrow too soon now and then.
- pytest-benchmark: a session of two benchmarks, a process; sessions are added one by one. The
  interval it could give of one session, over rounds, knows nothing of what differs between
  processes. Its favour is the same as pyperf's.

All run the same adapter with one thread on one CPU. The harness also compares outputs and gradients
with the oracle, which the others do not. "whole run" is `bench run` of the pair with as many blocks
as sufficed: memory, cold starts, the matrix products alone and identical twins besides.

A tool that is not there after `--limit` seconds is stopped; what it would take is projected, the
interval shrinking with the root of the time. Goal: a third of either's time. Takes some ten
minutes. pyperf is in no extra of this project: `pip install pyperf`.
"""

from __future__ import annotations

import math
import os
import random
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from backends.api import MODES, Case
from bench import run, stats
from bench.errors import UsageError
from bench.floors import steady_blocks
from bench.measure import clock
from bench.record import Job, Record, Status
from bench.selection import select
from benchmarks import instrument
from benchmarks.rivals.tools import (
    Pair,
    Ratios,
    by_pyperf,
    by_pytest_benchmark,
    check_installed,
    succeed,
)

#: Two processes can agree by chance.
FEWEST_UNITS = 3

GOAL = 1 / 3


def is_narrow(ratio: stats.Ratio, precision: float) -> bool:
    """Whether the interval reaches no further than `precision` (0.02: 2 %) from its middle."""
    return ratio.blocks >= FEWEST_UNITS and ratio.high <= ratio.low * (1 + precision) ** 2


def until_narrow(ratios: Ratios, precision: float, limit_s: float) -> dict[str, Any]:
    """Take ratios until one is narrow or the time is up.

    "steps" are all that were seen, and "seconds" when the last one was; "projected_s" is when it
    would be narrow, None where there is no interval to tell by.
    """
    steps: list[dict[str, Any]] = []
    began_ns = clock()
    for ratio in ratios:
        seconds = (clock() - began_ns) / 1e9
        known = {"confidence": ratio.confidence, **instrument.bounds(ratio)}
        steps.append({"seconds": seconds, "units": ratio.blocks, **known})
        if is_narrow(ratio, precision) or seconds > limit_s:
            break
    reached = is_narrow(ratio, precision)
    projected_s = None
    if reached:
        projected_s = seconds
    elif ratio.blocks > 1:
        half_width = math.sqrt(ratio.high / ratio.low) - 1
        projected_s = seconds * max(1.0, half_width / precision) ** 2
    return {"reached": reached, "seconds": seconds, "projected_s": projected_s, "steps": steps}


def by_blocks(pair: Pair, blocks: int) -> Ratios:
    """This harness: looks after so many blocks, twice and four times as many."""
    jobs, order = pair.jobs, random.Random()
    records: list[Record] = []
    sampling = instrument.default_sampling(blocks=blocks)
    with tempfile.TemporaryDirectory(prefix="rnn-bench-") as name:
        expected = instrument.oracle_files([(pair.case, pair.mode)], Path(name))
        for looked in (range(blocks), range(blocks, 2 * blocks), range(2 * blocks, 4 * blocks)):
            found = instrument.measured(
                {"pair": jobs},
                looked,
                sampling=sampling,
                expected=expected,
                folder=Path(name),
                order=order,
            )
            records += found["pair"]
            yield _ratio(records, jobs)


def by_whole_run(pair: Pair, blocks: int) -> Ratios:
    """This harness: a run with all that belongs to one."""
    axes = {
        "backend": (pair.jobs[0].backend,),
        "strategy": tuple(name.split("/")[1] for name in (pair.a, pair.b)),
        "mode": (pair.mode,),
        **{name: (getattr(pair.case, name),) for name in ("seq_len", "batch", "hidden", "inputs")},
    }
    sampling = {"blocks": blocks}
    sweep = select("default", axes, sampling=sampling, capped=False)
    with tempfile.TemporaryDirectory(prefix="rnn-bench-") as name:
        done = run.execute(
            sweep,
            Path(name, "run"),
            threads=1,
            start="fork",
            command="time_to_verdict.py",
            progress=run.Silent(),
        )
    yield _ratio(done.records, pair.jobs)


def _ratio(records: Iterable[Record], jobs: tuple[Job, Job]) -> stats.Ratio:
    known = [record for record in records if record.job in jobs]
    lost = [record for record in known if record.status != Status.OK]
    if lost:
        raise RuntimeError(f"{lost[0].job.implementation}: {lost[0].status}: {lost[0].reason}")
    a, b = (steady_blocks(r for r in known if r.job == job) for job in jobs)
    ratio = stats.steady_ratio(a, b, stats.look_confidence())
    if ratio is None:
        raise RuntimeError("the arms share no block")
    return ratio


def table_row(row: Mapping[str, Any], ours_s: float | None) -> dict[str, str]:
    """Table row of a tool; `ours_s` is this harness's time for the same."""
    last = row["steps"][-1]
    shown = {
        "tool": row["tool"],
        "seconds": f"{row['seconds']:.1f}" if row["reached"] else f"more than {row['seconds']:.0f}",
        "units": str(last["units"]),
        "ratio": f"{last['ratio']:.3f}",
    }
    if last["low"] is not None:
        shown["ratio"] += f" [{last['low']:.3f}, {last['high']:.3f}]"
    if row["projected_s"] is not None and ours_s is not None:
        shown["times ours"] = f"{row['projected_s'] / ours_s:.1f}"
        shown["times ours"] += "" if row["reached"] else " (projected)"
    return shown


def measure(
    pair: Pair, *, blocks: int, precision: float, limit_s: float, out: Path
) -> tuple[list[dict[str, Any]], str]:
    """A row a tool, and what `pyperf compare_to` says at the end; written tool by tool."""
    rows: list[dict[str, Any]] = []
    said = ""
    settings = {**asdict(pair), "blocks": blocks, "precision": precision, "limit_s": limit_s}

    def take(tool: str, ratios: Ratios) -> None:
        rows.append({"tool": tool, **until_narrow(ratios, precision, limit_s)})
        instrument.write(out, settings=settings, rows=rows, goal=GOAL, compare_to=said)
        step = rows[-1]["steps"][-1]
        print(f"{tool}: {rows[-1]['seconds']:.0f} s, {step['units']} units", file=sys.stderr)

    with tempfile.TemporaryDirectory(prefix="rnn-bench-") as name:
        folder = Path(name)
        take("this harness", by_blocks(pair, blocks))
        take("this harness, whole run", by_whole_run(pair, rows[0]["steps"][-1]["units"]))
        take("pytest-benchmark", by_pytest_benchmark(pair, folder))
        take("pyperf", by_pyperf(pair, folder))
        files = (str(folder / f"pyperf-{side}.json") for side in "ab")
        said = succeed([sys.executable, "-m", "pyperf", "compare_to", *files], pair.environment)
        instrument.write(out, settings=settings, rows=rows, goal=GOAL, compare_to=said)
    return rows, said


def main() -> None:
    parser = instrument.options(__doc__, "time_to_verdict")
    parser.add_argument("--a", default="torch/fused", help="[default: %(default)s]")
    parser.add_argument("--b", default="torch/dynamic", help="[default: %(default)s]")
    parser.add_argument("--seq-len", type=instrument.count, default=50)
    parser.add_argument("--mode", choices=MODES, default="forward")
    parser.add_argument("--blocks", type=instrument.count, default=5, help="of the first look")
    parser.add_argument("--precision", type=instrument.count, default=2, help="percent")
    parser.add_argument("--limit", type=instrument.count, default=240, help="seconds a tool")
    arguments = parser.parse_args()
    check_installed()
    if arguments.a == arguments.b:
        raise UsageError(f"{arguments.a}: must differ from what it is compared with")
    a, b = instrument.implementations(f"{arguments.a},{arguments.b}")
    case = Case(cell="lstm", seq_len=arguments.seq_len, batch=16, inputs=128, hidden=128)
    pair = Pair(a=a, b=b, case=case, mode=arguments.mode)
    # All tools on the CPU that the harness chooses, their parents too.
    os.sched_setaffinity(0, run.chosen_cpus(1))
    rows, said = measure(
        pair,
        blocks=arguments.blocks,
        precision=arguments.precision / 100,
        limit_s=arguments.limit,
        out=arguments.out,
    )
    instrument.print_table([table_row(row, rows[0]["projected_s"]) for row in rows])
    print(f"\npyperf compare_to: {said.strip()}")


if __name__ == "__main__":
    instrument.run_script(main)
