"""A run that is stopped, from within or from outside, and completed afterwards."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from bench import engine, run
from bench.errors import UsageError
from bench.evidence import Group, groups_of
from bench.record import MEASURES, Setting, Status
from bench.store import Run, Store, read_run
from tests.scripted_runs import PRESET, Acting, execute, of, sweep

pytestmark = pytest.mark.usefixtures("scripted_backend")


def whole(result: Run) -> None:
    """Each planned job of each planned block is there exactly once, and nothing else."""
    plan = run.sweep_of(result.manifest)
    counts = plan.sampling.counts()
    wanted = [
        (job.key, block)
        for measure in MEASURES
        for job in plan.jobs(measure)
        for block in range(counts[measure])
    ]
    assert sorted((record.job.key, record.block) for record in result.records) == sorted(wanted)
    assert result.faults == []
    assert result.manifest["status"] == "finished"


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_once_ends_after_what_runs_and_the_rest_is_called_interrupted(
    tmp_path: Path,
) -> None:
    plan = sweep("fine", "fine-too", blocks=3)
    result = run.execute(
        plan,
        tmp_path / "run",
        start="fork",
        command="test",
        progress=Acting(interrupt, "steady"),
    )
    assert result.manifest["status"] == "interrupted"
    # The block was under way: all of it is there, and nothing after it.
    assert {record.job.measure for record in result.records} == {"steady"}
    assert {record.block for record in result.records} == {0}
    (group,), _ = groups_of(result, "run")
    assert group.get("scripted/fine", "steady").outcome.ok == 1
    cold = group.get("scripted/fine", "cold").outcome
    assert (cold.status, cold.ok) == (Status.INTERRUPTED, 0)
    assert "--resume" in cold.reason
    whole(run.resume(tmp_path / "run", progress=run.Silent()))


def test_ctrl_c_twice_ends_at_once_and_keeps_what_was_measured(tmp_path: Path) -> None:
    def twice() -> None:
        interrupt()
        interrupt()

    with pytest.raises(KeyboardInterrupt):
        run.execute(
            sweep("fine"),
            tmp_path / "run",
            start="fork",
            command="test",
            progress=Acting(twice),
        )
    result = read_run(tmp_path / "run")
    assert result.manifest["status"] == "interrupted"
    assert "cold" in {record.job.measure for record in result.records}
    whole(run.resume(tmp_path / "run", progress=run.Silent()))


def test_a_budget_ends_a_run_between_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is estimated not to fit in is not begun; what was measured before it stays."""
    monkeypatch.setattr(
        engine, "job_seconds", lambda job, *_, **__: 1e6 if job.measure == "cold" else 1e-3
    )
    result = execute(tmp_path, sweep("fine", "fine-too", blocks=4, budget_s=3600.0))
    assert result.manifest["status"] == "out of budget"
    assert {record.job.measure for record in result.records} >= {"steady"}
    assert "cold" not in {record.job.measure for record in result.records}
    (group,), _ = groups_of(result, "run")
    assert "budget" in group.get("scripted/fine", "cold").outcome.reason


def test_a_hang_takes_a_share_of_the_budget_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A turn may take five minutes. Within a budget a hang is one sooner, and is an end."""
    monkeypatch.setattr(engine, "job_seconds", lambda *_, **__: 1e-3)
    began_s = time.monotonic()
    result = execute(tmp_path, sweep("fine", "hangs-in-turn", blocks=1, budget_s=30.0))
    assert time.monotonic() - began_s < 120
    (hung,) = of(result, "hangs-in-turn", "steady")
    assert hung.status == Status.TIMEOUT
    assert "no answer to 'burst' within 10 s" in hung.reason
    assert {record.status for record in of(result, "fine", "steady")} == {Status.OK}


def test_what_has_begun_is_cut_off_where_it_runs_far_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "job_seconds", lambda *_, **__: 1e-3)
    monkeypatch.setattr(engine, "OVERRUN", 0.0)
    result = execute(tmp_path, sweep("fine", blocks=1, budget_s=3600.0))
    assert result.manifest["status"] == "out of budget"
    assert result.records == []


def test_what_has_a_precision_already_gets_no_more_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Calls of microseconds are all noise on a busy host.
    monkeypatch.setenv("SCRIPTED_DELAY_S", "0.003")
    plan = sweep("fine", "fine-too", blocks=5, precision=0.999, cold_blocks=1)
    settled = execute(tmp_path, plan)
    whole(settled)


def test_a_look_of_a_resumed_run_sees_what_it_would_have_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no more: what its own blocks say already must not decide whether they are completed."""
    seen: list[int] = []

    def watched(groups: list[Group], precision: float) -> list[Setting]:
        jobs = [job for group in groups for job in group.jobs.values()]
        seen.append(max(record.block for job in jobs for record in job.records))
        assert precision == 0.001
        return list({group.setting: None for group in groups})

    monkeypatch.setattr(engine, "unsettled", watched)
    stop = Acting(lambda: os.kill(os.getpid(), signal.SIGINT), measure="steady", after=34)
    plan = sweep("fine", "fine-too", precision=0.001)
    part = execute(tmp_path, plan, progress=stop)
    assert part.manifest["status"] == "interrupted"
    assert 2 <= max(record.block for record in part.records) < 7
    before, seen[:] = list(seen), []
    result = run.resume(tmp_path / "run", progress=run.Silent())
    assert before == [1, 3][: len(before)]
    assert seen == [1, 3]
    steady = [record for record in result.records if record.job.measure == "steady"]
    jobs = plan.jobs("steady")
    assert sorted((record.job.arm, record.block) for record in steady) == sorted(
        (job.arm, block) for job in jobs for block in range(8)
    )


def test_a_run_that_lost_its_tail_is_completed(tmp_path: Path) -> None:
    """Of a block that is there in part, what is measured again is never paired with the rest."""
    execute(tmp_path, sweep("fine", "fine-too"))
    records = tmp_path / "run" / "records.jsonl"
    lines = records.read_bytes().splitlines(keepends=True)
    records.write_bytes(b"".join(lines[:2]) + lines[2][:40])
    result = run.resume(tmp_path / "run", progress=run.Silent())
    torn, result = result.faults, replace(result, faults=[])
    whole(result)
    assert len(torn) == 1
    turns = {r.pairing for r in result.records if r.job.measure == "steady"}
    assert turns == {(0, 0), (0, 1), (1, 0)}


def test_resuming_a_whole_run_measures_nothing(tmp_path: Path) -> None:
    before = execute(tmp_path, sweep("fine"))
    after = run.resume(tmp_path / "run", progress=run.Silent())
    assert after.records == before.records
    whole(after)


def test_another_host_or_version_is_refused_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(tmp_path, sweep("fine", blocks=1))
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir() if p.is_file()}
    described = run.machine.describe()
    monkeypatch.setattr(run.machine, "describe", lambda: {**described, "cpu": "another"})
    monkeypatch.setattr(run.machine, "versions", lambda: {"numpy": "0.1"})
    with pytest.raises(UsageError, match=r"cpu: .* then, another now.*numpy: .* then, 0.1 now"):
        run.resume(tmp_path / "run", progress=run.Silent())
    assert before == {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir() if p.is_file()}


def test_a_folder_that_is_written_by_another_is_refused(tmp_path: Path) -> None:
    execute(tmp_path, sweep("fine"))
    with (
        Store.resume(tmp_path / "run"),
        pytest.raises(UsageError, match="is being written by another process"),
    ):
        run.resume(tmp_path / "run", progress=run.Silent())


def start_run(folder: Path, strategy: str) -> subprocess.Popen[bytes]:
    preset = folder.with_suffix(".toml")
    preset.write_text(PRESET)
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "bench", "run", "--out", str(folder)),
            *("--preset", str(preset), "--strategy", strategy),
        ],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def until_measuring(process: subprocess.Popen[bytes], folder: Path) -> list[psutil.Process]:
    """Wait for two servers and a worker; returns all that the process has started."""
    for _ in range(300):
        children = psutil.Process(process.pid).children(recursive=True)
        if (folder / "workers.log").exists() and len(children) >= 3:
            return children
        time.sleep(0.1)
    raise AssertionError(process.communicate())


def assert_gone(started: list[psutil.Process]) -> None:
    """They have ended; whoever inherited them may not have reaped them yet."""
    for _ in range(100):
        alive = [p for p in started if p.is_running() and _status(p) != psutil.STATUS_ZOMBIE]
        if not alive:
            return
        time.sleep(0.1)
    raise AssertionError(alive)


def _status(process: psutil.Process) -> str:
    try:
        return process.status()
    except psutil.NoSuchProcess:
        return psutil.STATUS_ZOMBIE


def test_ctrl_c_on_a_terminal_that_hangs_needs_a_second_one(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start_run(folder, "hangs")
    until_measuring(process, folder)
    while not read_run(folder).manifest["backends"]:
        time.sleep(0.1)  # what describes a backend is a worker too, and does not hang
    time.sleep(2)
    os.killpg(process.pid, signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    os.killpg(process.pid, signal.SIGINT)
    _out, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert b"Traceback" not in error
    assert read_run(folder).manifest["status"] == "interrupted"


def test_sigterm_ends_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start_run(folder, "hangs")
    started = until_measuring(process, folder)
    process.send_signal(signal.SIGTERM)
    _out, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert read_run(folder).manifest["status"] == "interrupted"
    assert_gone(started)


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_run_loses_no_record_doubles_none_and_leaves_no_process(
    tmp_path: Path, seed: int
) -> None:
    """`benchmarks/kill.py` does the same fifty times with the frameworks."""
    folder = tmp_path / "run"
    process = start_run(folder, "fine")
    started = until_measuring(process, folder)
    time.sleep(random.Random(seed).uniform(0, 1.5))
    process.kill()
    process.communicate()
    assert_gone(started)
    before = {(r.job.key, r.block) for r in read_run(folder).records}
    result = run.resume(folder, progress=run.Silent())
    assert before <= {(r.job.key, r.block) for r in result.records}
    whole(replace(result, faults=[]))
    assert not (folder / "scratch").exists()
