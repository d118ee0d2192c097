"""The real launcher with a backend that misbehaves: each job ends in exactly one status."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

import backends
from bench import block, counters, machine, outcome, run, sources
from bench.errors import UsageError
from bench.evidence import groups_of
from bench.launch import Start
from bench.looks import unsettled
from bench.record import Record, Status
from bench.store import Run
from bench.worker import LONGEST_REASON
from bench.worker_log import LARGEST_BYTES
from tests import scripted, synthetic
from tests.scripted import FAULTS, Fault
from tests.scripted_runs import execute, left_behind, missing, of, registered, sweep

pytestmark = [pytest.mark.usefixtures("scripted_backend"), pytest.mark.xdist_group("faults")]

#: Of the faults, what a worker without a fork server may take differently.
SPAWNED = frozenset(
    {"raises", "segv", "exits-0", "segv-in-turn", "hangs", "hangs-in-exit", "closes-channel"}
    | {"leaves-child", "leaves-session", "child-and-exit", "session-and-exit", "fork-and-exit"}
)
CHOSEN: dict[Start, list[Fault]] = {
    # Without its server everybody begins again: see test_launch_faults.py.
    "fork": [fault for fault in FAULTS if fault.name != "kills-server"],
    "spawn": [fault for fault in FAULTS if fault.name in SPAWNED],
}


@dataclass(frozen=True, kw_only=True)
class Survived:
    """A run of many faults together, what is missing of it, and what it has left."""

    result: Run
    missing: list[str]
    left: list[Any]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Start], Survived]:
    """All faults in one run, beside two arms that behave; a run for each way to start workers."""

    @cache
    def survived(start: Start) -> Survived:
        plan_of = ["fine", "fine-too", *(fault.name for fault in CHOSEN[start])]
        with (
            registered() as mark,
            patch.object(block, "BURST_LIMIT_S", 4.0),
            patch.object(outcome, "PREPARE_LIMIT_S", 4.0),
            patch.object(sources, "EXIT_LIMIT_S", 1.0),
        ):
            plan = sweep(*plan_of, blocks=1)
            result = execute(tmp_path_factory.mktemp(start), plan, start)
            return Survived(result=result, missing=missing(plan, result), left=left_behind(mark))

    return survived


def each(start: Start, status: Status | None = None) -> list[Any]:
    return [
        pytest.param(start, fault, id=f"{start}-{fault.name}")
        for fault in CHOSEN[start]
        if status in (None, fault.status)
    ]


@pytest.mark.parametrize(("start", "fault"), [*each("fork"), *each("spawn")])
def test_a_fault_becomes_a_record(
    together: Callable[[Start], Survived], start: Start, fault: Fault
) -> None:
    for measure in ("steady", "cold", "memory"):
        (record,) = of(together(start).result, fault.name, measure)
        assert record.status == fault.status
        assert fault.says in record.reason
        assert bool(record.samples) is (record.status == Status.OK and measure != "memory")


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_fault_harms_nobody_else(together: Callable[[Start], Survived], start: Start) -> None:
    survived = together(start)
    assert survived.missing == []
    assert survived.left == []
    faulty = {f"scripted/{fault.name}" for fault in FAULTS if fault.status != Status.OK}
    others = [r for r in survived.result.records if r.job.implementation not in faulty]
    # Both that behave, with the twins of one, the limit, and what misbehaves beside its work.
    assert len({record.job.arm for record in others}) >= 5
    assert {record.status for record in others} == {Status.OK}
    steady = [record for record in others if record.job.measure == "steady"]
    assert {record.attempt for record in steady} == {0}
    assert len({len(record.samples["steady"]) for record in steady}) == 1
    assert len(steady[0].samples["steady"]) >= 8


def test_a_huge_message_is_cut_to_its_ends(together: Callable[[Start], Survived]) -> None:
    (record,) = of(together("fork").result, "huge-message", "steady")
    assert len(record.reason) < LONGEST_REASON + 100
    assert record.reason.startswith("Traceback")
    assert "\n[49,9" in record.reason
    assert record.reason.endswith("scripted\n")


def test_a_large_answer_is_whole(together: Callable[[Start], Survived]) -> None:
    (record,) = of(together("fork").result, "large-reply", "steady")
    assert len(record.values) == 20_000


def test_noise_reaches_the_log_only_and_leaves_it_a_size(
    together: Callable[[Start], Survived],
) -> None:
    log = (together("fork").result.folder / "workers.log").read_bytes()
    assert log.count(b"noise") >= 200_000
    assert log.count(b" bytes cut here]\n") == 1
    assert len(log) <= LARGEST_BYTES


def test_wrong_gradients_are_wrong_output(tmp_path: Path) -> None:
    result = execute(tmp_path, sweep("wrong", mode="train", blocks=1))
    assert of(result, "wrong", "steady")[0].status == Status.WRONG_OUTPUT


def test_float64_is_no_answer_to_float32(tmp_path: Path) -> None:
    """It is right in every digit, so that values alone would not show it."""
    result = execute(tmp_path, sweep("fine", "other-dtype", blocks=1, dtype="float32"))
    assert of(result, "fine", "steady")[0].status == Status.OK
    (record,) = of(result, "other-dtype", "steady")
    assert record.status == Status.WRONG_OUTPUT
    assert record.reason == "outputs or state are float64, not float32"


def test_a_missing_framework_is_recorded_and_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = replace(scripted.INFO, requires=("no-such-distribution",), extra="scripted")
    monkeypatch.setitem(backends.BACKENDS, "scripted", absent)
    result = execute(tmp_path, sweep("fine", blocks=1))
    for record in result.records:
        there = record.job.implementation == "reference/products"
        assert record.status == (Status.OK if there else Status.UNAVAILABLE)
        assert there or "pip install -c constraints.txt -e '.[scripted]'" in record.reason


def test_tensorflow_without_tf_keras_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "tf-keras":
            raise metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(backends, "version", version)
    said = "tf-keras not installed: pip install -c constraints.txt -e '.[tensorflow]'"
    assert backends.missing("tensorflow") == said


def test_an_oracle_without_memory_costs_its_case_only(tmp_path: Path) -> None:
    plan = sweep("fine", "fine-too", blocks=1, hidden=(4, 1 << 25))
    result = execute(tmp_path, plan)
    assert missing(plan, result) == []
    for record in result.records:
        if record.job.case.hidden == 4:
            assert record.status == Status.OK
        else:
            assert record.status == Status.OOM
            assert record.reason.startswith("the oracle: ")


def test_one_cpu_is_enough(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    cpu = max(before)
    os.sched_setaffinity(0, {cpu})
    try:
        result = execute(tmp_path, sweep("fine", blocks=1))
        with pytest.raises(UsageError, match="threads 2: must be between 1 and 1"):
            run.chosen_cpus(2)
        assert os.sched_getaffinity(0) == {cpu}
    finally:
        os.sched_setaffinity(0, before)
    assert result.manifest["cpus"] == [cpu]
    assert {record.status for record in result.records} == {Status.OK}


def test_a_kernel_without_pressure_information_is_named_and_measured_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_PRESSURE", "_OWN_CGROUPS"):
        monkeypatch.setattr(counters, name, tmp_path / "nowhere")
    with patch.object(machine, "Path", lambda name: tmp_path / "nowhere"):
        assert machine.pressure() == {}
    result = execute(tmp_path, sweep("fine", blocks=1))
    for record in result.records:
        assert record.status == Status.OK
        assert "pressure_share" in record.worker["noise"]["missing"]


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0, -1.0])
def test_what_no_clock_reads_asks_for_no_more_blocks(bad: float) -> None:
    """Reports do not believe it either: test_report_faults.py."""

    def spoil(record: Record) -> Record:
        return replace(record, samples={name: [bad] for name in record.samples})

    plan = synthetic.sweep(blocks=2)
    good, _ = groups_of(synthetic.run(plan), "run")
    spoilt, _ = groups_of(synthetic.run(plan, change=spoil), "run")
    assert unsettled(good, 1e-9) != []
    assert unsettled(spoilt, 1e-9) == []
