"""Refusals of CudnnRNNV3; imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence

from backends.api import Case, Mode
from backends.devices import is_gpu
from backends.spec import Cell, Gru, GruResetAfter, Lstm, Residual, Rnn
from backends.stack import Layer, layers


def cudnn_refusal(case: Case, _mode: Mode) -> str | None:
    """Reason why CudnnRNNV3 cannot compute the layers of a case as one operation, or None."""
    reason = _of_layers(layers(case))
    if reason is not None:
        return f"cell {case.cell}: {reason}"
    if case.direction == "two-stacks" and case.layers > 1:
        return "direction two-stacks: CudnnRNNV3 joins both directions after every layer"
    return no_kernel(case)


def no_kernel(case: Case) -> str | None:
    """Reason why CudnnRNNV3 has no kernel of its own for the dtype and device of a case, or None.

    There is one that is called bfloat16's: it casts everything to float32, computes in that, and
    casts the results (`DoForward<Eigen::bfloat16>` in tensorflow/core/kernels/cudnn_rnn_ops.cc).
    """
    if case.dtype == "bfloat16":
        return f"dtype {case.dtype}: CudnnRNNV3 casts bfloat16 to float32, and computes in that"
    return None if is_gpu(case.device) else f"device {case.device}: cuDNN is for a GPU alone"


def _of_layers(stack: Sequence[Layer]) -> str | None:
    for layer in stack:
        reason = _of_cell(layer.cell, layer.hidden)
        if reason is not None:
            return reason
    if len({(layer.cell, layer.hidden) for layer in stack}) > 1:
        return "CudnnRNNV3 has layers that are alike, and these differ"
    if len({layer.weights for layer in stack}) < len(stack):
        return "CudnnRNNV3 has weights of its own for every layer"
    return None


def _of_cell(cell: Cell, hidden: int) -> str | None:
    match cell:
        case Rnn() | GruResetAfter():
            return None
        case Lstm():
            return _of_lstm(cell, hidden)
        case Gru():
            return "CudnnRNNV3 applies the reset gate after the product, another function"
        case Residual():
            return "CudnnRNNV3 adds no residual to its layers"
        case _:
            return "CudnnRNNV3 computes the LSTM, the reset-after GRU and the vanilla RNN"


def _of_lstm(cell: Lstm, hidden: int) -> str | None:
    if cell.peepholes:
        return "CudnnRNNV3 has no peepholes"
    if cell.cell_clip is not None:
        return "CudnnRNNV3 does not clip its cell"
    if cell.projection is not None and cell.projection_clip is not None:
        return "CudnnRNNV3 does not clip its projection"
    if cell.activation != "tanh":
        return f"CudnnRNNV3 has tanh for the LSTM's activation, not {cell.activation}"
    width = cell.recurrent(hidden)
    if cell.projection is not None and width >= hidden:
        return f"CudnnRNNV3 projects to less than its hidden units, {hidden}, not to {width}"
    return None
