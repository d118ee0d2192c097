"""BlockLSTM: a whole sequence of an LSTM layer in one operation."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from backends.api import Array, Case, Unsupported, Weights
from backends.tensorflow import layout
from backends.tensorflow.network import StateTensors, Tensor, variable

_CELLS = ("basic-lstm", "lstm")
_DTYPES = ("float32",)


def require(case: Case) -> None:
    """Raise `Unsupported` for a case that the operation has no kernel for."""
    if case.cell not in _CELLS:
        raise Unsupported(f"cell {case.cell}: BlockLSTM computes {' and '.join(_CELLS)}")
    if case.dtype not in _DTYPES:
        raise Unsupported(f"dtype {case.dtype}: BlockLSTM has {', '.join(_DTYPES)}")


class BlockLstm:
    """One BlockLSTM a layer, the first feeding the second.

    Lengths are handled as LSTMBlockFusedCell of tf.contrib.rnn (TensorFlow 1) did: run everybody to
    the longest length, then zero the outputs past each length and take each sequence's own last
    state. Only the last layer's outputs need zeros: a step reads none after itself.
    """

    def __init__(self, case: Case) -> None:
        self._case = case
        h = case.hidden
        self._layers = [
            (
                variable(f"lstm_{layer}/kernel", case.dtype, (case.layer_inputs(layer) + h, 4 * h)),
                variable(f"lstm_{layer}/bias", case.dtype, (4 * h,)),
            )
            for layer in range(case.layers)
        ]

    @property
    def variables(self) -> list[Tensor]:
        return [value for layer in self._layers for value in layer]

    def __call__(
        self, x: Tensor, lengths: Tensor | None, state: StateTensors
    ) -> tuple[Tensor, StateTensors]:
        steps = tf.shape(x)[1]
        longest = steps if lengths is None else tf.reduce_max(lengths)
        value = tf.transpose(x, [1, 0, 2])  # [T, B, D]
        no_peephole = tf.zeros([self._case.hidden], self._case.dtype)
        final = []
        for (kernel, bias), start in zip(self._layers, state, strict=True):
            block = tf.raw_ops.BlockLSTM(
                # More than T aborts the process; `check_batch` lets no such length through.
                seq_len_max=tf.cast(longest, tf.int64),
                x=value,
                cs_prev=start["c"],
                h_prev=start["h"],
                w=kernel.read_value(),
                wci=no_peephole,
                wcf=no_peephole,
                wco=no_peephole,
                b=bias.read_value(),
                forget_bias=self._case.forget_bias,
                cell_clip=-1.0,  # the operation's default, 3, is another function
            )
            value = block.h  # [T, B, H]
            final.append(
                {
                    "c": _last(block.cs, lengths, start["c"]),
                    "h": _last(block.h, lengths, start["h"]),
                }
            )
        outputs = tf.transpose(value, [1, 0, 2])
        if lengths is not None:
            alive = tf.sequence_mask(lengths, steps)[:, :, tf.newaxis]
            outputs = tf.where(alive, outputs, tf.zeros_like(outputs))
        return outputs, tuple(final)

    def pack(self, weights: Weights) -> list[Array]:
        return layout.pack(layout.CELL_VARIABLES[self._case.cell], weights)

    def unpack(self, values: Sequence[Array]) -> Weights:
        return layout.unpack(layout.CELL_VARIABLES[self._case.cell], values)

    def project(self, gradients: list[Tensor]) -> list[Tensor]:
        return gradients


def _last(values: Tensor, lengths: Tensor | None, start: Tensor) -> Tensor:
    """Each sequence's value [B, H] after its last step, of values [T, B, H]; `start` for none."""
    if lengths is None:
        return values[-1]
    step = tf.maximum(lengths - 1, 0)
    last = tf.gather_nd(values, tf.stack([step, tf.range(tf.size(step))], axis=1))
    return tf.where((lengths > 0)[:, tf.newaxis], last, start)
