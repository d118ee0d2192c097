"""Refusals of PyTorch's strategies, known without importing torch."""

from __future__ import annotations

from collections.abc import Mapping

from backends.api import Case, Mode
from backends.bare import refused_launches
from backends.devices import is_gpu
from backends.halves import half_refusal
from backends.spec import (
    Attention,
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


def refusal(strategy: str, case: Case, mode: Mode) -> str | None:
    """Reason why a strategy cannot express a case: the hand-written loop does any, torch.nn few."""
    return half_refusal(case, mode) or _of_strategy(strategy, case)


def _of_strategy(strategy: str, case: Case) -> str | None:
    if strategy == "launches":
        return refused_launches(case)
    if strategy == "graphed" and not is_gpu(case.device):
        return f"device {case.device}: CUDA graphs record what a GPU is given to do"
    if strategy not in ("fused", "packed"):
        return None
    for layer in layers(case):
        reason = _of_cell(layer.cell, layer.hidden)
        if reason is not None:
            return f"cell {case.cell}: {reason}"
    return None


_FREQUENCY = "no module of torch.nn goes over frequency"

#: Cells that are no module of torch.nn, and why.
_OTHERS: Mapping[type[Cell], str] = {
    Gru: "nn.GRU applies the reset gate after the product, another function",
    Coupled: "no module of torch.nn couples its gates",
    TimeFreq: _FREQUENCY,
    Grid: _FREQUENCY,
    BidirectionalGrid: _FREQUENCY,
    Residual: "a residual is added around a module, not around another wrapper",
    Dropout: "nn.LSTM takes no masks: it draws its own, and only between layers",
    Attention: "no module of torch.nn attends to its last outputs",
}


def _of_cell(cell: Cell, hidden: int) -> str | None:
    match cell:
        case Rnn() | GruResetAfter():
            return None
        case Lstm():
            return _of_lstm(cell, hidden)
        case Residual() if not isinstance(cell.cell, Wrapper):
            return _of_cell(cell.cell, hidden)
        case _:
            return _OTHERS.get(type(cell), "torch.nn has no module of it")


def _of_lstm(cell: Lstm, hidden: int) -> str | None:
    if cell.peepholes:
        return "nn.LSTM has no peepholes"
    if cell.cell_clip is not None:
        return f"nn.LSTM does not clip its cell, cell_clip={cell.cell_clip}"
    if cell.projection_clip is not None and cell.projection is not None:
        return f"nn.LSTM does not clip its projection, projection_clip={cell.projection_clip}"
    if cell.activation != "tanh":
        return f"nn.LSTM has tanh for its activation, not {cell.activation}"
    width = cell.recurrent(hidden)
    if cell.projection is not None and width >= hidden:
        return f"nn.LSTM projects to less than its hidden units, {hidden}, and not to {width}"
    return None
