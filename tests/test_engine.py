"""The real launcher with a backend that misbehaves: each job ends in exactly one status."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

import backends
from bench import block, run, stats
from bench.launch import Start
from bench.record import Record, Run, Status
from bench.sweep import Axes, Sampling, Sweep
from tests import scripted

AXES = Axes(
    cell=("lstm",),
    seq_len=(3,),
    batch=(2,),
    layers=(1,),
    hidden=(4,),
    inputs=(3,),
    lengths=("full",),
    dtype=("float64",),
    device=("cpu",),
    mode=("forward",),
)
SAMPLING = Sampling(
    blocks=2, cold_blocks=1, memory_blocks=1, steady_s=0.01, warmup_s=0.001, warmup_calls=2
)


@pytest.fixture(autouse=True)
def scripted_backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Register the scripted backend here and in every worker that starts."""
    monkeypatch.setenv(backends.EXTRA_VARIABLE, "tests.scripted")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
    monkeypatch.setitem(backends.BACKENDS, "scripted", scripted.INFO)
    for strategy in scripted.INFO.strategies:
        entry = backends.Implementation(backend="scripted", strategy=strategy)
        monkeypatch.setitem(backends.IMPLEMENTATIONS, entry.name, entry)
    monkeypatch.setattr(block, "PREPARE_LIMIT_S", 5.0)
    yield
    left = [child for child in psutil.Process().children(recursive=True) if child.is_running()]
    assert left == []


def sweep(*strategies: str, mode: str = "forward", blocks: int = 2) -> Sweep:
    return Sweep(
        name="test",
        title="test",
        axes=replace(AXES, backend=("scripted",), strategy=strategies, mode=(mode,)),
        sampling=replace(SAMPLING, blocks=blocks),
    )


def execute(folder: Path, plan: Sweep, start: Start = "fork") -> Run:
    return run.execute(
        plan, folder / "run", threads=1, start=start, command="test", progress=run.Silent()
    )


def of(result: Run, strategy: str, measure: str) -> list[Record]:
    return [
        record
        for record in result.records
        if record.job.implementation == f"scripted/{strategy}" and record.job.measure == measure
    ]


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


def test_arms_of_a_block_have_aligned_samples_from_one_process(tmp_path: Path) -> None:
    result = execute(tmp_path, sweep("fine", "fine-too"))
    for number in range(2):
        one, two = (of(result, name, "steady")[number] for name in ("fine", "fine-too"))
        assert len(one.samples["steady"]) == len(two.samples["steady"]) >= 8
        assert one.worker["pid"] == two.worker["pid"]
    first, second = of(result, "fine", "steady")
    assert first.worker["pid"] != second.worker["pid"]
    (cold,), (memory,) = of(result, "fine", "cold"), of(result, "fine", "memory")
    pids = {record.worker["pid"] for record in (first, second, cold, memory)}
    assert len(pids) == 4
    assert os.getpid() not in pids


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


def test_a_cap_is_recorded_with_its_reason(tmp_path: Path) -> None:
    plan = replace(sweep("fine", "fine-too", blocks=1), caps={"scripted/fine": {"forward": 2}})
    result = execute(tmp_path, plan)
    (capped,) = of(result, "fine", "steady")
    assert capped.status == Status.CAPPED
    assert "stops scripted/fine forward at T=2" in capped.reason
    assert of(result, "fine-too", "steady")[0].status == Status.OK


def test_an_interrupt_keeps_the_records_and_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupting(run.Silent):
        def advance(self, seconds: float, label: str) -> None:
            if label.endswith("cold"):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.execute(
            sweep("fine"),
            tmp_path / "run",
            threads=1,
            start="fork",
            command="test",
            progress=Interrupting(),
        )
    result = run.read_run(tmp_path / "run")
    assert result.manifest["status"] == "interrupted"
    assert sorted(record.job.measure for record in result.records) == ["cold", "steady", "steady"]


def test_ctrl_c_on_a_terminal_ends_with_130_and_keeps_the_manifest(tmp_path: Path) -> None:
    """The signal reaches the whole process group, workers and servers too."""
    folder = tmp_path / "run"
    axes = "--cell lstm --seq-len 3 --batch 2 --hidden 4 --inputs 3 --mode forward --blocks 1"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "bench", "run", "--out", str(folder)),
            *("--backend", "scripted", "--strategy", "hangs", *axes.split()),
        ],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    log = folder / "workers.log"
    for _ in range(200):
        children = psutil.Process(process.pid).children(recursive=True)
        if log.exists() and len(children) >= 3:  # two servers and the worker that hangs
            break
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    _out, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert b"Traceback" not in error
    assert run.read_run(folder).manifest["status"] == "interrupted"
