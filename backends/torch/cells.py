"""One step of each cell in torch operations, and its weights as the few matrices that a step wants.

A step is `step(x, state, weights) -> new state`: x [B, I] one time step's input, `state` the arrays
[B, H] in the order of `backends.cells.CELLS` (the last is also the output), `weights` the tensors
of one layer. The product with the input is inside the step, as in TensorFlow's cells and in
`nn.LSTMCell`; `nn.LSTM` takes it out of the loop, and is the strategy `fused`. The functions are
called from Python, traced, compiled and scripted alike: they keep to what TorchScript parses, and
read no shape, which a trace would record as a node of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from backends.api import Array, Case, CellName, LayerWeights
from backends.cells import CELLS as SPECS
from backends.data import fuse, split

Step = Callable[[Tensor, list[Tensor], list[Tensor]], list[Tensor]]
Prepare = Callable[[list[Tensor]], list[Tensor]]

#: Blocks side by side in one tensor: their kind ("W", "U", "b") and their gates in order.
Block = tuple[str, Sequence[str]]


def rnn(x: Tensor, state: list[Tensor], weights: list[Tensor]) -> list[Tensor]:
    """Vanilla RNN: h' = tanh(x W + h U + b)."""
    W, U, b = weights
    return [torch.tanh(torch.addmm(torch.addmm(b, x, W), state[0], U))]


def lstm(x: Tensor, state: list[Tensor], weights: list[Tensor]) -> list[Tensor]:
    """LSTM: c' = s(f) c + s(i) tanh(g), h' = s(o) tanh(c'); i, g, f, o = x W + h U + b.

    `b` holds the forget bias already (`lstm_prepare`).
    """
    c, h = state
    W, U, b = weights
    i, g, f, o = torch.addmm(torch.addmm(b, x, W), h, U).chunk(4, 1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return [c, torch.sigmoid(o) * torch.tanh(c)]


def gru(x: Tensor, state: list[Tensor], weights: list[Tensor]) -> list[Tensor]:
    """GRU, reset before the product: c = tanh(x W_c + (r h) U_c + b_c), h' = u h + (1 - u) c.

    r, u = s(x W + h U + b). Two matrices a product, as TensorFlow's GRUCell has them: `r h` is
    known only after the first two products, and slicing a joint x W costs more than it saves.
    """
    h = state[0]
    W, U, b, W_c, U_c, b_c = weights
    r, u = torch.sigmoid(torch.addmm(torch.addmm(b, x, W), h, U)).chunk(2, 1)
    c = torch.tanh(torch.addmm(torch.addmm(b_c, x, W_c), r * h, U_c))
    return [torch.lerp(c, h, u)]  # c + u (h - c)


def gru_reset_after(x: Tensor, state: list[Tensor], weights: list[Tensor]) -> list[Tensor]:
    """GRU, reset after the product: c = tanh(x_c + r h_c), h' = u h + (1 - u) c.

    x_r, x_u, x_c = x W + b; h_r, h_u, h_c = h U + [0, 0, b_hc]; r = s(x_r + h_r), u = s(x_u + h_u).
    """
    h = state[0]
    W, U, b, b_h = weights
    x_r, x_u, x_c = torch.addmm(b, x, W).chunk(3, 1)
    h_r, h_u, h_c = torch.addmm(b_h, h, U).chunk(3, 1)
    r = torch.sigmoid(x_r + h_r)
    u = torch.sigmoid(x_u + h_u)
    c = torch.tanh(x_c + r * h_c)
    return [torch.lerp(c, h, u)]  # c + u (h - c)


def unchanged(weights: list[Tensor]) -> list[Tensor]:
    """The weights as they are loaded."""
    return weights


def lstm_prepare(weights: list[Tensor]) -> list[Tensor]:
    """Add the forget bias to b once a call: the stored b stays canonical, a step has one add less.

    The gradient of the sum is the gradient of b.
    """
    W, U, b, forget = weights
    return [W, U, b + forget]


def gru_reset_after_prepare(weights: list[Tensor]) -> list[Tensor]:
    """Widen b_hc [H] to the bias [3H] of the recurrent product: constant zeros for r and u."""
    W, U, b, b_hc = weights
    zero = torch.zeros_like(b_hc)
    return [W, U, b, torch.cat([zero, zero, b_hc])]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A step, and how canonical weights become its tensors.

    `prepare` is what depends on the weights alone: done once a call, before the loop. `forget`
    says that the forget bias [G*H] comes after the blocks, as a constant.
    """

    step: Step
    blocks: tuple[Block, ...]
    prepare: Prepare = unchanged
    forget: bool = False

    def pack(self, layer: LayerWeights) -> list[Array]:
        """The trained arrays of one layer in the order of `blocks`."""
        return [fuse(layer, kind, gates) for kind, gates in self.blocks]

    def unpack(self, arrays: Sequence[Array]) -> LayerWeights:
        """The inverse of `pack`."""
        layer: dict[str, Array] = {}
        for array, (kind, gates) in zip(arrays, self.blocks, strict=True):
            layer |= split(array, kind, gates)
        return layer


def forget_bias(case: Case, gates: Sequence[str]) -> Array:
    """The case's forget bias in the place of gate f, zeros elsewhere: [G*H]."""
    value = {gate: case.forget_bias if gate == "f" else 0.0 for gate in gates}
    return np.repeat(np.array([value[gate] for gate in gates], case.dtype), case.hidden)


def _joint(name: CellName) -> tuple[Block, ...]:
    gates = SPECS[name].gates
    return ("W", gates), ("U", gates), ("b", gates)


_LSTM = Cell(step=lstm, blocks=_joint("lstm"), prepare=lstm_prepare, forget=True)

CELLS: dict[CellName, Cell] = {
    "rnn": Cell(step=rnn, blocks=_joint("rnn")),
    "basic-lstm": _LSTM,
    "lstm": _LSTM,
    "gru": Cell(
        step=gru, blocks=tuple((kind, gates) for gates in ("ru", "c") for kind in ("W", "U", "b"))
    ),
    "gru-reset-after": Cell(
        step=gru_reset_after,
        blocks=(*_joint("gru-reset-after"), ("b", ("hc",))),
        prepare=gru_reset_after_prepare,
    ),
}
