"""Where TensorFlow's variables keep the canonical blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backends.api import Array, CellName, LayerWeights, Weights
from backends.data import fuse, split


@dataclass(frozen=True)
class Fused:
    """One variable of a layer: kinds of blocks one below the other, each the gates side by side.

    `Fused(("W", "U"), ("r", "u"))` is [[W_r, W_u], [U_r, U_u]], shape [I+H, 2H].
    """

    kinds: tuple[str, ...]
    gates: tuple[str, ...]

    def pack(self, layer: LayerWeights) -> Array:
        """The variable's value for a layer's blocks."""
        return np.concatenate([fuse(layer, kind, self.gates) for kind in self.kinds])

    def unpack(self, value: Array) -> dict[str, Array]:
        """The inverse of `pack`."""
        # A U is square: it takes the last H rows, and leaves I to the W above it.
        hidden = value.shape[-1] // len(self.gates)
        rows = np.split(value, [value.shape[0] - hidden]) if len(self.kinds) > 1 else [value]
        blocks: dict[str, Array] = {}
        for kind, part in zip(self.kinds, rows, strict=True):
            blocks.update(split(part, kind, self.gates))
        return blocks


_WU = ("W", "U")
_LSTM = (Fused(_WU, ("i", "g", "f", "o")), Fused(("b",), ("i", "g", "f", "o")))

#: The variables of a `rnn_cell` class (and of BlockLSTM, which has the LSTM's), as they are made.
CELL_VARIABLES: dict[CellName, tuple[Fused, ...]] = {
    "rnn": (Fused(_WU, ("h",)), Fused(("b",), ("h",))),
    "basic-lstm": _LSTM,
    "lstm": _LSTM,
    "gru": (
        Fused(_WU, ("r", "u")),
        Fused(("b",), ("r", "u")),
        Fused(_WU, ("c",)),
        Fused(("b",), ("c",)),
    ),
    "gru-reset-after": (
        Fused(_WU, ("r", "u")),
        Fused(("b",), ("r", "u")),
        Fused(("W",), ("c",)),
        Fused(("b",), ("c",)),
        Fused(("U",), ("c",)),
        Fused(("b",), ("hc",)),
    ),
}


def pack(variables: Sequence[Fused], weights: Weights) -> list[Array]:
    """Values of the variables of all layers, layer by layer."""
    return [variable.pack(layer) for layer in weights for variable in variables]


def unpack(variables: Sequence[Fused], values: Sequence[Array]) -> Weights:
    """The inverse of `pack`."""
    layers: list[LayerWeights] = []
    for start in range(0, len(values), len(variables)):
        blocks: dict[str, Array] = {}
        for variable, value in zip(variables, values[start:], strict=False):
            blocks.update(variable.unpack(value))
        layers.append(blocks)
    return tuple(layers)
