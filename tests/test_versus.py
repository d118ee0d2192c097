"""Two environments side by side: wrappers of one interpreter stand for them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bench import cli, launch, machine, run, versus
from bench.compare import compare
from bench.errors import StoreError, UsageError
from bench.evidence import groups_of
from bench.record import Status
from bench.store import Run, Store, read_run
from bench.sweep import Sweep
from tests import scripted
from tests.scripted_runs import Acting, full_disk_after, missing, of, preset, sweep

pytestmark = pytest.mark.usefixtures("scripted_backend")


def interpreter(folder: Path, name: str, **environment: str) -> Path:
    """This interpreter with some variables set: another environment."""
    path = folder / name
    words = " ".join(f"{key}={value}" for key, value in environment.items())
    path.write_text(f'#!/bin/sh\n{words} exec {sys.executable} "$@"\n')
    path.chmod(0o755)
    return path


def failing(folder: Path, how: str) -> Path:
    """An environment in which `fine-too` is the strategy of this name."""
    variables = {scripted.MODULE_VARIABLE: "tests.scripted_other", "SCRIPTED_FAILS": how}
    return interpreter(folder, f"{how}-python", **variables)


def execute(
    folder: Path,
    old: Path,
    new: Path,
    blocks: int = 4,
    *,
    plan: Sweep | None = None,
    progress: run.Progress | None = None,
) -> tuple[Run, Run]:
    return versus.execute(
        plan or sweep("fine", "fine-too", blocks=blocks),
        folder / "out",
        (old, new),
        start="fork",
        command="test",
        progress=progress or run.Silent(),
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
        {r.pairing: len(r.samples["steady"]) for r in side.records if r.job.measure == "steady"}
        for side in sides
    ]
    assert turns[0] == turns[1]
    found = compare(*sides, measures=["steady"])
    assert found.exit_status == 1
    rows = {row.job.implementation: row for row in found.rows if row.job.measure == "steady"}
    assert rows["scripted/fine"].verdict == "slower"
    assert rows["scripted/fine"].ratio is not None
    assert rows["scripted/fine"].ratio.ratio > 2


def test_each_side_has_every_job_and_the_floor_is_that_of_two_workers(tmp_path: Path) -> None:
    python = interpreter(tmp_path, "python")
    plan = sweep("fine", "fine-too", blocks=2)
    sides = execute(tmp_path, python, python, plan=plan)
    for side in sides:
        assert missing(plan, side) == []
        pids = {r.job: r.worker["pid"] for r in side.records if r.job.measure == "steady"}
        apart = {job for job in pids if job.replica and pids[job] != pids[job.original]}
        assert {job.implementation for job in apart} == {"scripted/fine"}
    rows = compare(*sides, measures=["steady"]).rows
    assert len(rows) == 3
    ranked = [row for row in rows if row.job.backend == "scripted"]
    assert all(row.floor.measured for row in ranked)


def test_each_side_says_once_which_kernels_it_ran(tmp_path: Path) -> None:
    python = interpreter(tmp_path, "python")
    sides = execute(tmp_path, python, python, plan=sweep("fine", "persistent", blocks=2))
    for side in sides:
        (record,) = (record for record in side.records if "kernels" in record.worker)
        assert (record.job.implementation, record.block) == ("scripted/persistent", 0)
        assert record.worker["kernels"]["total"] == 3


@pytest.mark.parametrize("how", ["raises", "raises-in-turn"])
@pytest.mark.parametrize("broken", [0, 1])
def test_a_failure_is_its_sides_and_every_job_has_an_end(
    how: str, broken: int, tmp_path: Path
) -> None:
    pythons = [interpreter(tmp_path, "python")] * 2
    pythons[broken] = failing(tmp_path, how)
    plan = sweep("fine", "fine-too", blocks=1)
    sides = execute(tmp_path, *pythons, plan=plan)
    assert [missing(plan, side) for side in sides] == [[], []]
    for number, side in enumerate(sides):
        ends = {(r.job.implementation, r.status, r.reason) for r in side.records}
        crashed = {(i, s) for i, s, reason in ends if "scripted failure" in reason}
        assert crashed == ({("scripted/fine-too", Status.CRASHED)} if number == broken else set())
        assert {i for i, s, _ in ends if s == Status.OK} >= {"scripted/fine", "reference/products"}
        assert ("scripted/fine-too", Status.OK) in {e[:2] for e in ends} or number == broken
        for measure in ("cold", "memory"):
            (record,) = of(side, "fine-too", measure)
            assert (record.status == Status.CRASHED) == (number == broken)
    found = compare(*sides)
    worse = {(job.job.measure, job.effect) for job in found.unmatched}
    effect = "failure" if broken else "none"
    assert worse == {(measure, effect) for measure in ("steady", "cold", "memory")}


def test_an_oracle_without_memory_costs_its_case_only(tmp_path: Path) -> None:
    python = interpreter(tmp_path, "python")
    plan = sweep("fine", "fine-too", blocks=2, hidden=(4, 1 << 25))
    for side in execute(tmp_path, python, python, plan=plan):
        assert side.manifest["status"] == "finished"
        assert missing(plan, side) == []
        for record in side.records:
            if record.job.case.hidden == 4:
                assert record.status == Status.OK
            else:
                # Asked for again in the next block: no file that is not there is taken for one.
                assert record.status == Status.OOM
                assert record.reason.startswith("the oracle: ")


@pytest.mark.parametrize(
    "asked",
    [
        {"precision": 0.02},
        {"budget_s": 60.0},
        {"memory_limit_bytes": 300_000_000},
        {"behaviour_blocks": 1},
    ],
    ids=lambda asked: next(iter(asked)),
)
def test_what_two_sides_do_not_measure_is_refused(asked: dict[str, Any], tmp_path: Path) -> None:
    python = Path(sys.executable)
    with pytest.raises(UsageError, match=f"{next(iter(asked))} .* of preset test: versus"):
        execute(tmp_path, python, python, plan=sweep("fine", **asked))
    assert not (tmp_path / "out").exists()


def test_a_side_that_was_cut_off_promises_no_more_and_is_not_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    python = interpreter(tmp_path, "python")
    interrupt = partial(os.kill, os.getpid(), signal.SIGINT)
    plan = sweep("fine", hidden=(4, 5))
    sides = execute(tmp_path, python, python, plan=plan, progress=Acting(interrupt, "steady"))
    for name, side in zip(versus.SIDES, sides, strict=True):
        assert side.manifest["status"] == "interrupted"
        ends = [group.get("scripted/fine", "cold").outcome for group in groups_of(side, name)[0]]
        assert sorted((end.status, end.reason) for end in ends) == [
            (Status.INTERRUPTED, "the run was interrupted before it"),
            (Status.OK, ""),
        ]
        before = {path: path.read_bytes() for path in side.folder.iterdir()}
        assert cli.main(["run", "--resume", str(side.folder)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{name}: is one of two that `versus` measured in turns" in line
        assert "cannot be resumed; start versus again" in line
        assert {path: path.read_bytes() for path in side.folder.iterdir()} == before
    # Nothing is known to be worse, and of what was cut off nothing is known.
    assert compare(*sides).exit_status == 3


def test_what_is_capped_says_so_on_both_sides(tmp_path: Path) -> None:
    python = interpreter(tmp_path, "python")
    plan = replace(
        sweep("fine", "fine-too", blocks=1), caps={"scripted/fine-too": {"forward": 1, "train": 1}}
    )
    for side in execute(tmp_path, python, python, plan=plan):
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


def test_the_commands_exit_status_is_that_of_the_comparison(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    python = interpreter(tmp_path, "python")
    plan = tmp_path / "plan.toml"
    axes = 'backend = ["scripted"]\nstrategy = ["fine", "fine-too"]'
    plan.write_text(preset(axes, mode='["forward"]', blocks=1, cold_blocks=1))
    limited = tmp_path / "limited.toml"
    limited.write_text(f"{plan.read_text()}\nmemory_limit_bytes = 300000000\n")

    def status(new: Path, of_plan: Path, name: str) -> int:
        out = str(tmp_path / name)
        words = ["versus", str(python), str(new), "--preset", str(of_plan), "--out", out]
        return cli.main(words)

    assert status(failing(tmp_path, "raises"), plan, "broken") == 1
    assert "failure" in capsys.readouterr().out
    assert status(python, plan, "same") == 3  # one block tells nothing
    capsys.readouterr()
    assert status(python, limited, "limited") == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "memory_limit_bytes 300000000 of preset limited: versus" in err


def test_a_disk_that_is_full_beside_the_records_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "shorten", full_disk_after(20))
    python = interpreter(tmp_path, "python")
    with pytest.raises(StoreError, match=r"cannot be written \(No space left .* are kept\)"):
        execute(tmp_path, python, python, plan=sweep("fine", "fine-too", blocks=3))


def test_a_sides_python_is_the_one_that_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = machine.describe()
    monkeypatch.setattr(machine, "describe", lambda: {**described, "python": "2.7"})
    python = interpreter(tmp_path, "python")
    for side in execute(tmp_path, python, python, plan=sweep("fine", blocks=1)):
        assert side.manifest["host"] == described


def test_a_side_that_cannot_be_written_keeps_the_other_from_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Store.write_manifest

    def failing_at_the_end(self: Store, manifest: Mapping[str, Any]) -> None:
        if manifest["status"] != "running" and self.folder.name == "new":
            raise StoreError("no space")
        write(self, manifest)

    monkeypatch.setattr(Store, "write_manifest", failing_at_the_end)
    python = interpreter(tmp_path, "python")
    with pytest.raises(StoreError, match="no space"):
        execute(tmp_path, python, python, plan=sweep("fine", blocks=1))
    (old,) = tmp_path.rglob("old/manifest.json")
    assert read_run(old.parent).manifest["status"] == "finished"
