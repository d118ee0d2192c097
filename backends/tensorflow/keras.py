"""Keras 3 layers, one a layer of the case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from backends.api import Array, Case, CellName, LayerWeights, Weights
from backends.cells import CELLS
from backends.data import fuse, split
from backends.tensorflow.network import StateTensors, Tensor

_LSTM_GATES = ("i", "f", "g", "o")
_GRU_GATES = ("u", "r", "c")

#: Gates side by side in a Keras kernel.
_GATES: dict[CellName, tuple[str, ...]] = {
    "rnn": ("h",),
    "basic-lstm": _LSTM_GATES,
    "lstm": _LSTM_GATES,
    "gru": _GRU_GATES,
    "gru-reset-after": _GRU_GATES,
}


class KerasStack:
    """Keras layers one after the other, their loop symbolic or unrolled.

    The layers know no forget bias: it is added to their bias when weights are packed. Their final
    state is h before c. A mask makes them hold the state past a length; outputs there are zeros
    only with `zero_output_for_mask`, else the last valid one again.
    """

    def __init__(self, case: Case, *, unroll: bool) -> None:
        self._case = case
        self._state_names = ("h", "c") if _is_lstm(case) else ("h",)
        self._layers = [_make_layer(case, unroll=unroll) for _ in range(case.layers)]
        for index, layer in enumerate(self._layers):
            layer.build((case.batch, case.seq_len if unroll else None, case.layer_inputs(index)))

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
        mask = None if lengths is None else tf.sequence_mask(lengths, tf.shape(x)[1])
        value, final = x, []
        for layer, start in zip(self._layers, state, strict=True):
            value, *end = layer(
                value, mask=mask, initial_state=[start[name] for name in self._state_names]
            )
            named = dict(zip(self._state_names, end, strict=True))
            final.append({name: named[name] for name in start})
        return value, tuple(final)

    def pack(self, weights: Weights) -> list[Array]:
        return [value for layer in weights for value in self._pack_layer(layer)]

    def unpack(self, values: Sequence[Array]) -> Weights:
        return tuple(
            self._unpack_layer(*values[start : start + 3]) for start in range(0, len(values), 3)
        )

    def project(self, gradients: list[Tensor]) -> list[Tensor]:
        """Hold the recurrent biases of u and r at 0 in a reset-after GRU.

        Keras trains two biases where one is effective: both would take the step, together twice it.
        """
        if self._case.cell != "gru-reset-after":
            return gradients
        trained = np.ones((2, 3 * self._case.hidden), self._case.dtype)
        trained[1, : 2 * self._case.hidden] = 0
        return [
            gradient * trained if index % 3 == 2 else gradient
            for index, gradient in enumerate(gradients)
        ]

    def _pack_layer(self, layer: LayerWeights) -> list[Array]:
        gates = _GATES[self._case.cell]
        blocks = dict(layer)
        if _is_lstm(self._case):
            blocks["b_f"] = blocks["b_f"] + self._case.forget_bias
        bias = fuse(blocks, "b", gates)
        if self._case.cell == "gru-reset-after":
            inner = np.zeros_like(bias)
            inner[-self._case.hidden :] = blocks["b_hc"]
            bias = np.stack([bias, inner])
        return [fuse(blocks, "W", gates), fuse(blocks, "U", gates), bias]

    def _unpack_layer(self, kernel: Array, recurrent: Array, bias: Array) -> LayerWeights:
        gates, h = _GATES[self._case.cell], self._case.hidden
        blocks = split(kernel, "W", gates) | split(recurrent, "U", gates)
        if self._case.cell == "gru-reset-after":
            outer, inner = bias
            blocks["b_hc"] = inner[-h:]
            # In u and r the two only ever appear as their sum.
            bias = np.concatenate([outer[:-h] + inner[:-h], outer[-h:]])
        blocks |= split(bias, "b", gates)
        if _is_lstm(self._case):
            blocks["b_f"] = blocks["b_f"] - self._case.forget_bias
        return blocks


def _is_lstm(case: Case) -> bool:
    return "c" in CELLS[case.cell].state


def _make_layer(case: Case, *, unroll: bool) -> Any:
    options = {
        "return_sequences": True,
        "return_state": True,
        "unroll": unroll,
        "zero_output_for_mask": True,
        "dtype": case.dtype,
        # Weights are loaded: the default's orthogonal matrices would be made for nothing.
        "kernel_initializer": "zeros",
        "recurrent_initializer": "zeros",
    }
    if case.cell == "rnn":
        return keras.layers.SimpleRNN(case.hidden, **options)
    # On a GPU "auto" takes cuDNN's kernel: a fused implementation, and no loop of Keras.
    options["use_cudnn"] = False
    if _is_lstm(case):
        return keras.layers.LSTM(case.hidden, **options)
    return keras.layers.GRU(case.hidden, reset_after=case.cell == "gru-reset-after", **options)
