"""Share of planted slowdowns of 5 % that the instrument finds.

    python benchmarks/power.py [--trials 60] [--blocks 10] [--out FILE]

The slowdown is planted: the same implementation over T steps and over 1.05 T, two workers that take
turns. It computes 5 % more, so that a call takes nearly 5 % longer: a little less, since what a
call costs besides its steps is in both. A trial is found where the verdict is "slower". Goal: 95 %
of the trials, with the sampling of the preset `default` and ten blocks; what four of them (the
preset's own number) and five would have said is shown as well, and what the verdict is with the
widest floor that is not too wide to show anything, half the margin.

Prints the shares, and the mean ratio beside that of the FLOPs. Writes every trial with the log
ratio of each of its blocks. 60 trials take some twelve minutes of one core; what is done is saved
after each round.
"""

from __future__ import annotations

import itertools
import math
import random
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from backends.api import Case, Mode
from backends.products import flops
from bench import stats
from bench.measure import clock
from bench.record import Job
from bench.sampling import Sampling
from benchmarks import instrument
from benchmarks.instrument import Share

#: T and a mode. (A training step takes long to compile.)
Setting = tuple[int, Mode]

SETTINGS: tuple[Setting, ...] = ((40, "forward"), (60, "forward"), (80, "forward"), (40, "train"))

#: T and what is planted beside it.
PLANTED = {40: 42, 60: 63, 80: 84}

#: So many blocks are judged, where a trial has them.
LOOKS = (4, 5, 10, 20)

WIDEST_FLOOR = stats.MARGIN / 2

GOAL = 0.95


def rounds(trials: int, implementations: int) -> Iterator[Sequence[Setting]]:
    """Settings in rounds that hold each at most once, until there are so many trials."""
    left = -(-trials // implementations)
    while left > 0:
        yield SETTINGS[:left]
        left -= len(SETTINGS)


def planted(setting: Setting, implementation: str) -> tuple[Job, Job]:
    """The job and the one that is slower; "replica" tells their arms apart."""
    seq_len, mode = setting
    case = Case(cell="lstm", seq_len=seq_len, batch=16, inputs=64, hidden=64)
    job = Job(implementation=implementation, case=case, mode=mode, measure="steady")
    longer = replace(case, seq_len=PLANTED[seq_len])
    return job, replace(job, case=longer, replica=1)


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """By number of blocks, then by framework, mode and length with all blocks."""
    most = max((len(row["log_ratios"]) for row in rows if row["failure"] is None), default=0)
    groups: list[tuple[str, int, tuple[str, Any] | None]]
    groups = [(f"all, {n} blocks", n, None) for n in LOOKS if n < most]
    groups.append((f"all, {most} blocks", most, None))
    groups += [
        (f"{key} {value}", most, (key, value))
        for key in ("framework", "mode", "seq_len")
        for value in dict.fromkeys(row[key] for row in rows)
    ]
    lines = []
    for label, blocks, which in groups:
        chosen = [row for row in rows if which is None or row[which[0]] == which[1]]
        measured = [row for row in chosen if row["failure"] is None]
        if not measured:
            continue
        ratios = [stats.ratio_of(row["log_ratios"][:blocks]) for row in measured]
        means = (fmean(math.log(ratio.ratio) for ratio in ratios), _mean_flops(measured))
        found, strictly = (
            Share.of(stats.judge(ratio, floor) == "slower" for ratio in ratios)
            for floor in (stats.FLOOR, WIDEST_FLOOR)
        )
        lines.append(
            {
                "trials": label,
                "n": len(measured),
                "failed": len(chosen) - len(measured),
                "found": f"{found.count}: {found}",
                f"with a floor of {WIDEST_FLOOR:.1%}": f"{strictly.count}: {strictly}",
                "mean ratio": f"{math.exp(means[0]):.4f}",
                "FLOPs": f"{math.exp(means[1]):.4f}",
                "a block's sd": f"{100 * instrument.block_deviation(measured):.2f} %",
            }
        )
    return lines


def _mean_flops(rows: Sequence[Mapping[str, Any]]) -> float:
    return fmean(math.log(row["flop_ratio"]) for row in rows)


def measure(
    trials: int, implementations: Sequence[str], *, sampling: Sampling, out: Path
) -> list[dict[str, Any]]:
    """Rows of so many trials, rounded up to whole blocks; written to `out` round by round."""
    rows: list[dict[str, Any]] = []
    seed = random.SystemRandom().randrange(1 << 32)
    order, began_ns = random.Random(seed), clock()
    said = {"trials": trials, "seed": seed, "planted": PLANTED, "sampling": asdict(sampling)}
    with tempfile.TemporaryDirectory(prefix="rnn-bench-") as name:
        folder = Path(name)
        jobs = [planted(setting, implementations[0]) for setting in SETTINGS]
        asked = dict.fromkeys((job.case, job.mode) for job in itertools.chain(*jobs))
        expected = instrument.oracle_files(asked, folder)
        for settings in rounds(trials, len(implementations)):
            pairs = {
                setting: [planted(setting, name) for name in implementations]
                for setting in settings
            }
            found = instrument.measured(
                {str(setting): list(itertools.chain(*held)) for setting, held in pairs.items()},
                range(sampling.blocks),
                sampling=sampling,
                expected=expected,
                folder=folder,
                order=order,
            )
            rows += [
                {
                    "implementation": job.implementation,
                    "framework": job.backend,
                    "mode": job.mode,
                    "seq_len": job.case.seq_len,
                    "planted_seq_len": slower.case.seq_len,
                    "flop_ratio": flops(slower.case, job.mode) / flops(job.case, job.mode),
                    **instrument.compared(found[str(setting)], slower, job),
                }
                for setting, held in pairs.items()
                for job, slower in held
            ]
            instrument.write(out, settings=said, rows=rows, goal=GOAL)
            instrument.progress("trials", len(rows), max(trials, len(rows)), began_ns)
    return rows


def main() -> None:
    parser = instrument.options(__doc__, "power")
    parser.add_argument("--trials", type=instrument.count, default=60)
    parser.add_argument("--blocks", type=instrument.count, default=10, help="of a trial")
    parser.add_argument("--implementations", default=instrument.DYNAMIC, metavar="A,B,...")
    arguments = parser.parse_args()
    names = instrument.implementations(arguments.implementations)
    sampling = instrument.default_sampling(blocks=arguments.blocks)
    rows = measure(arguments.trials, names, sampling=sampling, out=arguments.out)
    instrument.print_table(summary(rows))
    for row in rows:
        if row["failure"] is not None:
            print(
                f"failed: {row['implementation']} {row['mode']} T={row['seq_len']}: "
                f"{row['failure']}"
            )


if __name__ == "__main__":
    instrument.run_script(main)
