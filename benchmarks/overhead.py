"""What the instrument itself adds to a sample, asked of an arm that does nothing.

    python benchmarks/overhead.py [--workers 7] [--out FILE]

Each worker of each framework times an idle arm through the code that times every other one, as it
does in every run (`bench.measure.overhead`). Goals: at most 2 us a sample, and at most 0.5 % of
one. A sample is a millisecond or longer; of short calls it is a loop, which adds its own part for
each call. The last column is the shortest call at which all of it is 0.5 % of the sample.

Prints medians over workers with their range, and writes each worker's reading. Takes half a minute.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from backends import IMPLEMENTATIONS
from bench.engine import describe
from bench.measure import SAMPLE_S
from benchmarks import instrument

#: Of a sample, in seconds and as a share.
GOAL_S, GOAL_SHARE = 2e-6, 0.005


def readings(backend: str, workers: int, folder: Path) -> list[dict[str, Any]]:
    """A row for each of so many fresh workers of a backend: seconds a call, seconds a sample."""
    rows = []
    with instrument.team([backend], folder) as servers:
        for worker in range(workers):
            told = describe(servers, backend)
            row = {"framework": backend, "worker": worker, "failure": told.get("error")}
            rows.append({**row, **told.get("overhead", {})})
    return rows


def shortest_call_s(call_s: float, sample_s: float) -> float:
    """The call that must be so long that the overhead is `GOAL_SHARE` of the shortest sample.

    Of a sample of `SAMPLE_S` that loops over calls of c seconds the overhead is that of one sample,
    and `call_s` for each call after the first: sample_s + (SAMPLE_S / c - 1) call_s.
    """
    left_s = GOAL_SHARE * SAMPLE_S - (sample_s - call_s)
    return call_s * SAMPLE_S / left_s if left_s > 0 else float("inf")


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    lines = []
    for framework in dict.fromkeys(row["framework"] for row in rows):
        measured = [r for r in rows if r["framework"] == framework and r["failure"] is None]
        if not measured:
            continue
        calls, samples = ([row[name] for row in measured] for name in ("call_s", "sample_s"))
        lines.append(
            {
                "framework": framework,
                "workers": str(len(measured)),
                "a call [ns]": _spread(calls, 1e9, 0),
                "a sample [us]": _spread(samples, 1e6, 2),
                "of a sample of 1 ms": f"{max(samples) / SAMPLE_S:.3%} at most",
                "within the goals": "yes"
                if max(samples) <= min(GOAL_S, GOAL_SHARE * SAMPLE_S)
                else "no",
                "0.5 % at a call of [us]": f"{1e6 * shortest_call_s(max(calls), max(samples)):.0f}",
            }
        )
    return lines


def _spread(values: Sequence[float], scale: float, digits: int) -> str:
    """Median and range."""
    middle, low, high = (scale * x for x in (median(values), min(values), max(values)))
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def main() -> None:
    parser = instrument.options(__doc__, "overhead")
    parser.add_argument("--workers", type=instrument.count, default=7, help="a framework")
    parser.add_argument("--implementations", default=instrument.DYNAMIC, metavar="A,B,...")
    arguments = parser.parse_args()
    names = instrument.implementations(arguments.implementations)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="rnn-bench-") as folder:
        for backend in dict.fromkeys(IMPLEMENTATIONS[name].backend for name in names):
            rows += readings(backend, arguments.workers, Path(folder))
            instrument.write(
                arguments.out,
                settings={"workers": arguments.workers},
                rows=rows,
                goal={"sample_s": GOAL_S, "share": GOAL_SHARE},
            )
    instrument.print_table(summary(rows))
    for row in rows:
        if row["failure"] is not None:
            print(f"failed: {row['framework']}: {row['failure']}")


if __name__ == "__main__":
    instrument.run_script(main)
