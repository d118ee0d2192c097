"""The real launcher with a backend that behaves: what is recorded, and that it is true."""

from __future__ import annotations

import itertools
import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import block, stats
from bench.block import balanced
from bench.launch import Start, Team, Worker
from bench.record import Status
from bench.report import build
from bench.run import elsewhere
from tests.scripted_runs import execute, of, on_devices, sweep

pytestmark = pytest.mark.usefixtures("scripted_backend")


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.parametrize("mode", ["forward", "train"])
def test_every_job_is_recorded_once(tmp_path: Path, start: Start, mode: str) -> None:
    plan = sweep("fine", "fine-too", mode=mode)
    result = execute(tmp_path, plan, start)
    keys = sorted((record.job.key, record.block) for record in result.records)
    wanted = [(job.key, number) for job in plan.jobs("steady") for number in range(2)]
    wanted += [(job.key, 0) for measure in ("cold", "memory") for job in plan.jobs(measure)]
    assert keys == sorted(wanted)
    assert {record.status for record in result.records} == {Status.OK}
    assert result.manifest["status"] == "finished"
    (cold,) = of(result, "fine", "cold")
    assert set(cold.samples) == {"create", "build", "stage:script", "load", "first"}
    assert all(len(values) == 1 and values[0] > 0 for values in cold.samples.values())
    (memory,) = of(result, "fine", "memory")
    assert memory.samples == {}
    assert memory.values["peak_bytes"] >= memory.values["build_peak_bytes"] >= 0


def test_arms_of_a_block_have_aligned_samples_from_processes_of_their_own(tmp_path: Path) -> None:
    result = execute(tmp_path, sweep("fine", "fine-too"))
    for number in range(2):
        one, two = (of(result, name, "steady")[number] for name in ("fine", "fine-too"))
        assert len(one.samples["steady"]) == len(two.samples["steady"]) >= 8
        assert one.worker["pid"] != two.worker["pid"]
    first, second = of(result, "fine", "steady")
    assert first.worker["pid"] != second.worker["pid"]
    (cold,), (memory,) = of(result, "fine", "cold"), of(result, "fine", "memory")
    pids = {record.worker["pid"] for record in (first, second, cold, memory)}
    assert len(pids) == 4
    assert os.getpid() not in pids


def test_a_sample_belongs_to_the_arm_that_took_it(tmp_path: Path) -> None:
    """One arm sleeps 10 ms a call; the ratio is above 1 for it, by as much."""
    # With two blocks the interval has 12.7 standard errors to a side: busy hosts reach across 1.
    result = execute(tmp_path, sweep("fine", "slow", "fine-too", blocks=5))
    slow, fine = (
        {record.block: record.samples["steady"] for record in of(result, name, "steady")}
        for name in ("slow", "fine")
    )
    ratio = stats.steady_ratio(slow, fine)
    assert ratio is not None
    assert min(sample for samples in slow.values() for sample in samples) >= 0.01
    assert ratio.ratio > 3
    assert stats.judge(ratio) == "slower"


def test_peak_memory_sees_what_an_implementation_holds(tmp_path: Path) -> None:
    result = execute(tmp_path, sweep("fine", "allocates", blocks=1))
    (fine,), (allocates,) = of(result, "fine", "memory"), of(result, "allocates", "memory")
    for peak in ("build_peak_bytes", "run_peak_bytes", "peak_bytes"):
        more = allocates.values[peak] - fine.values[peak]
        assert more == pytest.approx(64e6, rel=0.05)
    assert abs(fine.values["calibration_error"]) < 0.05


def test_a_cap_is_recorded_with_its_reason(tmp_path: Path) -> None:
    plan = replace(sweep("fine", "fine-too", blocks=1), caps={"scripted/fine": {"forward": 2}})
    result = execute(tmp_path, plan)
    (capped,) = of(result, "fine", "steady")
    assert capped.status == Status.CAPPED
    assert "stops scripted/fine forward at T=2" in capped.reason
    assert of(result, "fine-too", "steady")[0].status == Status.OK


def test_the_parent_stays_off_the_measured_cpus_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two CPUs are pretended where there is one: which are asked for is what counts."""
    asked: list[set[int]] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 5})
    monkeypatch.setattr(os, "sched_setaffinity", lambda _pid, cpus: asked.append(set(cpus)))
    with elsewhere([5]):
        assert asked == [{0, 1}]
    with elsewhere([0, 1, 5]):
        assert asked[2:] == [{0, 1, 5}]
    assert asked[1] == asked[3] == {0, 1, 5}


@given(n=st.integers(1, 12), row=st.integers(0, 1 << 16))
def test_a_design_is_balanced_in_places_and_in_neighbours(n: int, row: int) -> None:
    """What follows itself, or a certain neighbour, is faster or slower for it."""
    rows = [balanced(n, row + number) for number in range(n)]
    for place in range(n):
        assert sorted(each[place] for each in rows) == list(range(n))
    there_and_back = [order for each in rows for order in (each, each[::-1])]
    follows = Counter(pair for order in there_and_back for pair in itertools.pairwise(order))
    assert set(follows.values()) <= {2}
    assert len(follows) == n * (n - 1)


def test_the_orders_of_rounds_are_there_and_back_and_every_arm_has_every_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    ask = Worker.request

    def watched(self: Worker, message: Mapping[str, Any], *, limit_s: float) -> dict[str, Any]:
        if message["op"] == "burst":
            asked.append(self.pid)
        return ask(self, message, limit_s=limit_s)

    monkeypatch.setattr(Worker, "request", watched)
    result = execute(tmp_path, sweep("fine", "fine-too", blocks=1, steady_s=0.3))
    steady = [record for record in result.records if record.job.measure == "steady"]
    arms = {record.worker["pid"] for record in steady}
    assert len(arms) == len(steady)  # each has a process of its own
    n = len(arms)
    rounds = [asked[start : start + n] for start in range(0, len(asked), n)]
    assert all(set(order) == arms for order in rounds)
    assert all(back == there[::-1] for there, back in zip(rounds[::2], rounds[1::2], strict=False))
    firsts = Counter(order[0] for order in rounds[::2])
    assert max(firsts.values()) - min(firsts[arm] for arm in arms) <= 1
    assert {len(record.samples["steady"]) for record in steady} == {len(rounds)}


@pytest.mark.parametrize("strategy", ["segv-in-turn", "raises-in-turn", "exits-in-turn"])
def test_an_arm_that_fails_in_its_turn_costs_the_others_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    """Their processes are their own: none is started again, and no sample is lost."""
    started: list[str] = []
    worker = Team.worker

    def watched(self: Team, backend: str, *more: Any, **rest: Any) -> Worker:
        started.append(backend)
        return worker(self, backend, *more, **rest)

    monkeypatch.setattr(Team, "worker", watched)
    plan = sweep("fine", strategy, "fine-too", blocks=1, cold_blocks=0, memory_blocks=0)
    result = execute(tmp_path, plan)
    (failed,) = of(result, strategy, "steady")
    assert failed.status == Status.CRASHED
    others = [r for r in result.records if r.job.implementation != f"scripted/{strategy}"]
    assert {record.status for record in others} == {Status.OK}
    assert len({len(record.samples["steady"]) for record in others}) == 1
    assert started.count("scripted") == 4 + 1  # one describes itself


@pytest.mark.parametrize("how", ["segv", "hangs", "raises"])
def test_an_arm_that_breaks_under_the_gpus_clock_loses_those_samples_only(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block, "BURST_LIMIT_S", 2.0)
    result = on_devices(tmp_path, sweep("fine", f"{how}-on-device"), monkeypatch, "gpu")
    steady = [record for record in result.records if record.job.measure == "steady"]
    assert {record.status for record in steady if record.job.backend == "scripted"} == {Status.OK}
    broken = of(result, f"{how}-on-device", "steady")[0]
    assert "failed after the turns" in broken.worker["device"]
    assert len(broken.samples["steady"]) >= 8
    assert "device" not in broken.samples
    assert "device" in of(result, "fine", "steady")[0].samples
    warnings = build([result]).runs[0].warnings
    assert any(f"scripted/{how}-on-device T=3 forward: failed" in text for text in warnings)


def test_the_limit_of_a_burst_grows_with_what_its_calls_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block, "BURST_LIMIT_S", 1.0)
    limits: dict[str, list[float]] = defaultdict(list)
    ask = Worker.request

    def watched(self: Worker, message: Mapping[str, Any], *, limit_s: float) -> dict[str, Any]:
        limits[message["op"]].append(limit_s)
        return ask(self, message, limit_s=limit_s)

    monkeypatch.setattr(Worker, "request", watched)
    execute(tmp_path, sweep("slow", blocks=1))
    # Calls of 10 ms or more: what four of them take, ten times.
    assert max(limits["burst"]) > 1 + 10 * 4 * 0.01
