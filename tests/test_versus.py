"""Two environments side by side: wrappers of one interpreter stand for them."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench import cli, run, versus
from bench.compare import compare
from bench.errors import UsageError
from bench.record import Status, read_run
from tests import scripted
from tests.scripted_runs import sweep

pytestmark = pytest.mark.usefixtures("scripted_backend")


def interpreter(folder: Path, name: str, **environment: str) -> Path:
    """This interpreter with some variables set: another environment."""
    path = folder / name
    words = " ".join(f"{key}={value}" for key, value in environment.items())
    path.write_text(f'#!/bin/sh\n{words} exec {sys.executable} "$@"\n')
    path.chmod(0o755)
    return path


def execute(folder: Path, old: Path, new: Path, blocks: int = 4) -> tuple[run.Run, run.Run]:
    plan = sweep("fine", "fine-too", blocks=blocks)
    return versus.execute(
        plan,
        folder / "out",
        (old, new),
        threads=1,
        start="fork",
        command="test",
        progress=run.Silent(),
    )


def test_a_side_that_is_slower_is_found_in_pairs(tmp_path: Path) -> None:
    # Calls of microseconds are all noise: both sleep, the new one three times as long.
    old = interpreter(tmp_path, "old-python", SCRIPTED_DELAY_S="0.005")
    new = interpreter(tmp_path, "new-python", SCRIPTED_DELAY_S="0.015")
    sides = execute(tmp_path, old, new)
    one, two = sides
    assert one.manifest["session"] == two.manifest["session"]
    assert one.manifest["status"] == two.manifest["status"] == "finished"
    assert {record.status for side in sides for record in side.records} == {Status.OK}
    turns = [
        {r.block: r.worker["turns"] for r in side.records if r.job.measure == "steady"}
        for side in sides
    ]
    assert turns[0] == turns[1]
    found = compare(*sides, measures=["steady"])
    assert found.exit_status == 1
    rows = {row.job.implementation: row for row in found.rows if row.job.measure == "steady"}
    assert rows["scripted/fine"].verdict == "slower"
    assert rows["scripted/fine"].ratio is not None
    assert rows["scripted/fine"].ratio.ratio > 2


def test_each_side_has_every_job_but_the_pairs_of_two_workers(tmp_path: Path) -> None:
    python = interpreter(tmp_path, "python")
    plan = sweep("fine", "fine-too", blocks=2)
    for side in execute(tmp_path, python, python, blocks=2):
        keys = {(record.job, record.block) for record in side.records}
        counts = plan.sampling.counts()
        assert keys == {
            (job, block)
            for measure in counts
            for job in plan.jobs(measure)
            if job.replica != 2
            for block in range(counts[measure])
        }


def test_what_is_capped_says_so_on_both_sides(tmp_path: Path) -> None:
    python = interpreter(tmp_path, "python")
    plan = replace(
        sweep("fine", "fine-too", blocks=1), caps={"scripted/fine-too": {"forward": 1, "train": 1}}
    )
    for side in versus.execute(
        plan,
        tmp_path / "out",
        (python, python),
        threads=1,
        start="fork",
        command="test",
        progress=run.Silent(),
    ):
        status = {record.job.implementation: record.status for record in side.records}
        assert status["scripted/fine-too"] == Status.CAPPED
        assert status["scripted/fine"] == Status.OK


def test_an_interpreter_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere: is not there"):
        execute(tmp_path, tmp_path / "nowhere", Path(sys.executable))
    assert not (tmp_path / "out").exists()


def test_an_environment_without_the_framework_is_refused_by_its_name(tmp_path: Path) -> None:
    broken = interpreter(tmp_path, "broken-python", **{scripted.MODULE_VARIABLE: "tests.absent"})
    with pytest.raises(UsageError, match="broken-python: scripted does not run there"):
        execute(tmp_path, Path(sys.executable), broken)
    assert read_run(tmp_path / "out" / "old").manifest["status"] == "failed"


def test_the_command_says_what_compare_would(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    python, out = interpreter(tmp_path, "python"), tmp_path / "out"
    arguments = "--cell lstm --seq-len 3 --batch 2 --hidden 4 --inputs 3 --mode forward --blocks 2"
    status = cli.main(
        [
            *("versus", str(python), str(python), "--out", str(out), "--preset", "smoke"),
            *("--backend", "scripted", "--strategy", "fine", *arguments.split()),
        ]
    )
    # The same environment twice: never slower, and two blocks can hardly tell.
    assert status in (0, 3), capsys.readouterr().err
    assert "scripted/fine" in capsys.readouterr().out
    old, new = (read_run(out / name) for name in versus.SIDES)
    assert replace(old, folder=out).manifest["session"] == new.manifest["session"]
    assert cli.main(["compare", str(out / "old"), str(out / "new")]) in (0, 3)
