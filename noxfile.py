"""Sessions: `bench` and `claims` measure, `tests` and `browser` check, `lint` and `types` read.

Plain pip, pinned versions. The first three run in one environment, `frameworks`, since it takes
3.6 GB; with `--device gpu` each framework has its own, since what they ask of CUDA collides. An
environment is installed again only when pyproject.toml or constraints.txt changed.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "types", "tests"]

#: Framework -> what pip is told for one of its versions.
FRAMEWORKS: dict[str, Callable[[str], list[str]]] = {
    "tensorflow": lambda wanted: [wanted, wanted.replace("tensorflow", "tf-keras")],
    "torch": lambda wanted: [wanted],
    "jax": lambda wanted: [wanted, wanted.replace("jax", "jaxlib")],
    "onnxruntime": lambda wanted: [wanted, "onnx"],
}

#: Framework -> what the project calls it, where that is another name.
BACKENDS = {"onnxruntime": "onnx"}

PROJECT = Path("pyproject.toml")
CONSTRAINTS = Path("constraints.txt")

#: The file that tells what an environment was made of.
STAMP = "installed.sha256"


#: The frameworks that run on a GPU, by what the project calls them.
ON_GPU = ("tensorflow", "torch", "jax")


def _stamp(*arguments: str) -> str:
    """What an environment is made of, as a few characters."""
    wanted = hashlib.sha256("\n".join(arguments).encode())
    for path in (PROJECT, CONSTRAINTS):
        wanted.update(path.read_bytes())
    return wanted.hexdigest()


def _install_once(session: nox.Session, *arguments: str) -> None:
    """Install into the session's environment, unless it has just this already."""
    stamp = Path(session.virtualenv.location, STAMP)
    if stamp.is_file() and stamp.read_text() == _stamp(*arguments):
        session.log("the environment is up to date")
        return
    session.install("--constraint", str(CONSTRAINTS), *arguments)
    stamp.write_text(_stamp(*arguments))


def _interpreter(session: nox.Session, name: str) -> str:
    """That of an environment beside the sessions' own, which is made if it is not there."""
    location = session.cache_dir.parent / name
    python = location / "bin" / "python"
    if not python.exists():
        session.run(sys.executable, "-m", "virtualenv", "--quiet", str(location), external=True)
    return str(python)


def _environment(session: nox.Session, name: str, *arguments: str) -> str:
    """An environment beside the sessions' own, installed once; its interpreter."""
    stamp = session.cache_dir.parent / name / STAMP
    python = _interpreter(session, name)
    if not (stamp.is_file() and stamp.read_text() == _stamp(*arguments)):
        pip = (python, "-m", "pip", "install", "--quiet", "--constraint", str(CONSTRAINTS))
        session.run(*pip, *arguments, external=True)
        stamp.write_text(_stamp(*arguments))
    return python


def _frameworks(session: nox.Session) -> str:
    """The interpreter of the environment with all frameworks and what the tests need."""
    return _environment(session, "frameworks", "--editable", ".[all,test]")


def _named(words: Sequence[str], option: str) -> list[str]:
    """What an option names, each time: `--device cpu,gpu`, `--device=gpu:1`."""
    named = [word.partition("=")[2] for word in words if word.startswith(f"{option}=")]
    return named + [word for before, word in itertools.pairwise(words) if before == option]


def _wants_gpu(words: Sequence[str]) -> bool:
    """Whether `--device` names a GPU, or else the preset does, or the run that is resumed."""
    devices = [part.strip() for word in _named(words, "--device") for part in word.split(",")]
    for name in _named(words, "--preset") if not devices else ():
        preset = Path(name) if name.endswith(".toml") else Path("bench", "presets", f"{name}.toml")
        if preset.is_file():
            devices += nox.project.load_toml(preset).get("axes", {}).get("device", ())
    for folder in _named(words, "--resume"):
        manifest = Path(folder, "manifest.json")
        if manifest.is_file():
            devices += json.loads(manifest.read_text())["sweep"]["axes"]["device"]
    return any(device.startswith("gpu") for device in devices)


def _measure(session: nox.Session, *command: str, gpu: bool, codes: Sequence[int] = (0,)) -> None:
    """Run a command that measures; on a GPU each framework in an environment of its own."""
    if gpu:
        python = _environment(session, "gpu-parent", "--editable", ".[report,gpu,onnx]")
        for name in ON_GPU if not _named(session.posargs, "--resume") else ():
            # A run that is resumed has its interpreters in its manifest.
            path = _environment(session, f"gpu-{name}", "--editable", f".[gpu-{name}]")
            command = (*command, "--python", f"{name}={path}")
    else:
        python = _frameworks(session)
    words = (python, "-m", "bench", *command, *session.posargs)
    session.run(*words, external=True, success_codes=list(codes))


@nox.session(venv_backend="none")
def frameworks(session: nox.Session) -> None:
    """Install the frameworks and what the tests need; `bench` and `tests` do this by themselves."""
    _frameworks(session)


@nox.session(venv_backend="none")
def bench(session: nox.Session) -> None:
    """Measure a sweep: `nox -s bench -- --preset smoke`; arguments as in `python -m bench run`.

    `nox -s bench -- --device gpu` makes an environment for each framework.
    """
    _measure(session, "run", gpu=_wants_gpu(session.posargs))


@nox.session(venv_backend="none")
def claims(session: nox.Session) -> None:
    """Judge what others claim: `nox -s claims -- T4`; measures what decides it first.

    Statuses 1 and 3 are verdicts (refuted, inconclusive) and no failures of the session. Where the
    driver of a GPU is there, each framework has an environment of its own.
    """
    gpu = shutil.which("nvidia-smi") is not None
    _measure(session, "claims", "--run", gpu=gpu, codes=(0, 1, 3))


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """Run the tests; arguments go to pytest."""
    words = (_frameworks(session), "-m", "pytest", "-n", "2", "--dist", "loadgroup")
    session.run(*words, *session.posargs, external=True)


@nox.session
def browser(session: nox.Session) -> None:
    """Open the report's page in a headless Chromium; the frameworks are not needed."""
    absent = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    if absent:
        session.error(
            f"{' and '.join(absent)} not found: "
            "apt-get install --no-install-recommends chromium chromium-driver"
        )
    _install_once(session, "--editable", ".[report,browser]")
    session.run("pytest", "tests/browser", *session.posargs)


@nox.session(venv_backend="none")
def compare(session: nox.Session) -> None:
    """Two versions of a framework side by side: `nox -s compare -- jax==0.10.0 jax==0.10.2`.

    Two environments, each with the one framework; what follows the two goes to `python -m bench
    versus`. Both are kept: another pair of the same framework installs that framework only.
    """
    requirements = [word for word in session.posargs[:2] if not word.startswith("-")]
    names = {re.split(r"[^A-Za-z0-9_-]", word)[0].lower() for word in requirements}
    if len(requirements) != 2 or len(names) != 1 or not names <= set(FRAMEWORKS):
        session.error(
            "name two versions of one framework, such as jax==0.10.0 jax==0.10.2; "
            f"frameworks: {', '.join(FRAMEWORKS)}"
        )
    (name,) = names
    pythons = [
        _environment_with(session, f"compare-{name}-{side}", name, requirement)
        for side, requirement in zip(("old", "new"), requirements, strict=True)
    ]
    folder = f"results/local/{datetime.now(UTC):%Y%m%d-%H%M%S}-{name}"
    out = () if "--out" in session.posargs else ("--out", folder)
    session.run(
        *(
            pythons[1],
            "-m",
            "bench",
            "versus",
            *pythons,
            "--backend",
            BACKENDS.get(name, name),
            *out,
        ),
        *session.posargs[2:],
        external=True,
        success_codes=[0, 3],
    )


def _environment_with(session: nox.Session, folder: str, name: str, requirement: str) -> str:
    """An environment of its own with one framework in the wanted version; its interpreter."""
    python = _interpreter(session, folder)
    packages = FRAMEWORKS[name](requirement)
    session.run(
        *(python, "-m", "pip", "install", "--quiet", "--editable", ".[report]", *packages),
        external=True,
    )
    return python


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff: rules and format."""
    extras = nox.project.load_toml(PROJECT)["project"]["optional-dependencies"]
    _install_once(session, *extras["lint"])
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Mypy, strict, without the frameworks."""
    _install_once(session, "--editable", ".[report,types]", "nox")
    session.run("mypy")
    session.run("mypy", "noxfile.py")
