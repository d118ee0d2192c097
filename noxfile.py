"""Sessions: `bench` measures, `tests` checks, `lint` and `types` read. Plain pip, pinned versions.

`bench` and `tests` run in the environment of the session `frameworks`, since the frameworks take
3 GB. An environment is installed again only when pyproject.toml or constraints.txt changed.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "types", "tests"]

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


def _run_with_frameworks(session: nox.Session, *arguments: str) -> None:
    """Run a module with the interpreter of the session `frameworks`."""
    python = session.cache_dir.parent / "frameworks" / "bin" / "python"
    session.run(str(python), "-m", *arguments, external=True)


@nox.session
def frameworks(session: nox.Session) -> None:
    """Install the frameworks and what the tests need; `bench` and `tests` do this by themselves."""
    _install_once(session, "--editable", ".[all,test]")


@nox.session(venv_backend="none", requires=["frameworks"])
def bench(session: nox.Session) -> None:
    """Measure a sweep: `nox -s bench -- --preset smoke`; arguments as in `python -m bench run`."""
    _run_with_frameworks(session, "bench", "run", *session.posargs)


@nox.session(venv_backend="none", requires=["frameworks"])
def tests(session: nox.Session) -> None:
    """Run the tests; arguments go to pytest."""
    _run_with_frameworks(session, "pytest", "-n", "2", "--dist", "loadgroup", *session.posargs)


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
