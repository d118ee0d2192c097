"""Whether a run's warm-up was long enough: what was not warm becomes faster within its block.

    python benchmarks/warmup.py [RUN] [--out FILE]

Each steady job of each block has a change of its median from the first half of its samples to the
second (the host's drift is in it), and each declared pair one of its ratio (the host's is not: the
arms take turns). Where these are spread evenly about 0, more warm-up would change nothing. Reads
the published run, or another one, and measures nothing.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import stats
from bench.evidence import Group, groups_of
from bench.pairs import declared
from bench.store import read_run
from benchmarks import instrument
from benchmarks.readme_table import ROOT, RUN


def changes(groups: Sequence[Group]) -> dict[tuple[str, str], list[float]]:
    """Changes from half to half, in each block, by what changes and the framework."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for group in groups:
        for name in group.implementations("steady"):
            for samples in group.get(name, "steady").blocks("steady").values():
                found["a call", name.split("/")[0]].append(stats.drift(samples))
        for pair in declared():
            a, b = (group.get(name, "steady").paired for name in (pair.a, pair.b))
            for block in a.keys() & b.keys():
                found["a ratio", pair.backend].append(stats.paired_drift(a[block], b[block]))
    return found


def summary(found: dict[tuple[str, str], list[float]]) -> list[dict[str, Any]]:
    """A row for each of them: the middle, where nine tenths lie, and how many became faster."""
    rows = []
    for (what, framework), all_values in sorted(found.items()):
        values = [value for value in all_values if not math.isnan(value)]
        low, middle, high = np.percentile(values, [5, 50, 95])
        rows.append(
            {
                "of": what,
                "framework": framework,
                "n": len(values),
                "median": f"{middle:+.2%}",
                "90 % lie in": f"{low:+.1%} to {high:+.1%}",
                "became faster": f"{np.mean(np.array(values) < 0):.0%}",
                "by more than 2 %": f"{np.mean([stats.drifted(v) for v in values]):.0%}",
            }
        )
    return rows


def main() -> None:
    parser = instrument.options(__doc__, "warmup")
    parser.add_argument("run", nargs="?", type=Path, default=ROOT / RUN)
    arguments = parser.parse_args()
    run = read_run(arguments.run)
    rows = summary(changes(groups_of(run, "run")[0]))
    instrument.write(arguments.out, settings={"run": arguments.run.name}, rows=rows)
    instrument.print_table(rows)


if __name__ == "__main__":
    instrument.run_script(main)
