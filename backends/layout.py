"""Layouts in which an adapter's arrays hold the canonical blocks of a layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from backends.api import Array, LayerWeights
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
    Shape,
    TimeFreq,
    prefixed,
)
from backends.stack import Layer


def biased(layer: Layer, blocks: LayerWeights, *, times: int = 1) -> dict[str, Array]:
    """An LSTM's blocks with the forget bias in b_f, in its dtype; `times=-1` takes it out again."""
    b_f = blocks["b_f"]
    return {**blocks, "b_f": b_f + np.asarray(times * layer.forget_bias, b_f.dtype)}


@dataclass(frozen=True)
class Fused:
    """One array of a layer: kinds of blocks one below the other, each with the gates side by side.

    `Fused(("W", "U"), ("r", "u"))` is [[W_r, W_u], [U_r, U_u]], shape [I+R, 2H]; a vector has one
    kind: `Fused(("b",), ("r", "u"))` is [b_r, b_u], shape [2H]. With `transposed` it is stored the
    other way round.
    """

    kinds: tuple[str, ...]
    gates: tuple[str, ...]
    transposed: bool = False

    def pack(self, layer: LayerWeights) -> Array:
        """The array's value for a layer's blocks."""
        rows = [
            np.concatenate([layer[f"{kind}_{gate}"] for gate in self.gates], axis=-1)
            for kind in self.kinds
        ]
        value = np.concatenate(rows)
        return np.ascontiguousarray(value.T) if self.transposed else value

    def unpack(self, value: Array, blocks: Mapping[str, Shape]) -> dict[str, Array]:
        """The inverse of `pack`; `blocks` has the shapes."""
        value = np.asarray(value).T if self.transposed else np.asarray(value)
        found: dict[str, Array] = {}
        first = self.gates[0]
        rows = [blocks[f"{kind}_{first}"][0] for kind in self.kinds]
        parts = [value] if len(rows) == 1 else np.split(value, np.cumsum(rows)[:-1])
        for kind, part in zip(self.kinds, parts, strict=True):
            widths = [blocks[f"{kind}_{gate}"][-1] for gate in self.gates]
            for gate, block in zip(
                self.gates, np.split(part, np.cumsum(widths)[:-1], axis=-1), strict=True
            ):
                found[f"{kind}_{gate}"] = block
        return found

    def shape(self, blocks: Mapping[str, Shape]) -> Shape:
        """The array's shape."""
        width = sum(blocks[f"{self.kinds[0]}_{gate}"][-1] for gate in self.gates)
        if len(blocks[f"{self.kinds[0]}_{self.gates[0]}"]) == 1:
            return (width,)
        rows = sum(blocks[f"{kind}_{self.gates[0]}"][0] for kind in self.kinds)
        return (width, rows) if self.transposed else (rows, width)


#: An adapter's arrays of a layer, by the name that its cell knows them by, in order.
Layout = Mapping[str, Fused]


def one(name: str) -> Fused:
    """An array that holds a single block."""
    kind, _, gate = name.partition("_")
    return Fused((kind,), (gate,))


def joint(gates: Sequence[str], *kinds: str) -> dict[str, Fused]:
    """One array a kind, its gates side by side, named by the kind."""
    return {kind: Fused((kind,), tuple(gates)) for kind in kinds}


def pack(layout: Layout, layer: LayerWeights) -> dict[str, Array]:
    """The arrays of a layer, in the layout's order."""
    return {name: fused.pack(layer) for name, fused in layout.items()}


def unpack(
    layout: Layout, arrays: Mapping[str, Array], blocks: Mapping[str, Shape]
) -> LayerWeights:
    """The inverse of `pack`."""
    found: dict[str, Array] = {}
    for name, fused in layout.items():
        found |= fused.unpack(arrays[name], blocks)
    return {name: found[name] for name in blocks}


def usual(layer: Layer) -> Layout:
    """One array for each kind of block, its gates side by side in canonical order.

    What depends on r alone is apart in the reset-before GRU ("U_c"); peepholes are "p", those of a
    grid by part and gate. Wrappers have what they are around, and their own blocks by name.
    """
    return USUAL[type(layer.cell)](layer)


def _rnn(_layer: Layer) -> Layout:
    return joint("h", "W", "U", "b")


def _lstm(layer: Layer) -> Layout:
    peepholes = joint("ifo", "p") if layer.of(Lstm).peepholes else {}
    return {**joint("igfo", "W", "U", "b"), **peepholes, **_named(layer, "Q_h")}


def _gru(_layer: Layer) -> Layout:
    return {**joint("ruc", "W", "b"), **joint("ru", "U"), "U_c": one("U_c")}


def _gru_reset_after(_layer: Layer) -> Layout:
    return {**joint("ruc", "W", "U", "b"), "b_hc": one("b_hc")}


def _coupled(layer: Layer) -> Layout:
    cell = layer.of(Coupled)
    kinds = ("W", "U") if cell.layer_norm else ("W", "U", "b")
    norm = joint("gfoc", "gamma", "beta") if cell.layer_norm else {}
    peepholes = joint("fo", "p") if cell.peepholes else {}
    return {**joint("gfo", *kinds), **norm, **peepholes, **_named(layer, "Q_h")}


def _time_freq(layer: Layer) -> Layout:
    peepholes = joint("ifo", "p") if layer.of(TimeFreq).peepholes else {}
    return {**joint("igfo", "W", "U", "V", "b"), **peepholes}


def _grid(layer: Layer) -> Layout:
    return _grid_layout(layer.of(Grid), layer.inputs)


def _bidirectional_grid(layer: Layer) -> Layout:
    one_way = _grid_layout(layer.of(BidirectionalGrid).grid, layer.inputs)
    return {
        prefixed(way, name): Fused(fused.kinds, tuple(f"{way}.{gate}" for gate in fused.gates))
        for way in ("fw", "bw")
        for name, fused in one_way.items()
    }


def _wrapped(layer: Layer) -> Layout:
    return usual(layer.inner())


def _attention(layer: Layer) -> Layout:
    own = (name for name in layer.blocks if name not in layer.inner().blocks)
    return {**usual(layer.inner()), **_named(layer, *own)}


def _named(layer: Layer, *names: str) -> Layout:
    """Blocks that are arrays of their own, where the layer has them."""
    return {name: one(name) for name in names if name in layer.blocks}


def _grid_layout(cell: Grid, inputs: int) -> dict[str, Fused]:
    """Per set of weights "W_f0", "U_f0", "V_f0", "b_f0", and "p_f0.i" with its two peepholes."""
    layout: dict[str, Fused] = {}
    for scope in cell.sets(inputs):
        gates = tuple(f"{scope}.{gate}" for gate in cell.gates)
        layout |= {f"{kind}_{scope}": Fused((kind,), gates) for kind in ("W", "U", "V", "b")}
        if cell.peepholes:
            looking = (gate for gate in gates if not gate.endswith(".g"))
            layout |= {f"p_{gate}": Fused(("p",), (f"{gate}.f", f"{gate}.t")) for gate in looking}
    return layout


USUAL: dict[type[Cell], Callable[[Layer], Layout]] = {
    Rnn: _rnn,
    Lstm: _lstm,
    BasicLstm: _lstm,
    Gru: _gru,
    GruResetAfter: _gru_reset_after,
    Coupled: _coupled,
    TimeFreq: _time_freq,
    Grid: _grid,
    BidirectionalGrid: _bidirectional_grid,
    Residual: _wrapped,
    Dropout: _wrapped,
    Attention: _attention,
}
