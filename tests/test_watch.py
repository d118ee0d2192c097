"""A scripted GPU: clocks that sink, a driver that says why, somebody else who computes there."""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import block, gpus, run, versus, watch
from bench.store import Run
from bench.watch import LOW, NVML_PEAK, Unwatched, Watch
from tests import scripted
from tests.scripted_runs import of, on_devices, sweep
from tests.test_gpus import Nvml

QUIET = {"quiet": True, "reasons": []}


@pytest.fixture(scope="module", autouse=True)
def _asked_twice_a_turn() -> Iterator[None]:
    """Who is there is asked at both ends of a turn only, however busy the host is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watch, "MEET_EVERY", 10**9)
        yield


class Gpu:
    """Says the next of its clocks in each turn.

    A watch asks who is there at the beginning of a turn and at its end, and a turn here is short.
    """

    def __init__(
        self,
        clocks: Iterable[float | None] = (),
        *,
        slowed: AbstractSet[str] = frozenset(),
        processes: Callable[[], AbstractSet[int] | None] = lambda: {1},
        used: Iterable[float | None] = (),
    ) -> None:
        """`used` are the answers to the first questions for memory, of which 5e9 is the last."""
        self._clocks = itertools.chain(clocks, itertools.repeat(1000.0))
        self._now: float | None = None
        self._begins = True
        self._slowed, self._processes = slowed, processes
        self._used = itertools.chain(used, itertools.repeat(5e9))
        self.asked_memory = 0

    def clock_mhz(self) -> float | None:
        return self._now

    def slowed(self) -> AbstractSet[str]:
        return self._slowed

    def used_bytes(self) -> float | None:
        self.asked_memory += 1
        return next(self._used)

    def processes(self) -> AbstractSet[int] | None:
        if self._begins:
            self._now = next(self._clocks)
        self._begins = not self._begins
        return self._processes()


def watched(gpu: Gpu, turns: int, watch: Watch | None = None) -> Watch:
    watch = watch or Watch(gpu, own=lambda: {1}, every_s=0.001)
    watch.begin()
    for turn in range(turns):
        with watch.during(turn):
            pass
    return watch


@given(st.lists(st.sampled_from([400.0, 740.0, 760.0, 1000.0, 1010.0]), min_size=1, max_size=9))
def test_turns_below_three_quarters_of_the_usual_clock_are_low(clocks: list[float]) -> None:
    watch = watched(Gpu(clocks), len(clocks))
    usual = sorted(clocks)[len(clocks) // 2]
    if len(clocks) % 2 == 0:
        usual = (usual + sorted(clocks)[len(clocks) // 2 - 1]) / 2
    assert watch.low_turns() == {n for n, clock in enumerate(clocks) if clock < LOW * usual}
    assert watch.low_turns() != set(range(len(clocks)))


def test_what_is_usual_is_remembered_over_blocks_and_a_low_block_is_told() -> None:
    gpu = Gpu([1000.0] * 5 + [500.0] * 3)
    watch = watched(gpu, 5)
    assert watch.end(QUIET) == {
        **QUIET,
        "gpu": {
            "clock_mhz": 1000.0,
            "usual_mhz": 1000.0,
            "turns_set_aside": 0,
            "slowed": [],
            "foreign_processes": 0,
        },
    }
    watched(gpu, 3, watch)
    assert watch.low_turns() == set()  # all of them: there would be nothing left
    found = watch.end(QUIET)
    assert found["reasons"] == ["the GPU's clock was 50% of its usual one"]
    assert found["quiet"] is False


@pytest.mark.parametrize(
    ("gpu", "foreign", "reasons"),
    [
        (Gpu(slowed={"temperature"}), 0, ["the GPU was slowed down (temperature)"]),
        (Gpu(processes=lambda: {1, 7, 8}), 2, ["another process computed on the GPU"]),
        (Gpu(processes=lambda: {7, 8}), None, []),  # none of ours: ids of another namespace
        (Gpu(processes=lambda: None), None, []),
        (Gpu(processes=set), 0, []),
    ],
)
def test_what_disturbs_is_told_beside_what_the_gate_says(
    gpu: Gpu, foreign: int | None, reasons: list[str]
) -> None:
    found = watched(gpu, 2).end({"quiet": False, "reasons": ["others took 50 %"], "waited_s": 1.0})
    assert found["reasons"] == ["others took 50 %", *reasons]
    assert found["waited_s"] == 1.0
    assert found["gpu"]["foreign_processes"] == foreign


def test_a_block_that_begins_again_forgets_and_a_clock_that_is_not_told_decides_nothing() -> None:
    watch = watched(Gpu([100.0] * 3 + [1000.0] * 3), 3)
    watched(Gpu(), 0, watch)
    assert watch.low_turns() == set()
    silent = watched(Gpu([None] * 4), 4)
    assert silent.low_turns() == set()
    assert silent.end(QUIET)["gpu"]["clock_mhz"] is None


def test_the_driver_is_asked_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml: Any = Nvml()
    nvml.open = 1
    bits = {"SwPowerCap": 4, "HwSlowdown": 8, "SwThermalSlowdown": 32, "HwThermalSlowdown": 64}
    for name, bit in {**bits, "HwPowerBrakeSlowdown": 128}.items():
        setattr(nvml, f"nvmlClocksEventReason{name}", bit)
    nvml.nvmlDeviceGetClockInfo = lambda handle, kind: 1980 - handle
    nvml.nvmlDeviceGetCurrentClocksEventReasons = lambda _handle: 1 | 4 | 64
    nvml.nvmlDeviceGetComputeRunningProcesses = lambda _handle: [type("P", (), {"pid": 5})]
    gpu = gpus.Nvml(nvml, 1)
    assert gpu.used_bytes() == 2e9
    assert gpu.total_bytes() == 138 * 2**30
    assert gpu.clock_mhz() == 1979.0
    assert gpu.slowed() == {"power limit", "temperature"}
    assert gpu.processes() == {5}
    for name in ("ClockInfo", "CurrentClocksEventReasons", "ComputeRunningProcesses"):
        setattr(nvml, f"nvmlDeviceGet{name}", lambda *_: nvml._tell("untold", None))
    nvml.untold = ("untold", "memory")
    assert (gpu.clock_mhz(), gpu.slowed(), gpu.processes()) == (None, set(), None)
    assert (gpu.used_bytes(), gpu.total_bytes()) == (None, None)
    monkeypatch.setattr(gpus, "pynvml", None)
    assert type(gpus.watch("gpu")) is Unwatched
    monkeypatch.setattr(gpus, "pynvml", Nvml("nvmlInit"))
    assert type(gpus.watch("gpu")) is Unwatched
    assert type(gpus.watch("cpu")) is Unwatched


def looked_at(gpu: Gpu, looks: int) -> Watch:
    """Outside of turns, until it was asked for memory so often: once before the body begins."""
    watch = Watch(gpu, own=lambda: {1}, every_s=0.001)
    with watch.during(None):
        while gpu.asked_memory < looks:
            time.sleep(0.001)
    return watch


@given(st.lists(st.floats(0, 8e9), min_size=1, max_size=6))
def test_memory_s_peak_is_above_what_was_in_use_at_first(used: list[float]) -> None:
    used = [*used, 5e9]
    assert looked_at(Gpu(used=used), len(used)).memory_peak() == max(used) - used[0]


def test_what_was_in_use_is_asked_before_the_body_begins() -> None:
    gpu = Gpu(used=[1e9, 4e9])
    watch = Watch(gpu, own=lambda: {1}, every_s=0.001)
    assert watch.memory_peak() is None
    with patch.object(Watch, "_look_until"), watch.during(None):
        assert gpu.asked_memory == 1
    assert watch.memory_peak() == 0.0
    watch.begin()
    assert watch.memory_peak() is None


@pytest.mark.parametrize(
    "gpu",
    [Gpu(used=itertools.repeat(None)), Gpu(used=[1e9], processes=lambda: {1, 99})],
    ids=["not told", "somebody else's too"],
)
def test_memory_that_is_not_told_or_not_ours_has_no_peak(gpu: Gpu) -> None:
    assert looked_at(gpu, 3).memory_peak() is None


def test_in_a_turn_nobody_asks_for_memory() -> None:
    gpu = Gpu()
    watched(gpu, 3)
    assert gpu.asked_memory == 0


def run_on(gpu: Gpu, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(gpus, "watch", lambda _device: Watch(gpu, own=lambda: {os.getpid(), 1}))
    monkeypatch.setattr(block, "rounds_needed", lambda *_: 8)  # however noisy the host is
    return on_devices(folder, sweep("fine", "fine-too", blocks=1), monkeypatch, "gpu")


@pytest.mark.usefixtures("scripted_backend")
def test_turns_at_a_low_clock_are_set_aside_of_all_arms_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run_on(Gpu([1000.0] * 5 + [300.0] * 2), tmp_path, monkeypatch)
    steady = [r for r in found.records if r.job.measure == "steady" and r.status == "ok"]
    assert {r.worker["noise"]["gpu"]["turns_set_aside"] for r in steady} == {2}
    counts = {len(r.samples["steady"]) for r in steady}
    assert len(counts) == 1
    (count,) = counts
    assert count == 6
    (undisturbed,) = of(run_on(Gpu(), tmp_path / "too", monkeypatch), "fine", "steady")
    assert undisturbed.worker["noise"]["gpu"]["turns_set_aside"] == 0
    assert len(undisturbed.samples["steady"]) == 8


@pytest.mark.usefixtures("scripted_backend")
def test_two_environments_side_by_side_lose_the_same_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = Gpu([1000.0] * 4 + [300.0] * 3, processes=lambda: {1, 99}, used=[1e9])
    monkeypatch.setattr(gpus, "watch", lambda _device: Watch(gpu, own=lambda: {os.getpid(), 1}))
    monkeypatch.setattr(block, "rounds_needed", lambda *_: 8)
    monkeypatch.setenv(scripted.DEVICES_VARIABLE, "cpu,gpu")
    plan = sweep("fine", "fine-too", blocks=1)
    sides = versus.execute(
        replace(plan, axes=replace(plan.axes, device=("gpu",))),
        tmp_path / "out",
        (Path(sys.executable), Path(sys.executable)),
        start="fork",
        command="test",
        progress=run.Silent(),
    )
    for side in sides:
        found = [r for r in side.records if r.status == "ok"]
        assert {r.job.measure for r in found} == {"steady", "cold", "memory"}
        for record in found:
            assert "another process computed on the GPU" in record.worker["noise"]["reasons"]
        steady = [r for r in found if r.job.measure == "steady"]
        assert {len(r.samples["steady"]) for r in steady} == {5}


@pytest.mark.usefixtures("scripted_backend")
def test_every_measure_tells_who_else_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run_on(Gpu(processes=lambda: {1, 99}), tmp_path, monkeypatch)
    for record in found.records:
        if record.status == "ok":
            assert "another process computed on the GPU" in record.worker["noise"]["reasons"]
    assert {r.job.measure for r in found.records if r.status == "ok"} == {
        *("steady", "cold", "memory")
    }


@pytest.mark.usefixtures("scripted_backend")
@pytest.mark.parametrize(
    ("gpu", "peaks"),
    [
        # Either job's first look, then others, which last.
        (Gpu(used=[1e9]), {0.0, 4e9}),
        (Gpu(used=itertools.repeat(None)), {None}),
    ],
)
def test_memory_jobs_alone_have_the_driver_s_account_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: Gpu, peaks: set[float | None]
) -> None:
    monkeypatch.setattr(gpus, "watch", lambda _device: Watch(gpu, own=lambda: {os.getpid(), 1}))
    monkeypatch.setattr(block, "rounds_needed", lambda *_: 1)
    plan = sweep("fine", "fine-too", blocks=1)
    plan = replace(plan, sampling=replace(plan.sampling, cold_blocks=0))
    found = on_devices(tmp_path, plan, monkeypatch, "gpu")
    ok = [record for record in found.records if record.status == "ok"]
    told = {r.job.key: r.values.get(NVML_PEAK) for r in ok if r.job.measure == "memory"}
    assert set(told.values()) == peaks
    assert not any(NVML_PEAK in r.values for r in ok if r.job.measure != "memory")
    assert {r.job.measure for r in ok} == {"steady", "memory"}


def test_who_comes_after_the_beginning_is_met_and_ours_need_not_be_there_before() -> None:
    """A cold job's worker starts later than the watch; so may somebody else."""
    there: list[AbstractSet[int]] = [set(), {2, 99}]
    ours: list[AbstractSet[int]] = [{1}, {1, 2}]
    gpu = Gpu(processes=lambda: there.pop(0) if there else set())
    watch = Watch(gpu, own=lambda: ours.pop(0) if len(ours) > 1 else ours[0], every_s=0.001)
    with watch.during(None):
        pass
    assert watch.end(QUIET)["gpu"]["foreign_processes"] == 1


@pytest.mark.parametrize(
    ("variables", "handle"),
    [
        ({}, 0),
        ({"CUDA_VISIBLE_DEVICES": "1"}, 1),
        ({"CUDA_VISIBLE_DEVICES": "1,0"}, 1),
        ({"CUDA_VISIBLE_DEVICES": "GPU-b"}, 1),
        ({"CUDA_VISIBLE_DEVICES": "MIG-x"}, None),
        ({"CUDA_VISIBLE_DEVICES": ""}, None),
        ({"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}, None),
        ({"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, 0),
    ],
)
def test_the_gpu_that_is_watched_is_the_one_that_frameworks_see(
    variables: dict[str, str], handle: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    nvml: Any = Nvml()
    nvml.open = 1
    nvml.nvmlDeviceGetHandleByUUID = ["GPU-a", "GPU-b"].index
    assert gpus._handle(nvml, 0) == handle
