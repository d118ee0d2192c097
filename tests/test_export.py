"""Replay through pytest-benchmark: what comes out is what went in, and nothing that failed."""

from __future__ import annotations

import errno
import json
import os
import signal
import statistics
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.api import CELL_NAMES, MODES, Case
from bench import cli, durable
from bench.errors import UsageError
from bench.export import evidence_of, export, rounds
from bench.naming import group_name, job_name
from bench.record import MEASURES, Job, Record, Status
from bench.replay import ReplayClock
from bench.store import Run, Store, read_run
from bench.sweep import Sweep
from tests import synthetic
from tests.support import cases

#: In one process: what is exported once serves them all.
pytestmark = pytest.mark.xdist_group("export")

ROOT = Path(__file__).parent.parent

TORCH_DYNAMIC = "torch/dynamic-lstm-T10-B16-L1-H128-D128-forward"


def stored(folder: Path, drawn: Run) -> Run:
    """Write a drawn run to a folder, and read it back."""
    with Store.create(folder, drawn.manifest) as store:
        store.extend(drawn.records)
    return read_run(folder)


def small() -> Sweep:
    return synthetic.sweep(seq_len=(10,), mode=("forward",), blocks=3)


def bad_sample(record: Record) -> Record:
    return replace(record, samples={"steady": [*record.samples["steady"][1:], float("nan")]})


def _spoiled() -> Run:
    """A run in which four implementations must not be believed, each for a reason of its own."""
    spoils = (
        ("torch/static", synthetic.ends(Status.CRASHED, "it died"), {"measure": "cold"}),
        ("torch/traced", synthetic.ends(Status.CRASHED, "it died late"), {"block": 2}),
        ("torch/scripted", synthetic.ends(Status.WRONG_OUTPUT, "it is wrong"), {"block": 1}),
        ("torch/fused", bad_sample, {"block": 0, "measure": "steady"}),
    )
    changes = [synthetic.only(name, change, **where) for name, change, where in spoils]

    def change(record: Record) -> Record:
        for one in changes:
            record = one(record)
        return record

    return synthetic.run(replace(small(), caps={"jax/static": {"forward": 5}}), change=change)


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """The spoiled run and its exported file."""
    run = stored(tmp_path_factory.mktemp("export") / "run", _spoiled())
    assert cli.main(["export", str(run.folder)]) == 0
    return run, run.folder / "benchmark.json"


def entries(path: Path) -> dict[str, dict[str, Any]]:
    return {entry["param"]: entry for entry in json.loads(path.read_text())["benchmarks"]}


def test_the_file_holds_each_workers_median_to_the_last_digit(spoiled: tuple[Run, Path]) -> None:
    run, path = spoiled
    records = [
        record
        for record in run.records
        if job_name(record.job) == TORCH_DYNAMIC or job_name(record.job) == f"{TORCH_DYNAMIC}-cold"
    ]
    steady = [statistics.median(r.samples["steady"]) for r in records if "steady" in r.samples]
    first = [
        r.samples["build"][0] + r.samples["load"][0] + r.samples["first"][0]
        for r in records
        if "first" in r.samples
    ]
    found = entries(path)
    assert len(steady) == 3
    assert found[TORCH_DYNAMIC]["stats"]["data"] == steady
    assert found[TORCH_DYNAMIC]["stats"]["ops"] == pytest.approx(3 / sum(steady))
    assert found[f"{TORCH_DYNAMIC}-cold"]["stats"]["data"] == first


def test_an_entry_says_what_it_is(spoiled: tuple[Run, Path]) -> None:
    run, path = spoiled
    entry = entries(path)[TORCH_DYNAMIC]
    (job,) = {r.job for r in run.records if job_name(r.job) == TORCH_DYNAMIC}
    assert entry["fullname"] == f"bench/test_sweep.py::test_job[{TORCH_DYNAMIC}]"
    assert entry["group"] == "lstm-T10-B16-L1-H128-D128-forward"
    assert entry["params"] == {
        "implementation": "torch/dynamic",
        "mode": "forward",
        "measure": "steady",
        **asdict(job.case),
    }
    assert entry["stats"]["iterations"] == 1
    info = entry["extra_info"]
    assert info["replayed"] is True
    assert info["clock"] == "time.perf_counter_ns"
    assert info["status"] == "ok"
    assert (info["blocks"], info["blocks_planned"]) == (3, 3)
    assert info["inner_iterations"] == [1, 1, 1]
    assert info["peak_bytes"] > 0
    assert info["key"] == job.key


def test_what_failed_is_listed_and_never_replayed(spoiled: tuple[Run, Path]) -> None:
    _run, path = spoiled
    listed = {entry["job"]: entry for entry in json.loads(path.read_text())["not_replayed"]}
    case = "lstm-T10-B16-L1-H128-D128-forward"
    expected = {
        f"torch/static-{case}-cold": ("crashed", "it died"),
        f"torch/traced-{case}": ("crashed", "it died late"),
        f"torch/traced-{case}-cold": ("crashed", "it died late"),
        f"torch/scripted-{case}": ("wrong output", "it is wrong"),
        f"torch/scripted-{case}-cold": ("wrong output", "it is wrong"),
        f"torch/scripted-{case}-memory": ("wrong output", "it is wrong"),
        f"torch/fused-{case}": ("bad samples", "nan"),
        f"jax/static-{case}": ("capped", "T=10"),
        f"jax/static-{case}-cold": ("capped", "T=10"),
        f"jax/static-{case}-memory": ("capped", "T=10"),
    }
    assert listed.keys() == expected.keys()
    for name, (status, reason) in expected.items():
        assert listed[name]["status"] == status
        assert reason in listed[name]["reason"]
    assert not listed.keys() & entries(path).keys()
    assert f"torch/static-{case}" in entries(path)


def test_the_file_speaks_of_the_run_not_of_this_host(spoiled: tuple[Run, Path]) -> None:
    run, path = spoiled
    data = json.loads(path.read_text())
    assert data["machine_info"]["node"] == "here"
    assert data["machine_info"]["cpu"]["brand_raw"] == "A CPU @ 2.50GHz"
    assert data["commit_info"]["id"] == "unknown"
    assert data["datetime"] == run.manifest["created"]
    assert data["run"]["id"] == "drawn"


def test_pytest_benchmark_compares_the_file(spoiled: tuple[Run, Path], tmp_path: Path) -> None:
    _run, path = spoiled
    command = [sys.executable, "-m", "pytest_benchmark", "compare", str(path)]
    options = ["--group-by=group,param:mode", "--sort=mean", "--csv=table"]
    result = subprocess.run(
        [*command, *options], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert TORCH_DYNAMIC in result.stdout
    assert "lstm-T10-B16-L1-H128-D128-forward-cold mode=forward" in result.stdout
    assert "3" in result.stdout
    assert TORCH_DYNAMIC in (tmp_path / "table.csv").read_text()


def test_the_folder_holds_the_file_and_nothing_else_new(spoiled: tuple[Run, Path]) -> None:
    run, _path = spoiled
    names = {path.name for path in run.folder.iterdir()}
    assert names == {"manifest.json", "records.jsonl", "benchmark.json"}


def test_nothing_to_export_is_said_and_writes_nothing(tmp_path: Path) -> None:
    drawn = synthetic.run(small(), change=synthetic.ends(Status.CRASHED, "it died"))
    run = stored(tmp_path / "run", drawn)
    with pytest.raises(UsageError, match="no timed job ended ok"):
        export(run, run.folder / "benchmark.json")
    assert not (run.folder / "benchmark.json").exists()


@pytest.mark.parametrize("path", ["nowhere/benchmark.json", "run"])
def test_a_file_that_cannot_be_written_is_refused(path: str, tmp_path: Path) -> None:
    run = stored(tmp_path / "run", synthetic.run(small()))
    with pytest.raises(UsageError, match=str(tmp_path / path)):
        export(run, tmp_path / path)


_KILLED = """
import os, signal, sys
from pathlib import Path
from bench import export
from bench.store import read_run
export._replay = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
run = read_run(Path(sys.argv[1]))
export.export(run, run.folder / "benchmark.json")
"""


def test_a_file_that_is_no_export_is_not_replaced(spoiled: tuple[Run, Path]) -> None:
    run, path = spoiled
    records = run.folder / "records.jsonl"
    before = records.read_bytes()
    with pytest.raises(UsageError, match=r"records\.jsonl: is there, and no export"):
        export(run, records)
    assert records.read_bytes() == before
    assert export(run, path) == path


def test_an_export_that_is_killed_leaves_nothing_beside_the_file(tmp_path: Path) -> None:
    run, scratch = stored(tmp_path / "run", synthetic.run(small())), tmp_path / "scratch"
    before = {path.name for path in run.folder.iterdir()}
    scratch.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, str(run.folder)],
        env={**os.environ, "TMPDIR": str(scratch)},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert {path.name for path in run.folder.iterdir()} == before


def test_a_disk_that_is_full_is_one_line_and_the_file_is_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    run = stored(tmp_path / "run", synthetic.run(small()))
    path = run.folder / "benchmark.json"
    path.write_text(earlier := '{"benchmarks": []}')
    monkeypatch.setattr(durable.os, "fsync", full)
    with pytest.raises(UsageError, match=r"benchmark.json: cannot be written \(No space left"):
        export(run, path)
    assert path.read_text() == earlier
    assert not path.with_name("benchmark.json.part").exists()


def test_without_pytest_benchmark_the_install_line_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = stored(tmp_path / "run", synthetic.run(small()))
    monkeypatch.setattr("bench.export.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pytest-benchmark.*pip install .*'.\[report\]'"):
        export(run, tmp_path / "benchmark.json")


def test_an_interrupted_run_exports_the_blocks_that_it_has(tmp_path: Path) -> None:
    drawn = synthetic.run(small(), status="interrupted")
    kept = [r for r in drawn.records if r.job.measure == "steady" and r.block == 0]
    run = stored(tmp_path / "run", replace(drawn, records=kept))
    by_job = {job_name(e.job): rounds(e) for e in evidence_of(run)}
    assert len(by_job[TORCH_DYNAMIC]) == 1
    assert by_job[f"{TORCH_DYNAMIC}-cold"] == []


def test_the_clock_shows_each_sample_exactly() -> None:
    class Fixture:
        """Takes the times as pytest-benchmark's `pedantic` does."""

        def __init__(self, clock: ReplayClock) -> None:
            self.extra_info: dict[str, Any] = {}
            self.data: list[float] = []
            self._clock = clock

        def pedantic(self, target: Any, *, setup: Any, rounds: int) -> None:
            for _ in range(rounds):
                setup()
                start = self._clock()
                target()
                self.data.append(self._clock() - start)

    clock = ReplayClock()
    fixture = Fixture(clock)
    samples = [0.1, 1e-9, 0.1, 12345.678901234567]
    clock.replay(fixture, samples)
    assert fixture.data == samples


def pytest_bench(*arguments: str, **environment: str) -> str:
    """Run `pytest bench` as a person would, outside of this session; returns its output."""
    outer = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    result = subprocess.run(
        [*(sys.executable, "-m", "pytest", "-p", "no:cacheprovider"), "bench", *arguments],
        cwd=ROOT,
        env={**outer, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return result.stdout


def test_items_of_a_run_pass_skip_and_fail_by_status(spoiled: tuple[Run, Path]) -> None:
    run, _path = spoiled
    out = pytest_bench("--bench-run", str(run.folder))
    assert "SKIPPED [2]" in out
    assert "capped: T=10" in out
    assert "wrong output: it is wrong" in out
    assert "bad samples: block 0, steady" in out
    assert "6 failed" in out
    assert "2 skipped" in out
    assert "error" not in out.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--bench-preset", "smok"], "did you mean smoke?"),
        (["--bench-run", "nowhere"], "run nowhere: no readable manifest.json"),
    ],
)
def test_bad_options_of_pytest_bench_are_said(options: list[str], said: str) -> None:
    out = pytest_bench(*options)
    assert said in out
    assert "Traceback" not in out


PRESET = """
[axes]
cell = ["lstm", "gru"]
seq_len = [3, 6]
batch = [2]
layers = [1]
hidden = [4]
inputs = [3]
lengths = ["full"]
dtype = ["float64"]
device = ["cpu"]
mode = ["forward"]
backend = ["scripted"]
strategy = ["fine", "wrong"]

[sampling]
blocks = 2
cold_blocks = 1
memory_blocks = 1
steady_s = 0.01
warmup_s = 0.001
"""


def test_selected_items_are_measured_first_and_only_they(tmp_path: Path) -> None:
    preset, written = tmp_path / "scripted.toml", tmp_path / "benchmark.json"
    preset.write_text(PRESET)
    out = pytest_bench(
        *("--bench-preset", str(preset), "--benchmark-json", str(written)),
        *("-k", "scripted/fine-lstm-T6-"),
        # The first item waits for the whole sweep: the limit of a test does not count for it.
        *("-o", "timeout=1"),
        RNN_BENCH_EXTRA_BACKENDS="tests.scripted",
        PYTHONPATH=str(ROOT),
    )
    assert "2 passed" in out, out
    found = entries(written)
    steady = "scripted/fine-lstm-T6-B2-L1-H4-D3-float64-forward"
    assert found.keys() == {steady, f"{steady}-cold"}
    assert len(found[steady]["stats"]["data"]) == 2
    assert found[steady]["extra_info"]["peak_bytes"] is not None
    # A job that went wrong would be listed: `wrong` was never measured.
    assert json.loads(written.read_text())["not_replayed"] == []


CASES = cases(
    cell=st.sampled_from(CELL_NAMES),
    seq_len=st.integers(1, 12),
    batch=st.integers(1, 12),
    inputs=st.integers(1, 12),
    hidden=st.integers(1, 12),
    layers=st.integers(1, 3),
    lengths=st.sampled_from(["full", "ragged"]),
    dtype=st.sampled_from(["float32", "float64"]),
    device=st.sampled_from(["cpu", "gpu"]),
    initial_state=st.sampled_from(["zeros", "random"]),
    forget_bias=st.sampled_from([0.0, 1.0, 2.5]),
    seed=st.integers(0, 3),
    direction=st.sampled_from(["forward", "bidirectional", "two-stacks"]),
)
JOBS = st.builds(
    Job,
    implementation=st.sampled_from(["torch/static", "torch/dynamic", "jax/static"]),
    case=CASES,
    mode=st.sampled_from(MODES),
    measure=st.sampled_from(MEASURES),
)


@given(st.lists(JOBS, unique=True, min_size=2, max_size=8))
def test_different_jobs_have_different_names(jobs: list[Job]) -> None:
    assert len({job_name(job) for job in jobs}) == len(jobs)
    same = {(job.case, job.mode, job.measure) for job in jobs}
    assert len({group_name(job) for job in jobs}) == len(same)


def test_a_name_is_what_it_always_was() -> None:
    case = Case(cell="lstm", seq_len=5, batch=4, inputs=32, hidden=32)
    job = Job(implementation="tensorflow/static", case=case, mode="forward", measure="steady")
    assert job_name(job) == "tensorflow/static-lstm-T5-B4-L1-H32-D32-forward"
    odd = replace(case, lengths="ragged", dtype="float64", seed=3)
    cold = replace(job, case=odd, measure="cold")
    assert job_name(cold) == (
        "tensorflow/static-lstm-T5-B4-L1-H32-D32-ragged-float64-seed=3-forward-cold"
    )
    both = replace(job, case=replace(case, direction="bidirectional"))
    assert job_name(both) == "tensorflow/static-lstm-T5-B4-L1-H32-D32-bidirectional-forward"
