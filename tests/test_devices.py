"""What a device may be called, and what becomes of one that is not there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.api import Case
from backends.devices import gpu_name, gpu_number, is_device, is_gpu, lacks_gpu
from bench import cli
from bench.evidence import groups_of
from bench.memory import peaks
from bench.record import Status
from bench.report import build
from bench.rotation import batches_needed
from tests.reading import table
from tests.scripted_runs import execute, missing, of, on_devices, sweep

CASE = Case(cell="lstm", seq_len=2, batch=1, inputs=1, hidden=1)


@given(st.integers(0, 99))
def test_a_number_names_a_gpu_and_is_read_from_its_name(number: int) -> None:
    name = gpu_name(number)
    assert is_device(name)
    assert is_gpu(name)
    assert gpu_number(name) == number
    assert replace(CASE, device=name).device == name


@given(st.text(max_size=6).filter(lambda text: text not in ("cpu", "gpu")))
def test_other_words_are_no_devices(text: str) -> None:
    if text.startswith("gpu:") and text[4:].isascii() and text[4:].isdecimal():
        return
    assert not is_device(text)
    with pytest.raises(ValueError, match="device"):
        replace(CASE, device=text)


@pytest.mark.parametrize("name", ["gpu:0", "gpu:01", "gpu:100", "cuda", "GPU", "gpu:", "tpu", ""])
def test_a_device_that_is_none_is_one_line(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", "--device", f"cpu,{name}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "device" in line
    assert "cpu, gpu" in line or "empty" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("device", "found", "said"),
    [
        ("cpu", 0, None),
        ("gpu", 1, None),
        ("gpu:1", 2, None),
        ("gpu", 0, "finds no GPU; it needs one with its driver, and a build for it: pip x"),
        ("gpu:1", 1, "device gpu:1: F finds gpu"),
        ("gpu:2", 2, "device gpu:2: F finds gpu, gpu:1"),
    ],
)
def test_what_is_not_there_is_said_with_what_helps(
    device: str, found: int, said: str | None
) -> None:
    reason = lacks_gpu(device, "F", found, "pip x")
    assert (reason is None) == (said is None)
    assert said is None or said in (reason or "")


@pytest.mark.usefixtures("scripted_backend")
def test_each_device_has_its_own_cases_pairs_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = sweep("fine", "fine-too", blocks=2)
    found = on_devices(tmp_path, plan, monkeypatch, "cpu", "gpu", "gpu:1")
    ends = {
        (r.job.case.device, str(r.status))
        for r in found.records
        if r.job.backend == "scripted" and r.job.measure == "steady"
    }
    assert ends == {("cpu", "ok"), ("gpu", "ok"), ("gpu:1", "unavailable")}
    twins = {r.job.case.device for r in found.records if r.job.replica and r.status == Status.OK}
    assert twins == {"cpu", "gpu"}
    absent = {r.reason for r in found.records if r.job.case.device == "gpu:1" and r.reason}
    assert "device gpu:1: scripted 1 finds gpu" in absent
    # NumPy has no GPU, and no product of its takes a limit there.
    limits = {
        (r.job.case.device, str(r.status))
        for r in found.records
        if r.job.implementation == "reference/products"
    }
    assert limits == {("cpu", "ok"), ("gpu", "unavailable"), ("gpu:1", "unavailable")}


@pytest.mark.usefixtures("scripted_backend")
def test_on_a_gpu_the_peak_is_its_allocator_s_and_the_host_s_stands_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = sweep("fine", "takes-gpu-memory", blocks=1)
    found = on_devices(tmp_path, plan, monkeypatch, "cpu", "gpu")
    (on_cpu, on_gpu) = (
        next(r.values for r in of(found, "takes-gpu-memory", "memory") if r.job.case.device == name)
        for name in ("cpu", "gpu")
    )
    assert {name: on_gpu[f"{name}_peak_bytes"] for name in ("build", "run")} == {
        "build": 30e6,
        "run": 80e6,
    }
    assert on_gpu["peak_bytes"] == 80e6
    assert 0 <= on_gpu["host_peak_bytes"] < 20e6
    assert on_cpu["peak_bytes"] < 20e6
    assert "host_peak_bytes" not in on_cpu


@pytest.mark.usefixtures("scripted_backend")
def test_on_a_gpu_no_call_finds_its_inputs_in_the_cache_and_its_own_clock_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = sweep("fine", "rotates", blocks=2)
    found = on_devices(tmp_path, plan, monkeypatch, "cpu", "gpu")
    steady = [r for r in of(found, "rotates", "steady") if r.status == Status.OK]
    assert {(r.job.case.device, r.block) for r in steady} == {
        *(("cpu", 0), ("cpu", 1), ("gpu", 0), ("gpu", 1))
    }
    for record in steady:
        own = record.samples.get("device")
        assert own is None if record.job.case.device == "cpu" else set(own or []) == {2.5e-4}
    latency = table(build([found]), "latency")
    assert sum(name.startswith("by the GPU") for name in latency.columns()) == 1
    on_gpu = latency.frame[latency.frame["device"] == "gpu"].set_index("implementation")
    assert on_gpu.loc["scripted/rotates", "gpu_s"] == 2.5e-4
    assert on_gpu.loc["scripted/rotates", "gpu_s_workers"] == 2
    assert "events" in latency.caption
    on_cpu = table(build([execute(tmp_path / "cpu", plan)]), "latency")
    assert not [name for name in on_cpu.columns() if name.startswith("by the GPU")]


@pytest.mark.parametrize(
    ("case", "number"),
    [
        ({"batch": 64, "seq_len": 200, "inputs": 512}, 1 + 10),  # 26.2 MB
        ({"batch": 1, "seq_len": 1}, 16),
        ({"batch": 1000, "seq_len": 1000, "inputs": 64}, 4),  # 256 MB: no cache holds it
    ],
)
def test_batches_are_larger_together_than_a_cache_and_not_too_many(
    case: dict[str, int], number: int
) -> None:
    sizes = {"batch": 2, "seq_len": 2, "inputs": 8, "hidden": 8}
    on_gpu = Case(cell="lstm", device="gpu", **{**sizes, **case})
    assert batches_needed(on_gpu, "forward", calls=3) == number


def test_targets_count_in_training() -> None:
    case = Case(cell="lstm", seq_len=400, batch=64, inputs=512, hidden=512, dtype="bfloat16")
    case = replace(case, device="gpu")
    assert batches_needed(case, "forward", calls=3) == 1 + 10
    assert batches_needed(case, "train", calls=3) == 1 + 5


def test_a_gpu_of_which_nobody_tells_has_no_peak() -> None:
    assert peaks("gpu", (1.0, 2.0), (None, None)) == {"host_peak_bytes": 2.0}
    assert peaks("cpu", (3.0, 2.0), (None, None))["peak_bytes"] == 3.0


@pytest.mark.usefixtures("scripted_backend")
def test_the_floor_of_launches_rides_along_on_gpus_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = sweep("fine", "fine-too", blocks=2)
    found = on_devices(tmp_path, plan, monkeypatch, "cpu", "gpu")
    for strategy in ("products", "launches"):
        records = [r for r in found.records if r.job.implementation == f"scripted/{strategy}"]
        ends = {(r.job.case.device, r.job.measure, str(r.status), r.reason) for r in records}
        assert ends == {("gpu", "steady", "ok", "")}
        assert sorted((r.block, r.job.replica) for r in records) == [(0, 0), (1, 0)]
        assert all(r.samples["steady"] and not r.errors for r in records)
    on_gpu = next(g for g in groups_of(found, "run")[0] if g.case.device == "gpu")
    assert on_gpu.launches("scripted") == "scripted/launches"
    assert on_gpu.launches("torch") is None
    assert on_gpu.limit() == "scripted/products"
    assert missing(replace(plan, axes=replace(plan.axes, device=("cpu", "gpu"))), found) == []
    report = build([found])
    latency = table(report, "latency").display
    floor = latency[latency["implementation"].str.startswith("scripted/launches")]
    assert list(floor["implementation"]) == ["scripted/launches (floor of step-by-step loops)"]
    assert float(floor["share of launches (%)"].iloc[0].partition(" ")[0]) == 100
    assert "CUDA graph" in table(report, "latency").caption
    ranking = table(report, "ranking")
    assert set(ranking.frame["implementation"]) == {"scripted/fine", "scripted/fine-too"}
