"""Wrappers of TensorFlow's cells: residual, dropout, and the contributed attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from backends.spec import Attention, Cell, Dropout, Residual
from backends.stack import Layer, masks_of
from backends.tensorflow.stepcell import StepCell, Tensor, Tensors

rnn_cell = tf.compat.v1.nn.rnn_cell
DropoutWrapper: Any = rnn_cell.DropoutWrapper

#: The `RNNCell` of a layer in a dtype.
MakeCell = Callable[[Layer, str], Any]


def residual(_layer: Layer, _dtype: str, inner: Any) -> Any:
    """Y = x + cell(x)."""
    return rnn_cell.ResidualWrapper(inner)


def dropout(layer: Layer, dtype: str, inner: Any) -> Any:
    """Y = mask_out y', state' times mask_state, of y', state' = cell(mask_in x, state)."""
    return GivenDropoutWrapper(layer, dtype, inner)


class GivenDropoutWrapper(DropoutWrapper):
    """TensorFlow's DropoutWrapper with masks that are given: what is dropped, and when, is its own.

    x has the masks behind its features: this layer's in the order input, state, output, then those
    of the layers above, which are handed on behind y. A mask that is the same at every step is data
    like another.
    """

    def __init__(self, layer: Layer, dtype: str, inner: Any) -> None:
        cell = layer.of(Dropout)
        super().__init__(
            inner,
            input_keep_prob=cell.input_keep,
            output_keep_prob=cell.output_keep,
            state_keep_prob=cell.state_keep,
            dtype=dtype,
        )
        self._outputs = layer.outputs
        self._parts = tuple(masks_of(layer))
        widths = [width for width, _ in masks_of(layer).values()]
        self._above = layer.masks - sum(widths)
        self._widths = [layer.inputs, *widths, self._above]

    @property
    def output_size(self) -> int:
        return self._outputs + self._above

    def _call_wrapped_cell(
        self, inputs: Tensor, state: Any, cell_call_fn: Any, **kwargs: Any
    ) -> tuple[Tensor, Any]:
        value, *masks, above = tf.split(inputs, self._widths, axis=1)
        self._masks = dict(zip(self._parts, masks, strict=True))
        y, new = super()._call_wrapped_cell(value, state, cell_call_fn, **kwargs)
        return (tf.concat([y, above], axis=1) if self._above else y), new

    def _dropout(
        self,
        values: Any,
        salt_prefix: str,
        recurrent_noise: Any,
        keep_prob: float,
        shallow_filtered_substructure: Any = None,
    ) -> Any:
        """Values times the mask of "input", "state" or "output"; a state's parts lie side by side.

        The substructure is TensorFlow's answer to which parts of a state are dropped.
        """
        if shallow_filtered_substructure is None:
            return values * self._masks[salt_prefix]
        dropped = tf.nest.flatten(shallow_filtered_substructure)
        flat = tf.nest.flatten(values)
        widths = [v.shape[1] for v, drop in zip(flat, dropped, strict=True) if drop]
        masks = iter(tf.split(self._masks[salt_prefix], widths, axis=1))
        kept = [v * next(masks) if drop else v for v, drop in zip(flat, dropped, strict=True)]
        return tf.nest.pack_sequence_as(values, kept)


def attention(layer: Layer, dtype: str, inner: Any) -> Any:
    """Attention over the window w_1 ... w_L of the last outputs, the oldest first.

    y', s' = cell([x, a] K_in + b_in, s);  q = [all of s'];  e_l = sum(v tanh(w_l M + q Q + b));
    a' = sum(softmax(e)_l w_l);  y = [y', a'] K_out + b_out;  the window drops w_1 and appends y.
    """
    names = list(layer.inner().state)
    length, a = layer.of(Attention).window, layer.outputs

    def step(w: Tensors, x: Tensor, state: Tensors) -> tuple[Tensor, dict[str, Tensor]]:
        value = _linear(w, "", x, state["attention"])
        packed = tf.nest.pack_sequence_as(inner.state_size, [state[name] for name in names])
        y, packed = inner(value, packed)
        new = dict(zip(names, tf.nest.flatten(packed), strict=True))
        query = _linear(w, "attention/", *new.values())
        keys = tf.matmul(tf.reshape(state["window"], [-1, a]), w["attention/attn_w"])
        hidden = tf.tanh(tf.reshape(keys, [-1, length, a]) + query[:, tf.newaxis])
        energy = tf.reduce_sum(w["attention/attn_v"] * hidden, axis=2)
        window = tf.reshape(state["window"], [-1, length, a])
        attended = tf.reduce_sum(tf.nn.softmax(energy)[:, :, tf.newaxis] * window, axis=1)
        y = _linear(w, "attn_output_projection/", y, attended)
        last = tf.concat([state["window"][:, a:], y], axis=1)
        return y, {**new, "attention": attended, "window": last}

    return StepCell(layer, dtype, step, inner)


def _linear(w: Tensors, scope: str, *values: Tensor) -> Tensor:
    """[v_1, v_2 ...] K + b."""
    product = tf.matmul(tf.concat(values, axis=1), w[f"{scope}kernel"])
    return tf.nn.bias_add(product, w[f"{scope}bias"])


WRAPPERS: dict[type[Cell], Callable[[Layer, str, Any], Any]] = {
    Residual: residual,
    Dropout: dropout,
    Attention: attention,
}
