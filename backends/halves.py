"""Refusals of bfloat16, float16 and TF32 that all backends share; imports no framework."""

from __future__ import annotations

from backends.api import Case, Mode
from backends.spec import Cell, Wrapper
from backends.stack import layers


def half_refusal(case: Case, mode: Mode) -> str | None:
    """Reason why a case of a half type, or of TF32, is not computed in a mode, or None.

    Outputs are compared in both types. In training no error of the gradient would tell right from
    wrong: float16 loses small gradients to 0, and its users scale the loss, which is another
    program; a value that bfloat16 rounds to the other side of a clip has another gradient. TF32
    moves values there too.
    """
    if mode != "train":
        return None
    if case.dtype == "float16":
        why = "small gradients are 0 unless the loss is scaled, which is another program"
        return f"dtype {case.dtype}, mode {mode}: {why}"
    rounded = case.dtype == "bfloat16" or case.tf32 == "on"
    if rounded and any(_clips(layer.cell) for layer in layers(case)):
        what = "tf32 on" if case.tf32 == "on" else f"dtype {case.dtype}"
        why = "rounding moves values over the clip, and their gradient"
        return f"{what}, mode {mode}, cell {case.cell}: {why}"
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
