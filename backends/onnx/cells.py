"""The cells that ONNX's recurrent operators are, and how these hold the canonical blocks.

W [G*H, I], R [G*H, H] and B [2*G*H] have their gates one below the other; B is the input's biases,
then the recurrent ones. The canonical bias is the input's. A recurrent one is a constant (zero, or
the forget bias), so that the bias comes back as it was given; only b_hc is a weight in there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from backends.api import Array, LayerWeights
from backends.spec import (
    BasicLstm,
    Cell,
    Coupled,
    Gru,
    GruResetAfter,
    Lstm,
    Residual,
    Rnn,
)
from backends.stack import Layer

_PHI = {"tanh": "Tanh", "relu": "Relu"}


@dataclass(frozen=True, kw_only=True)
class Operator:
    """An operator of ONNX as the cell of a layer.

    `rows` and `peepholes` name the canonical gate in each place of W, R, B and of P: "f", "-f" for
    its negative, "" for what the operator does not read. `recurrent` are the recurrent biases: a
    constant, or the name of a block. `residual` says that the inputs are added to the outputs.
    """

    kind: Literal["RNN", "GRU", "LSTM"]
    rows: tuple[str, ...]
    recurrent: tuple[float | str, ...]
    activations: tuple[str, ...]
    peepholes: tuple[str, ...] = ()
    attributes: tuple[tuple[str, int], ...] = ()
    residual: bool = False

    def pack(self, layer: Layer, blocks: LayerWeights) -> dict[str, Array]:
        """The operator's inputs of one direction, by ONNX's names."""
        hidden = layer.hidden
        recurrent = [
            blocks[bias] if isinstance(bias, str) else np.full(hidden, bias, np.float32)
            for bias in self.recurrent
        ]
        arrays = {
            "W": np.concatenate([_block(blocks, "W", gate, layer).T for gate in self.rows]),
            "R": np.concatenate([_block(blocks, "U", gate, layer).T for gate in self.rows]),
            "B": np.concatenate(
                [_block(blocks, "b", gate, layer) for gate in self.rows] + recurrent
            ),
        }
        if self.peepholes:
            arrays["P"] = np.concatenate(
                [_block(blocks, "p", gate, layer) for gate in self.peepholes]
            )
        return arrays

    def unpack(self, layer: Layer, arrays: Mapping[str, Array]) -> LayerWeights:
        """The inverse of `pack`."""
        found: dict[str, Array] = {}
        count = len(self.rows)
        for kind, name in (("W", "W"), ("U", "R"), ("b", "B")):
            parts = np.split(arrays[name], 2 * count if name == "B" else count)
            found |= _blocks(kind, self.rows, parts)
            if name == "B":
                for bias, part in zip(self.recurrent, parts[count:], strict=True):
                    if isinstance(bias, str):
                        found[bias] = part
        if self.peepholes:
            found |= _blocks("p", self.peepholes, np.split(arrays["P"], len(self.peepholes)))
        return {name: np.array(found[name]) for name in layer.blocks}


def _block(blocks: LayerWeights, kind: str, gate: str, layer: Layer) -> Array:
    """A canonical block, its negative, or zeros of its shape where the gate is not read."""
    if not gate:
        shape = {"W": (layer.inputs, layer.hidden), "U": (layer.hidden, layer.hidden)}
        return np.zeros(shape.get(kind, (layer.hidden,)), np.float32)
    block = blocks[f"{kind}_{gate.removeprefix('-')}"]
    return -block if gate.startswith("-") else block


def _blocks(kind: str, gates: tuple[str, ...], parts: list[Array]) -> dict[str, Array]:
    """Canonical blocks of the parts of an array. Negating twice is exact."""
    return {
        f"{kind}_{gate.removeprefix('-')}": -part.T if gate.startswith("-") else part.T
        for gate, part in zip(gates, parts, strict=False)
        if gate
    }


def rnn(layer: Layer) -> Operator:
    """Vanilla RNN: y = h' = phi(x W + h U + b)."""
    phi = _PHI[layer.of(Rnn).activation]
    return Operator(kind="RNN", rows=("h",), recurrent=(0.0,), activations=(phi,))


def lstm(layer: Layer) -> Operator:
    """LSTM: c' = s(f + forget_bias) c + s(i) phi(g);  y = h' = s(o) phi(c').

    With peepholes i and f see p c, and o sees p c'. ONNX's order is i, o, f, g.
    """
    cell = layer.of(Lstm)
    phi = _PHI[cell.activation]
    return Operator(
        kind="LSTM",
        rows=("i", "o", "f", "g"),
        recurrent=(0.0, 0.0, layer.forget_bias, 0.0),
        activations=("Sigmoid", phi, phi),
        peepholes=("i", "o", "f") if cell.peepholes else (),
    )


def gru(layer: Layer) -> Operator:
    """GRU, reset before the product: c = phi(x W + (r h) U + b);  y = h' = u h + (1 - u) c."""
    return Operator(
        kind="GRU",
        rows=("u", "r", "c"),
        recurrent=(0.0, 0.0, 0.0),
        activations=("Sigmoid", _PHI[layer.of(Gru).activation]),
        attributes=(("linear_before_reset", 0),),
    )


def gru_reset_after(_layer: Layer) -> Operator:
    """GRU, reset after the product: c = tanh(x W + b + r (h U + b_hc));  h' as in `gru`."""
    return Operator(
        kind="GRU",
        rows=("u", "r", "c"),
        recurrent=(0.0, 0.0, "b_hc"),
        activations=("Sigmoid", "Tanh"),
        attributes=(("linear_before_reset", 1),),
    )


def coupled(layer: Layer) -> Operator:
    """LSTM with one gate: F = s(f + forget_bias + p_f c);  c' = F c + (1 - F) tanh(g).

    ONNX's `input_forget` has it the other way round: the input gate i = s(z), and 1 - i for the
    forget gate. As 1 - s(z) = s(-z), its input gate has the negatives of all that goes into f.
    The rows of its own forget gate are multiplied all the same, and not read.
    """
    return Operator(
        kind="LSTM",
        rows=("-f", "o", "", "g"),
        recurrent=(-layer.forget_bias, 0.0, 0.0, 0.0),
        activations=("Sigmoid", "Tanh", "Tanh"),
        peepholes=("-f", "o", "") if layer.of(Coupled).peepholes else (),
        attributes=(("input_forget", 1),),
    )


def residual(layer: Layer) -> Operator:
    """Y = x + cell(x)."""
    return replace(make_operator(layer.inner()), residual=True)


OPERATORS: dict[type[Cell], Callable[[Layer], Operator]] = {
    Rnn: rnn,
    Lstm: lstm,
    BasicLstm: lstm,
    Gru: gru,
    GruResetAfter: gru_reset_after,
    Coupled: coupled,
    Residual: residual,
}


def make_operator(layer: Layer) -> Operator:
    """The operator of a layer."""
    return OPERATORS[type(layer.cell)](layer)
