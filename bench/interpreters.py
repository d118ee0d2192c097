"""Which interpreter each framework's workers run under.

What TensorFlow, PyTorch and JAX ask of CUDA collides in one environment, so that each may have one
of its own. `python -m bench.interpreters` says, as JSON, what the interpreter has that runs it.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backends import BACKENDS, install_line, missing
from bench import machine, strict
from bench.errors import UsageError, choose

#: An interpreter that imports NumPy and pandas for longer than this is taken for hung.
_PROBE_LIMIT_S = 120.0

#: The folder of this code, where it is a checkout and no folder of installed packages.
_CHECKOUT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, kw_only=True)
class Interpreter:
    """One that was named: its path, Python's version, and the packages that move figures."""

    path: str
    python: str
    versions: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Interpreters:
    """Backend -> interpreter. Whoever is not named runs under the one that runs this."""

    named: Mapping[str, Interpreter] = field(default_factory=dict)

    def path(self, backend: str) -> str:
        found = self.named.get(backend)
        return sys.executable if found is None else found.path

    def missing(self, backend: str) -> str | None:
        """Reason why a backend cannot run here, with the install line, or None; imports nothing."""
        found = self.named.get(backend)
        return missing(backend) if found is None else missing(backend, found.versions, found.path)

    def versions(self) -> dict[str, str]:
        """Versions of packages: this interpreter's, and of a named one what its backend needs."""
        versions = machine.versions()
        for backend, found in self.named.items():
            for name in BACKENDS[backend].requires:
                versions.pop(name, None)
                if name in found.versions:
                    versions[name] = found.versions[name]
        return dict(sorted(versions.items()))

    def to_json(self) -> dict[str, Any]:
        """Named interpreters as they stand in a manifest."""
        return {
            backend: {"path": i.path, "python": i.python, "versions": dict(i.versions)}
            for backend, i in sorted(self.named.items())
        }

    @classmethod
    def of_paths(cls, paths: Mapping[str, Path]) -> Interpreters:
        """Ask each what it has.

        Raises `UsageError` for one that is not there, or that cannot run this code.
        """
        known: dict[Path, Interpreter] = {}
        for backend, path in paths.items():
            choose("backend of --python", backend, BACKENDS)
            if path not in known:
                known[path] = _ask(f"--python {backend}={path}", path)
        return cls(named={backend: known[path] for backend, path in paths.items()})

    @classmethod
    def everywhere(cls, path: Path, backends: Sequence[str]) -> Interpreters:
        """One for all of these. Raises as `of_paths` does."""
        return cls(named=dict.fromkeys(backends, _ask(f"interpreter {path}", path)))

    @classmethod
    def again(cls, data: object) -> Interpreters:
        """Ask those that `to_json` wrote down what they have now. Raises `UsageError`."""
        try:
            given = strict.mapping({} if data is None else data, "interpreters")
            paths = {
                choose("backend", name, BACKENDS): Path(
                    strict.text(strict.mapping(entry, name).get("path"), f"{name}, path")
                )
                for name, entry in given.items()
            }
        except ValueError as error:
            raise UsageError(f"interpreters not readable ({error})") from error
        return cls.of_paths(paths)


OWN = Interpreters()


def environment_of(python: str) -> dict[str, str]:
    """The caller's variables; in a checkout another interpreter finds this very code, too.

    (Where it is installed, the folder would bring this environment's other packages along.)
    """
    if python == sys.executable or not (_CHECKOUT / "pyproject.toml").is_file():
        return dict(os.environ)
    others = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(_CHECKOUT), *filter(None, [others])])}


def _ask(where: str, path: Path) -> Interpreter:
    """Ask an interpreter for its description; `where` begins the error's line."""
    if not path.is_file():
        raise UsageError(f"{where}: is not there")
    try:
        done = subprocess.run(
            [str(path), "-m", "bench.interpreters"],
            env=environment_of(str(path)),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PROBE_LIMIT_S,
            check=False,
        )
    except OSError as error:
        raise UsageError(f"{where}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise UsageError(f"{where}: no answer within {_PROBE_LIMIT_S:.0f} s") from error
    try:
        return _read(path, done.stdout)
    except ValueError as error:
        last = done.stderr.strip().rpartition("\n")[2] if done.returncode else str(error)
        line = install_line("report", str(path))
        raise UsageError(f"{where}: cannot run this project ({last:.200}); {line}") from error


def _read(path: Path, answer: str) -> Interpreter:
    """Read the last line that `main` printed. Raises `ValueError` for anything else.

    The path is the one that was named: a script around an interpreter sets what it needs.
    """
    said = strict.mapping(json.loads(answer.strip().rpartition("\n")[2]), "its answer")
    if said.get("code") != _own_code():
        raise ValueError(f"it has another version of this project, {said.get('code')}")
    versions = strict.mapping(said.get("versions"), "versions")
    return Interpreter(
        path=str(path),
        python=strict.text(said.get("python"), "python"),
        versions={name: strict.text(version, name) for name, version in versions.items()},
    )


def _own_code() -> str:
    """Fingerprint of this code: a checkout is shared between interpreters."""
    if (_CHECKOUT / "pyproject.toml").is_file():
        return str(_CHECKOUT)
    return machine.project_version()


def main() -> None:
    """Say what this interpreter has."""
    said = {
        "python": platform.python_version(),
        "versions": machine.versions(),
        "code": _own_code(),
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main()
