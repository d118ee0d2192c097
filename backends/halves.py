"""What is not asked of bfloat16 and float16, by anybody, and why; imports no framework."""

from __future__ import annotations

from backends.api import Case, Mode
from backends.spec import Cell, Wrapper
from backends.stack import layers


def half_refusal(case: Case, mode: Mode) -> str | None:
    """Why a case of a half type is not computed in a mode, or None; None for other dtypes.

    Outputs are compared in both types. In training no error of the gradient would tell right from
    wrong: float16 loses small gradients to 0, and its users scale the loss, which is another
    program; a value that bfloat16 rounds to the other side of a clip has another gradient.
    """
    if mode != "train" or case.dtype not in ("bfloat16", "float16"):
        return None
    where = f"dtype {case.dtype}, mode {mode}"
    if case.dtype == "float16":
        return f"{where}: small gradients are 0 unless the loss is scaled, which is another program"
    if any(_clips(layer.cell) for layer in layers(case)):
        return f"{where}, cell {case.cell}: rounding moves values over the clip, and their gradient"
    return None


def _clips(cell: Cell) -> bool:
    inner = cell
    while isinstance(inner, Wrapper):
        inner = inner.cell
    limits = ("cell_clip", "projection_clip")
    return any(getattr(part, name, None) is not None for part in _parts(inner) for name in limits)


def _parts(cell: Cell) -> tuple[object, ...]:
    """A cell, and the one that it is made of."""
    return cell, getattr(cell, "grid", None)
