"""`python -m bench claims`: which runs it judges, what it measures, what it prints and returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench import cli, run
from bench.claims.registry import CLAIMS
from bench.store import Run, Store, read_all, read_run
from bench.sweep import Sweep
from tests.worlds import World, times

SLOW = World(steady=lambda job: 1e-2 * times(job, dynamic=1.3))
FAST = World(steady=lambda job: 1e-2 * times(job, dynamic_block=0.8, static_block=0.8))


def write(folder: Path, drawn: Run) -> Path:
    with Store.create(folder, drawn.manifest) as store:
        store.extend(drawn.records)
    return folder


@dataclass
class Engine:
    """Stands in for `bench.run.execute`: writes the run of a world."""

    measured: list[str] = field(default_factory=list)
    status: str = "finished"

    def execute(self, sweep: Sweep, folder: Path, **options: Any) -> Run:
        self.measured.append(f"{folder.parent.name}/{folder.name}")
        drawn = SLOW.run(sweep, status=self.status, command=options["command"])
        return read_run(write(folder, drawn))


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Engine:
    stub = Engine()
    monkeypatch.setattr(run, "execute", stub.execute)
    monkeypatch.setattr(
        run, "describe_backends", lambda **_: {"torch": {"devices": {"cpu": "CPU"}}}
    )
    monkeypatch.chdir(tmp_path)
    return stub


def claims(*arguments: str) -> int:
    return cli.main(["claims", *arguments])


def lines(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(start)]


def test_every_claim_has_a_line_and_one_that_is_refuted_decides_the_status(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(Path("run"), SLOW.run("claims-loops"))
    assert claims("run") == 1
    said = capsys.readouterr().out
    assert [len(lines(said, f"{name}: ")) for name in CLAIMS] == [1] * 31
    assert "\x1b" not in said  # plain where nobody looks


@pytest.mark.parametrize(
    ("words", "status"), [(["T8"], 0), (["t8", "i1"], 3), (["T4", "T8"], 1), (["I1"], 3)]
)
def test_the_status_is_that_of_the_claims_that_are_shown(
    words: Sequence[str], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    write(Path("runs/one"), SLOW.run("claims-loops"))
    write(Path("runs/two"), FAST.run("claims-block"))
    assert claims("runs", *words) == status
    said = capsys.readouterr().out
    assert sum(bool(lines(said, f"{name}: ")) for name in CLAIMS) == len(words)


def test_an_explanation_has_the_sentence_the_rows_and_the_arithmetic(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(Path("run"), SLOW.run("claims-loops"))
    assert claims("run", "--explain", "t4") == 1
    said = " ".join(capsys.readouterr().out.split())
    for part in (
        "T4: In practice a dynamic RNN is as fast as a static one, or faster.",
        "dynamic / static, a call: at most 1.05; found 1.30 [1.2",
        "6 blocks, floor",
        "p after Holm's correction over all claims",
        "no data:",
    ):
        assert part in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["T99"], "unknown claim 'T99' (did you mean T9?)"),
        (["--explain", "T44", "run"], "unknown claim 'T44'"),
        (["nowhere"], "run nowhere: no such folder"),
        (["empty"], "run empty: holds no run"),
        ([], "claims: name a run, or measure with --run; there is none here yet"),
        (["run", "--threads", "2"], "--threads: goes with --run"),
        (["run", "--out", "x"], "--out: goes with --run"),
        (["--run", "--threads", "0"], "threads '0'"),
    ],
)
def test_what_is_refused_is_one_line_and_leaves_nothing(
    arguments: Sequence[str], said: str, capsys: pytest.CaptureFixture[str], engine: Engine
) -> None:
    write(Path("run"), SLOW.run("claims-loops"))
    Path("empty").mkdir()
    assert claims(*arguments) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("bench: error: ")
    assert said in error
    assert error.count("\n") == 0
    assert engine.measured == []
    assert not Path("results").exists()


def test_measuring_takes_the_sweeps_that_decide_and_no_gpu_s(engine: Engine) -> None:
    claims("--run", "I2", "T1", "I1")
    (folder,) = Path("results/local").iterdir()
    assert folder.name.endswith("-claims")
    assert engine.measured == [
        f"{folder.name}/claims-{name}" for name in ("loops", "block", "build")
    ]
    assert {read_run(path).manifest["command"] for path in folder.iterdir()} == {
        "python -m bench claims --run I2 T1 I1"
    }


def test_measuring_goes_on_in_a_folder_of_runs_with_what_is_missing(engine: Engine) -> None:
    write(Path("runs/claims-loops"), SLOW.run("claims-loops"))
    claims("runs", "--run", "I2")
    assert engine.measured == ["runs/claims-block"]
    assert read_run(Path("runs/claims-block")).manifest["command"] == (
        "python -m bench claims --run I2"
    )
    assert claims("runs", "--run", "I2") == 1
    assert engine.measured == ["runs/claims-block"]


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("claims --run I2", "--run I2"),
        ("2 --run I2 --threads 2", "--run I2 --threads 2"),
        ("2 --out out --run I2", "--run I2"),
        ("2 --out=out --run I2", "--run I2"),
        ("2 --run --out --run I2", "--run I2"),
        ("2 --run -- I2", "--run -- I2"),
        ("--run I2 2 ./I2", "--run I2"),
    ],
)
def test_a_manifest_has_the_command_without_places(engine: Engine, typed: str, kept: str) -> None:
    for folder in ("2", "claims", "I2"):
        write(Path(folder, "claims-loops"), SLOW.run("claims-loops"))
    claims(*typed.split())
    (path,) = Path().rglob("claims-block")
    assert read_run(path).manifest["command"] == f"python -m bench claims {kept}"


def test_without_a_run_the_last_folder_that_was_measured_is_judged(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    claims("--run", "I2")
    capsys.readouterr()
    assert claims("I2") == 1
    assert "Judged by results/local/" in capsys.readouterr().err
    assert len(engine.measured) == 2


def test_an_interruption_ends_it_and_keeps_what_there_is(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.status = "interrupted"
    assert claims("--run", "T4", "T5") == 130
    assert len(engine.measured) == 1
    assert "interrupted" in capsys.readouterr().err


def test_a_folder_of_runs_is_read_run_by_run_and_each_once(tmp_path: Path) -> None:
    first = write(tmp_path / "runs" / "b", SLOW.run("claims-loops"))
    write(tmp_path / "runs" / "a", FAST.run("claims-block"))
    read = read_all([tmp_path / "runs", first])
    assert [found.folder.name for found in read] == ["a", "b"]


def test_a_report_of_a_folder_of_runs_is_written_into_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(Path("runs/claims-loops"), SLOW.run("claims-loops"))
    write(Path("runs/claims-block"), FAST.run("claims-block"))
    assert cli.main(["report", "runs"]) == 0
    capsys.readouterr()
    verdicts = pd.read_csv("runs/verdicts.csv").set_index("claim")
    assert list(verdicts.index) == list(CLAIMS)
    assert dict(verdicts["verdict"][["T4", "T8", "I1"]]) == {
        "T4": "refuted",
        "T8": "holds",
        "I1": "no data",
    }
    assert verdicts["low"]["T4"] < verdicts["effect"]["T4"] < verdicts["high"]["T4"]
    findings = pd.read_csv("runs/findings.csv")
    assert set(findings[findings["claim"] == "T8"]["run"]) == {"claims-block"}
    assert "T4: In practice a dynamic RNN" in Path("runs/report.md").read_text()


def test_the_list_of_claims_has_sentence_source_and_what_decides(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["list", "--claims"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert all(f" {name} " in said for name in CLAIMS)
    assert "jax-ml/jax#810" in said
