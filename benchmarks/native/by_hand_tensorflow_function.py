"""The LSTM of the comparison as an expert writes it in TensorFlow 2: no adapter, no harness.

A `tf.function` over a Keras layer, or with `jit_compile` over `dynamic_rnn`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

Call = Callable[[], Any]
Read = Callable[[Any], dict[str, np.ndarray]]

rnn = tf.compat.v1.nn


def build(strategy: str, mode: str, data: dict[str, np.ndarray]) -> tuple[Call, Read]:
    """A call that runs the forward pass, or one training step, and what reads what it computed."""
    batch, steps, inputs = data["x"].shape
    # Unrolled it is for this T, else for any.
    length = steps if strategy == "keras-unrolled" else None
    x = tf.Variable(data["x"], trainable=False, shape=[batch, length, inputs])
    targets = tf.Variable(
        data["targets"], trainable=False, shape=[batch, length, *data["targets"].shape[2:]]
    )
    state = [tf.Variable(data[name], trainable=False) for name in ("h", "c")]
    rate = tf.Variable(0.01, trainable=False)
    xla = strategy == "xla"
    network, weights = _dynamic_rnn(data) if xla else _keras(strategy, data)

    @tf.function(autograph=False, jit_compile=xla)
    def forward() -> Any:
        return network(x.read_value(), *(value.read_value() for value in state))

    @tf.function(autograph=False, jit_compile=xla)
    def train() -> Any:
        wanted, step = targets.read_value(), rate.read_value()
        with tf.GradientTape() as tape:
            outputs, _, _ = network(x.read_value(), *(value.read_value() for value in state))
            loss = tf.nn.l2_loss(outputs - wanted) / (batch * steps)
        for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
            weight.assign_sub(step * gradient)
        return loss

    def read(out: Any) -> dict[str, np.ndarray]:
        if mode == "forward":
            outputs, h, c = out
            return {"outputs": outputs.numpy(), "h": h.numpy(), "c": c.numpy()}
        *kernels, bias = (weight.numpy() for weight in weights)
        order = "igfo" if xla else "ifgo"
        kernel = np.concatenate(kernels)
        return {"loss": out.numpy(), f"kernel_{order}": kernel, f"bias_{order}": bias}

    return (forward if mode == "forward" else train).get_concrete_function(), read


def _keras(strategy: str, data: dict[str, np.ndarray]) -> tuple[Callable[..., Any], list[Any]]:
    """A Keras layer. It knows no forget bias but that which its bias holds."""
    inputs, hidden = data["x"].shape[2], data["h"].shape[1]
    unroll = strategy == "keras-unrolled"
    layer = keras.layers.LSTM(
        hidden, return_sequences=True, return_state=True, unroll=unroll, use_cudnn=False
    )
    layer.build((*data["x"].shape[:1], None, inputs))
    kernel = data["kernel_ifgo"]
    layer.set_weights([kernel[:inputs], kernel[inputs:], data["bias_ifgo"]])

    def network(x: Any, h: Any, c: Any) -> Any:
        return layer(x, initial_state=[h, c])

    return network, [weight.value for weight in layer.trainable_weights]


def _dynamic_rnn(data: dict[str, np.ndarray]) -> tuple[Callable[..., Any], list[Any]]:
    """`LSTMCell` under `dynamic_rnn`; a function's variables must be there before its trace."""
    cell = rnn.rnn_cell.LSTMCell(data["h"].shape[1])
    cell.build(tf.TensorShape([None, data["x"].shape[2]]))
    weights = cell.trainable_variables
    for weight, name in zip(weights, ("kernel_igfo", "bias_igfo"), strict=True):
        weight.assign(data[name])

    def network(x: Any, h: Any, c: Any) -> Any:
        state = rnn.rnn_cell.LSTMStateTuple(c=c, h=h)
        outputs, final = rnn.dynamic_rnn(cell, x, initial_state=state)
        return outputs, final.h, final.c

    return network, weights
