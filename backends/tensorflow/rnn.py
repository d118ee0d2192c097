"""`static_rnn` and `dynamic_rnn` over the `rnn_cell` classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from backends.api import Array, Case, Weights
from backends.cells import CELLS
from backends.tensorflow import layout
from backends.tensorflow.cells import legacy_warnings_ignored, make_cells, rnn_cell
from backends.tensorflow.network import StateTensors, Tensor


class _CellNetwork:
    """The cells of a case and their weights, without a loop over time."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._cells = make_cells(case)
        self._layout = layout.CELL_VARIABLES[case.cell]
        self._cell = self._cells[0] if case.layers == 1 else rnn_cell.MultiRNNCell(self._cells)

    @property
    def variables(self) -> list[Tensor]:
        return [variable for cell in self._cells for variable in cell.trainable_weights]

    def build(self) -> None:
        """Make the variables now and not in the first call, where a `tf.function` may not.

        Not for a graph: there, built by `static_rnn` or `dynamic_rnn`, they are read once, before
        the loop.
        """
        for layer, cell in enumerate(self._cells):
            cell.build(tf.TensorShape([None, self._case.layer_inputs(layer)]))

    def pack(self, weights: Weights) -> list[Array]:
        return layout.pack(self._layout, weights)

    def unpack(self, values: Sequence[Array]) -> Weights:
        return layout.unpack(self._layout, values)

    def project(self, gradients: list[Tensor]) -> list[Tensor]:
        return gradients

    def _to_cell(self, state: StateTensors) -> Any:
        """A state in the structure of the cell: control flow v1 accepts no other."""
        layers = tuple(
            rnn_cell.LSTMStateTuple(c=layer["c"], h=layer["h"]) if self._is_lstm else layer["h"]
            for layer in state
        )
        return layers if self._case.layers > 1 else layers[0]

    def _from_cell(self, state: Any) -> StateTensors:
        """The inverse of `_to_cell`."""
        layers = state if self._case.layers > 1 else (state,)
        return tuple({"c": s.c, "h": s.h} if self._is_lstm else {"h": s} for s in layers)

    @property
    def _is_lstm(self) -> bool:
        return "c" in CELLS[self._case.cell].state


class StaticRnn(_CellNetwork):
    """`static_rnn` over the list of a sequence's steps: the cell's operations T times."""

    def __call__(
        self, x: Tensor, lengths: Tensor | None, state: StateTensors
    ) -> tuple[Tensor, StateTensors]:
        with legacy_warnings_ignored():
            outputs, final = tf.compat.v1.nn.static_rnn(
                self._cell,
                tf.unstack(x, axis=1),
                initial_state=self._to_cell(state),
                sequence_length=lengths,
            )
        return tf.stack(outputs, axis=1), self._from_cell(final)


class DynamicRnn(_CellNetwork):
    """`dynamic_rnn`: the cell's operations once, in a `tf.while_loop`."""

    def __call__(
        self, x: Tensor, lengths: Tensor | None, state: StateTensors
    ) -> tuple[Tensor, StateTensors]:
        with legacy_warnings_ignored():
            outputs, final = tf.compat.v1.nn.dynamic_rnn(
                self._cell, x, initial_state=self._to_cell(state), sequence_length=lengths
            )
        return outputs, self._from_cell(final)


def built_dynamic_rnn(case: Case) -> DynamicRnn:
    """A `DynamicRnn` that has its variables, for a `tf.function`."""
    network = DynamicRnn(case)
    network.build()
    return network
