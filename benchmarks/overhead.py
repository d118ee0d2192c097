"""The time that the instrument itself adds to a call, asked of an arm that does nothing.

    python benchmarks/overhead.py [--workers 7] [--out FILE]

Each worker of each framework times an idle arm through the code that times every other one, as it
does in every run (`bench.measure.overhead`). Goal: at most 2 us a call. The last column is the
shortest call of which that is 0.5 %.

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
from benchmarks import instrument

#: Of a call, in seconds and as a share.
GOAL_S, GOAL_SHARE = 2e-6, 0.005


def readings(backend: str, workers: int, folder: Path) -> list[dict[str, Any]]:
    """A row for each of so many fresh workers of a backend: seconds a call."""
    rows = []
    with instrument.team([backend], folder) as servers:
        for worker in range(workers):
            told = describe(servers, backend)
            row = {"framework": backend, "worker": worker, "failure": told.get("error")}
            rows.append({**row, **told.get("overhead", {})})
    return rows


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    lines = []
    for framework in dict.fromkeys(row["framework"] for row in rows):
        measured = [r for r in rows if r["framework"] == framework and r["failure"] is None]
        if not measured:
            continue
        calls = [row["call_s"] for row in measured]
        lines.append(
            {
                "framework": framework,
                "workers": str(len(measured)),
                "a call [ns]": _spread(calls, 1e9, 0),
                "within the goal": "yes" if max(calls) <= GOAL_S else "no",
                "0.5 % at a call of [us]": f"{1e6 * max(calls) / GOAL_SHARE:.0f}",
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
                goal={"call_s": GOAL_S, "share": GOAL_SHARE},
            )
    instrument.print_table(summary(rows))
    for row in rows:
        if row["failure"] is not None:
            print(f"failed: {row['framework']}: {row['failure']}")


if __name__ == "__main__":
    instrument.run_script(main)
