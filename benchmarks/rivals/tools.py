"""pyperf and pytest-benchmark on a pair of implementations: ratios as they become known."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

from backends.api import Case, Mode
from bench import stats
from bench.errors import UsageError
from bench.export import undisturbed
from bench.record import Job
from benchmarks.rivals.calls import VARIABLE

HERE = Path(__file__).parent

#: pyperf's processes a side that are started at once.
PROCESSES = 5

#: What is known after more and more has been measured. Taking the next one measures.
Ratios = Iterator[stats.Ratio]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two implementations of one backend, of one case in one mode."""

    a: str
    b: str
    case: Case
    mode: Mode

    @property
    def jobs(self) -> tuple[Job, Job]:
        a, b = (
            Job(implementation=name, case=self.case, mode=self.mode, measure="steady")
            for name in (self.a, self.b)
        )
        if a.backend != b.backend:
            raise UsageError(f"{self.a} and {self.b}: must be of one backend")
        return a, b

    @property
    def environment(self) -> dict[str, str]:
        """Environment of a rival's process."""
        return {**os.environ, VARIABLE: json.dumps(asdict(self))}


def check_installed() -> None:
    """Raise `UsageError` where a rival is not there."""
    for module, name in (("pyperf", "pyperf"), ("pytest_benchmark", "pytest-benchmark")):
        if importlib.util.find_spec(module) is None:
            raise UsageError(f"{name}: not installed: pip install {name}")


def by_pyperf(pair: Pair, folder: Path) -> Ratios:
    """pyperf: five more processes a side each time, a side's `loops` as first calibrated."""
    pyperf = importlib.import_module("pyperf")  # nothing else needs it
    files = {side: folder / f"pyperf-{side}.json" for side in "ab"}
    loops: dict[str, list[str]] = {side: [] for side in "ab"}
    while True:
        means: dict[str, list[float]] = {}
        for side, path in files.items():
            command = [
                *(sys.executable, str(HERE / "with_pyperf.py"), "--side", side, "--quiet"),
                *("--inherit-environ", VARIABLE, "--processes", str(PROCESSES)),
                *("--append", str(path), *loops[side]),
            ]
            succeed(command, pair.environment)
            benchmark = pyperf.BenchmarkSuite.load(str(path)).get_benchmark("call")
            loops[side] = ["--loops", str(round(benchmark.get_total_loops()))]
            # A calibrating process has no values.
            means[side] = [fmean(run.values) for run in benchmark.get_runs() if run.values]
        yield stats.unpaired_ratio(means["a"], means["b"])


def by_pytest_benchmark(pair: Pair, folder: Path) -> Ratios:
    """pytest-benchmark: one more session each time, with no plugin but its own."""
    differences: list[float] = []
    for number in itertools.count():
        path = folder / f"pytest-benchmark-{number}.json"
        command = [
            *(sys.executable, "-m", "pytest", str(HERE / "with_pytest_benchmark.py")),
            *("-c", os.devnull, "-q", "-p", "no:cacheprovider", "-p", "pytest_benchmark.plugin"),
            *("--benchmark-json", str(path)),
        ]
        succeed(command, undisturbed(pair.environment))
        entries = json.loads(path.read_text())["benchmarks"]
        median = {entry["params"]["side"]: entry["stats"]["median"] for entry in entries}
        differences.append(math.log(median["a"] / median["b"]))
        yield stats.ratio_of(differences)


def succeed(command: list[str], environment: Mapping[str, str]) -> str:
    """Run a rival; its output. Raises `RuntimeError` where it fails."""
    done = subprocess.run(
        command,
        env=dict(environment),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise RuntimeError(f"{command[1]} ended with status {done.returncode}: {said}")
    return done.stdout
