"""Options and hooks of `pytest bench`: which jobs are items, and where their records come from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backends import IMPLEMENTATIONS
from bench import machine, run
from bench.axes import CASE_AXES, RANKED, RIDING, Axes
from bench.errors import UsageError
from bench.evidence import Evidence
from bench.export import evidence_of, not_replayed, parameters
from bench.naming import group_name, job_name
from bench.preset import load_preset
from bench.record import Job
from bench.replay import clock
from bench.store import Run, read_run
from bench.sweep import Sweep

#: The run that is replayed: named, or measured by the first item that needs it.
_RUN = pytest.StashKey[Run]()
_SWEEP = pytest.StashKey[Sweep]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("rnn-bench")
    group.addoption(
        "--bench-preset",
        metavar="NAME",
        default="smoke",
        help="Preset (or TOML file) whose jobs are the items. Default: %(default)s.",
    )
    group.addoption(
        "--bench-run",
        metavar="FOLDER",
        help="Replay the records of this run; without it the selected jobs are measured first.",
    )


def pytest_configure(config: pytest.Config) -> None:
    folder: str | None = config.getoption("bench_run")
    try:
        if folder is not None:
            config.stash[_RUN] = read_run(Path(folder))
        else:
            config.stash[_SWEEP] = load_preset(config.getoption("bench_preset"))
    except UsageError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "job" not in metafunc.fixturenames:
        return
    stash = metafunc.config.stash
    if _RUN in stash:
        jobs = [evidence.job for evidence in evidence_of(stash[_RUN])]
    else:
        sweep = stash[_SWEEP]
        jobs = [job for measure in sweep.sampling.counts() for job in sweep.jobs(measure)]
    items = [job for job in jobs if job.measure in ("steady", "cold") and not job.replica]
    metafunc.parametrize("job", [_item(job) for job in items])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """No limit of time: the first item waits for the whole sweep, of which each request has one."""
    if config.pluginmanager.has_plugin("timeout"):
        for item in items:
            if "job" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.timeout(0))


def _item(job: Job) -> pytest.ParameterSet:
    mark = pytest.mark.benchmark(group=group_name(job), timer=clock)
    return pytest.param(job, id=job_name(job), marks=mark)


def narrowed(sweep: Sweep, jobs: Sequence[Job]) -> Sweep:
    """The sweep with only the axis values that the jobs have: no less than the jobs."""
    entries = [IMPLEMENTATIONS[job.implementation] for job in jobs]
    ranked = [entry for entry in entries if entry.kind in RANKED]
    # What rides along does so with its framework only; NumPy's products always do.
    riders = [entry for entry in entries if entry.kind in RIDING and entry.backend != "reference"]
    common: dict[str, Sequence[Any]] = {
        "mode": [job.mode for job in jobs],
        "backend": [entry.backend for entry in (ranked + riders if ranked else ranked)],
        "strategy": [entry.strategy.name for entry in ranked],
    }
    left = [job.case for job in jobs]
    parts: list[Axes] = []
    for axes in (sweep.axes, *sweep.more):
        cases = set(axes.cases())
        own = [case for case in left if case in cases]
        left = [case for case in left if case not in cases]
        if own:
            values = common | {name: [getattr(case, name) for case in own] for name in CASE_AXES}
            distinct: dict[str, Any] = {k: tuple(dict.fromkeys(v)) for k, v in values.items()}
            parts.append(replace(axes, **distinct))
    return replace(sweep, axes=parts[0], more=tuple(parts[1:]))


@pytest.fixture(scope="session")
def evidence(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[Job, Evidence]:
    """Evidence of each job of the run, which is measured first if none was named."""
    stash = request.config.stash
    if _RUN not in stash:
        if "PYTEST_XDIST_WORKER" in os.environ:
            pytest.fail("jobs measured at once disturb each other: leave out -n", pytrace=False)
        jobs = [
            job
            for item in request.session.items
            if isinstance(item, pytest.Function)
            and isinstance(job := item.callspec.params.get("job"), Job)
        ]
        stash[_RUN] = run.execute(
            narrowed(stash[_SWEEP], jobs),
            tmp_path_factory.mktemp("bench") / "run",
            start="fork",
            command="pytest bench",
            progress=run.Silent(),
        )
    return {found.job: found for found in evidence_of(stash[_RUN])}


@pytest.fixture
def job_evidence(evidence: dict[Job, Evidence], job: Job) -> Evidence:
    return evidence[job]


@pytest.fixture
def memory_evidence(evidence: dict[Job, Evidence], job: Job) -> Evidence | None:
    """The memory job beside this one; what rides along has none."""
    return evidence.get(replace(job, measure="memory"))


def pytest_benchmark_generate_machine_info(config: pytest.Config) -> dict[str, Any]:
    """The host that measured, which need not be this one."""
    measured = _RUN in config.stash
    host = config.stash[_RUN].manifest.get("host", {}) if measured else machine.describe()
    return {
        "node": host.get("hostname"),
        "processor": host.get("cpu"),
        "machine": host.get("machine"),
        "python_version": host.get("python"),
        "system": host.get("system"),
        "cpu": {"brand_raw": host.get("cpu"), "count": host.get("cores")},
    }


def pytest_benchmark_generate_commit_info(config: pytest.Config) -> dict[str, Any] | None:
    """A run that is only replayed was not made by the commit that lies here now."""
    if config.getoption("bench_run") is None:
        return None
    unknown = {"time": None, "author_time": None, "dirty": False, "branch": "(unknown)"}
    return {"id": "unknown", "project": "rnn-bench", **unknown}


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    """Say which run this is, what its jobs are, and which of them are not here."""
    if _RUN not in config.stash:
        return
    found = config.stash[_RUN]
    jobs = {job_name(known.job): known.job for known in evidence_of(found)}
    for entry in output_json["benchmarks"]:
        if entry["param"] in jobs:
            # One key a field, so that `pytest-benchmark compare --group-by=param:seq_len` works.
            entry["params"] = parameters(jobs[entry["param"]])
    manifest = found.manifest
    output_json["datetime"] = manifest.get("created", output_json["datetime"])
    output_json["run"] = {
        name: manifest.get(name) for name in ("id", "status", "command", "versions")
    }
    output_json["not_replayed"] = not_replayed(found)
