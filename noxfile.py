"""Sessions: `bench` and `claims` measure, `tests` and `browser` check, `lint` and `types` read.

Plain pip, pinned versions. The first three run in the environment of the session `frameworks`,
since the frameworks take 3.6 GB. An environment is installed again only when pyproject.toml or
constraints.txt changed.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
from collections.abc import Callable
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


def _install_once(session: nox.Session, *arguments: str) -> None:
    """Install into the session's environment, unless it has just this already."""
    wanted = hashlib.sha256("\n".join(arguments).encode())
    for path in (PROJECT, CONSTRAINTS):
        wanted.update(path.read_bytes())
    stamp = Path(session.virtualenv.location, "installed.sha256")
    if stamp.is_file() and stamp.read_text() == wanted.hexdigest():
        session.log("the environment is up to date")
        return
    session.install("--constraint", str(CONSTRAINTS), *arguments)
    stamp.write_text(wanted.hexdigest())


def _run_with_frameworks(
    session: nox.Session, *arguments: str, codes: tuple[int, ...] = (0,)
) -> None:
    """Run a module with the interpreter of the session `frameworks`; it may end with any code."""
    python = session.cache_dir.parent / "frameworks" / "bin" / "python"
    session.run(str(python), "-m", *arguments, external=True, success_codes=list(codes))


@nox.session
def frameworks(session: nox.Session) -> None:
    """Install the frameworks and what the tests need; `bench` and `tests` do this by themselves."""
    _install_once(session, "--editable", ".[all,test]")


@nox.session(venv_backend="none", requires=["frameworks"])
def bench(session: nox.Session) -> None:
    """Measure a sweep: `nox -s bench -- --preset smoke`; arguments as in `python -m bench run`."""
    _run_with_frameworks(session, "bench", "run", *session.posargs)


@nox.session(venv_backend="none", requires=["frameworks"])
def claims(session: nox.Session) -> None:
    """Judge what others claim: `nox -s claims -- T4`; measures what decides it first.

    Statuses 1 and 3 are verdicts (refuted, inconclusive) and no failures of the session.
    """
    _run_with_frameworks(session, "bench", "claims", "--run", *session.posargs, codes=(0, 1, 3))


@nox.session(venv_backend="none", requires=["frameworks"])
def tests(session: nox.Session) -> None:
    """Run the tests; arguments go to pytest."""
    _run_with_frameworks(session, "pytest", "-n", "2", "--dist", "loadgroup", *session.posargs)


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
    location = session.cache_dir.parent / folder
    python = str(location / "bin" / "python")
    if not Path(python).exists():
        session.run(sys.executable, "-m", "virtualenv", "--quiet", str(location), external=True)
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
