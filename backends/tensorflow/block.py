"""BlockLSTM and BlockLSTMV2: a whole sequence of an LSTM layer in one operation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import tensorflow as tf

from backends.api import Array, Case, LayerWeights, Weights
from backends.layout import Fused, Layout, biased, pack, unpack
from backends.spec import Lstm, Residual
from backends.stack import Layer, layers, rows, weight_layers
from backends.tensorflow.blockcells import op_clip
from backends.tensorflow.layout import own_layout
from backends.tensorflow.network import StateTensors, Tensor, reversed_in_place, variable

Tensors = Mapping[str, Tensor]


class BlockLstm:
    """One BlockLSTM a layer, the first feeding the second.

    Lengths are handled as LSTMBlockFusedCell of tf.contrib.rnn (TensorFlow 1) did: run everybody to
    the longest length, then zero the outputs past each length and take each sequence's own last
    state. Only the last layer's outputs need zeros: a step reads none after itself. A layer that
    reads sequences from their ends gets them reversed, and its outputs are put back.
    """

    #: The gates, as the operation has them side by side.
    gates: ClassVar[tuple[str, ...]] = ("i", "g", "f", "o")

    def __init__(self, case: Case) -> None:
        self._case = case
        self._stack = layers(case)
        self._ways = 1 if case.direction == "forward" else 2
        self._sets = weight_layers(case)
        self._weights: list[Tensors] = [
            {
                name: variable(f"lstm_{place}/{name}", case.dtype, fused.shape(layer.blocks))
                for name, fused in self.layout(layer).items()
            }
            for place, layer in enumerate(self._sets)
        ]

    @property
    def variables(self) -> list[Tensor]:
        return [value for weights in self._weights for value in weights.values()]

    def __call__(
        self, x: Tensor, lengths: Tensor | None, state: StateTensors
    ) -> tuple[Tensor, StateTensors]:
        steps = tf.shape(x)[1]
        longest = steps if lengths is None else tf.reduce_max(lengths)
        value = tf.transpose(x, [1, 0, 2])  # [T, B, D]
        widths = {layer.hidden for layer in self._stack if not layer.plain().of(Lstm).peepholes}
        no_peephole = {width: tf.zeros([width], self._case.dtype) for width in widths}
        final: list[Tensors] = []
        starts = iter(state)
        below = [value] * self._ways
        for row in rows(self._case):
            found = [
                self._run(layer, values, lengths, longest, next(starts), no_peephole)
                for layer, values in zip(row, below, strict=True)
            ]
            final += [last for _, last in found]
            below = [outputs for outputs, _ in found]
            if self._case.direction == "bidirectional":
                below = [_side_by_side(below)] * self._ways
        value = _side_by_side(below) if self._case.direction == "two-stacks" else below[0]
        outputs = tf.transpose(value, [1, 0, 2])
        if lengths is not None:
            alive = tf.sequence_mask(lengths, steps)[:, :, tf.newaxis]
            outputs = tf.where(alive, outputs, tf.zeros_like(outputs))
        return outputs, tuple(final)

    def _run(
        self,
        layer: Layer,
        values: Tensor,
        lengths: Tensor | None,
        longest: Tensor,
        start: Tensors,
        no_peephole: Mapping[int, Tensor],
    ) -> tuple[Tensor, Tensors]:
        """Outputs [T, B, H] of a layer, anything past a length, and its final state."""
        if isinstance(layer.cell, Residual):
            outputs, last = self._run(layer.inner(), values, lengths, longest, start, no_peephole)
            return values + outputs, last
        if layer.reverse:
            values = reversed_in_place(values, lengths, 0)
        weights = {name: value.read_value() for name, value in self._weights[layer.weights].items()}
        absent = no_peephole.get(layer.hidden)
        block = self.op(
            layer,
            # More than T aborts the process; `check_batch` lets no such length through.
            seq_len_max=tf.cast(longest, tf.int64),
            x=values,
            cs_prev=start["c"],
            h_prev=start["h"],
            w=weights["kernel"],
            wci=weights.get("w_i_diag", absent),
            wcf=weights.get("w_f_diag", absent),
            wco=weights.get("w_o_diag", absent),
            b=weights["bias"],
            use_peephole=layer.of(Lstm).peepholes,
            cell_clip=op_clip(layer.of(Lstm)),
        )
        last = {
            "c": _last(block.cs, lengths, start["c"]),
            "h": _last(block.h, lengths, start["h"]),
        }
        return (reversed_in_place(block.h, lengths, 0) if layer.reverse else block.h), last

    def op(self, layer: Layer, **inputs: Any) -> Any:
        """The operation on a layer's inputs."""
        return tf.raw_ops.BlockLSTM(forget_bias=layer.forget_bias, **inputs)

    def layout(self, layer: Layer) -> Layout:
        """The variables of a layer: LSTMCell's, with the gates in the operation's order."""
        own = own_layout(layer.plain())
        return {
            name: Fused(fused.kinds, self.gates) if len(fused.gates) > 1 else fused
            for name, fused in own.items()
        }

    def pack(self, weights: Weights) -> list[Array]:
        return [
            value
            for layer, given in zip(self._sets, weights, strict=True)
            for value in self.pack_layer(layer, given).values()
        ]

    def unpack(self, values: Sequence[Array]) -> Weights:
        rest = iter(values)
        return tuple(
            self.unpack_layer(layer, {name: next(rest) for name in self.layout(layer)})
            for layer in self._sets
        )

    def pack_layer(self, layer: Layer, weights: LayerWeights) -> dict[str, Array]:
        """A layer's weights as its variables."""
        return pack(self.layout(layer), weights)

    def unpack_layer(self, layer: Layer, arrays: Mapping[str, Array]) -> LayerWeights:
        """The inverse of `pack_layer`."""
        return unpack(self.layout(layer), arrays, layer.blocks)

    def project(self, gradients: list[Tensor]) -> list[Tensor]:
        return gradients


class BlockLstmV2(BlockLstm):
    """Layer of BlockLSTMV2: gates in another order, and the forget bias within b_f."""

    gates: ClassVar[tuple[str, ...]] = ("i", "f", "g", "o")

    def op(self, layer: Layer, **inputs: Any) -> Any:
        with tf.compat.v1.get_default_graph().gradient_override_map({"BlockLSTMV2": _V2_GRADIENT}):
            return tf.raw_ops.BlockLSTMV2(**inputs)

    def pack_layer(self, layer: Layer, weights: LayerWeights) -> dict[str, Array]:
        return super().pack_layer(layer, biased(layer, weights))

    def unpack_layer(self, layer: Layer, arrays: Mapping[str, Array]) -> LayerWeights:
        weights = super().unpack_layer(layer, arrays)
        return biased(layer, weights, times=-1)


_V2_GRADIENT = "BlockLSTMV2OfItsGates"


@tf.RegisterGradient(_V2_GRADIENT)
def _block_lstm_v2_gradient(op: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
    """Of all inputs, for those of cs and h.

    TensorFlow registers BlockLSTM's gradient for both operations (seen in 2.21), which takes the
    gates of this one, i, f, g, o, for i, g, f, o: its gradients are wrong, and nothing says so.
    BlockLSTMGradV2 has the right order.
    """
    names = ("seq_len_max", "x", "cs_prev", "h_prev", "w", "wci", "wcf", "wco", "b")
    kept = ("i", "cs", "f", "o", "ci", "co", "h")
    found = tf.raw_ops.BlockLSTMGradV2(
        **dict(zip(names, op.inputs, strict=True)),
        **dict(zip(kept, op.outputs, strict=True)),
        cs_grad=gradients[1],
        h_grad=gradients[6],
        use_peephole=op.get_attr("use_peephole"),
    )
    return None, *found


def _side_by_side(row: Sequence[Tensor]) -> Tensor:
    """The outputs of both directions, or of the one."""
    return row[0] if len(row) == 1 else tf.concat(row, axis=2)


def _last(values: Tensor, lengths: Tensor | None, start: Tensor) -> Tensor:
    """Each sequence's value [B, H] after its last step, of values [T, B, H]; `start` for none."""
    if lengths is None:
        return values[-1]
    step = tf.maximum(lengths - 1, 0)
    last = tf.gather_nd(values, tf.stack([step, tf.range(tf.size(step))], axis=1))
    return tf.where((lengths > 0)[:, tf.newaxis], last, start)
