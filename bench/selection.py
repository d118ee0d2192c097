"""A preset and the words of a command line -> a `Sweep` that this host can run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from backends import IMPLEMENTATIONS, install_line
from bench import machine
from bench.axes import Axes
from bench.errors import UsageError
from bench.interpreters import OWN, Interpreters
from bench.preset import load_preset
from bench.support import compared
from bench.sweep import Sweep


def select(
    preset: str,
    axes: Mapping[str, tuple[Any, ...]],
    *,
    sampling: Mapping[str, Any] | None = None,
    capped: bool = True,
) -> Sweep:
    """The preset with what was named on the command line put in its place.

    `sampling` may name what `Sampling.but` takes; None leaves the preset's.

    Raises `UsageError` for an unknown preset or value, and for a choice of backends and strategies
    that leaves a named one without any implementation.
    """
    base = load_preset(preset)
    if "threads" not in axes:
        base = _on_this_host(base)
    sweep = replace(
        base,
        axes=replace(base.axes, **axes),
        more=_more(base, axes),
        sampling=base.sampling.but(**(sampling or {})),
        caps=base.caps if capped else {},
    )
    _check_chosen(sweep, axes)
    return sweep


def _on_this_host(base: Sweep) -> Sweep:
    """A preset with as many threads as it says, and as there are CPUs at most."""
    cpus = len(machine.available_cpus())

    def few(axes: Axes) -> Axes:
        return replace(axes, threads=tuple(dict.fromkeys(min(n, cpus) for n in axes.threads)))

    return replace(base, axes=few(base.axes), more=tuple(map(few, base.more)))


def _more(base: Sweep, named: Mapping[str, tuple[Any, ...]]) -> tuple[Axes, ...]:
    """The preset's further cases with what was named; not those that differ in what was named."""
    return tuple(
        replace(axes, **named)
        for axes in base.more
        if all(getattr(axes, name) == getattr(base.axes, name) for name in named)
    )


def _check_chosen(sweep: Sweep, named: Mapping[str, tuple[Any, ...]]) -> None:
    """Check that every named choice takes part: one that comes to nothing is a mistake."""
    chosen = sweep.implementations()
    wanted = ", ".join(sweep.axes.strategy)
    for backend in named.get("backend", ()):
        if all(entry.backend != backend for entry in chosen):
            has = ", ".join(_strategies(backend))
            raise UsageError(f"backend {backend}: has no strategy {wanted}; it has {has}")
    for strategy in named.get("strategy", ()):
        if all(entry.strategy.name != strategy for entry in chosen):
            if strategy in _of_gpus(sweep.axes.backend):
                raise UsageError(f"strategy {strategy}: on a GPU alone, with --device gpu")
            among = "; ".join(f"{b} has {', '.join(_strategies(b))}" for b in sweep.axes.backend)
            raise UsageError(f"strategy {strategy}: no chosen backend has it; {among}")
    if not chosen:
        raise UsageError(f"preset {sweep.name}: its backends have none of its strategies")


def _strategies(backend: str) -> list[str]:
    strategies = [entry.strategy for entry in compared(backend)]
    return [f"{s.name} (on a GPU alone)" if s.of_gpus else s.name for s in strategies]


def _of_gpus(backends: Collection[str]) -> set[str]:
    """The strategies of backends, or of all, that compute on a GPU alone."""
    entries = [e for e in IMPLEMENTATIONS.values() if not backends or e.backend in backends]
    return {entry.strategy.name for entry in entries if entry.strategy.of_gpus}


def absent_backends(sweep: Sweep, interpreters: Interpreters = OWN) -> dict[str, str]:
    """Reasons why chosen backends cannot run here, by backend."""
    reasons = ((backend, interpreters.missing(backend)) for backend in sweep.backends())
    return {backend: reason for backend, reason in reasons if reason is not None}


def check_installed(sweep: Sweep, named: Collection[str], interpreters: Interpreters = OWN) -> None:
    """Raise `UsageError`, with the install line, where a named backend or all of them are missing.

    One that is missing and was not named does not stop the others: the run says that it is.
    """
    absent = absent_backends(sweep, interpreters)
    for backend in named:
        if backend in absent:
            raise UsageError(f"backend {backend}: {absent[backend]}")
    if all(entry.backend in absent for entry in sweep.implementations()):
        raise UsageError("no framework is installed: " + install_line("all"))
