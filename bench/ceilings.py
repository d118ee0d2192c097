"""The peaks of a host, measured once a run: parent side of `bench.peaks`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from backends import IMPLEMENTATIONS, refusal
from backends.api import Case
from bench import strict
from bench.launch import Team
from bench.peaks import Peaks, best
from bench.record import Status
from bench.sources import WorkerDied, WorkerHung
from bench.sweep import Sweep

#: Some products and readings of memory take a second; a framework may compile them first.
PEAKS_LIMIT_S = 120.0


def kind_of_work(case: Case) -> str:
    """The peaks that answer for a case, by name: `cpu float32`, `gpu float32 tf32`."""
    more = [" tf32"] * (case.tf32 == "on") + [f" {case.threads} threads"] * (case.threads > 1)
    return f"{case.device} {case.dtype}{''.join(more)}"


def measure_ceilings(team: Team, sweep: Sweep, backends: Collection[str]) -> dict[str, Any]:
    """The best of what each backend with bare products reaches, by kind of work, as JSON.

    Of a kind that nothing here can measure there is no entry, and no figure of it is doubted.
    """
    found: dict[str, Any] = {}
    for case in {kind_of_work(case): case for case in sweep.cases()}.values():
        names = [
            entry.backend
            for entry in IMPLEMENTATIONS.values()
            if entry.kind == "limit"
            and entry.backend in backends
            and refusal(entry.name, case, "forward") is None
        ]
        measured = [peaks for name in names if (peaks := _ask(team, name, case)) is not None]
        if measured:
            found[kind_of_work(case)] = best(*measured).to_json()
    return found


def _ask(team: Team, backend: str, case: Case) -> Peaks | None:
    message = {"op": "peaks", "device": case.device, "dtype": case.dtype, "tf32": case.tf32}
    try:
        with team.worker(backend, case.threads) as worker:
            reply = worker.request(message, limit_s=PEAKS_LIMIT_S)
    except (WorkerDied, WorkerHung):
        return None
    return Peaks.from_json(reply["peaks"]) if reply["status"] == Status.OK else None


def ceilings(manifest: Mapping[str, Any]) -> dict[str, Peaks]:
    """The peaks that a manifest holds, by kind of work. Raises `ValueError` for other content."""
    held = strict.mapping(manifest.get("peaks", {}), "peaks")
    return {name: Peaks.from_json(data) for name, data in held.items()}
