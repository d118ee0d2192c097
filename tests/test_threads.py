"""Threads as an axis: of a sweep, of a block's arms, of a report; and runs that had one number."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from backends.api import Case
from bench import machine
from bench.cli import main
from bench.errors import UsageError
from bench.evidence import groups_of
from bench.floors import Floors
from bench.launch import Team
from bench.record import Job, Record, Status
from bench.report import build
from bench.store import Run, Store, read_run
from bench.sweep import Sweep
from tests import synthetic
from tests.reading import table
from tests.scripted_runs import execute, sweep

CPUS = machine.available_cpus()

two_cpus = pytest.mark.skipif(len(CPUS) < 2, reason="needs two CPUs")


def on_threads(plan: Sweep, *threads: int) -> Sweep:
    return replace(plan, axes=replace(plan.axes, threads=threads))


@two_cpus
def test_a_worker_has_as_many_cpus_as_threads(tmp_path: Path, scripted_backend: None) -> None:
    with Team(
        ["scripted"],
        threads=(2, 1),
        cpus=CPUS[-2:],
        start="fork",
        log=tmp_path / "log",
        scratch=tmp_path,
    ) as team:
        for threads, cpus in ((1, CPUS[-1:]), (2, CPUS[-2:]), (None, CPUS[-1:])):
            with team.worker("scripted", threads) as worker:
                assert psutil.Process(worker.pid).cpu_affinity() == cpus


@two_cpus
def test_numbers_of_threads_take_turns_in_the_same_block(
    tmp_path: Path, scripted_backend: None
) -> None:
    result = execute(tmp_path, on_threads(sweep("fine", "slow", blocks=2), 1, 2))
    assert result.manifest["status"] == "finished"
    assert result.manifest["cpus"] == CPUS[-2:]
    assert {record.status for record in result.records} == {Status.OK}
    steady = [record for record in result.records if record.job.measure == "steady"]
    assert {record.attempt for record in steady} == {0}
    rounds = {(r.block, len(r.samples["steady"])) for r in steady}
    assert len(rounds) == 2  # all arms of a block had as many
    # Identical pairs on either, since they need not be alike.
    assert {r.job.case.threads for r in steady if r.job.replica} == {1, 2}
    one, two = groups_of(read_run(tmp_path / "run"), "run")[0]
    assert [group.case.threads for group in (one, two)] == [1, 2]
    for group in (one, two):
        ratio = group.steady_ratio("scripted/slow", "scripted/fine")
        assert ratio is not None
        assert ratio.ratio > 3
        assert [t.job.case.threads for t in group.floors.twins if t.job.measure == "steady"] == [
            group.case.threads
        ]
    frame = table(build([result]), "threads").frame
    names = ("reference/products", "scripted/fine", "scripted/slow")
    assert sorted(frame["implementation"]) == sorted(names)
    assert set(frame["threads"]) == {2}
    assert set(frame["fewest"]) == {1}
    assert set(frame["ratio_blocks"]) == {2}


def faster(record: Record) -> Record:
    """Half the time on two threads for JAX; an identical pair within 3 % there, and no better."""
    if record.job.measure != "steady" or record.job.case.threads == 1 or not record.samples:
        return record
    factor = 0.5 if record.job.backend == "jax" else 1.0
    factor *= 1 + 0.03 * (-1) ** record.block if record.job.replica else 1.0
    return replace(record, samples={"steady": [factor * s for s in record.samples["steady"]]})


def test_a_report_says_what_more_threads_gain() -> None:
    run = synthetic.run(on_threads(synthetic.sweep(blocks=6), 1, 2), change=faster)
    report = build([run])
    frame = table(report, "threads").frame.set_index("implementation")
    row = frame.loc["jax/dynamic"].iloc[0]
    assert row["ratio"] == pytest.approx(0.5, rel=0.02)
    assert row["verdict"] == "faster"
    assert set(frame.loc["torch/dynamic"]["verdict"]) <= {"equivalent", "cannot tell"}
    pairs = table(report, "static-dynamic")
    assert "threads" in pairs.heads
    assert set(pairs.frame["threads"]) == {1, 2}
    # A sweep of one number has no such table, and no such column.
    single = build([synthetic.run(synthetic.sweep(blocks=2))])
    assert "threads" not in {found.name for found in single.tables}
    assert all("threads" not in found.heads for found in single.tables)


def test_a_floor_is_of_its_own_number_of_threads() -> None:
    records = synthetic.run(on_threads(synthetic.sweep(blocks=6), 1, 2), change=faster).records
    floors = [Floors.of(records, "cpu", threads) for threads in (1, 2)]
    one, two = (floor.within("torch", "forward", "steady") for floor in floors)
    assert one.value < 0.02 < two.value


def test_the_key_of_a_job_tells_threads_and_stays_as_it_was_on_one() -> None:
    case = Case(cell="lstm", seq_len=3, batch=2, inputs=4, hidden=5)
    job = Job(implementation="torch/fused", case=case, mode="forward", measure="steady")
    assert job.key == "1ddaba0c772ba4ca"
    keys = {replace(job, case=replace(case, threads=n)).key for n in (1, 2, 3)}
    assert len(keys) == 3
    with pytest.raises(ValueError, match="threads=0: must be 1 or more"):
        replace(case, threads=0)


def earlier(folder: Path, threads: object) -> Run:
    """A run as it was written while all of its jobs had one number of threads."""
    run = synthetic.run(synthetic.sweep(blocks=1))
    plan = json.loads(json.dumps(run.manifest["sweep"]))
    for axes in (plan["axes"], *plan["more"]):
        del axes["threads"]
    with Store.create(folder, {**run.manifest, "sweep": plan, "threads": threads}) as store:
        store.extend(run.records)
    return read_run(folder)


def test_a_run_that_had_one_number_for_all_has_it_in_its_jobs(tmp_path: Path) -> None:
    run = earlier(tmp_path / "run", 2)
    assert {record.job.case.threads for record in run.records} == {2}
    groups, faults = groups_of(run, "run")
    assert faults == []
    planned = [evidence for group in groups for evidence in group.jobs.values()]
    assert {evidence.job.case.threads for evidence in planned} == {2}
    assert all(evidence.records for evidence in planned)


@pytest.mark.parametrize("threads", [1, None, "two", 0, -3, True, 2.0, 10**400, [2]])
def test_what_is_no_number_of_threads_is_one(tmp_path: Path, threads: object) -> None:
    run = earlier(tmp_path / "run", threads)
    assert {record.job.case.threads for record in run.records} == {1}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("0", "threads 0: must be a whole number of 1 or more"),
        ("1,x", "threads 'x': must be a whole number of 1 or more"),
        ("1,1", "axis threads: value 1 is given twice"),
        ("1,4097", f"threads 4097: must be between 1 and {len(CPUS)}, the CPUs here"),
    ],
)
def test_threads_that_this_host_has_not_are_one_line(
    words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--preset", "smoke", "--threads", words, "--dry-run"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert said in err


def test_more_threads_than_cpus_leave_no_folder(tmp_path: Path, scripted_backend: None) -> None:
    with pytest.raises(UsageError, match="threads 4097"):
        execute(tmp_path, on_threads(sweep("fine"), 1, 4097))
    assert not (tmp_path / "run").exists()
