"""Cases and gate orders for a check of a framework's own LSTM class."""

from __future__ import annotations

import numpy as np

from backends.api import Array, Case, LayerWeights
from backends.spec import BasicLstm, Lstm
from backends.stack import Layer, layers

#: The gates side by side in the kernels of TensorFlow 1's cells, which call them i, j, f, o; and in
#: those of PyTorch's and Keras' (i, f, g, o and i, f, c, o).
TENSORFLOW_ORDER = ("i", "g", "f", "o")
TORCH_ORDER = ("i", "f", "g", "o")


def plain_lstm(case: Case) -> Layer | None:
    """The layer of a case that is one LSTM without options, over whole sequences from zeros."""
    stack = layers(case)
    cell = stack[0].cell
    plain = cell in (Lstm(), BasicLstm()) and case.initial_state == "zeros"
    return stack[0] if plain and len(stack) == 1 and case.lengths == "full" else None


def side_by_side(kind: str, blocks: LayerWeights, gates: tuple[str, ...]) -> Array:
    """Blocks of a kind, gate after gate: [I, 4 H], [H, 4 H] or [4 H]."""
    return np.concatenate([blocks[f"{kind}_{gate}"] for gate in gates], axis=-1)
