"""A `tf.Graph` and a `Session`: TensorFlow 1 as its users have it, beside eager TensorFlow 2."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from backends.api import Array, Batch, Case, Mode, Output, Stage, Weights
from backends.data import rotated
from backends.stack import output_width
from backends.tensorflow.network import (
    Inputs,
    Network,
    StateTensors,
    Tensor,
    count_nodes,
    flatten,
    half_mean_square,
    require_mode,
    state_variables,
    unflatten,
    variable,
)

v1 = tf.compat.v1


@contextmanager
def control_flow(*, v2: bool) -> Iterator[None]:
    """Loops and conditionals made within are of this version of control flow.

    Version 1 is Enter, Switch and Merge nodes in the graph, version 2 a function a branch or body.
    The switch is global to the process and read when an operation is made; it is put back.
    """
    before = v1.control_flow_v2_enabled()
    _switch(v2=v2)
    try:
        yield
    finally:
        _switch(v2=before)


def _switch(*, v2: bool) -> None:
    if v2:
        v1.enable_control_flow_v2()
    else:
        v1.disable_control_flow_v2()


@dataclass(frozen=True, kw_only=True)
class Port:
    """The way to a graph's variable from the host."""

    placeholder: Tensor
    write: Any  # the operation
    read: Tensor


def port(target: Tensor) -> Port:
    """The port of a variable."""
    placeholder = v1.placeholder(target.dtype, target.shape)
    # A feed shares the array's memory, and so would the variable: it would change with the array.
    value = tf.raw_ops.DeepCopy(x=placeholder)
    return Port(
        placeholder=placeholder,
        write=target.assign(value, read_value=False),
        read=target.read_value(),
    )


def variable_ports(network: Network) -> list[Port]:
    """A port for each variable of a network."""
    return [port(value) for value in network.variables]


class Rotation:
    """Runs of a session that give variables their values of one batch after the other.

    A pool [K, ...] has those of K batches. A row of it is no copy where its size is a multiple of
    64 bytes, and an assignment takes over a buffer: `advance` copies nothing else. Session handles
    (`get_session_handle`) need a run to store each batch and another one to delete it: four times
    as long for 50 batches of 250 kB, and 0.25 ms for each small one.

    The first run of each makes an executor out of the whole graph: some 40 ms where 200 steps are
    unrolled.
    """

    def __init__(self, session: Any, variables: Sequence[Tensor]) -> None:
        pools = [variable("pool", value.dtype, (None, *value.shape)) for value in variables]
        bound = [variable("bound", value.dtype, value.shape) for value in variables]
        given = [v1.placeholder(pool.dtype, pool.shape) for pool in pools]
        # Where the operation that takes a row wants its place.
        with tf.device("/cpu:0"):
            number = variable("number", "int64", ())
            before = number.assign(-1, read_value=False)
            place = number.assign_add(1) % tf.shape(pools[0].read_value(), tf.int64)[0]
        rows = [pool.read_value()[place] for pool in pools]
        #: Keep what is bound.
        self.keep = session.make_callable(tf.group(*_assigned(bound, _read(variables))))
        #: Let the variables have it again, without any batches.
        self.restore = session.make_callable(
            tf.group(*_assigned(variables, _read(bound)), *_released(pools))
        )
        #: Take the batches [K, ...] of each variable, which share the memory of these arrays.
        self.fill = session.make_callable(tf.group(*_assigned(pools, given), before), given)
        self.advance = session.make_callable(tf.group(*_assigned(variables, rows)))
        self.end = session.make_callable(tf.group(*_released([*pools, *bound])))


def _read(variables: Sequence[Tensor]) -> list[Tensor]:
    return [value.read_value() for value in variables]


def _assigned(targets: Sequence[Tensor], values: Sequence[Tensor]) -> list[Any]:
    """Operations that give variables these values."""
    pairs = zip(targets, values, strict=True)
    return [target.assign(value, read_value=False) for target, value in pairs]


def _released(variables: Sequence[Tensor]) -> list[Any]:
    """Operations that free what variables hold, if anything; an assignment makes them anew."""
    return [
        tf.raw_ops.DestroyResourceOp(resource=value.handle, ignore_lookup_error=True)
        for value in variables
    ]


class GraphRunner:
    """One graph with its session; a call is one `Session` callable that feeds nothing.

    A forward call leaves outputs and final state in variables. This keeps the operations that make
    them alive (fetching no more than a group of them lets the optimizer drop most of a static RNN)
    and copies nothing: assigning to a resource variable takes over the tensor's buffer.

    A session's call returns when all its kernels have run, so `sync` has nothing left to wait for.

    `ports` has the network's ports, one for each array of its `pack` and `unpack`.
    """

    def __init__(
        self,
        case: Case,
        mode: Mode,
        stage: Stage,
        *,
        device: str,
        config: Any,
        network: Callable[[Case], Network],
        unrolled: bool,
        control_flow_v2: bool,
        ports: Callable[[Any], list[Port]] = variable_ports,
    ) -> None:
        self._case = case
        self._mode = mode
        self._device = device
        self._rotation: Rotation | None = None
        self._rotates = False
        self._size: Mapping[str, int] | None = None
        self._graph = tf.Graph()
        with self._graph.as_default(), tf.device(device), control_flow(v2=control_flow_v2):
            with stage("graph"):
                self._inputs = Inputs(case, mode, case.seq_len if unrolled else None)
                self._network = network(case)
                outputs, state = self._network(*self._inputs.network())
                self._input_ports = [port(value) for value in self._inputs.variables]
                self._weight_ports = ports(self._network)
            self._results: list[Tensor] = []
            with stage("gradients" if mode == "train" else "results"):
                step = self._training(outputs) if mode == "train" else self._keep(outputs, state)
        with stage("session"):
            self._session = v1.Session(graph=self._graph, config=config)
            self._fetched = step
            self._step: Callable[[], Any] = self._session.make_callable(step)

    def _keep(self, outputs: Tensor, state: StateTensors) -> Any:
        """The operation that leaves outputs and final state in variables, read by `_results`."""
        case = self._case
        stores = [variable("outputs", case.dtype, (case.batch, None, output_width(case)))]
        stores += flatten(state_variables("final_state", case))
        self._results = [store.read_value() for store in stores]
        return tf.group(
            *(
                store.assign(value, read_value=False)
                for store, value in zip(stores, [outputs, *flatten(state)], strict=True)
            ),
            name="forward",
        )

    def _training(self, outputs: Tensor) -> Tensor:
        """The loss [], there only after all weights have been updated."""
        targets, learning_rate = self._inputs.training()
        loss = half_mean_square(outputs, targets)
        variables = self._network.variables
        gradients = self._network.project(tf.gradients(loss, variables))
        # Without this order an update could overtake another step's read of the same weights.
        with tf.control_dependencies([loss, *gradients]):
            updates = [
                value.assign_sub(learning_rate * gradient, read_value=False)
                for value, gradient in zip(variables, gradients, strict=True)
            ]
        with tf.control_dependencies(updates):
            return tf.identity(loss, name="loss")

    def load(self, weights: Weights) -> None:
        self._write(self._weight_ports, self._network.pack(weights))

    def bind(self, batch: Batch) -> None:
        self._inputs.check(batch)
        self.feed(batch)

    def feed(self, batch: Batch) -> None:
        if self._rotation is not None and self._rotates:
            self._rotation.end()
        self._rotates = False
        self._write(self._input_ports, self._inputs.values(batch))

    def _write(self, ports: Sequence[Port], values: Sequence[Array | float]) -> None:
        feed = {port.placeholder: value for port, value in zip(ports, values, strict=True)}
        self._session.run([port.write for port in ports], feed)

    def rotate(self, batches: Sequence[Batch]) -> None:
        if self._rotation is None:
            self._size = self.program_size()  # the graph grows once, by what no call runs
            with self._graph.as_default(), tf.device(self._device):
                self._rotation = Rotation(self._session, self._inputs.rotated)
        if not self._rotates:
            self._rotation.keep()
        self._rotation.restore()
        parts = zip(*(rotated(batch, self._mode) for batch in batches), strict=True)
        self._rotation.fill(*(np.stack(part) for part in parts))
        self._rotates = True

    def advance(self) -> None:
        if self._rotation is not None and self._rotates:
            self._rotation.advance()

    def forward(self) -> None:
        """See `Runner`. The handle is empty: the results are where `fetch` reads them."""
        require_mode(self._mode, "forward")
        self._step()

    def train(self) -> Any:
        """See `Runner`. The handle is the loss itself, which a session copies to the host."""
        require_mode(self._mode, "train")
        return self._step()

    def sync(self, out: object) -> None:
        """Nothing is left to wait for."""

    def fetch(self, out: object) -> Output:
        outputs, *state = self._session.run(self._results)
        return Output(outputs=outputs, state=unflatten(self._case, state))

    def fetch_loss(self, out: Any) -> float:
        return float(out)

    def weights(self) -> Weights:
        return self._network.unpack(self._session.run([port.read for port in self._weight_ports]))

    def program_size(self) -> Mapping[str, int]:
        return self._size or count_nodes(self._graph)

    def traced(self) -> Any:
        """Trace of one call, node by node: a `StepStats`.

        A session has one executor for each set of fetches: this call's is the one of all others.
        """
        metadata = v1.RunMetadata()
        options = v1.RunOptions(trace_level=v1.RunOptions.FULL_TRACE)
        self._session.run(self._fetched, options=options, run_metadata=metadata)
        return metadata.step_stats

    def close(self) -> None:
        self._session.close()
        # The session frees its variables only when it is gone, and the graph with its last user.
        del self._step, self._fetched, self._session, self._graph, self._network, self._inputs
        del self._results, self._input_ports, self._weight_ports, self._rotation
