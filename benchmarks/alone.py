"""Ratios of the instrument against those of processes that run alone, one after the other.

    python benchmarks/alone.py [--repetitions 10] [--load NAME] [--threads N] [--choose]

A repetition of a pair is one block of its two arms, by the engine's own code, and eight processes
that are alone while they run: a, b, b, a, a, b, b, a, each timed call after call without the
harness (`by_itself.py`). What the host does between two of them is in their ratio, so that of four
neighbours' log ratios the highest and the lowest are left out. A repetition's difference is the log
ratio of the block less the mean of the other two; the interval is a t-interval over repetitions.
Goal: the interval of each difference within 2 %, and the median of their sizes 1 % or less.
`--load` has a neighbour at work meanwhile, also beside the processes alone, whose own ratio it
moves. `--choose` measures other pairs, by which the length of a burst was chosen.

Prints a row a pair, and writes every block and every process. Takes some 45 minutes of one core;
what is done is saved after each pair.
"""

from __future__ import annotations

import math
import random
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from backends.api import Case, Mode
from bench import stats
from bench.floors import steady_blocks
from bench.measure import BURST_S, clock
from bench.record import Job, Record, Status
from bench.sampling import Sampling
from benchmarks import instrument
from benchmarks.by_itself import Alone
from benchmarks.neighbour import LOADS, at_work


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two jobs of one case and mode; the ratio is that of the first to the second."""

    a: str
    b: str
    mode: Mode
    seq_len: int

    def jobs(self, threads: int = 1) -> tuple[Job, Job]:
        case = Case(
            cell="lstm", seq_len=self.seq_len, batch=16, inputs=128, hidden=128, threads=threads
        )
        one, other = (
            Job(implementation=name, case=case, mode=self.mode, measure="steady")
            for name in (self.a, self.b)
        )
        return one, other


_FORWARD = (
    ("torch/fused", "torch/dynamic"),
    ("torch/traced", "torch/dynamic"),
    ("jax/static", "jax/dynamic"),
    ("tensorflow/static", "tensorflow/dynamic"),
    ("tensorflow/fused", "tensorflow/dynamic"),
    ("onnx/fused", "jax/dynamic"),
    ("torch/fused", "tensorflow/dynamic"),
)

#: An unrolled step of JAX takes minutes to compile at T = 30, and ONNX Runtime does not train.
_TRAIN = tuple(pair for pair in _FORWARD if pair[0] not in ("jax/static", "onnx/fused"))

PAIRS = (
    *(Pair(a=a, b=b, mode="forward", seq_len=t) for t in (10, 30) for a, b in _FORWARD),
    *(Pair(a=a, b=b, mode="train", seq_len=30) for a, b in _TRAIN),
)

#: Other pairs, by which the length of a burst was chosen.
CHOOSING = (
    Pair(a="torch/scripted", b="torch/dynamic", mode="forward", seq_len=20),
    Pair(a="torch/fused", b="torch/scripted", mode="forward", seq_len=50),
    Pair(a="jax/scan-unroll-8", b="jax/dynamic", mode="forward", seq_len=20),
    Pair(a="tensorflow/dynamic-v2", b="tensorflow/dynamic", mode="forward", seq_len=20),
    Pair(a="torch/scripted", b="torch/dynamic", mode="train", seq_len=20),
    Pair(a="jax/fori", b="tensorflow/fused", mode="forward", seq_len=20),
)

#: A difference has its interval within the first, and the median of all is within the second.
GOALS = {"interval": 0.02, "median": 0.01}


def repetition(
    number: int, jobs: tuple[Job, Job], alone: Mapping[str, Alone], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """One block and eight processes alone: two log ratios, and seconds a call of each.

    Which is first changes from one to the next.
    """
    a, b = jobs
    first, second = (a, b) if number % 2 else (b, a)
    order = [first, second, second, first] * 2
    times = [(job, alone[job.backend].seconds(job)) for job in order]
    records = instrument.measured({"pair": [a, b]}, range(number, number + 1), **settings)["pair"]
    blocks = [_samples(records, job) for job in (a, b)]
    return {
        "block": stats.steady_difference(*blocks),
        "alone": middle([dict(both) for both in zip(times[::2], times[1::2], strict=True)], a, b),
        "block_s": [median(samples) for samples in blocks],
        "alone_s": [[s for other, s in times if other == job] for job in (a, b)],
        "rounds": len(blocks[0]),
    }


def middle(neighbours: Sequence[Mapping[Job, float]], a: Job, b: Job) -> float:
    """The mean log ratio of neighbours without the highest and the lowest one."""
    logs = sorted(math.log(times[a] / times[b]) for times in neighbours)
    return fmean(logs[1:-1])


def _samples(records: Sequence[Record], job: Job) -> Sequence[float]:
    (record,) = (record for record in records if record.job == job)
    if record.status != Status.OK:
        raise RuntimeError(f"{job.implementation}: {record.status}: {record.reason}")
    (samples,) = steady_blocks([record]).values()
    return samples


def row_of(pair: Pair, found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A pair's repetitions with both ratios and their difference."""
    ratios = {
        name: instrument.bounds(stats.ratio_of([each[name] for each in found]))
        for name in ("block", "alone")
    }
    difference = stats.ratio_of([each["block"] - each["alone"] for each in found])
    return {
        **asdict(pair),
        **ratios,
        "difference": instrument.bounds(difference),
        "repetitions": list(found),
    }


def within(row: Mapping[str, Any]) -> bool:
    """Whether the interval of a difference is within the goal."""
    low, high = row["difference"]["low"], row["difference"]["high"]
    limit = 1 + GOALS["interval"]
    return low is not None and low > 1 / limit and high < limit


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "pair": f"{row['a']} / {row['b']}",
            "mode": row["mode"],
            "T": row["seq_len"],
            "block": _interval(row["block"]),
            "alone": _interval(row["alone"]),
            "block / alone": _interval(row["difference"]),
            "within 2 %": "yes" if within(row) else "no",
            "rounds": f"{median(each['rounds'] for each in row['repetitions']):.0f}",
        }
        for row in rows
    ]


def _interval(found: Mapping[str, float | None]) -> str:
    middle = f"{found['ratio']:.3f}"
    return middle if found["low"] is None else f"{middle} [{found['low']:.3f}, {found['high']:.3f}]"


def measure(
    pairs: Sequence[Pair],
    repetitions: int,
    *,
    sampling: Sampling,
    burst_s: float,
    load: str,
    threads: int,
    out: Path,
) -> list[dict[str, Any]]:
    """Rows of all pairs; written to `out` pair by pair."""
    rows: list[dict[str, Any]] = []
    seed, began_ns = random.SystemRandom().randrange(1 << 32), clock()
    said = {"load": load, "threads": threads, "burst_s": burst_s, "seed": seed}
    said["sampling"] = asdict(sampling)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rnn-bench-")))
        asked = [job.setting for pair in pairs for job in pair.jobs(threads)]
        settings = {
            "sampling": sampling,
            "expected": instrument.oracle_files(dict.fromkeys(asked), folder),
            "folder": folder,
            "order": random.Random(seed),
            "burst_s": burst_s,
        }
        alone: dict[str, Alone] = {}
        for backend in dict.fromkeys(job.backend for pair in pairs for job in pair.jobs()):
            alone[backend] = Alone(backend, threads)
            stack.callback(alone[backend].close)
        for pair in pairs:
            jobs = pair.jobs(threads)
            found = [repetition(n, jobs, alone, settings) for n in range(repetitions)]
            rows.append(row_of(pair, found))
            instrument.write(out, settings=said, rows=rows, goals=GOALS)
            print(*summary(rows[-1:])[0].values(), sep="  ", flush=True)
            instrument.progress("pairs", len(rows), len(pairs), began_ns)
    return rows


def main() -> None:
    parser = instrument.options(__doc__, "alone")
    parser.add_argument("--repetitions", type=instrument.count, default=10)
    parser.add_argument("--load", choices=LOADS, default="none", help="what runs meanwhile")
    parser.add_argument("--threads", type=instrument.count, default=1, help="[default: 1]")
    parser.add_argument("--burst-s", type=float, default=BURST_S, help="[default: %(default)s]")
    parser.add_argument("--choose", action="store_true", help="the pairs that chose a burst")
    parser.add_argument("--only", metavar="WORD", default="", help="pairs with this in their names")
    arguments = parser.parse_args()
    pairs = CHOOSING if arguments.choose else PAIRS
    chosen = [p for p in pairs if arguments.only in f"{p.a} / {p.b} {p.mode} T={p.seq_len}"]
    with at_work(arguments.load):
        rows = measure(
            chosen,
            arguments.repetitions,
            sampling=instrument.default_sampling(blocks=1, quiet_wait_s=0),
            burst_s=arguments.burst_s,
            load=arguments.load,
            threads=arguments.threads,
            out=arguments.out,
        )
    instrument.print_table(summary(rows))
    sizes = [abs(math.log(row["difference"]["ratio"])) for row in rows]
    if sizes:
        print(f"median size of a difference: {math.expm1(median(sizes)):.2%}")


if __name__ == "__main__":
    instrument.run_script(main)
