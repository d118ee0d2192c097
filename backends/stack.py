"""The layers of a case: which cell each is, what it is given, and whose weights it has."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

from backends.cells import CELLS, Entry
from backends.spec import Cell, Dropout, Residual, Shape, Wrapper

if TYPE_CHECKING:
    from backends.api import Case

C = TypeVar("C", bound=Cell)

#: More than anybody stacks: a slip of the keyboard, which would take all memory to lay out.
MAX_LAYERS = 1000


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One cell of a stack with its sizes.

    `inputs` are the features I; behind them come the columns of `masks`, those of this layer and
    then of all layers above it. `weights` is the place of its weights in `backends.api.Weights`;
    `depth` counts from 0; `reverse` says that it reads each sequence from its end.
    """

    cell: Cell
    inputs: int
    hidden: int
    forget_bias: float = 1.0
    weights: int = 0
    depth: int = 0
    reverse: bool = False
    masks: int = 0

    @property
    def blocks(self) -> dict[str, Shape]:
        """Canonical blocks: name -> shape."""
        return self.cell.blocks(self.inputs, self.hidden)

    @property
    def state(self) -> dict[str, int]:
        """State arrays: name -> width."""
        return self.cell.state(self.inputs, self.hidden)

    @property
    def outputs(self) -> int:
        """Width O of the output, without the masks that are handed on."""
        return self.cell.outputs(self.inputs, self.hidden)

    def inner(self) -> Layer:
        """The layer that a wrapper is around."""
        assert isinstance(self.cell, Wrapper)
        inputs = self.cell.inner_inputs(self.inputs, self.hidden)
        return replace(self, cell=self.cell.cell, inputs=inputs, masks=0)

    def plain(self) -> Layer:
        """The layer that a residual is around, or this one."""
        return self.inner() if isinstance(self.cell, Residual) else self

    def of(self, kind: type[C]) -> C:
        """The cell, as the kind that it is."""
        assert isinstance(self.cell, kind)
        return self.cell


@lru_cache(maxsize=4096)
def layers(case: Case) -> tuple[Layer, ...]:
    """The layers of a case in the order of its state; both directions of a depth are neighbours.

    Raises `ValueError` for a cell that cannot have the case's sizes.
    """
    entry = CELLS[case.cell]
    ways = (False,) if case.direction == "forward" else (False, True)
    result: list[Layer] = []
    widths = [case.inputs] * len(ways)
    for depth in range(case.layers):
        row: list[Layer] = []
        for index, reverse in enumerate(ways):
            place = index if entry.shared else depth * len(ways) + index
            row.append(_layer(case, entry, depth, widths[index], place, reverse=reverse))
        joined = sum(layer.outputs for layer in row)
        independent = case.direction == "two-stacks"
        widths = [layer.outputs if independent else joined for layer in row]
        result += row
    _check(case, entry, result)
    return _with_masks(result)


def _layer(
    case: Case, entry: Entry, depth: int, inputs: int, place: int, *, reverse: bool
) -> Layer:
    return Layer(
        cell=entry.cells[depth % len(entry.cells)],
        inputs=inputs,
        hidden=entry.hidden[depth % len(entry.hidden)] or case.hidden,
        forget_bias=case.forget_bias,
        weights=place,
        depth=depth,
        reverse=reverse,
    )


def _check(case: Case, entry: Entry, stack: list[Layer]) -> None:
    for layer in stack:
        reason = layer.cell.refusal(layer.inputs, layer.hidden)
        if reason is None and entry.shared and layer.inputs != stack[0].inputs:
            reason = (
                "one cell as every layer needs as many outputs as inputs, and got "
                f"{layer.inputs} and {stack[0].inputs} of them"
            )
        if reason is None and isinstance(layer.cell, Dropout) and case.direction != "forward":
            reason = f"direction={case.direction}: masks are given for one direction"
        if reason is not None:
            raise ValueError(f"cell {case.cell}, layer {layer.depth}: {reason}")


def _with_masks(stack: list[Layer]) -> tuple[Layer, ...]:
    """The layers with the columns of masks that reach each: its own and those of all above it."""
    columns = 0
    result: list[Layer] = []
    for layer in reversed(stack):
        columns += sum(width for width, _ in masks_of(layer).values())
        result.append(replace(layer, masks=columns))
    return tuple(reversed(result))


def rows(case: Case) -> list[tuple[Layer, ...]]:
    """The layers of each depth: one, or the one that reads forward and the one that does not."""
    stack = layers(case)
    ways = len(stack) // case.layers
    return [stack[first : first + ways] for first in range(0, len(stack), ways)]


def levels(case: Case) -> list[list[range]]:
    """Which layers can share a loop over time, by their places in `layers(case)`.

    Stacks of one level read the same inputs, and their outputs side by side are what the next level
    reads.
    """
    count = len(layers(case))
    if case.direction == "forward":
        return [[range(count)]]
    if case.direction == "two-stacks":
        return [[range(0, count, 2), range(1, count, 2)]]
    return [[range(fw, fw + 1), range(fw + 1, fw + 2)] for fw in range(0, count, 2)]


def masks_of(layer: Layer) -> dict[str, tuple[int, float]]:
    """The masks of a layer itself: what is dropped -> columns, keep probability."""
    if isinstance(layer.cell, Dropout):
        return layer.cell.masks(layer.inputs, layer.hidden)
    return {}


def weight_layers(case: Case) -> tuple[Layer, ...]:
    """The first layer of each set of weights, in the order of `backends.api.Weights`."""
    found: dict[int, Layer] = {}
    for layer in layers(case):
        found.setdefault(layer.weights, layer)
    return tuple(found.values())


def input_width(case: Case) -> int:
    """Columns of x: the case's inputs, and behind them the masks of dropout cells."""
    first = layers(case)[0]
    return first.inputs + first.masks


def output_width(case: Case) -> int:
    """Columns O of the outputs: of both directions, side by side, where there are two."""
    return sum(layer.outputs for layer in layers(case) if layer.depth == case.layers - 1)


def parameters(case: Case) -> int:
    """Number of trainable values of a case, one effective bias a gate."""
    shapes = (shape for layer in weight_layers(case) for shape in layer.blocks.values())
    return sum(_size(shape) for shape in shapes)


def _size(shape: Shape) -> int:
    size = 1
    for extent in shape:
        size *= extent
    return size
