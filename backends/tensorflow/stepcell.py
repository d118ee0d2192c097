"""An `RNNCell` of a step function: for the cells that TensorFlow 1 had as contributed ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from backends.layout import Layout
from backends.spec import Attention
from backends.stack import Layer
from backends.tensorflow.layout import own_layout

rnn_cell = tf.compat.v1.nn.rnn_cell
RNNCell: Any = rnn_cell.RNNCell

Tensor = Any
Tensors = Mapping[str, Tensor]

#: `step(w, x, state) -> (y, new state)`: w the layer's variables by TensorFlow's names, x [B, I],
#: the state's arrays [B, width] by name, y [B, O].
Step = Callable[[Tensors, Tensor, Tensors], tuple[Tensor, dict[str, Tensor]]]


class StepCell(RNNCell):
    """A cell with the variables of its layer's layout, which computes what a step function does.

    `cell` is the cell that the step calls, where it calls one.
    """

    def __init__(self, layer: Layer, dtype: str, step: Step, cell: Any = None) -> None:
        super().__init__(dtype=dtype)
        self._spec = layer
        self._step = step
        self._variables_of: Layout = own_layout(layer)
        self.cell = cell

    @property
    def state_size(self) -> Any:
        return state_size(self._spec)

    @property
    def output_size(self) -> int:
        return self._spec.outputs

    def build(self, inputs_shape: Any) -> None:
        """Create the variables for inputs [B, I]."""
        self._own = {
            name: self.add_weight(name, shape=list(fused.shape(self._spec.blocks)))
            for name, fused in self._variables_of.items()
        }
        if self.cell is not None:
            self.cell.build(inputs_shape)
        self.built = True

    def call(self, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Output [B, O] and new state for inputs [B, I] and a state of `state_size`."""
        named = dict(zip(self._spec.state, tf.nest.flatten(state), strict=True))
        y, new = self._step(self._own, inputs, named)
        flat = [new[name] for name in self._spec.state]
        return y, tf.nest.pack_sequence_as(self.state_size, flat)


def state_size(layer: Layer) -> Any:
    """Widths of a layer's state in the structure that TensorFlow 1's cell has.

    DropoutWrapper knows by its tuple which part is c, and control flow v1 takes no other tuple.
    """
    if isinstance(layer.cell, Attention):
        return state_size(layer.inner()), layer.state["attention"], layer.state["window"]
    widths = tuple(layer.state.values())
    if tuple(layer.state) == ("c", "h"):
        return rnn_cell.LSTMStateTuple(*widths)
    return widths if len(widths) > 1 else widths[0]
