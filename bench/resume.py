"""Conditions under which a run may be resumed, and the differences that prevent it.

Records of another host, of other versions or settings cannot stand in one run: their ratios would
look like those of one machine.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from typing import Any

from bench.errors import UsageError
from bench.hosts import leaves
from bench.store import mapping_in
from bench.sweep import Sweep

#: The parts of a manifest's `host` that make two hosts one.
_HOST = (
    *("hostname", "cpu", "cpu_model", "vectors", "caches"),
    *("cores", "memory_bytes", "system", "machine", "python", "gpus"),
)

#: The other parts of a manifest that must be the same.
_SETTINGS = (*("versions", "interpreters", "start", "environment", "inherited", "commit"),)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Differences that keep records out of one run, a line each: `start: fork then, spawn now`.

    `old` and `new` are manifests. How many CPUs the workers have counts, not which.
    """
    then, now = dict(_parts(old)), dict(_parts(new))
    return [
        f"{name}: {_said(then.get(name))} then, {_said(now.get(name))} now"
        for name in dict.fromkeys([*then, *now])
        if then.get(name) != now.get(name)
    ]


def _parts(manifest: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Compared values and their names; no value is an object."""
    known = mapping_in(manifest, "host")
    yield from ((f"host {name}", known.get(name)) for name in _HOST)
    cpus = manifest.get("cpus")
    yield "cpus", len(cpus) if isinstance(cpus, list | tuple) else cpus
    for name in _SETTINGS:
        yield from leaves(name, manifest.get(name))


def _said(value: object) -> str:
    if value is None:
        return "none"
    return f"{value:.200}" if isinstance(value, str) else reprlib.repr(value)


def require_same(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raise `UsageError` with every difference, in one line, where there is any."""
    found = differences(old, new)
    if found:
        run = _said(old.get("id"))
        raise UsageError(f"run {run}: cannot be resumed here; {'; '.join(found)}")


def sweep_of(manifest: Mapping[str, Any]) -> Sweep:
    """Sweep of a run. Raises `UsageError` if the manifest has none."""
    try:
        return Sweep.from_json(manifest.get("sweep"))
    except UsageError as error:
        raise UsageError(f"run {_said(manifest.get('id'))}: {error}") from error
