"""The real launcher with a backend that misbehaves: each job ends in exactly one status."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import backends
from bench import block
from bench.launch import Start
from bench.record import Status
from tests import scripted
from tests.scripted_runs import execute, of, sweep

pytestmark = pytest.mark.usefixtures("scripted_backend")


@pytest.mark.parametrize(
    ("strategy", "status", "reason"),
    [
        ("wrong", Status.WRONG_OUTPUT, "outputs differ by 0.5"),
        ("nan", Status.NAN, "outputs: not finite"),
        ("memoises", Status.WRONG_OUTPUT, "after the timing: outputs do not follow the batch"),
        ("carries-on", Status.WRONG_OUTPUT, "after the timing: outputs differ"),
        ("raises", Status.CRASHED, "RuntimeError: scripted failure"),
        ("segv", Status.CRASHED, "killed by SIGSEGV"),
        ("exits", Status.CRASHED, "exit status 7"),
        ("exits-0", Status.CRASHED, "exit status 0"),
        ("hangs", Status.TIMEOUT, "no answer to 'prepare' within 1 s"),
        ("oom", Status.OOM, "MemoryError: scripted"),
        ("unsupported", Status.UNSUPPORTED, "expresses nothing"),
        ("raises-late", Status.CRASHED, "scripted late"),
        ("segv-late", Status.CRASHED, "killed by SIGSEGV"),
    ],
)
def test_a_fault_becomes_a_record_and_stops_nobody_else(
    tmp_path: Path,
    strategy: str,
    status: Status,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(block, "PREPARE_LIMIT_S", 1.0)
    result = execute(tmp_path, sweep("fine", strategy, blocks=1))
    for measure in ("steady", "cold", "memory"):
        (record,) = of(result, strategy, measure)
        assert record.status == status
        assert reason in record.reason
        assert record.samples == {}
    # What dies in a turn takes the arms of its own process with it; others are measured on.
    (fine,) = of(result, "fine", "steady")
    limit = [r for r in result.records if r.job.implementation == "reference/products"]
    assert {record.status for record in limit} == {Status.OK}
    if not strategy.endswith("-late"):
        assert fine.status == Status.OK
        assert len(fine.samples["steady"]) >= 8


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_framework_that_does_not_import_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    monkeypatch.setenv("SCRIPTED_IMPORT_FAILS", "1")
    result = execute(tmp_path, sweep("fine", blocks=1), start)
    for measure in ("steady", "cold", "memory"):
        (record,) = of(result, "fine", measure)
        assert record.status == Status.CRASHED
    limit = [r for r in result.records if r.job.implementation == "reference/products"]
    assert {record.status for record in limit} == {Status.OK}


def test_wrong_gradients_are_wrong_output(tmp_path: Path) -> None:
    result = execute(tmp_path, sweep("wrong", mode="train", blocks=1))
    assert of(result, "wrong", "steady")[0].status == Status.WRONG_OUTPUT


def test_noise_on_stdout_reaches_the_log_only(tmp_path: Path) -> None:
    result = execute(tmp_path, sweep("noisy", blocks=1))
    assert of(result, "noisy", "steady")[0].status == Status.OK
    assert "noise" in (tmp_path / "run" / "workers.log").read_text()


def test_a_missing_framework_is_recorded_and_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = replace(scripted.INFO, requires=("no-such-distribution",), extra="scripted")
    monkeypatch.setitem(backends.BACKENDS, "scripted", absent)
    result = execute(tmp_path, sweep("fine", blocks=1))
    for record in of(result, "fine", "steady"):
        assert record.status == Status.UNAVAILABLE
        assert "pip install 'rnn-bench[scripted]'" in record.reason
