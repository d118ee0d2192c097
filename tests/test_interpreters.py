"""Frameworks in environments of their own: who runs where, and what is said of one that cannot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import pytest

from bench import cli, run
from bench.errors import UsageError
from bench.interpreters import OWN, Interpreters, environment_of
from bench.selection import select
from bench.store import read_run

ROOT = Path(__file__).parent.parent
SITE = Path(sysconfig.get_path("purelib"))
FRAMEWORKS = ("torch", "tensorflow", "jax", "jaxlib", "tf_keras", "keras", "onnx", "onnxruntime")


def environment(folder: Path, *without: str) -> Path:
    """An environment with all that this one has, but for some packages; its interpreter."""
    venv.EnvBuilder(symlinks=True, with_pip=False).create(folder)
    (site,) = folder.glob("lib/python*/site-packages")
    for path in SITE.iterdir():
        name = path.name.partition("-")[0].lower()
        if name not in without and not path.name.startswith(("_rnn_bench", "__pycache__")):
            (site / path.name).symlink_to(path)
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter without any framework."""
    return environment(tmp_path_factory.mktemp("bare") / "env", *FRAMEWORKS)


@pytest.fixture(scope="module")
def with_torch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with PyTorch as its only framework."""
    others = [name for name in FRAMEWORKS if name != "torch"]
    return environment(tmp_path_factory.mktemp("torch") / "env", *others)


def bench(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(python), "-m", "bench", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_run_without_any_framework_measures_in_another_environment(
    bare: Path, with_torch: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = bench(
        bare,
        *("run", "--preset", "smoke", "--strategy", "dynamic"),
        *("--mode", "forward", "--python", f"torch={with_torch}", "--out", str(out)),
    )
    assert done.returncode == 0, done.stderr
    found = read_run(out)
    ends = {
        (r.job.backend, str(r.status))
        for r in found.records
        if r.job.implementation.endswith("/dynamic")
    }
    assert ends == {("torch", "ok"), ("jax", "unavailable"), ("tensorflow", "unavailable")}
    (jax,) = {r.reason for r in found.records if r.job.backend == "jax"}
    assert jax == "jax, jaxlib not installed: pip install -c constraints.txt -e '.[jax]'"
    manifest = found.manifest
    torch = manifest["interpreters"]["torch"]
    assert torch["path"] == str(with_torch)
    assert manifest["interpreters"].keys() == {"torch"}
    assert manifest["versions"]["torch"] == torch["versions"]["torch"]
    assert "jax" not in manifest["versions"]
    assert manifest["backends"]["torch"]["versions"]["torch"] == torch["versions"]["torch"]


def test_what_an_interpreter_lacks_is_said_with_the_line_that_installs_it_there(
    bare: Path, tmp_path: Path
) -> None:
    done = bench(
        Path(sys.executable),
        *("run", "--backend", "torch", "--python", f"torch={bare}", "--out", str(tmp_path / "out")),
    )
    assert done.returncode == 2
    line = f"{bare} -m pip install -c constraints.txt -e '.[torch]'"
    assert done.stderr == f"bench: error: backend torch: torch not installed: {line}\n"
    assert not (tmp_path / "out").exists()


def test_list_says_which_interpreter_has_a_framework(bare: Path, with_torch: Path) -> None:
    done = bench(bare, "list", "--devices", "--python", f"torch={with_torch}")
    assert done.returncode == 0, done.stderr
    said = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert "not installed" in said["jax"]
    assert "CPU" in done.stdout.partition("torch")[2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["torch"], "python 'torch': must be BACKEND=PATH"),
        (["=x"], "python '=x': must be BACKEND=PATH"),
        (["torch="], "python 'torch=': must be BACKEND=PATH"),
        (["tourch=x"], "'tourch' (did you mean torch?)"),
        (["torch=a", "torch=b"], "python 'torch=b': torch is given twice"),
        (["torch=nowhere/python"], "nowhere/python: is not there"),
        (["torch=file"], "file: Permission denied"),
        (["torch=silent"], "cannot run this project (its answer is"),
        (["torch=broken"], "cannot run this project (no module named x); "),
        (["torch=strange"], "cannot run this project (it has another version of this project, y)"),
    ],
)
@pytest.mark.parametrize("command", [["run"], ["claims", "--run"], ["list"]])
def test_a_word_that_names_no_interpreter_is_one_line(
    command: list[str],
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    scripts = {
        "silent": "echo 5",
        "broken": "echo trace >&2; echo 'no module named x' >&2; exit 1",
        "strange": 'echo \'{"code": "y"}\'',
    }
    for name, body in scripts.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    flags = [part for word in words for part in ("--python", word)]
    before = sorted(tmp_path.rglob("*"))
    assert cli.main([*command, *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert sorted(tmp_path.rglob("*")) == before


def test_a_script_around_an_interpreter_is_what_workers_are_started_with(tmp_path: Path) -> None:
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nFLAG=1 exec {sys.executable} "$@"\n')
    script.chmod(0o755)
    assert Interpreters.of_paths({"torch": script}).path("torch") == str(script)


def test_interpreters_go_with_measuring(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["claims", str(tmp_path), "--python", f"torch={sys.executable}"]) == 2
    assert "--python: goes with --run" in capsys.readouterr().err


def test_a_run_is_resumed_under_its_interpreters_and_not_under_changed_ones() -> None:
    found = Interpreters.of_paths({"torch": Path(sys.executable)})
    assert Interpreters.again(json.loads(json.dumps(found.to_json()))) == found
    assert Interpreters.again(None) == OWN
    plan = select("smoke", {"backend": ("torch",)})
    here = run.conditions(plan, start="fork", interpreters=found)
    assert here["interpreters"]["torch"]["versions"] == here["versions"]
    older: Any = json.loads(json.dumps(here))
    older["interpreters"]["torch"]["versions"]["numpy"] = "1.0"
    with pytest.raises(UsageError, match=r"interpreters torch versions numpy: 1.0 then"):
        run.require_same(older, here)


@pytest.mark.parametrize(
    "data", [5, {"torch": 5}, {"torch": {}}, {"tourch": {"path": "x"}}, {"torch": {"path": "/no"}}]
)
def test_a_manifest_with_interpreters_that_are_none_is_refused(data: object) -> None:
    with pytest.raises(UsageError):
        Interpreters.again(data)


def test_another_interpreter_finds_this_code_before_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    assert environment_of(sys.executable)["PYTHONPATH"] == "/elsewhere"
    assert environment_of("/x/python")["PYTHONPATH"] == f"{ROOT}{os.pathsep}/elsewhere"
