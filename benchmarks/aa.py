"""Share of identical pairs that the instrument calls different.

    python benchmarks/aa.py [--pairs 200] [--blocks 5] [--load NAME] [--out FILE]

A pair is two workers of one implementation, measured in its own blocks by the engine's own code:
five, as in a quick run, of few rounds. Frameworks share a block, as in a run, and never a pair; no
two pairs of one setting share a server. Goals: at most 5 % of the pairs are called different
(interval without 1, effect above 1 %), at most 1 % by more than the margin of 5 % (interval wholly
beyond it). `--load` has a neighbour at work meanwhile (`benchmarks/neighbour.py`).

Prints the shares by framework, mode and shape, each with its exact 95 % interval, and writes every
pair with the log ratio of each of its blocks. 200 pairs take about a quarter of an hour of one
core; what is done is saved after each round.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from backends.api import Case, Mode
from bench import stats
from bench.measure import clock
from bench.record import Job, Record
from bench.sampling import Sampling
from benchmarks import instrument
from benchmarks.instrument import Share
from benchmarks.neighbour import LOADS, at_work

SHAPES: Mapping[str, Case] = {
    "small": Case(cell="lstm", seq_len=10, batch=4, inputs=32, hidden=32),
    "middling": Case(cell="lstm", seq_len=10, batch=16, inputs=128, hidden=128),
    "long": Case(cell="lstm", seq_len=60, batch=1, inputs=32, hidden=32),
    "wide": Case(cell="lstm", seq_len=5, batch=32, inputs=256, hidden=256),
}

#: A shape's name and a mode. (A training step takes long to compile.)
Setting = tuple[str, Mode]

SETTINGS: tuple[Setting, ...] = (
    ("small", "forward"),
    ("middling", "train"),
    ("long", "forward"),
    ("middling", "forward"),
    ("small", "train"),
    ("wide", "forward"),
)

#: Shorter than a preset's: blocks scatter more, which makes it harder to agree, and take less long.
STEADY_S, WARMUP_S, WARMUP_CALLS = 0.2, 0.05, 5

GOALS = {"different": 0.05, "beyond the margin": 0.01}


def rounds(pairs: int, implementations: int) -> Iterator[Sequence[Setting]]:
    """Settings in rounds that hold each at most once, until there are so many pairs."""
    left = -(-pairs // implementations)
    while left > 0:
        yield SETTINGS[:left]
        left -= len(SETTINGS)


def jobs_of(setting: Setting, implementations: Sequence[str]) -> list[Job]:
    """Each implementation and its twin."""
    shape, mode = setting
    return [
        Job(
            implementation=name,
            case=SHAPES[shape],
            mode=mode,
            measure="steady",
            replica=replica,
        )
        for name in implementations
        for replica in (0, 1)
    ]


def pair_rows(setting: Setting, jobs: Sequence[Job], records: Sequence[Record]) -> list[Any]:
    """A row for each twin: where it ran, and what it took over what the first one took."""
    rows = []
    for twin in (job for job in jobs if job.replica):
        row = {
            "implementation": twin.implementation,
            "framework": twin.backend,
            "mode": twin.mode,
            "shape": setting[0],
            **instrument.compared(records, twin, twin.original),
        }
        if row["failure"] is None:
            row["different"] = row["verdict"] != "cannot tell"
            row["beyond the margin"] = beyond_margin(row)
        rows.append(row)
    return rows


def beyond_margin(row: Mapping[str, Any]) -> bool:
    """Whether the interval says that two things differ by more than the margin."""
    low, high, limit = row["low"], row["high"], 1 + stats.MARGIN
    return low is not None and (low > limit or high < 1 / limit)


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Shares over all pairs and by framework, mode and shape."""
    lines = []
    groups = [("all", None)] + [
        (f"{key} {value}", (key, value))
        for key in ("framework", "mode", "shape")
        for value in dict.fromkeys(row[key] for row in rows)
    ]
    for label, which in groups:
        chosen = [row for row in rows if which is None or row[which[0]] == which[1]]
        measured = [row for row in chosen if row["failure"] is None]
        if not measured:
            continue
        shares = {goal: Share.of(row[goal] for row in measured) for goal in GOALS}
        lines.append(
            {
                "pairs": label,
                "n": len(measured),
                "failed": len(chosen) - len(measured),
                **{goal: f"{share.count}: {share}" for goal, share in shares.items()},
                "a block's sd": f"{100 * instrument.block_deviation(measured):.2f} %",
            }
        )
    return lines


def measure(
    pairs: int, implementations: Sequence[str], *, sampling: Sampling, load: str, out: Path
) -> list[dict[str, Any]]:
    """Rows of so many pairs, rounded up to whole blocks; written to `out` round by round."""
    rows: list[dict[str, Any]] = []
    seed = random.SystemRandom().randrange(1 << 32)
    order, began_ns = random.Random(seed), clock()
    said = {"pairs": pairs, "load": load, "seed": seed, "sampling": asdict(sampling)}
    with tempfile.TemporaryDirectory(prefix="rnn-bench-") as name:
        folder = Path(name)
        expected = instrument.oracle_files(
            [(SHAPES[shape], mode) for shape, mode in SETTINGS], folder
        )
        for settings in rounds(pairs, len(implementations)):
            jobs = {setting: jobs_of(setting, implementations) for setting in settings}
            found = instrument.measured(
                {"/".join(setting): held for setting, held in jobs.items()},
                range(sampling.blocks),
                sampling=sampling,
                expected=expected,
                folder=folder,
                order=order,
            )
            for setting, held in jobs.items():
                rows += pair_rows(setting, held, found["/".join(setting)])
            shapes = {shape: asdict(case) for shape, case in SHAPES.items()}
            instrument.write(out, settings={**said, "shapes": shapes}, rows=rows, goals=GOALS)
            instrument.progress("pairs", len(rows), max(pairs, len(rows)), began_ns)
    return rows


def main() -> None:
    parser = instrument.options(__doc__, "aa")
    parser.add_argument(
        "--pairs", type=instrument.count, default=200, help="[default: %(default)s]"
    )
    parser.add_argument("--blocks", type=instrument.count, default=5, help="of a pair")
    parser.add_argument("--load", choices=LOADS, default="none", help="what runs meanwhile")
    parser.add_argument("--implementations", default=instrument.DYNAMIC, metavar="A,B,...")
    arguments = parser.parse_args()
    names = instrument.implementations(arguments.implementations)
    sampling = instrument.default_sampling(
        blocks=arguments.blocks,
        steady_s=STEADY_S,
        warmup_s=WARMUP_S,
        warmup_calls=WARMUP_CALLS,
    )
    with at_work(arguments.load):
        rows = measure(
            arguments.pairs, names, sampling=sampling, load=arguments.load, out=arguments.out
        )
    instrument.print_table(summary(rows))
    for row in rows:
        if row["failure"] is not None:
            print(f"failed: {row['implementation']} {row['mode']} {row['shape']}: {row['failure']}")


if __name__ == "__main__":
    instrument.run_script(main)
