"""The LSTM of the comparison as somebody wrote it in TensorFlow 1: no adapter, no harness."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1


def build(strategy: str, mode: str, data: dict[str, np.ndarray]) -> Callable[[], object]:
    """A call that runs the forward pass, or one training step, feeding the batch each time."""
    v2 = strategy == "dynamic-v2"
    (v1.enable_control_flow_v2 if v2 else v1.disable_control_flow_v2)()
    batch, steps, inputs = data["x"].shape
    hidden = data["targets"].shape[2]
    graph = tf.Graph()
    with graph.as_default():
        x = v1.placeholder(tf.float32, [batch, steps, inputs])
        targets = v1.placeholder(tf.float32, [batch, steps, hidden])
        if strategy == "fused":
            kernel = v1.get_variable("kernel", initializer=data["kernel_igfo"])
            bias = v1.get_variable("bias", initializer=data["bias_igfo"])
            zeros = tf.zeros([batch, hidden])
            vector = tf.zeros([hidden])
            result = tf.raw_ops.BlockLSTM(
                seq_len_max=tf.constant(steps, tf.int64),
                x=tf.transpose(x, [1, 0, 2]),
                cs_prev=zeros,
                h_prev=zeros,
                w=kernel,
                wci=vector,
                wcf=vector,
                wco=vector,
                b=bias,
                forget_bias=1.0,
                cell_clip=-1.0,
            )
            outputs = tf.transpose(result.h, [1, 0, 2])
            final = (result.cs[-1], result.h[-1])
        else:
            cell = v1.nn.rnn_cell.LSTMCell(hidden)
            if strategy == "static":
                steps_out, final = v1.nn.static_rnn(cell, tf.unstack(x, axis=1), dtype=tf.float32)
                outputs = tf.stack(steps_out, axis=1)
            else:
                outputs, final = v1.nn.dynamic_rnn(cell, x, dtype=tf.float32)
            kernel, bias = cell.trainable_variables
        if mode == "train":
            loss = 0.5 * tf.reduce_sum((outputs - targets) ** 2) / (batch * steps)
            update = v1.train.GradientDescentOptimizer(0.01).minimize(loss)
            fetches, feed = (loss, update), {x: data["x"], targets: data["targets"]}
        else:
            fetches, feed = (outputs, final), {x: data["x"]}
        config = v1.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
        session = v1.Session(config=config)
        session.run(v1.global_variables_initializer())
        kernel.load(data["kernel_igfo"], session)
        bias.load(data["bias_igfo"], session)
    return lambda: session.run(fetches, feed)
