"""Recurrent networks in several frameworks behind one interface. Importing this imports none."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable
from dataclasses import replace
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from backends.api import (
    Backend,
    BackendInfo,
    Batch,
    Case,
    Implementation,
    Mode,
    Output,
    State,
    Unavailable,
    Unsupported,
    Weights,
)

#: Adding a framework is one folder with an `INFO` and one line here.
_PACKAGES = (
    "backends.reference",
    "backends.tensorflow",
    "backends.torch",
    "backends.jax",
    "backends.onnx",
)

#: Importable modules with an `INFO`, separated by commas: backends that live outside this tree.
EXTRA_VARIABLE = "RNN_BENCH_EXTRA_BACKENDS"


def _infos() -> list[BackendInfo]:
    extra = os.environ.get(EXTRA_VARIABLE, "")
    names = [*_PACKAGES, *(name for name in extra.split(",") if name)]
    try:
        return [import_module(name).INFO for name in names]
    except (ImportError, AttributeError) as error:
        if not extra:
            raise
        raise ImportError(f"{EXTRA_VARIABLE} {extra!r}: {error}", name=EXTRA_VARIABLE) from error


BACKENDS: dict[str, BackendInfo] = {info.name: info for info in _infos()}

IMPLEMENTATIONS: dict[str, Implementation] = {
    implementation.name: implementation
    for info in BACKENDS.values()
    for implementation in (
        Implementation(backend=info.name, strategy=strategy) for strategy in info.strategies
    )
}


def missing(backend: str, packages: Container[str] | None = None, python: str = "") -> str | None:
    """Reason why a backend cannot run here, with the install line, or None. Imports no framework.

    `packages` are those of another interpreter, `python` its path.
    """
    info = BACKENDS[backend]
    there = (lambda name: name in packages) if packages is not None else _installed
    lacking = [name for name in info.requires if not there(name)]
    if not lacking:
        return None
    return f"{', '.join(lacking)} not installed: {install_line(info.extra or 'all', python)}"


def install_line(extra: str, python: str = "") -> str:
    """Command that installs an extra, in the project's folder; for this interpreter, or another."""
    pip = f"{python} -m pip" if python else "pip"
    return f"{pip} install -c constraints.txt -e '.[{extra}]'"


def _installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def create(backend: str, *, threads: int = 1) -> Backend:
    """Import a backend's framework and return its adapter.

    The backend's environment variables are set first, where they are not yet: a framework reads
    them once, when it is imported. Raises `Unavailable` where a package is missing.
    """
    reason = missing(backend)
    if reason is not None:
        raise Unavailable(f"{backend}: {reason}")
    info = BACKENDS[backend]
    for name, value in info.environment(threads).items():
        os.environ.setdefault(name, value)
    created: Backend = import_module(info.module).create(threads)
    return created


_created: dict[str, Backend] = {}


def evaluate(
    implementation: str,
    case: Case,
    weights: Weights,
    batch: Batch,
    initial_state: State | None = None,
) -> Output:
    """Run one forward pass in this process and return it.

    `initial_state` replaces the batch's. Returns outputs [B, T, H] and the final state of the L
    layers. Raises `KeyError` for an unknown implementation, `Unsupported` where it cannot express
    the case, `Unavailable` where its framework is not installed, `ValueError` for a batch that
    does not fit the case.
    """
    entry = IMPLEMENTATIONS[implementation]
    if initial_state is not None:
        batch = replace(batch, initial_state=initial_state)
    if entry.backend not in _created:
        _created[entry.backend] = create(entry.backend)
    runner = _created[entry.backend].build(case, entry.strategy.name, "forward")
    try:
        runner.load(weights)
        runner.bind(batch)
        out = runner.forward()
        runner.sync(out)
        return runner.fetch(out)
    finally:
        runner.close()


def refusal(implementation: str, case: Case, mode: Mode) -> str | None:
    """Reason why an implementation cannot express a case in a mode, or None; imports nothing."""
    entry = IMPLEMENTATIONS[implementation]
    return BACKENDS[entry.backend].refusal(entry.strategy.name, case, mode)


def of_kind(kinds: Iterable[str]) -> list[Implementation]:
    """The implementations of these kinds, in registry order."""
    wanted = set(kinds)
    return [entry for entry in IMPLEMENTATIONS.values() if entry.kind in wanted]


__all__ = [
    "BACKENDS",
    "IMPLEMENTATIONS",
    "Backend",
    "BackendInfo",
    "Batch",
    "Case",
    "Implementation",
    "Output",
    "State",
    "Unavailable",
    "Unsupported",
    "Weights",
    "create",
    "evaluate",
    "install_line",
    "missing",
    "of_kind",
    "refusal",
]
