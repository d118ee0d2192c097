"""A run -> the JSON file of pytest-benchmark, by replay through its public interface.

pytest-benchmark's own engine has no isolation, takes the first call for calibration, and loses a
whole session to one crash. It is a format that many tools read, so what has been measured is played
back to it (`bench/test_sweep.py`) on a clock that is set by hand.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from backends import install_line
from bench import durable
from bench.errors import UsageError
from bench.evidence import Evidence, groups_of
from bench.naming import job_name
from bench.record import TO_FIRST, Job
from bench.store import Run

#: `python -m pytest`, but not for longer than who started it.
_PYTEST = """\
import sys
from bench.ending import die_with_parent
die_with_parent(int(sys.argv.pop(1)))
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""

_NEEDED = {"pytest": "pytest", "pytest_benchmark": "pytest-benchmark"}


def evidence_of(run: Run) -> list[Evidence]:
    """Evidence of each job, in reading order; jobs without records too."""
    groups, _faults = groups_of(run, str(run.manifest.get("id", run.folder.name)))
    return [evidence for group in groups for evidence in group.jobs.values()]


def rounds(evidence: Evidence) -> list[float]:
    """Seconds, one number a worker: the median steady time, or the time to the first result.

    So the spread over rounds is the spread over workers, the only one that means something. Empty
    for a job that was not measured, that failed in any block, or whose outputs were wrong.
    """
    if not evidence.outcome.rankable:
        return []
    if evidence.job.measure == "steady":
        return [float(np.median(samples)) for samples in evidence.blocks("steady").values()]
    if evidence.job.measure == "cold":
        return list(evidence.single(*TO_FIRST).values())
    return []  # memory has no time


def parameters(job: Job) -> dict[str, Any]:
    """A job as one key a field."""
    fields = {"implementation": job.implementation, "mode": job.mode, "measure": job.measure}
    return {**fields, **asdict(job.case)}


def extra_info(evidence: Evidence, memory: Evidence | None) -> dict[str, Any]:
    """Remarks for a reader of the file: nothing ran here; the run's figures, status and key."""
    peaks = [] if memory is None else list(memory.values("peak_bytes").values())
    return {
        "replayed": True,
        "clock": "time.perf_counter_ns",
        "status": evidence.outcome.status,
        "blocks": evidence.outcome.ok,
        "blocks_planned": evidence.outcome.planned,
        "inner_iterations": [record.inner for record in evidence.records],
        "peak_bytes": float(np.median(peaks)) if peaks else None,
        "key": evidence.job.key,
    }


def not_replayed(run: Run) -> list[dict[str, str]]:
    """The jobs whose figures are kept out of the file, and why."""
    return [
        {
            "job": job_name(evidence.job),
            "status": evidence.outcome.status,
            "reason": evidence.outcome.reason,
        }
        for evidence in evidence_of(run)
        if not evidence.outcome.rankable
    ]


def export(run: Run, path: Path) -> Path:
    """Write a run's file for pytest-benchmark, whole or not at all.

    Raises `UsageError` where the extra `report` is not installed, where the run has nothing to
    replay, or where the file cannot be written.
    """
    absent = [name for module, name in _NEEDED.items() if find_spec(module) is None]
    if absent:
        raise UsageError(f"{', '.join(absent)} not installed: {install_line('report')}")
    expected = {job_name(e.job): times for e in evidence_of(run) if (times := rounds(e))}
    if not expected:
        raise UsageError(f"run {run.folder}: no timed job ended ok, there is nothing to export")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise UsageError(f"file {path}: {path.parent} is no folder that can be written to")
    if path.is_dir():
        raise UsageError(f"file {path}: is a folder")
    if path.exists() and not _is_export(path):
        raise UsageError(f"file {path}: is there, and no export; name a new one")
    # Where the system keeps what may be lost: a folder that is left by a kill is no part of a run.
    with tempfile.TemporaryDirectory(prefix="rnn-bench-") as scratch:
        written = Path(scratch, "benchmark.json")
        output = _replay(run.folder, written, Path(scratch))
        if _times(written) != expected:
            raise RuntimeError(f"pytest-benchmark did not write what was replayed:\n{output}")
        text = written.read_text()
    try:
        durable.replace(path, text)
    except OSError as error:
        raise UsageError(f"file {path}: cannot be written ({error.strerror})") from error
    return path


def undisturbed(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a pytest that neither another one's settings nor plugins take part in.

    Within a worker of pytest-xdist, for one, pytest-benchmark measures nothing.
    """
    kept = {name: value for name, value in environment.items() if not name.startswith("PYTEST_")}
    return {**kept, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def _is_export(path: Path) -> bool:
    """Whether a file is one of pytest-benchmark's, which may be replaced."""
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(data, dict) and "benchmarks" in data


def _replay(folder: Path, path: Path, scratch: Path) -> str:
    """Run pytest over the run's jobs in a process of its own; returns what it printed.

    Neither the caller's pytest settings nor its plugins take part.
    """
    package = Path(__file__).resolve().parent
    result = subprocess.run(
        [
            *(sys.executable, "-c", _PYTEST, str(os.getpid()), "-p", "pytest_benchmark.plugin"),
            *("-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(package.parent)),
            *("--quiet", "--tb=short", "--bench-run", str(folder.resolve())),
            *("--benchmark-json", str(path.resolve()), "--benchmark-storage", str(scratch)),
            str(package / "test_sweep.py"),
        ],
        env=undisturbed(os.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return result.stdout


def _times(path: Path) -> Mapping[str, Sequence[float]] | None:
    """Times in the file, by job; None if there is no file."""
    if not path.exists():
        return None
    data = json.loads(path.read_text())
    return {entry["param"]: entry["stats"]["data"] for entry in data["benchmarks"]}
