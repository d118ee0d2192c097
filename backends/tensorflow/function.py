"""A `tf.function`, traced when it is built: TensorFlow 2 as its users have it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any

import tensorflow as tf

from backends.api import Batch, Case, Mode, Output, Stage, Weights
from backends.data import rotated
from backends.devices import is_gpu
from backends.tensorflow.network import (
    Inputs,
    Network,
    StateTensors,
    Tensor,
    count_nodes,
    half_mean_square,
    require_mode,
)


class FunctionRunner:
    """One concrete function without arguments, reading a batch's variables and returning tensors.

    A call returns when its kernels have run on a CPU, and when they are enqueued on a GPU. With
    `jit_compile` the first call, and the first with another T, also compiles.
    """

    def __init__(
        self,
        case: Case,
        mode: Mode,
        stage: Stage,
        *,
        device: str,
        network: Callable[[Case], Network],
        unrolled: bool,
        jit_compile: bool,
    ) -> None:
        self._mode = mode
        self._bound: list[Tensor] = []  # of the batch that is bound, while there is a rotation
        self._rotation: Iterator[list[Tensor]] | None = None
        self._device = device
        self._on_gpu = is_gpu(case.device)
        with tf.device(device):
            with stage("variables"):
                self._inputs = Inputs(case, mode, case.seq_len if unrolled else None)
                self._network = network(case)
            with stage("trace"):
                self._program = tf.function(
                    self._trace_train if mode == "train" else self._trace_forward,
                    jit_compile=jit_compile,
                    autograph=False,
                ).get_concrete_function()

    def _trace_forward(self) -> tuple[Tensor, StateTensors]:
        # A trace does not take over the device from around it.
        with tf.device(self._device):
            return self._network(*self._inputs.network())

    def _trace_train(self) -> Tensor:
        with tf.device(self._device):
            targets, learning_rate = self._inputs.training()
            variables = self._network.variables
            with tf.GradientTape() as tape:
                tape.watch(variables)
                outputs, _ = self._network(*self._inputs.network())
                loss = half_mean_square(outputs, targets)
            gradients = self._network.project(tape.gradient(loss, variables))
            # Within a function TensorFlow orders an assignment after the reads before it.
            for value, gradient in zip(variables, gradients, strict=True):
                value.assign_sub(learning_rate * gradient)
            return loss

    def load(self, weights: Weights) -> None:
        values = self._network.pack(weights)
        for target, value in zip(self._network.variables, values, strict=True):
            target.assign(value)

    def bind(self, batch: Batch) -> None:
        self._inputs.check(batch)
        self.feed(batch)

    def feed(self, batch: Batch) -> None:
        self._bound, self._rotation = [], None
        values = self._inputs.values(batch)
        for target, value in zip(self._inputs.variables, values, strict=True):
            target.assign(value)

    def rotate(self, batches: Sequence[Batch]) -> None:
        if self._rotation is None:
            self._bound = [target.read_value() for target in self._inputs.rotated]
        self._take(self._bound)
        self._rotation = None  # releases its tensors before there are others
        with tf.device(self._device):
            self._rotation = cycle(
                [[tf.constant(array) for array in rotated(b, self._mode)] for b in batches]
            )
        self.sync(None)

    def advance(self) -> None:
        if self._rotation is not None:
            self._take(next(self._rotation))

    def _take(self, values: Sequence[Tensor]) -> None:
        """Let the next call read these: an assignment takes over a buffer, and copies nothing."""
        for target, value in zip(self._inputs.rotated, values, strict=True):
            target.assign(value, read_value=False)

    def forward(self) -> Any:
        require_mode(self._mode, "forward")
        return self._program()

    def train(self) -> Any:
        require_mode(self._mode, "train")
        return self._program()

    def sync(self, out: object) -> None:
        if self._on_gpu:
            tf.test.experimental.sync_devices()

    def fetch(self, out: tuple[Tensor, StateTensors]) -> Output:
        outputs, state = out
        return Output(
            outputs=outputs.numpy(),
            state=tuple({name: value.numpy() for name, value in layer.items()} for layer in state),
        )

    def fetch_loss(self, out: Tensor) -> float:
        return float(out.numpy())

    def weights(self) -> Weights:
        return self._network.unpack([value.numpy() for value in self._network.variables])

    def program_size(self) -> Mapping[str, int]:
        return count_nodes(self._program.graph)

    def close(self) -> None:
        del self._program, self._network, self._inputs, self._bound, self._rotation
