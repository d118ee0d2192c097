"""Refusals of ONNX Runtime's recurrent operators. Imports no framework."""

from __future__ import annotations

from collections.abc import Callable

from backends.api import Case, Mode
from backends.spec import (
    Attention,
    BasicLstm,
    BidirectionalGrid,
    Cell,
    Coupled,
    Dropout,
    Grid,
    Gru,
    GruResetAfter,
    Lstm,
    Residual,
    Rnn,
    TimeFreq,
    Wrapper,
)
from backends.stack import layers


def refusal(_strategy: str, case: Case, mode: Mode) -> str | None:
    """Reason why a case cannot be expressed in a mode, or None."""
    if mode == "train":
        return "mode train: ONNX Runtime's inference package has no gradients"
    if case.dtype != "float32":
        return f"dtype {case.dtype}: ONNX Runtime's RNN, GRU and LSTM compute in float32 alone"
    for layer in layers(case):
        reason = _reason(layer.cell)
        if reason is not None:
            return f"cell {case.cell}: {reason}"
    return None


def _reason(cell: Cell) -> str | None:
    rule = _REASONS.get(type(cell))
    return "no operator computes it" if rule is None else rule(cell)


def _nothing(_cell: Cell) -> str | None:
    return None


def _because(reason: str) -> Callable[[Cell], str]:
    return lambda _cell: reason


def _lstm(cell: Cell) -> str | None:
    assert isinstance(cell, Lstm)
    if cell.projection is not None:
        return _NO_PROJECTION
    if cell.cell_clip is not None:
        # The operator's attribute `clip` bounds what goes into the activations: another function.
        return f"the LSTM operator cannot clip its cell, here at {cell.cell_clip}"
    return None


def _coupled(cell: Cell) -> str | None:
    assert isinstance(cell, Coupled)
    if cell.projection is not None:
        return _NO_PROJECTION
    return "the LSTM operator has no layer normalisation" if cell.layer_norm else None


def _residual(cell: Cell) -> str | None:
    assert isinstance(cell, Residual)
    if isinstance(cell.cell, Wrapper):
        return "a residual is added around an operator, not around another wrapper"
    return _reason(cell.cell)


_NO_PROJECTION = "the LSTM operator has no projection"

_REASONS: dict[type[Cell], Callable[[Cell], str | None]] = {
    Rnn: _nothing,
    Lstm: _lstm,
    BasicLstm: _lstm,
    Gru: _nothing,
    GruResetAfter: _nothing,
    Coupled: _coupled,
    TimeFreq: _because("no operator goes over frequency within a step"),
    Grid: _because("no operator goes over frequency within a step"),
    BidirectionalGrid: _because("no operator goes over frequency within a step"),
    Residual: _residual,
    Dropout: _because("no operator drops its state from step to step"),
    Attention: _because("no operator attends to its last outputs"),
}
