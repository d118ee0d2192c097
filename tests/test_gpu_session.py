"""The session for hosts with a GPU: its order, its budgets, and what is left of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from bench.cli import main as bench
from bench.preset import preset_names
from bench.store import Store
from benchmarks import gpu_session
from benchmarks.gpu_session import ARCHIVE, SESSION_S, SUMMARY_LINES, WIDTH, Session, Step, steps
from tests import synthetic


def python(name: str, code: str, budget_s: float = 60.0, run: str = "") -> Step:
    return Step(name=name, command=(sys.executable, "-c", code), budget_s=budget_s, run=run)


def archived(out: Path) -> dict[str, str]:
    """What the archive holds by path."""
    with tarfile.open(out / ARCHIVE) as archive:
        files = {entry.name: archive.extractfile(entry) for entry in archive if entry.isfile()}
        return {
            name.removeprefix("gpu-session/"): file.read().decode()
            for name, file in files.items()
            if file is not None
        }


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_session, "GRACE_S", 1.0)
    monkeypatch.setattr(gpu_session, "END_S", 0.5)
    monkeypatch.setattr(gpu_session, "LEAST_S", 0.5)


@pytest.mark.parametrize("device", ["gpu", "cpu"])
def test_the_most_valuable_comes_first_and_all_of_it_fits(device: str) -> None:
    planned = list(steps(device))
    names = [step.name for step in planned]
    assert names[:5] == ["driver", "devices", "conformance", "smoke", "claims-gpu"]
    assert len(names) == len(set(names))
    # Budgets are bounds: what is last may be left out where all of them are used up.
    assert sum(step.budget_s for step in planned[:7]) < SESSION_S
    assert not any("tensorflow" in word for step in planned for word in step.command)
    more = [step.name for step in steps(device, tensorflow=True)]
    assert [name for name in more if name not in names] == ["claims-gpu-memory"]


@pytest.mark.parametrize("step", [*steps("cpu", tensorflow=True)], ids=lambda step: step.name)
def test_each_run_is_one_that_the_command_line_takes(
    step: Step, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if not step.run:
        return
    monkeypatch.chdir(tmp_path)
    words = list(step.command[3:])
    if "claims-gpu-memory" in words:
        assert "claims-gpu-memory" in preset_names()  # swapping is of a GPU alone
        return
    assert bench([*words, "--dry-run"]) == 0
    assert "time" in capsys.readouterr().out
    assert words[words.index("--budget") + 1] == f"{step.budget_s:.0f}s"


def test_a_step_that_fails_or_hangs_costs_its_own_and_no_other(
    tmp_path: Path, quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    hang = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(600)"
    polite = "import time\ntry: time.sleep(600)\nexcept KeyboardInterrupt: print('told')"
    planned = [
        python("one", "print('first')"),
        python("fails", "raise SystemExit(3)"),
        Step(name="absent", command=("/no/such/program",), budget_s=5),
        python("polite", polite, budget_s=1.0),
        python("hangs", hang, budget_s=1.0),
        python("last", "open('left.txt', 'w').write('here')"),
    ]
    session = Session(tmp_path / "out", 60)
    session.run(planned)
    assert [done.end for done in session.done] == [
        "ok",
        "exit status 3",
        "not started: No such file or directory",
        "cut off after 1 s: ok",
        "killed after 1 s",
        "ok",
    ]
    session.close()
    assert [path.name for path in (tmp_path / "out").iterdir()] == [ARCHIVE]
    files = archived(tmp_path / "out")
    assert files["printed/one.txt"] == "first\n"
    assert files["printed/polite.txt"] == "told\n"
    assert files["left.txt"] == "here"
    assert [line.split()[0] for line in files["log.txt"].splitlines()] == [
        step.name for step in planned
    ]
    assert capsys.readouterr().out == files["log.txt"]


def test_what_no_time_is_left_for_is_not_begun(tmp_path: Path, quick: None) -> None:
    session = Session(tmp_path / "out", 3.0)
    sleep = "import time; time.sleep(600)"
    session.run([python("long", sleep), python("next", sleep), python("after", sleep)])
    session.close()
    assert session.done[0].end.startswith("cut off after 2 s")
    assert {done.end for done in session.done[1:]} == {"no time was left for it"}


def test_a_session_that_is_killed_leaves_the_steps_before(tmp_path: Path) -> None:
    """By SIGTERM, as whoever lends a machine does; what ran is not left running either."""
    code = (
        "import sys; from benchmarks import gpu_session as g\n"
        "sys.argv = ['gpu_session.py', 'out']\n"
        "g.steps = lambda *_, **__: [\n"
        "    g.Step(name='done', command=(sys.executable, '-c', 'print(1)'), budget_s=60),\n"
        "    g.Step(name='runs', command=('sleep', '612.5'), budget_s=60)]\n"
        "g.main()\n"
    )
    root = str(Path(__file__).parents[1])
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("done")
        time.sleep(1)  # until the next one runs
        process.send_signal(signal.SIGTERM)
    assert archived(tmp_path / "out")["printed/done.txt"] == "1\n"
    running = subprocess.run(["pgrep", "-f", "sleep 612.5"], capture_output=True, check=False)
    assert running.stdout == b""


def test_a_summary_is_short_and_says_what_the_runs_say(tmp_path: Path) -> None:
    session = Session(tmp_path / "out", 60)
    planned = [python(f"run-{n}", "", run=f"runs/run-{n}") for n in range(6)]
    for step in planned:
        run = synthetic.run(synthetic.sweep(blocks=2))
        with Store.create(session._folder / step.run, run.manifest) as store:
            store.extend(run.records)
    session.run(planned)
    lines = session.summary()
    session.close()
    assert len(lines) <= SUMMARY_LINES
    assert max(map(len, lines)) <= WIDTH
    assert any("jax/scan-unroll-8 / dynamic" in line or "jax" in line for line in lines)
    assert "more lines; the archive has the runs" in "\n".join(lines)
    assert lines[-1].startswith(f"{tmp_path}")


def test_an_archive_that_would_be_too_large_leaves_out_what_was_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_session, "LARGEST_BYTES", 20_000)
    noise = "import os, sys; sys.stdout.write(os.urandom(100_000).hex())"
    session = Session(tmp_path / "out", 60)
    session.run([python("loud", noise), python("quiet", "open('run.txt', 'w').write('kept')")])
    session.close()
    assert (tmp_path / "out" / ARCHIVE).stat().st_size < 20_000
    files = archived(tmp_path / "out")
    assert files["run.txt"] == "kept"
    assert "log.txt" in files
    assert not any(name.startswith("printed") for name in files)
