"""The `rnn_cell` classes of a case, and the one that TensorFlow has not."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from backends.api import Case

rnn_cell = tf.compat.v1.nn.rnn_cell


class ResetAfterGRUCell(tf.compat.v1.nn.rnn_cell.RNNCell):
    """GRU with the reset after the product, on the interface of `rnn_cell.GRUCell`.

        r, u = s([x, h] K + b);  c = tanh(x W_c + b_c + r (h U_c + b_hc));  h' = u h + (1 - u) c

    Three products a step, as CudnnCompatibleGRUCell of tf.contrib.cudnn_rnn (TensorFlow 1) had,
    and its variables.
    """

    def __init__(self, units: int, dtype: str) -> None:
        super().__init__(dtype=dtype)
        self._units = units

    @property
    def state_size(self) -> int:
        return self._units

    @property
    def output_size(self) -> int:
        return self._units

    def build(self, inputs_shape: Any) -> None:
        """Create the variables for inputs [B, I]."""
        i, h = int(inputs_shape[-1]), self._units
        self._gate_kernel = self.add_weight("gates/kernel", shape=[i + h, 2 * h])
        self._gate_bias = self.add_weight("gates/bias", shape=[2 * h])
        self._input_kernel = self.add_weight("candidate/input_projection/kernel", shape=[i, h])
        self._input_bias = self.add_weight("candidate/input_projection/bias", shape=[h])
        self._hidden_kernel = self.add_weight("candidate/hidden_projection/kernel", shape=[h, h])
        self._hidden_bias = self.add_weight("candidate/hidden_projection/bias", shape=[h])
        self.built = True

    def call(self, inputs: Any, state: Any) -> tuple[Any, Any]:
        """Output and new state, both [B, H], for inputs [B, I] and state [B, H]."""
        gates = tf.matmul(tf.concat([inputs, state], axis=1), self._gate_kernel)
        r, u = tf.split(tf.sigmoid(tf.nn.bias_add(gates, self._gate_bias)), 2, axis=1)
        inner = tf.nn.bias_add(tf.matmul(state, self._hidden_kernel), self._hidden_bias)
        outer = tf.nn.bias_add(tf.matmul(inputs, self._input_kernel), self._input_bias)
        c = tf.tanh(outer + r * inner)
        new = u * state + (1 - u) * c
        return new, new


@contextmanager
def legacy_warnings_ignored() -> Iterator[None]:
    """Without the warnings of `rnn_cell` that its classes, and how they are called, are old."""
    with warnings.catch_warnings():
        for message in (
            r"`tf\.nn\.rnn_cell\.\w+` is deprecated",
            r"`layer\.updates` will be removed",
        ):
            warnings.filterwarnings("ignore", message, category=UserWarning)
        yield


def make_cells(case: Case) -> list[Any]:
    """One cell a layer. Their variables come when they are first called, as in any program."""
    with legacy_warnings_ignored():
        return [_make_cell(case) for _ in range(case.layers)]


def _make_cell(case: Case) -> Any:
    match case.cell:
        case "rnn":
            return rnn_cell.BasicRNNCell(case.hidden, dtype=case.dtype)
        case "basic-lstm":
            return rnn_cell.BasicLSTMCell(
                case.hidden, forget_bias=case.forget_bias, dtype=case.dtype
            )
        case "lstm":
            return rnn_cell.LSTMCell(case.hidden, forget_bias=case.forget_bias, dtype=case.dtype)
        case "gru":
            return rnn_cell.GRUCell(case.hidden, dtype=case.dtype)
        case "gru-reset-after":
            return ResetAfterGRUCell(case.hidden, case.dtype)
