"""CudnnRNNV3 and its conversions in ordinary TensorFlow operations, for hosts without a GPU.

What they compute is by their documentation (`tf.raw_ops.CudnnRNNV3`, NVIDIA's cuDNN API): gates in
the order i, f, g, o or r, u, c, matrices [out, in], two biases a gate, outputs 0 past a length and
the state held there. An empty sequence fails, as there. It is no measure of cuDNN's time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

Tensor = Any
Step = Callable[[Tensor, list[Tensor]], list[Tensor]]

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
#: What stands before the arrays of a buffer: nobody may read it.
GAP = 3


class Outputs(NamedTuple):
    """What CudnnRNNV3 returns."""

    output: Tensor
    output_h: Tensor
    output_c: Tensor
    reserve_space: Tensor
    host_reserved: Tensor


def to_params(*, weights: Sequence[Tensor], biases: Sequence[Tensor], **_model: Any) -> Tensor:
    """A buffer in an order that nobody would guess, with a gap of NaN."""
    flat = _flat([*weights, *biases])
    return tf.concat([tf.fill([GAP], tf.constant(float("nan"), flat.dtype)), flat[::-1]], axis=0)


def to_canonical(
    *, params: Tensor, num_weights: int, num_biases: int, **model: Any
) -> tuple[list[Tensor], list[Tensor]]:
    outputs = model["num_proj"] or model["num_units"]
    ways = 1 if model["direction"] == "unidirectional" else 2
    shapes = _shapes(
        model["rnn_mode"], model["input_size"], model["num_units"], outputs,
        [layer for layer in range(model["num_layers"]) for _ in range(ways)], ways,
    )  # fmt: skip
    weights, biases = _split(params[GAP:][::-1], shapes, model["num_units"])
    assert (len(weights), len(biases)) == (num_weights, num_biases)
    return weights, biases


def rnn(*, params: Tensor, **inputs: Any) -> Outputs:
    """CudnnRNNV3 of a buffer that `to_params` made."""
    return flat_rnn(params=params[GAP:][::-1], **inputs)


def flat_rnn(
    *,
    params: Tensor,
    sequence_lengths: Tensor,
    rnn_mode: str,
    time_major: bool,
    direction: str = "unidirectional",
    num_proj: int = 0,
    **given: Any,
) -> Outputs:
    """CudnnRNNV3 of a buffer with all matrices, then all biases: the order that Keras writes."""
    assert set(given) - {"is_training", "input_mode"} == {"input", "input_h", "input_c"}
    assert given.get("input_mode", "linear_input") == "linear_input"
    values = [given["input"], given["input_h"], *([given["input_c"]] if rnn_mode == "lstm" else [])]
    x, *states = values if time_major else (tf.transpose(value, [1, 0, 2]) for value in values)
    ways = 1 if direction == "unidirectional" else 2
    count, outputs = states[0].shape[0], states[0].shape[2]
    units = states[-1].shape[2] if num_proj else outputs
    assert num_proj in (0, outputs)
    depths = [place // ways for place in range(count)]
    shapes = _shapes(rnn_mode, x.shape[2], units, outputs, depths, ways)
    weights, biases = _split(params, shapes, units)
    with tf.control_dependencies([tf.debugging.assert_positive(sequence_lengths)]):
        value = tf.identity(x)
    ends: list[list[Tensor]] = []
    for first in range(0, count, ways):
        found = []
        for place in range(first, first + ways):
            matrices = weights[place * len(weights) // count : (place + 1) * len(weights) // count]
            vectors = biases[place * len(biases) // count : (place + 1) * len(biases) // count]
            step = _step(rnn_mode, matrices, vectors)
            y, end = _layer(
                step, value, sequence_lengths, [state[place] for state in states],
                reverse=place > first,
            )  # fmt: skip
            found.append(y)
            ends.append(end)
        value = tf.concat(found, axis=2)
    last = [tf.stack(part) for part in zip(*ends, strict=True)]
    if not time_major:
        value, *last = (tf.transpose(part, [1, 0, 2]) for part in (value, *last))
    none = tf.zeros([], x.dtype)
    return Outputs(value, last[0], last[1] if len(last) > 1 else none, none, none)


def _shapes(
    mode: str, inputs: int, units: int, outputs: int, depths: Sequence[int], ways: int
) -> list[tuple[int, int]]:
    """The matrices of all layers and directions."""
    shapes: list[tuple[int, int]] = []
    for depth in depths:
        shapes += [(units, inputs if depth == 0 else ways * outputs)] * GATES[mode]
        shapes += [(units, outputs)] * GATES[mode]
        shapes += [(outputs, units)] if outputs != units else []
    return shapes


def _flat(values: Sequence[Tensor]) -> Tensor:
    return tf.concat([tf.reshape(value, [-1]) for value in values], axis=0)


def _split(
    flat: Tensor, shapes: Sequence[tuple[int, int]], units: int
) -> tuple[list[Tensor], list[Tensor]]:
    weights, at = [], 0
    for rows, columns in shapes:
        weights.append(tf.reshape(flat[at : at + rows * columns], (rows, columns)))
        at += rows * columns
    # A projection is a matrix without a bias.
    count = sum(1 for rows, _ in shapes if rows == units)
    biases = [flat[at + place * units : at + (place + 1) * units] for place in range(count)]
    return weights, biases


def _layer(
    step: Step, x: Tensor, lengths: Tensor, start: list[Tensor], *, reverse: bool
) -> tuple[Tensor, list[Tensor]]:
    """Outputs [T, B, O] and final state of one direction of a layer."""
    if reverse:
        x = tf.reverse_sequence(x, lengths, seq_axis=0, batch_axis=1)
    alive = tf.transpose(tf.sequence_mask(lengths, tf.shape(x)[0]))[:, :, tf.newaxis]

    def one(before: list[Tensor], given: tuple[Tensor, Tensor]) -> list[Tensor]:
        value, lives = given
        after = step(value, before)
        return [tf.where(lives, new, old) for new, old in zip(after, before, strict=True)]

    states = tf.scan(one, (x, alive), initializer=start)
    outputs = tf.where(alive, states[0], tf.zeros_like(states[0]))
    if reverse:
        outputs = tf.reverse_sequence(outputs, lengths, seq_axis=0, batch_axis=1)
    return outputs, [state[-1] for state in states]


def _step(mode: str, matrices: Sequence[Tensor], biases: Sequence[Tensor]) -> Step:
    gates = GATES[mode]

    def of_inputs(x: Tensor) -> list[Tensor]:
        pairs = zip(matrices[:gates], biases[:gates], strict=True)
        return [x @ tf.transpose(matrix) + bias for matrix, bias in pairs]

    def of_state(h: Tensor) -> list[Tensor]:
        pairs = zip(matrices[gates : 2 * gates], biases[gates:], strict=True)
        return [h @ tf.transpose(matrix) + bias for matrix, bias in pairs]

    def lstm(x: Tensor, state: list[Tensor]) -> list[Tensor]:
        h, c = state
        i, f, g, o = (a + b for a, b in zip(of_inputs(x), of_state(h), strict=True))
        c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
        h = tf.sigmoid(o) * tf.tanh(c)
        return [h @ tf.transpose(matrices[-1]) if len(matrices) > 2 * gates else h, c]

    def gru(x: Tensor, state: list[Tensor]) -> list[Tensor]:
        (h,) = state
        (x_r, x_u, x_c), (h_r, h_u, h_c) = of_inputs(x), of_state(h)
        u = tf.sigmoid(x_u + h_u)
        return [u * h + (1 - u) * tf.tanh(x_c + tf.sigmoid(x_r + h_r) * h_c)]

    def plain(x: Tensor, state: list[Tensor]) -> list[Tensor]:
        activation = tf.tanh if mode == "rnn_tanh" else tf.nn.relu
        return [activation(of_inputs(x)[0] + of_state(state[0])[0])]

    return {"lstm": lstm, "gru": gru}.get(mode, plain)
