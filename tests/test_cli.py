"""The commands: what they refuse, what they hand to the engine, what they leave behind."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import backends
from backends.api import CELL_NAMES
from bench import cli, cli_run, export, progress, run
from bench.estimate import job_seconds, sweep_seconds, words
from bench.preset import PRESETS, load_preset
from bench.record import Record, Status
from bench.store import Run, Store, read_run
from bench.sweep import Sweep
from tests import synthetic

ROOT = Path(__file__).parent.parent

WRITE_BENCHMARK = export.export

#: What the engine's stub can draw: PyTorch and JAX.
DRAWN = ("--preset", "smoke", "--backend", "torch,jax")


@dataclass
class Engine:
    """Stands in for `bench.run.execute`: writes a run that was drawn, or does what it is told."""

    calls: list[dict[str, Any]] = field(default_factory=list)
    change: Callable[[Record], Record] = lambda record: record
    error: BaseException | None = None

    def execute(self, sweep: Sweep, folder: Path, **options: Any) -> Run:
        self.calls.append({"sweep": sweep, "folder": folder, **options})
        if self.error is not None:
            raise self.error
        options["progress"].begin(1.0)
        options["progress"].advance(1.0, "torch/static T=5 train steady")
        options["progress"].end()
        drawn = synthetic.run(sweep, change=self.change, command=options["command"])
        with Store.create(folder, drawn.manifest) as store:
            store.extend(drawn.records)
        return read_run(folder)


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Engine:
    """A stub instead of the engine, and an empty folder to stand in."""
    stub = Engine()
    monkeypatch.setattr(run, "execute", stub.execute)
    # What it writes is for test_export.py; here it would start an interpreter for every run.
    monkeypatch.setattr(export, "export", lambda result, path: path)
    monkeypatch.setattr("bench.machine.available_cpus", lambda: [0, 1])
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return stub


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Pretend that the frameworks of these backends are not installed."""
    for name in names:
        absent = replace(backends.BACKENDS[name], requires=("no-such-distribution",))
        monkeypatch.setitem(backends.BACKENDS, name, absent)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must be refused; returns its one line."""
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("bench: error: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("rum", ["'rum'", "did you mean run?", "export, list, report, run"]),
        ("run --sequence 5", ["--sequence"]),
        ("run extra", ["extra"]),
        ("run --cell lstn", ["cell 'lstn'", "did you mean lstm?", "gru-reset-after"]),
        ("run --cell lst\u1e3f", ["cell 'lst\u1e3f'", "did you mean lstm?"]),
        ("run --strategy st\u00e4tic", ["strategy 'st\u00e4tic'", "did you mean static?"]),
        ("run --cell LSTM", ["cell 'LSTM'", "allowed: rnn, rnn-relu, basic-lstm"]),
        ("run --backend tensorflwo", ["'tensorflwo'", "did you mean tensorflow?"]),
        (
            "run --backend reference",
            ["backend 'reference'", "allowed: tensorflow, torch, jax, onnx"],
        ),
        ("run --strategy unrolled", ["strategy 'unrolled'", "did you mean keras-unrolled?"]),
        ("run --preset smok", ["preset 'smok'", "did you mean smoke?", "default"]),
        ("run --mode backward", ["mode 'backward'", "allowed: forward, train"]),
        ("run --dtype float8", ["dtype 'float8'", "float32, float64, bfloat16, float16"]),
        ("run --lengths short", ["lengths 'short'", "full, ragged"]),
        ("run --device tpu", ["device 'tpu'", "cpu, gpu"]),
        ("run --start frok", ["'frok'", "'fork', 'spawn'"]),
        ("run --seq-len 0", ["seq-len 0", "1 or more"]),
        ("run --batch 0", ["batch 0", "1 or more"]),
        ("run --batch -3", ["batch -3", "1 or more"]),
        ("run --layers 1.5", ["layers '1.5'", "whole number"]),
        ("run --hidden x", ["hidden 'x'", "whole number"]),
        ("run --inputs 1_000", ["inputs '1_000'", "whole number"]),
        ("run --hidden \u0661\u0662", ["hidden '\u0661\u0662'", "whole number"]),
        ("run --hidden 99999999999999999999", ["99999999999999999999"]),
        ("run --seq-len 25,25", ["seq-len", "25", "twice"]),
        ("run --seq-len 25,025", ["seq-len", "25", "twice"]),
        ("run --cell gru,lstm,gru", ["cell", "gru", "twice"]),
        ("run --seq-len 25,,50", ["seq-len '25,,50'", "empty"]),
        ("run --cell lstm,", ["cell 'lstm,'", "empty"]),
        ("run --cell=", ["cell ''", "empty"]),
        ("run --blocks 0", ["blocks '0'", "1 or more"]),
        ("run --blocks many", ["blocks 'many'", "whole number"]),
        ("run --threads 0", ["threads 0", "1 or more"]),
        ("run --threads 3", ["threads 3", "between 1 and 2"]),
        ("run --backend jax --strategy keras", ["jax", "static, dynamic, scan-unroll-2"]),
        ("run --backend jax --strategy fused", ["jax", "no strategy fused", "fused (on a GPU"]),
        ("run --strategy graphed", ["strategy graphed", "--device gpu"]),
        ("run --backend torch,jax --strategy fused", ["backend jax", "no strategy fused"]),
        ("run --backend jax --strategy static,fused", ["strategy fused", "on a GPU alone"]),
        ("run --backend jax --strategy static,keras", ["strategy keras", "jax has static"]),
        ("run --preset nowhere.toml", ["nowhere.toml", "No such file"]),
        ("report", ["RUN"]),
        ("report nowhere", ["run nowhere", "no such folder"]),
        ("report one two", ["2 runs", "--out"]),
        ("export nowhere", ["run nowhere", "manifest.json"]),
        ("export nowhere --format csv", ["'csv'", "pytest-benchmark"]),
        ("list --cell", ["--cell"]),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    arguments: str, said: list[str], engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, *arguments.split())
    for words_ in said:
        assert words_ in line
    assert engine.calls == []
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize(
    ("axis", "values", "said"),
    [
        ("seq_len", "[0]", "seq-len 0: must be a whole number of 1 or more"),
        ("batch", "[16, 0]", "batch 0: must be a whole number of 1 or more"),
        ("seq_len", "[10, 10]", "axis seq-len: value 10 is given twice"),
        ("cell", "['lstm', 'lstm']", "axis cell: value lstm is given twice"),
        ("cell", "['lst\u1e3f']", "unknown cell 'lst\u1e3f' (did you mean lstm?)"),
    ],
)
def test_a_preset_holds_what_the_command_line_may(
    axis: str, values: str, said: str, engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    smoke = (PRESETS / "smoke.toml").read_text()
    text, found = re.subn(rf"^{axis} = .*$", f"{axis} = {values}", smoke, flags=re.MULTILINE)
    assert found == 1
    Path("m\u00efne.toml").write_text(text)
    assert said in refused(capsys, "run", "--preset", "m\u00efne.toml")
    assert engine.calls == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title = ", "mine.toml: Invalid"),
        ("", "has no table [axes]"),
        ("axes = 5\n", "has no table [axes]"),
        ("[axis]\n", "key in mine.toml 'axis' (did you mean axes?)"),
        ("[axes]\nseqlen = [5]\n[sampling]\n", "'seqlen' (did you mean seq_len?)"),
        ("[axes]\ncell = 'lstm'\n[sampling]\n", "axis cell 'lstm': must be a list"),
        ("[axes]\ncell = ['lstm']\n[sampling]\n", "mine.toml"),
        ("\x00", "mine.toml"),
    ],
)
def test_a_preset_that_is_none_is_refused(
    text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.toml").write_text(text)
    assert said in refused(capsys, "run", "--preset", "mine.toml")
    assert [path.name for path in Path.cwd().iterdir()] == ["mine.toml"]


def test_control_characters_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "run", "--preset", "\x1b[31m\nred.toml")
    assert "\x1b" not in line


def test_an_output_folder_in_use_is_refused_before_anything_else(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("used").mkdir()
    Path("used/notes.txt").write_text("mine")
    assert "holds other files" in refused(capsys, "run", "--out", "used", "--cell", "nonsense")
    assert cli.main(["run", *DRAWN, "--out", "new"]) == 0
    capsys.readouterr()
    before = {path: path.read_bytes() for path in Path("new").rglob("*") if path.is_file()}
    assert "holds another run" in refused(capsys, "run", *DRAWN, "--out", "new")
    assert {path: path.read_bytes() for path in before} == before
    assert "is a file" in refused(capsys, "run", "--out", "used/notes.txt")
    assert len(engine.calls) == 1


def test_a_named_backend_that_is_missing_is_refused_with_its_install_line(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without(monkeypatch, "torch")
    line = refused(capsys, "run", "--backend", "torch,jax")
    assert "pip install -c constraints.txt -e '.[torch]'" in line
    assert engine.calls == []


def test_a_missing_backend_that_nobody_named_stops_nobody(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without(monkeypatch, "tensorflow")
    assert cli.main(["run", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "not installed" in out
    assert "pip install" in out
    engine.error = KeyboardInterrupt()
    cli.main(["run"])
    assert "tensorflow" in {entry.backend for entry in engine.calls[0]["sweep"].implementations()}


def test_without_any_framework_there_is_nothing_to_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without(monkeypatch, "tensorflow", "torch", "jax", "onnx")
    assert "pip install -c constraints.txt -e '.[all]'" in refused(capsys, "run")


def test_a_device_that_is_not_there_is_refused(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = {
        name: {"devices": {"cpu": "a CPU"}, "no_gpu": f"{name} finds no GPU"}
        for name in backends.BACKENDS
    }
    monkeypatch.setattr(run, "describe_backends", lambda **_: here)
    line = refused(capsys, "run", "--device", "gpu", "--backend", "torch,jax")
    said = "device 'gpu': no framework finds it; here: cpu; jax finds no GPU; torch finds no GPU"
    assert said in line
    here["jax"] = {"devices": {"cpu": "a CPU", "gpu": "one"}}
    line = refused(capsys, "run", "--device", "gpu,gpu:1", "--backend", "torch,jax")
    assert "device 'gpu:1': no framework finds it; here: cpu, gpu; torch finds no GPU" in line
    assert engine.calls == []


@pytest.mark.parametrize("more", [(), ("--no-caps",)])
def test_a_dry_run_says_what_would_be_done_and_writes_nothing(
    more: tuple[str, ...], engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--seq-len", "10,50", "--backend", "torch", *more)
    assert cli.main(["run", "--dry-run", "--out", "new/folder", *arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for said in ("T=10", "T=50", "forward", "train", "torch", "traced", "workers", "about"):
        assert said in out
    assert ("capped: static" in out) is (more == ())
    assert list(Path.cwd().iterdir()) == []
    assert engine.calls == []


def test_a_run_hands_the_sweep_to_the_engine_and_writes_its_tables(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", *DRAWN, "--cell", "gru", "--seq-len", "7, 9", "--hidden", "16"]
    arguments += ["--threads", "1,2", "--blocks", "4", "--start", "spawn", "--no-caps"]
    assert cli.main([*arguments, "--out", "out"]) == 0
    (call,) = engine.calls
    axes = call["sweep"].axes
    assert (axes.cell, axes.seq_len, axes.hidden) == (("gru",), (7, 9), (16,))
    assert axes.inputs == load_preset("smoke").axes.inputs
    assert axes.mode == ("forward", "train")
    assert axes.threads == (1, 2)
    assert (call["folder"], call["start"]) == (Path("out"), "spawn")
    assert call["sweep"].sampling.blocks == 4
    assert call["sweep"].caps == {}
    assert call["command"].startswith("python -m bench run --preset smoke")
    assert "'7, 9'" in call["command"]
    left = {path.name for path in Path("out").iterdir()}
    assert {"records.jsonl", "manifest.json", "report.md", "index.html", "plots"} <= left
    out, err = capsys.readouterr()
    assert "out: records.jsonl" in out
    assert "benchmark.json" in out
    assert "measuring, about" in err


def test_a_run_without_a_folder_goes_to_the_local_results(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_run, "_publish", lambda result: 0)
    assert cli.main(["run", *DRAWN]) == 0
    folder = engine.calls[0]["folder"]
    assert folder.parent == Path("results/local")
    assert folder.name.endswith("-smoke")
    assert folder.is_dir()


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (Status.CRASHED, 1),
        (Status.TIMEOUT, 1),
        (Status.OOM, 1),
        (Status.NAN, 1),
        (Status.WRONG_OUTPUT, 1),
        (Status.UNSUPPORTED, 0),
        (Status.UNAVAILABLE, 0),
    ],
)
def test_a_failed_job_is_exit_status_1_and_the_tables_are_written(
    status: Status,
    code: int,
    engine: Engine,
    capsys: pytest.CaptureFixture[str],
) -> None:
    engine.change = synthetic.only("jax/static", synthetic.ends(status, "why it ended"))
    assert cli.main(["run", *DRAWN, "--out", "out"]) == code
    assert "why it ended" in Path("out/report.md").read_text()
    assert ("jobs failed" in capsys.readouterr().err) is (code == 1)


def test_a_run_that_cannot_be_exported_is_still_a_run(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export, "export", WRITE_BENCHMARK)
    engine.change = synthetic.ends(Status.UNSUPPORTED, "nothing is")
    assert cli.main(["run", *DRAWN, "--out", "out"]) == 0
    assert "not everything was written: run out: no timed job ended ok" in capsys.readouterr().err
    assert Path("out/report.md").exists()


def test_an_interrupt_is_130_and_says_where_the_records_are(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.error = KeyboardInterrupt()
    assert cli.main(["run", *DRAWN, "--out", "out"]) == 130
    err = capsys.readouterr().err
    assert "what was measured is in out" in err
    assert "bench: interrupted" in err


def test_a_budget_that_was_too_small_is_said(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spent = replace(synthetic.run(status="out of budget"), records=[])
    assert cli_run._publish(spent) == 1
    assert "a larger one needs a new run" in capsys.readouterr().err


def test_the_tables_of_another_run_are_not_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b", "c"):
        assert cli.main(["run", *DRAWN, "--out", name]) == 0
    before = Path("c/report.md").read_bytes()
    capsys.readouterr()
    assert "output folder c: holds another run" in refused(capsys, "report", "a", "b", "--out", "c")
    assert Path("c/report.md").read_bytes() == before
    assert cli.main(["report", "a", "b", "--out", "a"]) == 0


def test_a_report_of_several_runs_goes_to_a_folder_of_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("a", "b"):
        assert cli.main(["run", *DRAWN, "--out", name]) == 0
    written = {path.name for path in Path("a").iterdir()}
    capsys.readouterr()
    assert cli.main(["report", "a", "b", "--out", "both"]) == 0
    assert "both: index.html, report.md" in capsys.readouterr().out
    assert Path("both/index.html").exists()
    (copy,) = Path("both/raw").glob("2-*/records.jsonl")
    assert copy.read_bytes() == Path("b/records.jsonl").read_bytes()
    Path("a/report.md").unlink()
    assert cli.main(["report", "a"]) == 0
    assert {path.name for path in Path("a").iterdir()} == written


def test_list_names_everything_there_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    without(monkeypatch, "torch")
    assert cli.main(["list"]) == 0
    out = capsys.readouterr().out
    for name in (*backends.IMPLEMENTATIONS, "gru-reset-after", "smoke", "default"):
        assert name in out
    assert "no-such-distribution not installed" in out
    assert cli.main(["list", "--cells"]) == 0
    out = capsys.readouterr().out
    assert "torch/static" not in out
    assert set(CELL_NAMES) <= set(out.split())
    info: dict[str, Any] = {
        "torch": {
            "versions": {"torch": "2.13.0"},
            "threads": {},
            "devices": {"gpu": "an H100"},
            "no_gpu": None,
        },
        "jax": {"error": "it crashed when asked"},
    }
    monkeypatch.setattr(run, "describe_backends", lambda **_: info)
    assert cli.main(["list", "--devices"]) == 0
    out = capsys.readouterr().out
    assert "an H100" in out
    assert "it crashed when asked" in out
    info["torch"] |= {"devices": {"cpu": "a CPU"}, "no_gpu": "torch finds none"}
    assert cli.main(["list", "--devices"]) == 0
    out = capsys.readouterr().out
    assert "torch finds none" in out
    assert "an H100" not in out


def test_a_backend_elsewhere_that_is_not_there_is_one_line() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "bench", "list"],
        env={**os.environ, "RNN_BENCH_EXTRA_BACKENDS": "no.such.module"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert said.returncode == 2
    assert said.stderr == (
        "bench: error: RNN_BENCH_EXTRA_BACKENDS 'no.such.module': No module named 'no'\n"
    )


@pytest.mark.parametrize("command", [[], ["run"], ["report"], ["list"], ["export"]])
def test_help_has_examples(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*command, "--help"]) == 0
    out = capsys.readouterr().out
    assert "Examples:" in out
    assert f"python -m bench {' '.join(command)}".strip() in out


def _modules_after(*arguments: str) -> set[str]:
    """Modules that are loaded once a command has run in a fresh interpreter."""
    code = (
        "import sys; from bench.cli import main; status = main(sys.argv[1:]);"
        "print(*sorted(sys.modules), file=sys.stderr); sys.exit(status)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(result.stderr.split())


def test_no_command_of_the_parent_imports_a_framework() -> None:
    frameworks = {"tensorflow", "torch", "jax", "keras", "tf_keras"}
    assert not (frameworks | {"pandas", "scipy", "numpy"}) & _modules_after("--help")
    assert not (frameworks | {"pandas"}) & _modules_after("run", "--help")
    assert not frameworks & _modules_after("run", "--dry-run")
    assert not frameworks & _modules_after("list")


def test_lines_are_printed_now_and_then_where_there_is_no_terminal() -> None:
    now = 0

    def tell() -> int:
        return now

    out = io.StringIO()
    lines = progress.Lines(Console(file=out, width=200), now=tell)
    lines.begin(100.0)
    for _ in range(100):
        now += 2_000_000_000
        lines.advance(1.0, "torch/static T=5 train steady")
    lines.end()
    said = out.getvalue().splitlines()
    assert said[0] == "bench: measuring, about 2 min"
    assert said[1] == "bench:  15%, 30 s, 3 min left: torch/static T=5 train steady"
    assert said[-1] == "bench: measuring ended after 4 min"
    assert len(said) == 2 + 6


def test_a_terminal_has_a_bar() -> None:
    out = io.StringIO()
    bar = progress.for_console(Console(file=out, width=100, force_terminal=True))
    assert isinstance(bar, progress.Bar)
    bar.begin(2.0)
    bar.advance(1.0, "jax/[static] T=5")
    bar.advance(1.0, "jax/dynamic T=5")
    bar.end()
    assert "100%" in out.getvalue()
    assert "done" in out.getvalue()


def test_time_left_follows_what_was_measured_once_enough_is_done() -> None:
    assert progress.seconds_left(600.0, 0.0, 100.0) == 100.0
    assert progress.seconds_left(50.0, 25.0, 100.0) == 150.0
    assert progress.seconds_left(50.0, 120.0, 100.0) == 0.0


def test_the_estimate_grows_with_what_there_is_to_do() -> None:
    sweep = load_preset("default")
    seconds = {job: job_seconds(job, sweep.sampling) for job in sweep.jobs("steady")}
    assert all(value > 0 for value in seconds.values())
    for job, value in seconds.items():
        longer = replace(job, case=replace(job.case, seq_len=4 * job.case.seq_len))
        assert job_seconds(longer, sweep.sampling) > value
    assert sweep_seconds(replace(sweep, caps={})) > sweep_seconds(sweep)
    assert sweep_seconds(sweep, absent=["torch"]) < sweep_seconds(sweep)
    assert sweep_seconds(sweep) == sweep_seconds(sweep)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.1, "1 s"), (59.5, "1 min"), (60, "1 min"), (61, "2 min"), (3600, "1 h 0 min")],
)
def test_estimates_are_said_roughly(seconds: float, said: str) -> None:
    assert words(seconds) == said
