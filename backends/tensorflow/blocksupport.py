"""Refusals of TensorFlow's block operations; imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Collection

from backends.api import Case, Mode
from backends.spec import Cell, Gru, Lstm, Residual, Wrapper
from backends.stack import layers

#: What the LSTM's operations have kernels for, on a CPU and on a GPU.
_LSTM_DTYPES = ("float32", "float16")


def block_cell_refusal(case: Case, mode: Mode) -> str | None:
    """Reason why LSTMBlockCell and GRUBlockCell cannot compute the layers of a case, or None."""
    found = [cell_refusal(layer.cell, mode) for layer in layers(case)]
    reason = next(filter(None, found), None)
    if reason is None and any(isinstance(_innermost(layer.cell), Gru) for layer in layers(case)):
        return _of_case(case, None, "GRUBlockCell", ("float32",))
    return _of_case(case, reason, "LSTMBlockCell", _LSTM_DTYPES)


def cell_refusal(cell: Cell, mode: Mode) -> str | None:
    """Reason why there is no block cell for a cell, or None.

    A wrapper is around a block cell as around any other: what counts is the cell in it.
    """
    match cell:
        case Wrapper():
            return cell_refusal(cell.cell, mode)
        case Lstm():
            return lstm_refusal("LSTMBlockCell", cell, mode)
        case Gru():
            return _activation_refusal("GRUBlockCell", cell.activation)
        case _:
            return "block cells compute the LSTM and the reset-before GRU"


def block_lstm_refusal(op: str, case: Case, mode: Mode) -> str | None:
    """Reason why `op`, BlockLSTM or BlockLSTMV2, cannot compute the layers of a case, or None.

    A residual is added to the outputs of all steps at once; other wrappers act within a step.
    """
    found = (_layer_refusal(op, layer.cell, mode) for layer in layers(case))
    return _of_case(case, next(filter(None, found), None), op, _LSTM_DTYPES)


def _layer_refusal(op: str, cell: Cell, mode: Mode) -> str | None:
    match cell:
        case Residual():
            return _layer_refusal(op, cell.cell, mode)
        case Lstm():
            return lstm_refusal(op, cell, mode)
        case _:
            return f"{op} computes an LSTM, alone or in a residual"


def lstm_refusal(op: str, cell: Lstm, mode: Mode) -> str | None:
    """Reason why an LSTM block operation cannot compute an LSTM with these options, or None."""
    if cell.projection is not None:
        return f"{op} has no projection"
    clip = cell.cell_clip
    if clip is not None and clip <= 0:
        return f"cell_clip={clip}: {op} takes a clip of 0 or less for none"
    if clip is not None and mode == "train":
        return f"mode train: {op} ignores a cell clip in its gradient"
    return _activation_refusal(op, cell.activation)


def _activation_refusal(op: str, activation: str) -> str | None:
    return None if activation == "tanh" else f"{op} has tanh alone, not {activation}"


def _innermost(cell: Cell) -> Cell:
    return _innermost(cell.cell) if isinstance(cell, Wrapper) else cell


def _of_case(case: Case, reason: str | None, what: str, dtypes: Collection[str]) -> str | None:
    """The reason of a layer's cell, or else that of the case's dtype."""
    if reason is not None:
        return f"cell {case.cell}: {reason}"
    if case.dtype in dtypes:
        return None
    return f"dtype {case.dtype}: {what} has {' and '.join(dtypes)}"
