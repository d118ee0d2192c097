"""Sessions: `bench` measures, `tests` checks, `lint` and `types` read. Plain pip, pinned versions.

`bench` and `tests` share one environment, since the three frameworks take 3 GB. It is installed
again only when pyproject.toml or constraints.txt changed.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = True
nox.options.sessions = ["lint", "types", "tests"]

CONSTRAINTS = Path("constraints.txt")
FRAMEWORKS = ".nox/frameworks"


def _install_once(session: nox.Session, *arguments: str) -> None:
    """Install into the session's environment, unless it has just this already."""
    wanted = hashlib.sha256("\n".join(arguments).encode())
    for path in (Path("pyproject.toml"), CONSTRAINTS):
        wanted.update(path.read_bytes())
    stamp = Path(session.virtualenv.location, "installed.sha256")
    if stamp.is_file() and stamp.read_text() == wanted.hexdigest():
        session.log("the environment is up to date")
        return
    session.install("-c", str(CONSTRAINTS), *arguments)
    stamp.write_text(wanted.hexdigest())


@nox.session(venv_location=FRAMEWORKS)
def bench(session: nox.Session) -> None:
    """Measure a sweep: `nox -s bench -- --preset smoke`; arguments as in `python -m bench run`."""
    _install_once(session, "-e", ".[all,test]")
    session.run("python", "-m", "bench", "run", *session.posargs)


@nox.session(venv_location=FRAMEWORKS)
def tests(session: nox.Session) -> None:
    """Run the tests; arguments go to pytest."""
    _install_once(session, "-e", ".[all,test]")
    session.run("pytest", "-n", "2", "--dist", "loadgroup", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff: rules and format."""
    _install_once(session, "ruff>=0.8")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Mypy, strict, without the frameworks."""
    _install_once(session, "-e", ".[report,types]")
    session.run("mypy")
