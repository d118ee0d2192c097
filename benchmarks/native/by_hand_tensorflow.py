"""The LSTM of the comparison as an expert writes it in TensorFlow 1: no adapter, no harness.

Nothing is fed and only the loss is fetched: a call reads its inputs from variables, and a forward
call leaves outputs and final state in variables. (Fetching them would copy them to the host, and
what nobody fetches or assigns the optimizer drops.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

Call = Callable[[], Any]
Read = Callable[[Any], dict[str, np.ndarray]]

v1 = tf.compat.v1


def build(strategy: str, mode: str, data: dict[str, np.ndarray]) -> tuple[Call, Read]:
    """A call that runs the forward pass, or one training step, and what reads what it computed."""
    v2 = strategy == "dynamic-v2"
    (v1.enable_control_flow_v2 if v2 else v1.disable_control_flow_v2)()
    batch, steps, inputs = data["x"].shape
    # Unrolled it is for this T, else for any.
    length = steps if strategy == "static" else None
    graph = tf.Graph()
    with graph.as_default():
        x = tf.Variable(data["x"], trainable=False, shape=[batch, length, inputs])
        state = [tf.Variable(data[name], trainable=False).read_value() for name in ("c", "h")]
        network = _block if strategy == "fused" else _cell
        outputs, final, (kernel, bias) = network(strategy, x.read_value(), state, data)
        if mode == "train":
            targets = tf.Variable(
                data["targets"], trainable=False, shape=[batch, length, *data["targets"].shape[2:]]
            )
            loss = tf.nn.l2_loss(outputs - targets.read_value()) / (batch * steps)
            gradients = tf.gradients(loss, [kernel, bias])
            rate = tf.Variable(0.01, trainable=False).read_value()
            # Not `GradientDescentOptimizer.minimize`, nor a constant rate: with either, summing up
            # the kernel's gradient took twice as long in some loops (TensorFlow 2.21).
            with tf.control_dependencies(gradients):
                step = [
                    loss,
                    kernel.assign_sub(rate * gradients[0], read_value=False),
                    bias.assign_sub(rate * gradients[1], read_value=False),
                ]
            results = {"kernel_igfo": kernel.read_value(), "bias_igfo": bias.read_value()}
        else:
            values = {"outputs": outputs, "c": final[0], "h": final[1]}
            kept = {
                name: tf.Variable(np.zeros_like(data[like]), trainable=False)
                for name, like in {"outputs": "targets", "c": "c", "h": "h"}.items()
            }
            step = tf.group(*(kept[name].assign(values[name], read_value=False) for name in kept))
            results = {name: variable.read_value() for name, variable in kept.items()}
        load = [kernel.assign(data["kernel_igfo"]), bias.assign(data["bias_igfo"])]
        config = v1.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
        session = v1.Session(config=config)
        session.run(v1.global_variables_initializer())
        session.run(load)
        call = session.make_callable(step)

    def read(out: Any) -> dict[str, np.ndarray]:
        loss = {"loss": out[0]} if mode == "train" else {}
        return {**session.run(results), **loss}

    return call, read


def _cell(strategy: str, x: Any, state: list[Any], data: dict[str, np.ndarray]) -> Any:
    """`LSTMCell` (forget bias 1 unless told otherwise) under `static_rnn` or `dynamic_rnn`."""
    cell = v1.nn.rnn_cell.LSTMCell(data["h"].shape[1])
    initial = v1.nn.rnn_cell.LSTMStateTuple(*state)
    if strategy == "static":
        steps, final = v1.nn.static_rnn(cell, tf.unstack(x, axis=1), initial_state=initial)
        outputs = tf.stack(steps, axis=1)
    else:
        outputs, final = v1.nn.dynamic_rnn(cell, x, initial_state=initial)
    return outputs, final, cell.trainable_variables


def _block(_strategy: str, x: Any, state: list[Any], data: dict[str, np.ndarray]) -> Any:
    """One operation for the whole sequence, time first."""
    kernel, bias = tf.Variable(data["kernel_igfo"]), tf.Variable(data["bias_igfo"])
    no_peephole = tf.zeros([data["h"].shape[1]])
    block = tf.raw_ops.BlockLSTM(
        seq_len_max=tf.cast(tf.shape(x)[1], tf.int64),
        x=tf.transpose(x, [1, 0, 2]),
        cs_prev=state[0],
        h_prev=state[1],
        w=kernel.read_value(),
        wci=no_peephole,
        wcf=no_peephole,
        wco=no_peephole,
        b=bias.read_value(),
        forget_bias=1.0,
        cell_clip=-1.0,
    )
    final = (block.cs[-1], block.h[-1])
    return tf.transpose(block.h, [1, 0, 2]), final, [kernel, bias]
