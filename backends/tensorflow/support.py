"""Refusals of TensorFlow's strategies, with their reasons; imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from backends.api import Case, Mode
from backends.bare import refused_launches, refused_products
from backends.halves import half_refusal
from backends.spec import Cell, Dropout, Gru, GruResetAfter, Lstm, Residual, Rnn
from backends.stack import layers
from backends.tensorflow.blocksupport import block_cell_refusal, block_lstm_refusal
from backends.tensorflow.cudnnsupport import cudnn_refusal, no_kernel

Refusal = Callable[[Case, Mode], str | None]


def refusal(strategy: str, case: Case, mode: Mode) -> str | None:
    """Reason why a strategy cannot express a case in a mode, or None."""
    rule = _RULES.get(strategy)
    return half_refusal(case, mode) or (None if rule is None else rule(case, mode))


def _keras(case: Case, _mode: Mode) -> str | None:
    """Keras' layers are the plain cells, alone or in a residual."""
    for layer in layers(case):
        reason = _no_keras_layer(layer.cell)
        if reason is not None:
            return f"cell {case.cell}: {reason}"
    return None


def _no_keras_layer(cell: Cell) -> str | None:
    match cell:
        case Residual():
            return _no_keras_layer(cell.cell)
        case Rnn() | Gru() | GruResetAfter():
            return None
        case Lstm():
            options = {
                "peepholes": cell.peepholes,
                "cell clip": cell.cell_clip is not None,
                "projection": cell.projection is not None,
            }
            has = [name for name, there in options.items() if there]
            return f"Keras' LSTM has no {' and no '.join(has)}" if has else None
        case Dropout():
            return "Keras' layers draw their dropout masks themselves, and take none"
        case _:
            return "Keras has no such layer"


def _keras_cudnn(case: Case, mode: Mode) -> str | None:
    """Of Keras' layers cuDNN computes two, by `cudnn_ok` of Keras' TensorFlow backend."""
    reason = _keras(case, mode)
    if reason is not None:
        return reason
    for layer in layers(case):
        reason = _no_cudnn_layer(layer.plain().cell)
        if reason is not None:
            return f"cell {case.cell}: {reason}"
    return no_kernel(case)


def _no_cudnn_layer(cell: Cell) -> str | None:
    match cell:
        case GruResetAfter():
            return None
        case Lstm():
            other = cell.activation != "tanh"
            return f"Keras takes cuDNN's kernel for tanh, not {cell.activation}" if other else None
        case Gru():
            return "Keras takes cuDNN's kernel for a GRU with reset_after=True"
        case _:
            return "Keras' SimpleRNN has no kernel of cuDNN's"


#: Strategies that are not here express every case.
_RULES: dict[str, Refusal] = {
    "static-block": block_cell_refusal,
    "dynamic-block": block_cell_refusal,
    "fused": partial(block_lstm_refusal, "BlockLSTM"),
    "fused-v2": partial(block_lstm_refusal, "BlockLSTMV2"),
    "cudnn": cudnn_refusal,
    "keras": _keras,
    "keras-unrolled": _keras,
    "keras-cudnn": _keras_cudnn,
    "products": lambda case, _mode: refused_products(case),
    "launches": lambda case, _mode: refused_launches(case),
}
