"""Every fault in a real run of its own: what its user sees, what is lost, what is left behind.

    python benchmarks/faults.py [NAME ...] [--out FILE]

Each run has two arms that behave beside the one that does not, or something is done to the run from
outside. Goals: each planned job has exactly one record, what behaves ends ok, and no process is
left. Exit status 1 where one is missed, or where a fault ends otherwise than it should.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import block, counters, outcome, run, sources
from bench.errors import UsageError, choose
from bench.record import Status
from bench.store import Run, read_run
from benchmarks import instrument
from tests import scripted
from tests.scripted_runs import (
    PRESET,
    Acting,
    execute,
    left_behind,
    limited_files,
    missing,
    of,
    registered,
    signal_server,
    sweep,
)

#: What a scripted run does within milliseconds need not wait for minutes.
LIMITS_S: dict[Any, dict[str, float]] = {
    block: {"BURST_LIMIT_S": 4.0},
    outcome: {"PREPARE_LIMIT_S": 4.0},
    sources: {"EXIT_LIMIT_S": 1.0, "FORK_LIMIT_S": 2.0, "IMPORT_LIMIT_S": 10.0},
}

FINE = ("fine", "fine-too")


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A run that was hit, as it was read in the end; `sees` is what it told of the fault.

    `right` says whether that is what it should tell; `spared` names the implementations that the
    fault must not touch, none where it may touch all.
    """

    result: Run
    sees: str
    right: bool = True
    spared: Sequence[str] = ("scripted/fine", "scripted/fine-too", "reference/products")


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A fault by its name, what is done, and the run that it is done to (in an empty folder)."""

    name: str
    what: str
    hit: Callable[[Path], Ended]


def _words(status: str, reason: str) -> str:
    """A status and the words of its reason that say what happened; of a traceback, the last."""
    lines = reason.strip().splitlines() or [""]
    line = lines[-1] if lines[0].startswith("Traceback") else lines[0]
    return f"{status}: {line[:60]}" if line else status


def _strategy(fault: scripted.Fault) -> Scenario:
    def hit(folder: Path) -> Ended:
        result = execute(folder, sweep("fine", fault.name, "fine-too", blocks=1))
        records = [r for m in ("steady", "cold", "memory") for r in of(result, fault.name, m)]
        right = all(r.status == fault.status and fault.says in r.reason for r in records)
        return Ended(result=result, sees=_words(records[0].status, records[0].reason), right=right)

    return Scenario(name=fault.name, what=fault.what, hit=hit)


def _server(number: signal.Signals, measure: str, after: int) -> Callable[[Path], Ended]:
    """The fork server gets a signal when the n-th job of this measure has been done or built."""

    def hit(folder: Path) -> Ended:
        acting = Acting(lambda: signal_server(number), measure, after)
        result = execute(folder, sweep(*FINE, cold_blocks=2), progress=acting)
        return Ended(result=result, sees="ok, by another server")

    return hit


def _import(source: str, status: Status) -> Callable[[Path], Ended]:
    """The framework's import does this."""

    def hit(folder: Path) -> Ended:
        (folder / "framework.py").write_text(source)
        variables = {
            scripted.MODULE_VARIABLE: "framework",
            "PYTHONPATH": f"{folder}{os.pathsep}{os.environ['PYTHONPATH']}",
        }
        with patch.dict(os.environ, variables):
            result = execute(folder, sweep(*FINE, blocks=1))
        records = [r for name in FINE for r in of(result, name, "steady")]
        return Ended(
            result=result,
            sees=_words(records[0].status, records[0].reason),
            right={record.status for record in records} == {status},
            spared=("reference/products",),
        )

    return hit


def _oracle(folder: Path) -> Ended:
    """A case that is too large for the oracle, beside one that is not."""
    result = execute(folder, sweep(*FINE, blocks=1, hidden=(4, 1 << 25)))
    large = [record for record in result.records if record.job.case.hidden > 4]
    small = [record for record in result.records if record.job.case.hidden == 4]
    return Ended(
        result=result,
        sees=_words(large[0].status, large[0].reason),
        right={record.status for record in large} == {Status.OOM}
        and {record.status for record in small} == {Status.OK},
        spared=(),
    )


def _one_cpu(folder: Path) -> Ended:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        return Ended(result=execute(folder, sweep(*FINE, blocks=1)), sees="ok")
    finally:
        os.sched_setaffinity(0, before)


def _no_pressure(folder: Path) -> Ended:
    nowhere = {"_PRESSURE": folder / "nowhere", "_OWN_CGROUPS": folder / "nowhere"}
    with patch.multiple(counters, **nowhere):
        result = execute(folder, sweep(*FINE, blocks=1))
    lacks = result.records[0].worker["noise"]["missing"]
    return Ended(
        result=result, sees=f"ok, without {', '.join(lacks)}", right="pressure_share" in lacks
    )


def _two_runs(folder: Path) -> Ended:
    said: list[str] = []

    def second() -> None:
        try:
            run.resume(folder / "run", progress=run.Silent())
        except UsageError as error:
            said.append(str(error).partition(": ")[2])

    result = execute(folder, sweep(*FINE), progress=Acting(second))
    return Ended(result=result, sees=f"refused: {said[0]}" if said else "two", right=bool(said))


def _full_disk(folder: Path) -> Ended:
    """The command, with a limit on the size of a file, and then resumed without one."""
    preset = folder / "preset.toml"
    preset.write_text(PRESET)
    command = ["-m", "bench", "run"]
    options = ["--preset", str(preset), "--strategy", ",".join(FINE), "--out", str(folder / "run")]
    full = subprocess.run(
        [*limited_files(20_000), *command, *options],
        capture_output=True,
        text=True,
        check=False,
    )
    kept = read_run(folder / "run").records
    resumed = subprocess.run(
        [sys.executable, *command, "--resume", str(folder / "run")],
        capture_output=True,
        check=False,
    )
    result = read_run(folder / "run")
    said = full.stderr.strip().splitlines()[-1].partition("run: ")[2]
    right = (full.returncode, resumed.returncode) == (1, 0)
    return Ended(
        result=result,
        sees=f"exit status {full.returncode}: {said}",
        right=right and bool(kept) and result.records[: len(kept)] == kept,
    )


SCENARIOS = (
    *map(_strategy, scripted.FAULTS),
    Scenario(
        name="server-killed",
        what="SIGKILL to a fork server between blocks",
        hit=_server(signal.SIGKILL, "memory", 2),
    ),
    Scenario(
        name="server-killed-within",
        what="SIGKILL to a fork server within a block",
        hit=_server(signal.SIGKILL, "steady", 5),
    ),
    Scenario(
        name="server-stopped",
        what="SIGSTOP to a fork server between blocks",
        hit=_server(signal.SIGSTOP, "memory", 2),
    ),
    Scenario(
        name="server-stopped-within",
        what="SIGSTOP to a fork server within a block",
        hit=_server(signal.SIGSTOP, "steady", 5),
    ),
    Scenario(
        name="import-fails",
        what="the framework's import raises",
        hit=_import("import nothing_of_that_name\n", Status.CRASHED),
    ),
    Scenario(
        name="import-hangs",
        what="the framework's import never ends",
        hit=_import("import time\ntime.sleep(3600)\n", Status.TIMEOUT),
    ),
    Scenario(name="oracle-memory", what="a case too large for the oracle", hit=_oracle),
    Scenario(name="one-cpu", what="an affinity of one CPU", hit=_one_cpu),
    Scenario(name="no-pressure", what="a kernel without PSI or cgroups", hit=_no_pressure),
    Scenario(name="two-runs", what="a second run in the same folder", hit=_two_runs),
    Scenario(name="full-disk", what="a disk that is full, then resumed", hit=_full_disk),
)


@contextmanager
def quickly() -> Iterator[None]:
    """Within the body nothing waits longer than a scripted run can need."""
    with ExitStack() as stack:
        for module, limits in LIMITS_S.items():
            stack.enter_context(patch.multiple(module, **limits))
        yield


def attempt(scenario: Scenario) -> tuple[dict[str, object], bool]:
    """A row of the table, and whether every goal is met."""
    with (
        registered() as mark,
        quickly(),
        tempfile.TemporaryDirectory(prefix="rnn-bench-") as folder,
    ):
        ended = scenario.hit(Path(folder))
        plan = run.sweep_of(ended.result.manifest)
        lost, left = missing(plan, ended.result), left_behind(mark)
        counts = plan.sampling.counts()
        planned = sum(counts[measure] * len(plan.jobs(measure)) for measure in counts)
        harmed = [
            record
            for record in ended.result.records
            if record.job.implementation in ended.spared and record.status != Status.OK
        ]
    row = {
        "fault": scenario.name,
        "what is done": scenario.what,
        "what is seen": ended.sees + ("" if ended.right else " (not as it should)"),
        "planned": planned,
        "recorded": len(ended.result.records),
        "lost": len(lost),
        "others harmed": len(harmed),
        "processes left": len(left),
    }
    return row, ended.right and not lost and not harmed and not left


def main() -> None:
    parser = instrument.options(__doc__, "faults")
    parser.add_argument("names", nargs="*", metavar="NAME", help="faults; all without any")
    arguments = parser.parse_args()
    names = arguments.names
    known = [scenario.name for scenario in SCENARIOS]
    for name in names:
        choose("fault", name, known)
    chosen = [scenario for scenario in SCENARIOS if not names or scenario.name in names]
    rows, good = [], True
    for scenario in chosen:
        row, met = attempt(scenario)
        rows.append(row)
        good &= met
        print(f"{len(rows)} of {len(chosen)}: {scenario.name}", file=sys.stderr, flush=True)
    instrument.write(arguments.out, settings={}, rows=rows)
    instrument.print_table(rows)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    instrument.run_script(main)
