"""CudnnRNNV3: all layers, directions and steps of time in one operation of cuDNN's.

The trained variable is cuDNN's opaque buffer, as it was for users of `CudnnLSTM` of tf.contrib
(TensorFlow 1): no call converts anything. Its order is cuDNN's own business and may be another on
another GPU, so it is filled by `CudnnRNNCanonicalToParams` when weights are loaded, and read by
`CudnnRNNParamsToCanonical`. Of these the second versions are for projections only, as in
tf.contrib: without one, `CudnnRNNParamsToCanonicalV2` counts no matrices at all and fails.

Layouts by the operations' documentation and the source of their kernels (tensorflow/core/kernels/
cudnn_rnn_ops.cc, xla/stream_executor/cuda/cuda_dnn.cc), which say two things more:

- Time comes first, and the call transposes for it. With `time_major=False` the state [B, L, H] is
  read as if it were [L, B, H], right for one layer in one direction only; and full lengths then
  take the path of padded data.
- Float32 products are of the math type FMA where TF32 is off (`enable_tensor_float_32_execution`),
  and of tensor cores where it is on.

A kernel keeps its descriptor by sizes and T, and not by whether there is padding: a runner whose
first batch has no padding, and a later one of this T has, fails there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from backends.api import Array, Case, Mode, Stage, Weights
from backends.spec import GruResetAfter, Lstm, Rnn
from backends.stack import Layer, layers
from backends.tensorflow.graph import GraphRunner, Port
from backends.tensorflow.network import StateTensors, Tensor, variable

v1 = tf.compat.v1


@dataclass(frozen=True, kw_only=True)
class Operations:
    """The operations that there are on a GPU alone, or what stands in for them."""

    rnn: Callable[..., Any]
    to_params: Callable[..., Tensor]
    to_canonical: Callable[..., tuple[list[Tensor], list[Tensor]]]


def _to_params(*, num_proj: int, **inputs: Any) -> Tensor:
    if num_proj:
        return tf.raw_ops.CudnnRNNCanonicalToParamsV2(num_proj=num_proj, **inputs)
    return tf.raw_ops.CudnnRNNCanonicalToParams(**inputs)


def _to_canonical(
    *, num_proj: int, num_weights: int, num_biases: int, **inputs: Any
) -> tuple[list[Tensor], list[Tensor]]:
    if num_proj:
        found = tf.raw_ops.CudnnRNNParamsToCanonicalV2(
            num_proj=num_proj,
            num_params_weights=num_weights,
            num_params_biases=num_biases,
            **inputs,
        )
    else:
        found = tf.raw_ops.CudnnRNNParamsToCanonical(num_params=num_weights, **inputs)
    return found.weights, found.biases


CUDNN = Operations(rnn=tf.raw_ops.CudnnRNNV3, to_params=_to_params, to_canonical=_to_canonical)


#: Gates of a layer, as cuDNN numbers its matrices.
_GATES: Mapping[str, tuple[str, ...]] = {
    "lstm": ("i", "f", "g", "o"),
    "gru": ("r", "u", "c"),
    "rnn_tanh": ("h",),
    "rnn_relu": ("h",),
}


@dataclass(frozen=True, kw_only=True)
class _Slot:
    """An array of cuDNN's canonical form: a block of a layer as [out, in], or a constant."""

    layer: int
    shape: tuple[int, ...]
    block: str | None
    constant: float = 0.0

    def fill(self, weights: Weights, dtype: str) -> Array:
        if self.block is None:
            return np.full(self.shape, self.constant, dtype)
        return np.ascontiguousarray(weights[self.layer][self.block].T)


def _matrices(place: int, layer: Layer) -> list[_Slot]:
    """Of the inputs, of the recurrence, and the projection, each gate by gate."""
    gates = _GATES[_rnn_mode(layer)]
    names = [f"{kind}_{gate}" for kind in "WU" for gate in gates]
    if "Q_h" in layer.blocks:
        names.append("Q_h")
    return [_Slot(layer=place, shape=layer.blocks[name][::-1], block=name) for name in names]


def _biases(place: int, layer: Layer) -> list[_Slot]:
    """Of the inputs and of the recurrence: there b_hc, and else what SGD must leave alone."""
    shape, slots = (layer.hidden,), []
    for kind in ("b", "recurrent"):
        for gate in _GATES[_rnn_mode(layer)]:
            block = f"b_{gate}" if kind == "b" else _RECURRENT.get(gate)
            constant = layer.forget_bias if kind == "recurrent" and gate == "f" else 0.0
            slots.append(_Slot(layer=place, shape=shape, block=block, constant=constant))
    return slots


#: The recurrent biases that are trained.
_RECURRENT = {"c": "b_hc"}


def _rnn_mode(layer: Layer) -> str:
    match layer.cell:
        case Lstm():
            return "lstm"
        case GruResetAfter():
            return "gru"
        case _:
            return f"rnn_{layer.of(Rnn).activation}"


class CudnnRnn:
    """All layers of a case as one CudnnRNNV3.

    cuDNN has two biases a gate. The canonical one is that of the input; that of the recurrence is a
    constant, the forget bias or 0, except in the GRU's candidate, where it is b_hc. A step that
    trained both would move their sum twice: the gradient is multiplied by a buffer of ones that has
    zeros for the constants, made by the conversion that makes the buffer of weights.

    cuDNN fails on empty sequences (https://github.com/jax-ml/jax/issues/17966): they run one step,
    which is taken back. It reads lengths on the host, where a call copies them.
    """

    def __init__(self, case: Case, *, training: bool, operations: Operations = CUDNN) -> None:
        stack = layers(case)
        self._dtype = case.dtype
        self._training = training
        self._operations = operations
        self._params = variable("params", case.dtype, (None,))
        self._trained = variable("trained", case.dtype, (None,)) if training else None
        matrices = [slot for place, layer in enumerate(stack) for slot in _matrices(place, layer)]
        biases = [slot for place, layer in enumerate(stack) for slot in _biases(place, layer)]
        self._count = len(matrices)
        self._slots = matrices + biases
        self._blocks = [layer.blocks for layer in stack]
        first = stack[0]
        self._model = {
            "rnn_mode": _rnn_mode(first),
            "input_mode": "linear_input",
            "direction": "unidirectional" if case.direction == "forward" else "bidirectional",
            "num_proj": first.outputs if "Q_h" in first.blocks else 0,
        }
        self._sizes = {
            "num_layers": case.layers,
            "num_units": first.hidden,
            "input_size": first.inputs,
        }

    @property
    def variables(self) -> list[Tensor]:
        return [self._params]

    def __call__(
        self, x: Tensor, lengths: Tensor | None, state: StateTensors
    ) -> tuple[Tensor, StateTensors]:
        batch, steps = tf.unstack(tf.shape(x)[:2])
        given = {name: tf.stack([layer[name] for layer in state]) for name in state[0]}
        found = self._operations.rnn(
            input=tf.transpose(x, [1, 0, 2]),
            input_h=given["h"],
            # Only the LSTM has one; of the others nobody reads it.
            input_c=given["c"] if "c" in given else tf.zeros([], self._dtype),
            params=self._params.read_value(),
            sequence_lengths=(
                tf.fill([batch], steps) if lengths is None else tf.maximum(lengths, 1)
            ),
            is_training=self._training,
            time_major=True,
            **self._model,
        )
        outputs = tf.transpose(found.output, [1, 0, 2])
        ends = {"h": found.output_h, "c": found.output_c}
        final = [{name: ends[name][place] for name in layer} for place, layer in enumerate(state)]
        if lengths is not None:
            some = (lengths > 0)[:, tf.newaxis]
            outputs = tf.where(some[:, :, tf.newaxis], outputs, tf.zeros_like(outputs))
            final = [
                {name: tf.where(some, end[name], start[name]) for name in end}
                for end, start in zip(final, state, strict=True)
            ]
        return outputs, tuple(final)

    def pack(self, weights: Weights) -> list[Array]:
        """The arrays of cuDNN's canonical form: the matrices of all layers, then all biases."""
        return [slot.fill(weights, self._dtype) for slot in self._slots]

    def unpack(self, values: Sequence[Array]) -> Weights:
        found = {
            (slot.layer, slot.block): value.T
            for slot, value in zip(self._slots, values, strict=True)
        }
        return tuple(
            {name: found[place, name] for name in blocks}
            for place, blocks in enumerate(self._blocks)
        )

    def project(self, gradients: list[Tensor]) -> list[Tensor]:
        assert self._trained is not None
        return [gradient * self._trained.read_value() for gradient in gradients]

    def ports(self) -> list[Port]:
        """The way to the buffer: a port for each array of `pack`; any of them writes it whole."""
        places = [v1.placeholder(self._dtype, slot.shape) for slot in self._slots]
        writes = [self._params.assign(self._buffer(places), read_value=False)]
        if self._trained is not None:
            trained = [
                tf.fill(slot.shape, tf.constant(float(slot.block is not None), self._dtype))
                for slot in self._slots
            ]
            writes.append(self._trained.assign(self._buffer(trained), read_value=False))
        write = tf.group(*writes, name="load")
        matrices, biases = self._operations.to_canonical(
            params=self._params.read_value(),
            num_weights=self._count,
            num_biases=len(self._slots) - self._count,
            **self._model,
            **self._sizes,
        )
        return [
            Port(placeholder=place, write=write, read=value)
            for place, value in zip(places, [*matrices, *biases], strict=True)
        ]

    def _buffer(self, arrays: Sequence[Tensor]) -> Tensor:
        """Arrays of cuDNN's canonical form as its buffer."""
        return self._operations.to_params(
            weights=list(arrays[: self._count]),
            biases=list(arrays[self._count :]),
            **self._model,
            **self._sizes,
        )


def build_cudnn(
    case: Case,
    mode: Mode,
    stage: Stage,
    *,
    device: str,
    config: Any,
    operations: Operations = CUDNN,
) -> GraphRunner:
    """A graph with one CudnnRNNV3, which keeps what a gradient needs in mode "train" alone."""
    return GraphRunner(
        case,
        mode,
        stage,
        device=device,
        config=config,
        network=partial(CudnnRnn, training=mode == "train", operations=operations),
        ports=CudnnRnn.ports,
        unrolled=False,
        control_flow_v2=False,
    )
