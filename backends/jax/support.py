"""Refusals of JAX's strategies; imports no framework."""

from __future__ import annotations

from backends.api import Case, Mode
from backends.bare import refused_launches, refused_products
from backends.devices import is_gpu
from backends.halves import half_refusal
from backends.spec import Cell, Lstm
from backends.stack import layers

#: Copies of the step in the body of a scan, each a strategy of its own.
UNROLL_FACTORS = (2, 4, 8, 16, 32)


def refusal(strategy: str, case: Case, mode: Mode) -> str | None:
    """Reason why a strategy cannot express a case in a mode, or None.

    All cells, directions and lengths are expressed by every loop; by cuDNN's LSTM few are. What
    rides along does so on GPUs only.
    """
    return half_refusal(case, mode) or _of_strategy(strategy, case, mode)


def _of_strategy(strategy: str, case: Case, mode: Mode) -> str | None:
    if strategy == "products":
        return refused_products(case)
    if strategy == "launches":
        return refused_launches(case)
    if strategy == "fused":
        return _of_fused(case)
    if strategy == "while" and mode == "train":
        return (
            f"strategy {strategy}, mode {mode}: "
            "reverse-mode differentiation through lax.while_loop does not exist"
        )
    return None


def _of_fused(case: Case) -> str | None:
    """Limits of `jax.experimental.rnn`; its kernel is float32 whatever dtype it is given.

    On a CPU it has no kernel at all: that comes last, so that where a cell is refused, it is for
    what the cell is.
    """
    stack = layers(case)
    reasons = (_of_cell(layer.cell) for layer in stack)
    reason = next((reason for reason in reasons if reason is not None), None)
    if reason is None and len({layer.hidden for layer in stack}) > 1:
        reason = "rnn.lstm has one number of units for all layers"
    if reason is None and len({layer.weights for layer in stack}) < len(stack):
        reason = "rnn.lstm has weights of their own for all layers"
    if reason is not None:
        return f"cell {case.cell}: {reason}"
    if case.direction == "two-stacks":
        return f"direction {case.direction}: rnn.lstm joins both directions in every layer"
    if case.dtype != "float32":
        return f"dtype {case.dtype}: rnn.lstm computes in float32"
    if not is_gpu(case.device):
        return f"device {case.device}: rnn.lstm is cuDNN's, and has no kernel but a GPU's"
    return None


def _of_cell(cell: Cell) -> str | None:
    if not isinstance(cell, Lstm):
        return "rnn.lstm computes an LSTM"
    if cell.peepholes:
        return "rnn.lstm has no peepholes"
    if cell.cell_clip is not None:
        return "rnn.lstm does not clip its cell"
    if cell.projection is not None:
        return "rnn.lstm has no projection"
    return None if cell.activation == "tanh" else f"rnn.lstm has tanh, not {cell.activation}"
