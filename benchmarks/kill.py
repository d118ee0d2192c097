"""A run is killed at random moments and resumed until it is whole: what that costs.

    python benchmarks/kill.py [--kills 50] [--backend scripted] [--strategy A,B] [--seed 0]
                              [--out FILE]

`python -m bench run` gets SIGKILL at a moment that is drawn evenly over the length of a run that
nobody kills, and is resumed, and killed again; when it is whole, the next run starts. Goals: what
was on the disk at a kill is there afterwards, byte by byte; no job has two records in a block; each
planned job has one; no process outlives a kill. Exit status 1 where one is missed.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import run
from bench.measure import clock
from bench.store import read_run
from benchmarks import instrument
from tests.scripted_runs import left_behind, missing, preset, registered

PRESET = preset(mode='["forward", "train"]', blocks=4, cold_blocks=1)

#: The kernel has killed what belongs to a killed run after so long.
GONE_S = 3.0


@dataclass(kw_only=True)
class Toll:
    """Losses by the kills. A record is a line of the file, as it was written."""

    kills: int = 0
    #: Kills of a run that had no manifest yet: there was nothing to resume.
    too_soon: int = 0
    whole_runs: int = 0
    #: Summed over kills: records on the disk, and those still there at the next kill or the end.
    before: int = 0
    after: int = 0
    doubled: int = 0
    torn: int = 0
    missing: int = 0
    left: int = 0
    #: Lines that were on the disk at the last kill of the run that goes on now.
    seen: set[bytes] = field(default_factory=set)

    @property
    def lost(self) -> int:
        return self.before - self.after

    def look(self, here: set[bytes]) -> None:
        """Settle the account of the last kill by what is on the disk now."""
        self.before += len(self.seen)
        self.after += len(self.seen & here)
        self.seen = set()

    def rows(self) -> list[dict[str, object]]:
        return [
            {
                "kills": self.kills,
                "before the run began": self.too_soon,
                "runs": self.whole_runs,
                "records before": self.before,
                "of them after": self.after,
                "lost": self.lost,
                "doubled": self.doubled,
                "torn lines": self.torn,
                "jobs without a record": self.missing,
                "processes left": self.left,
            }
        ]

    def is_good(self) -> bool:
        return not (self.lost or self.doubled or self.missing or self.left)


def lines_of(folder: Path) -> tuple[set[bytes], int, int]:
    """Whole lines of a run's records, the number of repeated jobs, and of torn lines.

    Read without the reader that is examined.
    """
    whole: set[bytes] = set()
    jobs: Counter[tuple[str, int]] = Counter()
    torn = 0
    path = folder / "records.jsonl"
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            record = json.loads(line)["record"]
        except ValueError:
            torn += 1
        else:
            whole.add(line)
            jobs[record["key"], record["block"]] += 1
    return whole, jobs.total() - len(jobs), torn


class Series:
    """Runs that are killed, one after the other."""

    def __init__(self, folder: Path, *, backend: str, strategy: str, mark: str, seed: int) -> None:
        self._preset = folder / "kill.toml"
        self._preset.write_text(PRESET)
        self._run = folder / "run"
        self._options = ("--backend", backend, "--strategy", strategy)
        self._mark = mark
        self._random = random.Random(seed)
        self.toll = Toll()
        began_ns = clock()
        self._finish(self._start())
        self._length_s = (clock() - began_ns) / 1e9
        self.toll = Toll()

    def _start(self) -> subprocess.Popen[str]:
        """Start the run, or resume it where it has begun."""
        if (self._run / "manifest.json").exists():
            how = ["--resume", str(self._run)]
        else:
            shutil.rmtree(self._run, ignore_errors=True)
            how = ["--out", str(self._run), "--preset", str(self._preset), *self._options]
        return subprocess.Popen(
            [sys.executable, "-m", "bench", "run", *how],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _finish(self, process: subprocess.Popen[str]) -> None:
        """Wait for a run to end well, and settle its account."""
        _out, said = process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"a run ended with exit status {process.returncode}: {said}")
        whole, doubled, torn = lines_of(self._run)
        result = read_run(self._run)
        absent = missing(run.sweep_of(result.manifest), result)
        toll = self.toll
        toll.whole_runs += 1
        toll.look(whole)
        toll.doubled += doubled
        toll.torn += torn
        # A torn line is said to be set aside, which is no job without a record.
        toll.missing += len(absent) - len(result.faults)
        shutil.rmtree(self._run)

    def go_on(self, *, kill: bool) -> None:
        """Start or resume the run, and kill it at some moment unless it has ended by then."""
        process = self._start()
        if kill:
            try:
                process.wait(self._random.uniform(0, self._length_s))
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                self._count()
                return
        self._finish(process)

    def _count(self) -> None:
        toll = self.toll
        toll.kills += 1
        toll.too_soon += not (self._run / "manifest.json").exists()
        toll.left += self._left()
        here, _doubled, _torn = lines_of(self._run)
        toll.look(here)
        toll.seen = here

    def _left(self) -> int:
        """Number of processes that have outlived a kill; their names are printed."""
        end_s = time.monotonic() + GONE_S
        while left := left_behind(self._mark):
            if time.monotonic() > end_s:
                for process in left:
                    with suppress(psutil.Error):
                        print(f"left: {process.cmdline()}", file=sys.stderr)
                return len(left)
            time.sleep(0.05)
        return 0


def killed(kills: int, *, backend: str, strategy: str, seed: int) -> Toll:
    """Losses by so many kills; the last run is left alone until it is whole."""
    with (
        registered() as mark,
        tempfile.TemporaryDirectory(prefix="rnn-bench-") as folder,
    ):
        series = Series(Path(folder), backend=backend, strategy=strategy, mark=mark, seed=seed)
        while series.toll.kills < kills:
            series.go_on(kill=True)
            print(f"{series.toll.kills} of {kills} kills", file=sys.stderr, flush=True)
        series.go_on(kill=False)
        return series.toll


def main() -> None:
    parser = instrument.options(__doc__, "kill")
    parser.add_argument("--kills", type=instrument.count, default=50)
    parser.add_argument("--backend", default="scripted", metavar="A,B,...")
    parser.add_argument("--strategy", default="fine,fine-too", metavar="A,B,...")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    toll = killed(given.kills, backend=given.backend, strategy=given.strategy, seed=given.seed)
    settings = {name: value for name, value in vars(given).items() if name != "out"}
    instrument.write(given.out, settings=settings, rows=toll.rows())
    instrument.print_table(toll.rows())
    sys.exit(0 if toll.is_good() else 1)


if __name__ == "__main__":
    instrument.run_script(main)
