"""What sessions install and run, told to a session that only takes notes."""

from __future__ import annotations

import importlib.util
import itertools
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def noxfile() -> ModuleType:
    """The file, read once: its sessions are registered where nox finds them."""
    spec = importlib.util.spec_from_file_location("the_noxfile", ROOT / "noxfile.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Session:
    """Creates what virtualenv would, and notes the rest."""

    def __init__(self, folder: Path, *posargs: str) -> None:
        self.cache_dir = folder / ".cache"
        self.posargs = list(posargs)
        self.ran: list[tuple[str, ...]] = []
        self.codes: list[int] = []

    def run(self, *words: str, external: bool, success_codes: list[int] | None = None) -> None:
        assert external
        self.ran.append(words)
        self.codes = success_codes or [0]
        if words[1:3] == ("-m", "virtualenv"):
            python = Path(words[-1]) / "bin" / "python"
            python.parent.mkdir(parents=True)
            python.touch()

    @property
    def installed(self) -> dict[str, str]:
        """Environment -> what was installed into it."""
        pip = [words for words in self.ran if words[1:4] == ("-m", "pip", "install")]
        assert all("constraints.txt" in words for words in pip)
        return {Path(words[0]).parent.parent.name: words[-1] for words in pip}


def session_of(noxfile: ModuleType, name: str) -> Any:
    return getattr(noxfile, name).func


@pytest.mark.parametrize("device", ["cpu", "gpu:1"])
@pytest.mark.parametrize("form", ["--resume {}", "--resume={}"])
def test_a_run_on_a_gpu_is_resumed_from_where_it_was_started(
    noxfile: ModuleType, tmp_path: Path, device: str, form: str
) -> None:
    """With the interpreters that its manifest names, and no others."""
    run = tmp_path / "run"
    run.mkdir()
    manifest = {"sweep": {"axes": {"device": ["cpu", device]}}}
    (run / "manifest.json").write_text(json.dumps(manifest))
    words = form.format(run).split()
    session = Session(tmp_path, *words)
    session_of(noxfile, "bench")(session)
    home = "frameworks" if device == "cpu" else "gpu-parent"
    assert list(session.installed) == [home]
    assert session.ran[-1] == (str(tmp_path / home / "bin/python"), "-m", "bench", "run", *words)


def test_a_run_that_is_not_there_is_for_the_command_to_refuse(
    noxfile: ModuleType, tmp_path: Path
) -> None:
    session = Session(tmp_path, "--resume", str(tmp_path / "nowhere"))
    session_of(noxfile, "bench")(session)
    assert list(session.installed) == ["frameworks"]


@pytest.mark.parametrize(
    ("words", "gpu"),
    [
        ((), False),
        (("--device", "cpu"), False),
        (("--device", "gpu"), True),
        (("--device=cpu,gpu:1", "--blocks", "2"), True),
        (("--cell", "gpu"), False),
        (("--device",), False),
        (("--preset", "claims-gpu"), True),
        (("--preset=claims-gpu", "--device", "cpu"), False),
        (("--preset", "smoke"), False),
        (("--preset", "no-such-thing"), False),
    ],
)
def test_on_a_gpu_each_framework_has_an_environment_of_its_own(
    noxfile: ModuleType, tmp_path: Path, words: tuple[str, ...], gpu: bool
) -> None:
    session = Session(tmp_path, *words)
    session_of(noxfile, "bench")(session)
    frameworks = {f"gpu-{name}": f".[gpu-{name}]" for name in ("tensorflow", "torch", "jax")}
    wanted = (
        {"gpu-parent": ".[report,gpu,onnx]", **frameworks} if gpu else {"frameworks": ".[all,test]"}
    )
    assert session.installed == wanted
    *_, (python, *rest) = session.ran
    home = tmp_path / ("gpu-parent" if gpu else "frameworks")
    assert python == str(home / "bin" / "python")
    assert rest[:3] == ["-m", "bench", "run"]
    named = [word for before, word in itertools.pairwise(rest) if before == "--python"]
    pythons = [f"{n}={tmp_path}/gpu-{n}/bin/python" for n in ("tensorflow", "torch", "jax")]
    assert named == (pythons if gpu else [])
    assert rest[len(rest) - len(words) :] == list(words)


def test_an_environment_is_made_once_and_again_for_other_packages(
    noxfile: ModuleType, tmp_path: Path
) -> None:
    for _ in range(2):
        first = Session(tmp_path)
        noxfile._environment(first, "x", "a")
    assert first.ran == []
    other = Session(tmp_path)
    noxfile._environment(other, "x", "b")
    assert other.installed == {"x": "b"}
    assert len(other.ran) == 1


@pytest.mark.parametrize("driver", [None, "/usr/bin/nvidia-smi"])
def test_verdicts_are_no_failures_of_a_session(
    noxfile: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver: str | None
) -> None:
    monkeypatch.setattr(noxfile.shutil, "which", lambda _name: driver)
    session = Session(tmp_path, "T4")
    session_of(noxfile, "claims")(session)
    assert session.codes == [0, 1, 3]
    assert session.ran[-1][2:5] == ("bench", "claims", "--run")
    assert session.ran[-1][-1] == "T4"
    assert ("gpu-torch" in session.installed) == (driver is not None)


def test_every_extra_that_a_session_installs_is_there(noxfile: ModuleType) -> None:
    extras = noxfile.nox.project.load_toml(ROOT / "pyproject.toml")["project"]
    names = extras["optional-dependencies"].keys()
    assert {f"gpu-{name}" for name in noxfile.ON_GPU} <= names
