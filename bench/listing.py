"""Lists of all choices: implementations, cells, presets, claims, devices."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from backends import BACKENDS, IMPLEMENTATIONS
from backends.cells import CELLS
from bench import gpus, run, support
from bench.claims.registry import CLAIMS
from bench.interpreters import OWN, Interpreters
from bench.preset import load_preset, preset_names

#: The backends that have something to compare, in registry order.
BACKENDS_COMPARED = [name for name in BACKENDS if support.compared(name)]


_DIRECTIONS = {
    "bidirectional": "LSTM layers that read both ways",
    "two-stacks": "LSTM layers that read one way, and as many the other",
}


def print_implementations(console: Console, interpreters: Interpreters = OWN) -> None:
    """Every implementation, and whether its framework is installed. Imports no framework."""
    table = _table("implementation", "kind", "what it is", "here")
    for entry in IMPLEMENTATIONS.values():
        reason = interpreters.missing(entry.backend)
        here = Text("installed") if reason is None else Text(reason, style="yellow")
        table.add_row(entry.name, entry.kind, Text(entry.strategy.title), here)
    console.print(table)


def print_cells(console: Console) -> None:
    """Every cell, and the strategies of each backend that compute it."""
    table = _table("cell", *BACKENDS_COMPARED)
    for label, case in support.rows().items():
        title = CELLS[case.cell].title if label == case.cell else _DIRECTIONS[case.direction]
        found = (Text(support.summary(backend, case)) for backend in BACKENDS_COMPARED)
        table.add_row(Text.assemble(label, "\n  ", (title, "dim")), *found)
    console.print(table)
    console.print(
        "* some of them in part: not in training, not in float64, or not on a CPU. What, and why\n"
        "  others do not compute it: python -m bench list --cells --markdown, or docs/support.md\n"
    )


def print_presets(console: Console) -> None:
    """Every preset with what it is for."""
    table = _table("preset", "what it is for")
    for name in preset_names():
        table.add_row(name, Text(load_preset(name).title))
    console.print(table)


def print_claims(console: Console) -> None:
    """Every claim with its source, and what would decide it."""
    table = _table("claim", "what it says", "what decides it")
    for claim in CLAIMS.values():
        sentence = Text.assemble(claim.sentence, "\n", (claim.source, "dim"))
        presets = f"\n{', '.join(claim.presets)}"
        table.add_row(claim.id, sentence, Text.assemble(claim.hypothesis, (presets, "dim")))
    console.print(table)


def print_devices(console: Console, interpreters: Interpreters = OWN) -> None:
    """Print the GPUs that the driver reports, and the devices that each framework can compute on.

    Starts a worker for each framework.
    """
    table = _table("backend", "device", "what it is", "versions")
    for gpu in gpus.found():
        table.add_row("(driver)", gpu.device, Text(gpu.words), "")
    for backend, info in run.describe_backends(interpreters=interpreters).items():
        if "error" in info:
            table.add_row(backend, "", Text(str(info["error"]), style="yellow"), "")
            continue
        versions = ", ".join(f"{name} {version}" for name, version in info["versions"].items())
        for device, words in info["devices"].items():
            table.add_row(backend, device, Text(str(words)), Text(versions))
        if BACKENDS[backend].extra is not None and info.get("no_gpu"):
            table.add_row(backend, "gpu", Text(info["no_gpu"], style="yellow"), "")
    console.print(table)


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
