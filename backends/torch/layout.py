"""A layer's weights as the tensors that its step wants, and what is done to them once a call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backends.api import Array
from backends.layout import Fused, Layout, joint, one, usual
from backends.spec import BidirectionalGrid, Grid, Gru, Wrapper
from backends.stack import Layer

Prepare = Callable[[list[Tensor]], list[Tensor]]

#: Vectors that a step wants one by one: slicing them would cost it an operation each.
_APART = ("p", "gamma", "beta")


def constants(**values: object) -> Any:
    """Numbers, booleans and tuples of them, as attributes, for a function to close over.

    TorchScript takes no number that a function closes over, but any attribute of a module, as it
    takes `math.pi`: a constant, so that it resolves an `if` on one and unrolls a loop over one.
    """
    module = ModuleType("constants")
    vars(module).update(values)
    return module


def layout(layer: Layer) -> Layout:
    """`backends.layout.usual` with fewer products in a step, or fewer slices of what they give.

    The GRU has two matrices a product, as TensorFlow's GRUCell has them: `r h` is known only after
    the first two products, and slicing a joint x W costs more than it saves. A part of a grid has
    the gates of both its sets of weights side by side.
    """
    if isinstance(layer.cell, Wrapper):
        inner = layer.inner()
        within = usual(inner)
        own = {name: fused for name, fused in usual(layer).items() if name not in within}
        return {**layout(inner), **own}
    if isinstance(layer.cell, Gru):
        candidate = {f"{kind}_c": one(f"{kind}_c") for kind in "WUb"}
        return {**joint("ru", "W", "U", "b"), **candidate}
    if isinstance(layer.cell, Grid):
        return dict(_grid(layer.cell, layer.inputs))
    if isinstance(layer.cell, BidirectionalGrid):
        ways = (_grid(layer.cell.grid, layer.inputs, f"{way}.") for way in ("fw", "bw"))
        return dict(chain.from_iterable(ways))
    return dict(_apart(usual(layer)))


def _apart(whole: Layout) -> Iterator[tuple[str, Fused]]:
    for name, fused in whole.items():
        (kind, *_), gates = fused.kinds, fused.gates
        if kind in _APART:
            yield from ((f"{kind}_{gate}", one(f"{kind}_{gate}")) for gate in gates)
        else:
            yield name, fused


def _grid(cell: Grid, inputs: int, scope: str = "") -> Iterator[tuple[str, Fused]]:
    """Of each part b "W_b", "U_b", "V_b", "b_b", then the peepholes one by one."""
    for b in range(len(cell.windows(inputs))):
        gates = [f"{scope}{kind}{b}.{gate}" for kind in cell.matrices for gate in cell.gates]
        yield from ((f"{kind}_{scope}{b}", Fused((kind,), tuple(gates))) for kind in "WUVb")
        if cell.peepholes:
            looking = [f"p_{gate}.{at}" for gate in gates if gate[-1] != "g" for at in "ft"]
            yield from ((name, one(name)) for name in looking)


def places(layer: Layer) -> dict[str, int]:
    """Place of each array of a layer in the list that its step is given."""
    return {name: place for place, name in enumerate(layout(layer))}


def forget_biases(layer: Layer) -> list[Array]:
    """Constant to add to each array that has the bias of a forget gate, in order."""
    arrays = layout(layer).values()
    return [forget_bias(layer, fused) for fused in arrays if _takes_forget_bias(layer, fused)]


def forget_bias(layer: Layer, fused: Fused) -> Array:
    """The forget bias in the place of each gate f of an array, zeros elsewhere."""
    added = layer.forget_bias if layer.cell.forgets else 0.0
    values = [added if _forgets(gate) else 0.0 for gate in fused.gates]
    return np.repeat(values, layer.hidden)


def _forgets(gate: str) -> bool:
    return gate.rpartition(".")[2] == "f"


def _takes_forget_bias(layer: Layer, fused: Fused) -> bool:
    """A gate that is normalised has no bias but the norm's shift, "beta"."""
    biased = layer.cell.forgets and fused.kinds[0] in ("b", "beta")
    return biased and any(map(_forgets, fused.gates))


def unchanged(weights: list[Tensor]) -> list[Tensor]:
    """The weights as they are loaded."""
    return weights


def preparation(layer: Layer) -> Prepare:
    """Work that depends on the weights alone, done once a call, before the loop.

    The forget biases, which come behind the weights, are added: the stored b stays canonical, a
    step has one operation less, and the gradient of the sum is the gradient of b. The b_hc [H] of a
    GRU is widened to the bias [3H] of the recurrent product: constant zeros for r and u.
    """
    arrays = layout(layer)
    behind = len(arrays)
    steps: list[tuple[int, int, bool]] = []  # place, place of what is added or -1, to be widened
    for place, (name, fused) in enumerate(arrays.items()):
        takes = _takes_forget_bias(layer, fused)
        steps.append((place, behind if takes else -1, name == "b_hc"))
        behind += takes
    if all(added < 0 and not widened for _, added, widened in steps):
        return unchanged
    to = constants(steps=tuple(steps))

    # A comprehension, which TorchScript makes the elements of one list of: of a list that is
    # written to it would not know in the loop what it holds.
    def prepare(weights: list[Tensor]) -> list[Tensor]:
        return [
            _widened(weights[k])
            if widened
            else (weights[k] if added < 0 else weights[k] + weights[added])
            for k, added, widened in to.steps
        ]

    return prepare


def _widened(b_hc: Tensor) -> Tensor:
    zero = torch.zeros_like(b_hc)
    return torch.cat([zero, zero, b_hc])
