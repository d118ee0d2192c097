"""Keras 3 layers, one for each set of weights of the case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from backends.api import Array, Case, LayerWeights, Weights
from backends.layout import Fused, biased
from backends.spec import GruResetAfter, Lstm, Residual, Rnn
from backends.stack import Layer, rows, weight_layers
from backends.tensorflow.network import StateTensors, Tensor, reversed_in_place


class KerasStack:
    """Keras layers one after the other, their loop symbolic or unrolled, or cuDNN's kernel.

    `cudnn` asks for the kernel that Keras' own default, `use_cudnn="auto"`, takes of these layers
    where there is a GPU; without it they loop there too. Keras packs the weights for it in every
    call. It fails on empty sequences, which run one step here, and it is taken back.

    The layers know no forget bias: it is added to their bias when weights are packed. Their final
    state is h before c. A mask makes them hold the state past a length; outputs there are zeros
    only with `zero_output_for_mask`, else the last valid one again.
    """

    def __init__(self, case: Case, *, unroll: bool, cudnn: bool = False) -> None:
        self._rows = rows(case)
        self._sets = weight_layers(case)
        self._independent = case.direction == "two-stacks"
        self._cudnn = cudnn
        options = {"unroll": unroll, "dtype": case.dtype}
        self._layers = [_make_layer(layer.plain(), cudnn, options) for layer in self._sets]
        for spec, layer in zip(self._sets, self._layers, strict=True):
            layer.build((case.batch, case.seq_len if unroll else None, spec.inputs))

    @property
    def variables(self) -> list[Tensor]:
        return [
            weight.value
            for layer in self._layers
            for weight in (layer.cell.kernel, layer.cell.recurrent_kernel, layer.cell.bias)
        ]

    def __call__(
        self, x: Tensor, lengths: Tensor | None, state: StateTensors
    ) -> tuple[Tensor, StateTensors]:
        final: list[Any] = []
        values = [x]
        mask = None if lengths is None else tf.sequence_mask(lengths, tf.shape(x)[1])
        for specs in self._rows:
            row = []
            for way, spec in enumerate(specs):
                value = values[way % len(values)]
                output, end = self._run(spec, value, lengths, mask, state[len(final)])
                row.append(output)
                final.append(end)
            values = row if self._independent else [_side_by_side(row)]
        return _side_by_side(values), tuple(final)

    def _run(
        self, spec: Layer, x: Tensor, lengths: Tensor | None, mask: Tensor | None, start: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Outputs and final state of one layer; the mask [B, T] is False where there is padding."""
        # Not by Keras' go_backwards: unrolled, it zeroes outputs by a mask that is not reversed.
        x = reversed_in_place(x, lengths, 1) if spec.reverse else x
        names = _state_names(spec)
        layer = self._layers[spec.weights]
        y, *end = self._call(layer, x, mask, [start[name] for name in names])
        if isinstance(spec.cell, Residual):
            y = y + (x if mask is None else tf.where(mask[:, :, tf.newaxis], x, tf.zeros_like(x)))
        named = dict(zip(names, end, strict=True))
        y = reversed_in_place(y, lengths, 1) if spec.reverse else y
        return y, {name: named[name] for name in start}

    def _call(
        self, layer: Any, x: Tensor, mask: Tensor | None, start: list[Tensor]
    ) -> list[Tensor]:
        """Results of a layer: outputs, then each state."""
        if mask is None or not self._cudnn:
            return list(layer(x, mask=mask, initial_state=start))
        some = mask[:, :1]
        one_step = tf.concat([tf.ones_like(some), mask[:, 1:]], axis=1)
        y, *end = layer(x, mask=one_step, initial_state=start)
        y = tf.where(some[:, :, tf.newaxis], y, tf.zeros_like(y))
        return [y, *(tf.where(some, new, old) for new, old in zip(end, start, strict=True))]

    def pack(self, weights: Weights) -> list[Array]:
        return [
            value
            for spec, given in zip(self._sets, weights, strict=True)
            for value in _pack_layer(spec.plain(), given)
        ]

    def unpack(self, values: Sequence[Array]) -> Weights:
        return tuple(
            _unpack_layer(spec.plain(), *values[3 * number : 3 * number + 3])
            for number, spec in enumerate(self._sets)
        )

    def project(self, gradients: list[Tensor]) -> list[Tensor]:
        """Hold the recurrent biases of u and r at 0 in a reset-after GRU.

        Keras trains two biases where one is effective: both would take the step, together twice it.
        """
        projected = list(gradients)
        for number, spec in enumerate(self._sets):
            if isinstance(spec.plain().cell, GruResetAfter):
                bias = projected[3 * number + 2]
                trained = np.ones((2, 3 * spec.hidden), bias.dtype.as_numpy_dtype)
                trained[1, : 2 * spec.hidden] = 0
                projected[3 * number + 2] = bias * trained
        return projected


def _side_by_side(values: Sequence[Tensor]) -> Tensor:
    return values[0] if len(values) == 1 else tf.concat(values, axis=2)


def _state_names(layer: Layer) -> tuple[str, ...]:
    return ("h", "c") if "c" in layer.state else ("h",)


def _gates(layer: Layer) -> tuple[str, ...]:
    """Gates side by side in a Keras kernel."""
    if isinstance(layer.cell, Rnn):
        return ("h",)
    return ("i", "f", "g", "o") if isinstance(layer.cell, Lstm) else ("u", "r", "c")


def _pack_layer(layer: Layer, given: LayerWeights) -> list[Array]:
    """Kernel [I, G H], recurrent kernel [H, G H] and bias."""
    blocks, gates = dict(given), _gates(layer)
    if isinstance(layer.cell, Lstm):
        blocks = biased(layer, blocks)
    kernel, recurrent, bias = (Fused((kind,), gates).pack(blocks) for kind in ("W", "U", "b"))
    if isinstance(layer.cell, GruResetAfter):
        inner = np.zeros_like(bias)
        inner[-layer.hidden :] = blocks["b_hc"]
        bias = np.stack([bias, inner])
    return [kernel, recurrent, bias]


def _unpack_layer(layer: Layer, kernel: Array, recurrent: Array, bias: Array) -> LayerWeights:
    """The inverse of `_pack_layer`."""
    h, gates, blocks = layer.hidden, _gates(layer), {}
    if isinstance(layer.cell, GruResetAfter):
        outer, inner = bias
        blocks["b_hc"] = inner[-h:]
        # In u and r the two only ever appear as their sum.
        bias = np.concatenate([outer[:-h] + inner[:-h], outer[-h:]])
    for kind, value in (("W", kernel), ("U", recurrent), ("b", bias)):
        blocks |= Fused((kind,), gates).unpack(value, layer.blocks)
    if isinstance(layer.cell, Lstm):
        blocks = biased(layer, blocks, times=-1)
    return {name: blocks[name] for name in layer.blocks}


def _make_layer(layer: Layer, cudnn: bool, given: Mapping[str, Any]) -> Any:
    options: dict[str, Any] = {
        **given,
        "return_sequences": True,
        "return_state": True,
        "zero_output_for_mask": True,
        "activation": getattr(layer.cell, "activation", "tanh"),
        # Weights are loaded: the default's orthogonal matrices would be made for nothing.
        "kernel_initializer": "zeros",
        "recurrent_initializer": "zeros",
    }
    if isinstance(layer.cell, Rnn):
        return keras.layers.SimpleRNN(layer.hidden, **options)
    # "auto" takes cuDNN's kernel wherever the process sees a GPU, for a case on the CPU too, and
    # says nothing where it does not; True raises there.
    options["use_cudnn"] = cudnn
    if isinstance(layer.cell, Lstm):
        return keras.layers.LSTM(layer.hidden, **options)
    reset_after = isinstance(layer.cell, GruResetAfter)
    return keras.layers.GRU(layer.hidden, reset_after=reset_after, **options)
