"""Common part of all TensorFlow strategies: a network, its resident inputs, and the loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import tensorflow as tf

from backends.api import Array, Batch, Case, Mode, State, Unsupported, Weights
from backends.data import check_batch, initial_state
from backends.stack import input_width, layers, output_width

#: A tensor or a variable: TensorFlow's types are not checked.
Tensor = Any

#: The tensors of `backends.api.State`.
StateTensors = tuple[Mapping[str, Tensor], ...]


class Network(Protocol):
    """The layers of a case and the loop that carries them over time.

    Constructed and called within the graph or function that runs it. It makes its variables when it
    is constructed or at the latest when it is called; they hold no weights before `pack`'s arrays
    are assigned to them.
    """

    @property
    def variables(self) -> list[Tensor]:
        """All trained variables, set of weights by set; complete after the first call."""

    def __call__(
        self, x: Tensor, lengths: Tensor | None, state: StateTensors
    ) -> tuple[Tensor, StateTensors]:
        """Outputs [B, T, O] and final state for x [B, T, D], lengths [B] or None, and a state."""

    def pack(self, weights: Weights) -> list[Array]:
        """Canonical weights as the values of `variables`."""

    def unpack(self, values: Sequence[Array]) -> Weights:
        """The inverse of `pack`."""

    def project(self, gradients: list[Tensor]) -> list[Tensor]:
        """Gradients of `variables`, zero where these hold more than the canonical weights do.

        Most networks hold no more and return what they are given.
        """


def variable(name: str, dtype: str, shape: Sequence[int | None]) -> Tensor:
    """A variable for other values than its zeros; None in a shape is an axis of any length."""
    return tf.Variable(
        tf.zeros([size or 0 for size in shape], dtype), trainable=False, shape=shape, name=name
    )


def state_variables(name: str, case: Case) -> StateTensors:
    """Variables for a state of all layers."""
    return tuple(
        {
            part: variable(f"{name}_{place}_{part}", case.dtype, (case.batch, width))
            for part, width in layer.state.items()
        }
        for place, layer in enumerate(layers(case))
    )


class Inputs:
    """A batch in variables on the device. Programs read them: no call feeds or copies anything.

    `steps` is T where the program is unrolled for it, or None where any T will do. Targets and the
    learning rate exist only for mode "train".
    """

    def __init__(self, case: Case, mode: Mode, steps: int | None) -> None:
        self._case = case
        self._steps = steps
        self._x = variable("x", case.dtype, (case.batch, steps, input_width(case)))
        self._state = state_variables("state", case)
        # TensorFlow has no int32 variables on a GPU.
        self._lengths = (
            variable("lengths", "int64", (case.batch,)) if case.lengths != "full" else None
        )
        self._training: tuple[Tensor, ...] = (
            (
                variable("targets", case.dtype, (case.batch, steps, output_width(case))),
                variable("learning_rate", case.dtype, ()),
            )
            if mode == "train"
            else ()
        )

    @property
    def variables(self) -> list[Tensor]:
        """Everything that `values` has a value for, in its order."""
        lengths = () if self._lengths is None else (self._lengths,)
        return [self._x, *flatten(self._state), *lengths, *self._training]

    @property
    def rotated(self) -> list[Tensor]:
        """The variables of what `backends.data.rotated` names."""
        return [self._x, *self._training[:1]]

    def check(self, batch: Batch) -> None:
        """Raise `ValueError` for a batch that is none of the case.

        And `Unsupported` for a shape that the program was not built for.
        """
        check_batch(self._case, batch)
        b, t = batch.x.shape[:2]
        if b != self._case.batch:
            raise Unsupported(f"graph is built for B={self._case.batch}, got B={b}")
        if self._steps not in (None, t):
            raise Unsupported(f"graph is built for T={self._steps}, got T={t}")

    def values(self, batch: Batch) -> list[Array | float]:
        """The values of `variables` for a batch."""
        state = initial_state(self._case, batch)
        return [
            batch.x,
            *(given[name] for given, own in zip(state, self._state, strict=True) for name in own),
            *(() if batch.lengths is None else (batch.lengths,)),
            *((batch.targets, batch.learning_rate) if self._training else ()),
        ]

    def network(self) -> tuple[Tensor, Tensor | None, StateTensors]:
        """Read what a network takes: x, lengths and initial state."""
        return (
            self._x.read_value(),
            None if self._lengths is None else tf.cast(self._lengths.read_value(), tf.int32),
            tuple(
                {name: value.read_value() for name, value in layer.items()} for layer in self._state
            ),
        )

    def training(self) -> tuple[Tensor, Tensor]:
        """Read what a step takes besides: targets and learning rate. Only for mode "train"."""
        targets, learning_rate = self._training
        return targets.read_value(), learning_rate.read_value()


def half_mean_square(outputs: Tensor, targets: Tensor) -> Tensor:
    """The loss of `backends.api.Runner`: a scalar for outputs and targets [B, T, O]."""
    shape = tf.shape(targets)
    return tf.reduce_sum(tf.square(outputs - targets)) / tf.cast(
        2 * shape[0] * shape[1], outputs.dtype
    )


def count_nodes(graph: Any) -> dict[str, int]:
    """Nodes of a graph with the bodies of its functions, and how many functions it has."""
    definition = graph.as_graph_def()
    functions = definition.library.function
    nodes = len(definition.node) + sum(len(function.node_def) for function in functions)
    return {"nodes": nodes, "functions": len(functions)}


def flatten(state: StateTensors) -> list[Tensor]:
    """A state's tensors, layer by layer."""
    return [value for layer in state for value in layer.values()]


def unflatten(case: Case, values: Sequence[Array]) -> State:
    """The inverse of `flatten`, of a case's state on the host."""
    rest = iter(values)
    return tuple({name: next(rest) for name in layer.state} for layer in layers(case))


def reversed_in_place(values: Tensor, lengths: Tensor | None, time_axis: int) -> Tensor:
    """The first n_b steps of each sequence b in reverse, its padding where it is."""
    if lengths is None:
        return tf.reverse(values, [time_axis])
    return tf.reverse_sequence(values, lengths, seq_axis=time_axis, batch_axis=1 - time_axis)


def require_mode(built: Mode, asked: Mode) -> None:
    """Raise `ValueError` where a runner built for one mode is asked for the other."""
    if built != asked:
        raise ValueError(f"the runner is built for mode {built!r}, not for {asked!r}")
