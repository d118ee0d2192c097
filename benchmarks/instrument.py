"""Common part of the scripts that measure the instrument: blocks, shares, results."""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd
from scipy import stats as scipy_stats

from backends import IMPLEMENTATIONS, missing
from bench import durable, machine, stats
from bench.block import Block
from bench.errors import UsageError, choose
from bench.floors import steady_blocks
from bench.launch import Start, Team
from bench.measure import BURST_S, clock
from bench.noise import Gate
from bench.oracle import ask_oracle
from bench.preset import load_preset
from bench.record import Job, Record, Setting, Status
from bench.run import chosen_cpus
from bench.sampling import Sampling

RESULTS = Path("results/instrument")

#: One strategy a framework, the one that the others of it are compared with.
DYNAMIC = "torch/dynamic,jax/dynamic,tensorflow/dynamic"


@dataclass(frozen=True, kw_only=True)
class Share:
    """`count` of `n`, and the exact 95 % interval of the share (Clopper and Pearson 1934)."""

    count: int
    n: int
    low: float
    high: float

    @classmethod
    def of(cls, outcomes: Iterable[bool]) -> Share:
        """The share of those that are true. Raises `ValueError` where there is none at all."""
        known = list(outcomes)
        found = scipy_stats.binomtest(sum(known), len(known)).proportion_ci(0.95, method="exact")
        return cls(count=sum(known), n=len(known), low=float(found.low), high=float(found.high))

    def __str__(self) -> str:
        percents = (100 * self.count / self.n, 100 * self.low, 100 * self.high)
        return "{:.1f} % [{:.1f}, {:.1f}]".format(*percents)


def team(names: Sequence[str], folder: Path, start: Start = "fork", threads: int = 1) -> Team:
    """Sources of workers with so many threads, on the CPUs that a run would choose."""
    return Team(
        names,
        threads=[threads],
        cpus=chosen_cpus(threads),
        start=start,
        log=folder / "workers.log",
        scratch=folder,
    )


def oracle_files(settings: Iterable[Setting], folder: Path) -> dict[Setting, Path]:
    """The oracle's results of each setting, as files in the folder."""
    with team(["reference"], folder) as reference:
        files = {each: folder / f"expected-{n}.npz" for n, each in enumerate(settings)}
        for (case, mode), path in files.items():
            ask_oracle(reference, case, mode, path)
    return files


def default_sampling(**changed: Any) -> Sampling:
    """The sampling of the preset `default`, so that what is shown holds for what people run."""
    return replace(load_preset("default").sampling, **changed)


def measured(
    settings: Mapping[str, Sequence[Job]],
    blocks: range,
    *,
    sampling: Sampling,
    expected: Mapping[Setting, Path],
    folder: Path,
    order: random.Random,
    burst_s: float = BURST_S,
) -> dict[str, list[Record]]:
    """The records of these blocks of each setting (the jobs of one block), as a run takes them.

    All jobs have the same number of threads.

    So many blocks of each setting as in a run share the servers that fork their workers, and the
    settings come in random order. No block waits for a quiet host: what disturbed it is on record.
    """
    records: dict[str, list[Record]] = defaultdict(list)
    names = sorted({job.backend for jobs in settings.values() for job in jobs})
    (threads,) = {job.case.threads for jobs in settings.values() for job in jobs}
    gate = Gate(chosen_cpus(threads), wait_s=0)
    size = sampling.blocks_per_server
    for first in range(blocks.start, blocks.stop, size):
        with team(names, folder, threads=threads) as servers:
            for block in range(first, min(first + size, blocks.stop)):
                for name in order.sample(list(settings), len(settings)):
                    gate.begin()
                    jobs = settings[name]
                    work = Block(
                        [servers],
                        jobs,
                        expected,
                        sampling,
                        order,
                        _unwatched,
                        burst_s=burst_s,
                    )
                    (found,), noise = work.run(block), gate.end()
                    records[name] += [
                        replace(record, worker={**record.worker, "noise": noise})
                        for record in found
                    ]
    return records


def _unwatched(_job: Job) -> None:
    """Ignore a job that has been built."""


def compared(records: Iterable[Record], a: Job, b: Job) -> dict[str, Any]:
    """Compare job a with job b: the log ratio of each block, their ratio, the verdict.

    "failure" is why there is no ratio, else None.
    """
    known = list(records)
    of_a, of_b = ([r for r in known if r.job == job] for job in (a, b))
    lost = [r for r in of_a + of_b if r.status != Status.OK]
    if lost:
        said = f"block {lost[0].block}: {lost[0].status}: {lost[0].reason}"
        return {"failure": said.strip().splitlines()[-1]}
    blocks_a, blocks_b = steady_blocks(of_a), steady_blocks(of_b)
    differences = [
        stats.steady_difference(blocks_a[key], blocks_b[key]) for key in sorted(blocks_a)
    ]
    disturbed = sum(not record.worker["noise"]["quiet"] for record in of_a)
    ratio = stats.ratio_of(differences)
    return {
        "failure": None,
        "log_ratios": differences,
        **bounds(ratio),
        "verdict": stats.judge(ratio),
        "disturbed_blocks": disturbed,
    }


def bounds(ratio: stats.Ratio) -> dict[str, float | None]:
    """A ratio as JSON: one block has no interval, and NaN is no JSON."""
    low, high = (None if math.isnan(x) else x for x in (ratio.low, ratio.high))
    return {"ratio": ratio.ratio, "low": low, "high": high}


def block_deviation(rows: Iterable[Mapping[str, Any]]) -> float:
    """Standard deviation of a block's log ratio within its pair, over all pairs of two blocks."""
    logs = [pd.Series(row["log_ratios"]) for row in rows if len(row["log_ratios"]) > 1]
    return math.sqrt(fmean(float(log.var()) for log in logs)) if logs else math.nan


def progress(what: str, done: int, total: int, began_ns: int) -> None:
    """Say how far it is, and from the pace so far how long it will still take."""
    elapsed_s = (clock() - began_ns) / 1e9
    left_s = elapsed_s * (total - done) / done
    took = f"{elapsed_s / 60:.1f} min, about {left_s / 60:.1f} min to go"
    print(f"{done} of {total} {what}: {took}", file=sys.stderr, flush=True)


def write(path: Path, *, settings: Mapping[str, Any], rows: object, **more: object) -> None:
    """Write raw rows with what they were measured on; whole or not at all."""
    raw = {
        "created": machine.timestamp(),
        "commit": machine.commit(),
        "host": machine.describe(),
        "load": machine.load(),
        "versions": machine.versions(),
        "settings": dict(settings),
        **more,
        "rows": rows,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    durable.replace(path, json.dumps(raw, indent=1, allow_nan=False, default=str) + "\n")


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows as a Markdown table."""
    table = pd.DataFrame(list(rows)).fillna("")
    print(table.to_markdown(index=False, disable_numparse=True))


def options(docstring: str | None, name: str) -> argparse.ArgumentParser:
    """A parser that has `--out` and says what the script is for."""
    parser = argparse.ArgumentParser(
        description=docstring, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=RESULTS / f"{name}.json", help="[default: %(default)s]"
    )
    return parser


def count(text: str) -> int:
    """A whole number of 1 or more from the command line."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text) < 1 << 31):
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number of 1 or more")
    return int(text)


def implementations(text: str) -> list[str]:
    """Implementations that can run here. Raises `UsageError` for others."""
    names = list(dict.fromkeys(text.split(",")))
    for name in names:
        entry = IMPLEMENTATIONS[choose("implementation", name, IMPLEMENTATIONS)]
        reason = missing(entry.backend)
        if reason is not None:
            raise UsageError(f"{name}: {reason}")
    return names


def run_script(main: Callable[[], None]) -> None:
    """Run a script; what its user did wrong is one line and exit status 2."""
    try:
        main()
    except UsageError as error:
        print(f"{Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
        sys.exit(2)
