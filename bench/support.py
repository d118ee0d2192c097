"""Which implementation computes which cell, and why not: asked of the registry, no framework."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import get_args

from backends import BACKENDS, IMPLEMENTATIONS, Implementation, refusal
from backends.api import CELL_NAMES, MODES, Case, Dtype, Lengths
from bench.axes import RANKED

#: As many inputs as hidden units, so that every cell has a case.
_CASE = Case(cell="lstm", seq_len=2, batch=2, inputs=8, hidden=8)

#: Those of the matrix, and those which everybody has the same exceptions in.
_DTYPES: tuple[Dtype, ...] = ("float32", "float64")
_HALVES: tuple[Dtype, ...] = ("bfloat16", "float16")


@dataclass(frozen=True, kw_only=True)
class Support:
    """Support of a cell by an implementation, over modes, lengths, dtypes, layers, devices.

    `refused` are the reasons of what is refused; `some` says that something is not. Where all is
    refused there is one reason: that of the simplest case.
    """

    some: bool
    refused: tuple[str, ...]


def rows() -> dict[str, Case]:
    """Rows of the matrix: every cell, and the LSTM in both directions."""
    cells = {name: replace(_CASE, cell=name) for name in CELL_NAMES}
    return {
        **cells,
        "lstm, bidirectional": replace(_CASE, direction="bidirectional"),
        "lstm, two stacks": replace(_CASE, direction="two-stacks"),
    }


def compared(backend: str) -> list[Implementation]:
    """A backend's implementations that are compared."""
    entries = (entry for entry in IMPLEMENTATIONS.values() if entry.backend == backend)
    return [entry for entry in entries if entry.kind in RANKED]


@cache
def support(implementation: str, case: Case) -> Support:
    """Support of a cell, given as any case of it, by an implementation."""
    axes = {
        "dtype": _DTYPES,
        "lengths": get_args(Lengths),
        "layers": (1, 2),
        "device": ("cpu", "gpu"),
    }
    reasons = [
        refusal(implementation, replace(case, **dict(zip(axes, values, strict=True))), mode)
        for mode, *values in itertools.product(MODES, *axes.values())
    ]
    refused = tuple(dict.fromkeys(reason for reason in reasons if reason is not None))
    if None in reasons:
        return Support(some=True, refused=refused)
    return Support(some=False, refused=refused[:1])


def summary(backend: str, case: Case) -> str:
    """In few words which of a backend's strategies compute a cell; * where some in part."""
    entries = compared(backend)
    part = "*" if any(_in_part(support(entry.name, case)) for entry in entries) else ""
    return f"{_computing(entries, case)}{part}"


def _in_part(found: Support) -> bool:
    return found.some and bool(found.refused)


def _computing(entries: Sequence[Implementation], case: Case) -> str:
    without = [e.strategy.name for e in entries if not support(e.name, case).some]
    if not without:
        return "all"
    if len(without) == len(entries):
        return "none"
    names = [entry.strategy.name for entry in entries]
    having = [name for name in names if name not in without]
    fewer = f"all but {', '.join(without)}"
    return fewer if len(without) < len(having) else ", ".join(having)


_HEAD = """# Which cell runs where

Made by `python -m bench list --cells --markdown` from what the implementations say that they cannot
express; a test compares this page with it. The conformance suite holds that everything else is
computed, and equal to the float64 oracle.

**yes**: forward and training, full and ragged, float32 and float64, one layer and more, on a CPU
and on a GPU. A number is the reason below the table: after "yes" for what is refused of it, alone
where all is. What a cell computes is in [cells.md](cells.md).

Some cases there are not, for anybody: a residual where inputs and outputs differ in number, one
cell as layers of different inputs, dropout in two directions. They are refused before a run.
"""


def page() -> str:
    """The matrix in Markdown: a table for each backend, its reasons below it."""
    tables = {backend: compared(backend) for backend in BACKENDS}
    parts = ("\n".join((f"## {name}", "", *_table(own))) for name, own in tables.items() if own)
    return "\n".join((_HEAD, *parts, *_halves()))


_HALF_TYPES = """## bfloat16 and float16

What computes a cell in float32 computes it in bfloat16 too, and its outputs in float16. Nobody
trains in float16: small gradients are 0 there unless the loss is scaled, which is another program.
Nor does anybody train a cell that clips in bfloat16, or with TF32: rounding moves values over the
clip, and their gradient with them. Besides:
"""


def _halves() -> Iterator[str]:
    """Implementations that do not compute the LSTM's outputs in half types, by the reason."""
    yield _HALF_TYPES
    named: dict[str, list[str]] = {}
    for backend in BACKENDS:
        for entry in compared(backend):
            for dtype in _HALVES:
                device = "gpu" if entry.strategy.of_gpus else "cpu"
                case = replace(_CASE, dtype=dtype, device=device)
                reason = refusal(entry.name, case, "forward")
                if reason is not None and support(entry.name, _CASE).some:
                    named.setdefault(reason.partition(": ")[2], []).append(entry.name)
    for reason, names in named.items():
        yield f"- {', '.join(dict.fromkeys(names))}: {reason}"
    yield ""


def _table(entries: Sequence[Implementation]) -> Iterator[str]:
    notes: dict[str, int] = {}
    yield "| cell | " + " | ".join(entry.strategy.name for entry in entries) + " |"
    yield "|---|" + "---|" * len(entries)
    for label, case in rows().items():
        cells = (_entry(case, support(entry.name, case), notes) for entry in entries)
        yield f"| {label} | " + " | ".join(cells) + " |"
    yield ""
    for reason, number in notes.items():
        yield f"{number}. {reason}"
    if notes:
        yield ""


def _entry(case: Case, found: Support, notes: dict[str, int]) -> str:
    """A cell of the table; reasons that are new get the next number."""
    reasons = (reason.removeprefix(f"cell {case.cell}: ") for reason in found.refused)
    numbers = [str(notes.setdefault(reason, len(notes) + 1)) for reason in reasons]
    return " ".join((["yes"] if found.some else []) + numbers)
