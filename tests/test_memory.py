"""Peak memory: the method against allocations that are known, and what a table makes of it."""

from __future__ import annotations

import ast
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.api import Unavailable
from bench import memory
from bench.memory import HOST_PEAK, PeakMeter
from bench.outcome import request
from bench.record import Record, Status
from bench.report import Report, build
from bench.store import Run
from bench.watch import NVML_PEAK
from bench.worker import Worker as Child
from tests import synthetic
from tests.reading import one, plain_report, rows, shown, table
from tests.scripted import DEVICES_VARIABLE
from tests.scripted_runs import execute, of, sweep

ROOT = Path(__file__).parent.parent


def alone(reading: Callable[..., Any], *arguments: int | str) -> Any:
    """What `reading(*arguments)` returns in a process of its own, as a memory job has one.

    The allocator of a process that has run many tests holds pages that are free and resident: what
    is given from them takes nothing of the kernel, and no reading can show it.
    """
    name = reading.__name__
    source = f"from {reading.__module__} import {name}; print({name}(*{arguments!r}))"
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return ast.literal_eval(done.stdout)


def peak_of_an_allocation(size: int) -> int:
    meter = PeakMeter()
    np.ones(size, np.uint8)
    return meter.read()


@pytest.mark.parametrize("size", [16_000_000, 64_000_000])
def test_a_known_allocation_is_read_though_it_is_gone(size: int) -> None:
    assert alone(peak_of_an_allocation, size) == pytest.approx(size, rel=0.05)


def peak_from_what_was_free(pieces: int, size: int) -> int:
    """Of arrays as many and as large as others that are gone, from the allocator's own pages."""
    gone, _pin = [np.ones(size, np.uint8) for _ in range(pieces)], np.ones(size, np.uint8)
    del gone
    meter = PeakMeter()
    kept = [np.ones(size, np.uint8) for _ in range(pieces)]
    peak = meter.read()
    del kept
    return peak


def test_what_the_allocator_held_free_is_returned_before() -> None:
    assert alone(peak_from_what_was_free, 200, 100_000) == pytest.approx(20e6, rel=0.05)


def peaks_of_phases(kept_bytes: int, gone_bytes: int) -> list[int]:
    """Of a phase that leaves an array, one that does nothing, one that leaves nothing, and one."""
    meter = PeakMeter()
    kept = np.ones(kept_bytes, np.uint8)
    found = [meter.read(), meter.read()]
    np.ones(gone_bytes, np.uint8)
    found += [meter.read(), meter.read()]
    del kept
    return found


def test_phases_follow_each_other_and_share_a_base() -> None:
    # What an earlier phase left counts in the next, what it gave back does not.
    found = alone(peaks_of_phases, 64_000_000, 128_000_000)
    assert found == pytest.approx([64e6, 64e6, 192e6, 64e6], rel=0.05)


def peak_of_untouched_pages(size: int) -> int:
    meter = PeakMeter()
    held = np.empty(size, np.uint8)
    peak = meter.read()
    del held
    return peak


def test_a_page_that_is_reserved_and_never_touched_does_not_count() -> None:
    assert alone(peak_of_untouched_pages, 64_000_000) < 0.05 * 64_000_000


def peak_of_reading(path: str) -> int:
    meter = PeakMeter()
    mapped = np.memmap(path, np.uint8, mode="r")
    assert int(mapped.sum()) == 0
    return meter.read()


def test_pages_of_files_are_taken_off(tmp_path: Path) -> None:
    path = tmp_path / "code"
    path.write_bytes(bytes(32_000_000))
    assert abs(alone(peak_of_reading, str(path))) < 0.05 * 32_000_000


def test_the_method_reads_a_known_allocation_here() -> None:
    assert abs(alone(memory.calibration_error)) < 0.05


class Kernel:
    """Its account of a process, as files; the test says what it is."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.status, self.clear = folder / "status", folder / "clear_refs"
        monkeypatch.setattr(memory, "_STATUS", self.status)
        monkeypatch.setattr(memory, "_CLEAR", self.clear)

    def says(self, *, now: int, peak: int, files: int) -> None:
        """In kB."""
        lines = {"VmHWM": peak, "VmRSS": now, "RssFile": files}
        text = "Name:\tpython\n" + "".join(f"{k}:\t{v:8} kB\n" for k, v in lines.items())
        self.status.write_text(text + "Threads:\t1\n")


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("end", "reading"),
    [
        ({"now": 150, "peak": 400, "files": 30}, 300),
        ({"now": 150, "peak": 400, "files": 80}, 250),
        ({"now": 90, "peak": 400, "files": 10}, 320),
        ({"now": 98, "peak": 98, "files": 30}, -2),
    ],
    ids=["above what was resident", "less new files", "files that went", "less than nothing"],
)
def test_the_formula(kernel: Kernel, end: dict[str, int], reading: int) -> None:
    kernel.says(now=100, peak=900, files=30)
    meter = PeakMeter()
    assert kernel.clear.read_text() == "5"
    kernel.clear.write_text("")
    kernel.says(**end)
    assert meter.read() == reading * 1024
    assert kernel.clear.read_text() == "5"


def test_a_host_that_does_not_tell_is_named(kernel: Kernel) -> None:
    with pytest.raises(Unavailable, match="does not tell"):
        PeakMeter()
    kernel.status.write_text("VmRSS: 1 kB\n")
    with pytest.raises(Unavailable, match="VmHWM"):
        PeakMeter()
    kernel.says(now=1, peak=1, files=0)
    kernel.clear.mkdir()
    with pytest.raises(Unavailable, match="cannot be written"):
        PeakMeter()


@pytest.mark.usefixtures("scripted_backend", "kernel")
def test_a_host_that_does_not_tell_measures_all_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no `clear_refs` in some containers; only the host's memory is not known there."""
    monkeypatch.setenv(DEVICES_VARIABLE, "cpu,gpu")
    child = Child("scripted", threads=1)
    described = child.answer({"op": "describe"})
    assert described["status"] == Status.OK
    assert described["calibration_error"] is None
    replies = {}
    for device in ("cpu", "gpu"):
        plan = sweep("grows")
        plan = replace(plan, axes=replace(plan.axes, device=(device,)))
        job = next(job for job in plan.jobs("memory") if not job.replica)
        expected = tmp_path / f"{device}.npz"
        child.answer(
            {"op": "expect", "case": asdict(job.case), "mode": job.mode, "path": str(expected)}
        )
        replies[device] = child.answer(request("memory", job, expected))
    assert replies["cpu"]["status"] == Status.UNAVAILABLE
    assert "does not tell" in replies["cpu"]["reason"]
    assert replies["gpu"]["status"] == Status.OK
    assert {"peak_bytes", "run_peak_bytes"} <= replies["gpu"]["values"].keys()
    assert not {HOST_PEAK, "calibration_error"} & replies["gpu"]["values"].keys()


def test_a_gpu_of_which_nobody_tells_has_no_peak() -> None:
    with pytest.raises(Unavailable, match="neither the framework's allocator nor this host"):
        memory.peaks("gpu", (None, None), (None, None))
    assert memory.peaks("gpu", (1e6, 2e6), (None, None)) == {HOST_PEAK: 2e6}
    assert memory.peaks("gpu", (None, None), (3e6, 1e6))["peak_bytes"] == 3e6


@pytest.mark.usefixtures("scripted_backend")
@pytest.mark.parametrize("mode", ["forward", "train"])
def test_a_call_does_not_pay_for_the_one_before(tmp_path: Path, mode: str) -> None:
    """16 MB in each of two calls, of which one is there at a time, are 16."""
    plan = sweep("grows", mode=mode, blocks=1)
    plan = replace(plan, axes=replace(plan.axes, seq_len=(16,)))
    (record,) = of(execute(tmp_path, plan), "grows", "memory")
    assert record.reason == ""
    assert record.values["run_peak_bytes"] == pytest.approx(16e6, rel=0.1)
    assert record.values["build_peak_bytes"] < 2e6


def _marked(**manifest: Any) -> dict[str, str]:
    """The notes of T=50 in training, where nothing is small."""
    found = shown(
        build([synthetic.run(**manifest)]), "memory", implementation="jax/static", seq_len=50
    )
    return {row["mode"]: row.get("note", "") for _, row in found.iterrows()}


@pytest.mark.parametrize(
    ("error", "note"),
    [
        (0.049, ""),
        (-0.2, "not calibrated (-20%)"),
        (0.07, "not calibrated (+7%)"),
        ("much", ""),
        (math.nan, ""),
        (10**400, ""),
        (None, ""),
    ],
)
def test_a_backend_that_misread_at_the_start_is_marked(error: object, note: str) -> None:
    backends = {"jax": {"calibration_error": error}, "torch": {"calibration_error": 0.5}}
    assert _marked(backends=backends)["train"] == note


@pytest.mark.parametrize("backends", [{}, None, [], {"jax": {"error": "gone"}}, {"jax": None}])
def test_a_run_that_does_not_say_is_not_marked(backends: object) -> None:
    assert _marked(backends=backends)["train"] == ""


def test_the_larger_of_both_readings_counts() -> None:
    change = synthetic.only(
        "jax/static",
        lambda r: replace(r, values={**r.values, "calibration_error": -0.1}),
        measure="memory",
    )
    run = synthetic.run(change=change, backends={"jax": {"calibration_error": 0.06}})
    notes = rows(build([run]), "memory", implementation="jax/static", seq_len=50, mode="train")
    assert one(notes)["note"] == "not calibrated (-10%)"


def test_what_the_compiler_says_stands_beside_the_peak() -> None:
    def analysed(record: Record) -> Record:
        values = {**record.values, "program_temp_bytes": 155_812_345 + record.block}
        return replace(record, values=values)

    change = synthetic.only("jax/static", analysed, measure="memory", mode="train")
    report = build([synthetic.run(change=change)])
    row = {"implementation": "jax/static", "seq_len": 50, "mode": "train"}
    assert one(shown(report, "memory", **row))["XLA temp (MB)"] == "156"
    frame = one(rows(report, "memory", **row))
    # The median of blocks 0 and 1, to the last digit.
    assert frame["program_temp_bytes"] == 155_812_345.5
    assert frame["program_temp_bytes_workers"] == 2
    others = shown(report, "memory", implementation="torch/dynamic")
    assert set(others["XLA temp (MB)"]) == {"-"}
    assert "XLA temp" in table(report, "memory").caption


def test_without_a_compiler_that_says_it_there_is_no_column() -> None:
    found = table(plain_report(), "memory")
    assert not [column for column in found.display if "XLA" in column]
    assert "XLA" not in found.caption
    assert found.frame["program_temp_bytes"].isna().all()


# --- on a GPU -------------------------------------------------------------------------------------


def _gpu_run(change: synthetic.Change = lambda record: record) -> Run:
    plan = synthetic.sweep(backend=("jax",))
    return synthetic.run(replace(plan, axes=replace(plan.axes, device=("gpu",))), change=change)


def _on_gpu(values: dict[str, float]) -> Report:
    """The drawn run on a GPU; memory records have these values too, and a host that misread."""

    def change(record: Record) -> Record:
        beside = {**record.values, **values, "calibration_error": 0.5}
        return replace(record, values=beside) if record.job.measure == "memory" else record

    return build([_gpu_run(change)])


def test_on_a_gpu_three_peaks_stand_side_by_side() -> None:
    report = _on_gpu({"peak_bytes": 3e6, HOST_PEAK: 41e6, NVML_PEAK: 512e6})
    row = {"implementation": "jax/static", "seq_len": 50, "mode": "train"}
    cells = one(shown(report, "memory", **row))
    names = ("peak (MB)", "host peak (MB)", "NVML peak (MB)")
    assert [cells[name] for name in names] == ["3.00", "41.0", "512"]
    frame = one(rows(report, "memory", **row))
    assert (frame[HOST_PEAK], frame[NVML_PEAK], frame[f"{NVML_PEAK}_workers"]) == (41e6, 512e6, 2)
    # An allocator counts: it is neither misread nor too small to be.
    assert "note" not in cells
    marks = rows(report, "static-dynamic")[["peak_is_small", "peak_is_uncalibrated"]]
    assert not marks.to_numpy().any()
    (plot,) = (plot for plot in report.plots if plot.name == "memory")
    assert plot.caption.startswith("Peak of the GPU's memory by the framework's allocator, in MB: ")
    for name in ("memory", "static-dynamic"):
        assert "GPU" in table(report, name).caption
        assert "Peak: host memory" not in table(report, name).caption
        assert "Peak host memory" not in table(report, name).caption


def test_what_nobody_told_of_a_gpu_is_a_dash() -> None:
    report = _on_gpu({HOST_PEAK: 41e6, "peak_bytes": 3e6})
    assert set(shown(report, "memory")["NVML peak (MB)"]) == {"-"}
    assert set(rows(report, "memory")[f"{NVML_PEAK}_workers"]) == {0}


def test_a_cpu_has_one_peak_and_both_have_their_words() -> None:
    frame = rows(plain_report(), "memory")
    assert not [column for column in frame if "host" in column or "nvml" in column]
    assert "GPU" not in table(plain_report(), "memory").caption
    both = build([synthetic.run(), _gpu_run()])
    caption = table(both, "memory").caption
    assert caption.startswith("Peak host memory above")
    assert "after the job. On a GPU the peak is of its memory" in caption
    assert "5 % off); on a GPU, memory of the GPU" in table(both, "static-dynamic").caption
    frame = rows(both, "memory")
    assert frame[frame["device"] == "cpu"][HOST_PEAK].isna().all()
