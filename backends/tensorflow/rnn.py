"""The functions of `tf.nn` that carry a cell over time, over the `rnn_cell` classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from backends.api import Array, Case, Weights
from backends.layout import pack, unpack
from backends.spec import Wrapper
from backends.stack import Layer, layers, levels, weight_layers
from backends.tensorflow.cells import legacy_warnings_ignored, make_cell, rnn_cell
from backends.tensorflow.layout import layout
from backends.tensorflow.network import StateTensors, Tensor, reversed_in_place, variable
from backends.tensorflow.wrappers import MakeCell

nn = tf.compat.v1.nn


@dataclass(frozen=True, kw_only=True)
class Way:
    """Layers that go over time together, by their places in `layers`: one cell, or a stack."""

    places: Sequence[int]
    cell: Any

    def state(self, flat: Sequence[Any]) -> Any:
        """The cell's structure of flat values: control flow v1 accepts no other."""
        return tf.nest.pack_sequence_as(self.cell.state_size, list(flat))


class CellNetwork:
    """The cells of a case and their weights, without a loop over time.

    `make` gives the cell of a layer, with the variables of `backends.tensorflow.layout`.
    Two stacks are one call over two stacks of cells; bidirectional layers are one call a depth.
    """

    #: Where time is in what goes from call to call.
    time_axis = 1

    def __init__(self, case: Case, *, make: MakeCell = make_cell) -> None:
        self._stack = layers(case)
        self._dtype = case.dtype
        self._sets = weight_layers(case)
        self._layouts = [layout(layer) for layer in self._sets]
        with legacy_warnings_ignored():
            self._cells = [make(layer, case.dtype) for layer in self._sets]
            self._calls = [
                tuple(Way(places=places, cell=self._joined(places)) for places in call)
                for call in levels(case)
            ]

    def _joined(self, places: Sequence[int]) -> Any:
        cells = [self._cells[self._stack[place].weights] for place in places]
        return cells[0] if len(cells) == 1 else rnn_cell.MultiRNNCell(cells)

    @property
    def variables(self) -> list[Tensor]:
        return [variable for cell in self._cells for variable in _trained(cell)]

    def build(self) -> None:
        """Make the variables now and not in the first call, where a `tf.function` may not.

        Not for a graph: there, built by `static_rnn` or `dynamic_rnn`, they are read once, before
        the loop.
        """
        for layer, cell in zip(self._sets, self._cells, strict=True):
            _unwrapped(layer, cell).build(tf.TensorShape([None, layer.inputs]))

    def pack(self, weights: Weights) -> list[Array]:
        return [
            value
            for arrays, given in zip(self._layouts, weights, strict=True)
            for value in pack(arrays, given).values()
        ]

    def unpack(self, values: Sequence[Array]) -> Weights:
        rest = iter(values)
        return tuple(
            unpack(arrays, {name: next(rest) for name in arrays}, layer.blocks)
            for arrays, layer in zip(self._layouts, self._sets, strict=True)
        )

    def project(self, gradients: list[Tensor]) -> list[Tensor]:
        return gradients

    def __call__(
        self, x: Tensor, lengths: Tensor | None, state: StateTensors
    ) -> tuple[Tensor, StateTensors]:
        values = self._enter(x)
        final: dict[int, Mapping[str, Tensor]] = {}
        for number, ways in enumerate(self._calls):
            # Variables of two calls may not meet in one scope.
            scope = None if len(self._calls) == 1 else f"depth_{number}"
            starts = [
                way.state([part for place in way.places for part in state[place].values()])
                for way in ways
            ]
            with legacy_warnings_ignored():
                if len(ways) == 1:
                    values, end = self._one(ways[0], values, lengths, starts[0], scope)
                    ends: Sequence[Any] = [end]
                else:
                    values, ends = self._both(ways, values, lengths, starts, scope)
            for way, end in zip(ways, ends, strict=True):
                final |= self._named(way, end)
        return self._leave(values), tuple(final[place] for place in range(len(self._stack)))

    def _named(self, way: Way, state: Any) -> dict[int, Mapping[str, Tensor]]:
        """A cell's state by place and name."""
        rest = iter(tf.nest.flatten(state))
        return {
            place: {name: next(rest) for name in self._stack[place].state} for place in way.places
        }

    def _enter(self, x: Tensor) -> Any:
        """Inputs of each call, from x [B, T, D]: with time as `time_axis` says."""
        return tf.transpose(x, [1, 0, 2]) if self.time_axis == 0 else x

    def _leave(self, values: Any) -> Tensor:
        """The inverse of `_enter`."""
        return tf.transpose(values, [1, 0, 2]) if self.time_axis == 0 else values

    def _one(
        self, way: Way, values: Any, lengths: Tensor | None, start: Any, scope: str | None
    ) -> tuple[Any, Any]:
        """Outputs and final state of one cell."""
        raise NotImplementedError

    def _both(
        self,
        ways: Sequence[Way],
        values: Any,
        lengths: Tensor | None,
        starts: Sequence[Any],
        scope: str | None,
    ) -> tuple[Any, Sequence[Any]]:
        """Outputs side by side, and final states, of a cell forward and one backward."""
        backward = self._reversed(values, lengths)
        scopes = [f"{scope or 'rnn'}_{way}" for way in ("fw", "bw")]
        fw, fw_end = self._one(ways[0], values, lengths, starts[0], scopes[0])
        bw, bw_end = self._one(ways[1], backward, lengths, starts[1], scopes[1])
        return self._side_by_side(fw, self._reversed(bw, lengths)), [fw_end, bw_end]

    def _reversed(self, values: Any, lengths: Tensor | None) -> Any:
        return reversed_in_place(values, lengths, self.time_axis)

    def _side_by_side(self, fw: Any, bw: Any) -> Any:
        return tf.concat([fw, bw], axis=2)


def _trained(cell: Any) -> list[Tensor]:
    """A cell's variables, then those of the cell in it, which TensorFlow's wrappers do not know."""
    own = list(cell.trainable_weights)
    known = {id(value) for value in own}
    inner = getattr(cell, "cell", None)
    below = [] if inner is None else _trained(inner)
    return own + [value for value in below if id(value) not in known]


def _unwrapped(layer: Layer, cell: Any) -> Any:
    """The outermost cell that has variables of its own."""
    while isinstance(layer.cell, Wrapper) and layer.inner().blocks == layer.blocks:
        layer, cell = layer.inner(), cell.cell
    return cell


class StepsNetwork(CellNetwork):
    """Calls take and give the list of a sequence's steps."""

    def _enter(self, x: Tensor) -> list[Tensor]:
        return tf.unstack(x, axis=1)

    def _leave(self, values: list[Tensor]) -> Tensor:
        return tf.stack(values, axis=1)


class StaticRnn(StepsNetwork):
    """`static_rnn` over the steps: the cell's operations T times."""

    def _one(
        self, way: Way, values: Any, lengths: Tensor | None, start: Any, scope: str | None
    ) -> tuple[Any, Any]:
        return nn.static_rnn(
            way.cell, values, initial_state=start, sequence_length=lengths, scope=scope
        )

    def _both(
        self,
        ways: Sequence[Way],
        values: Any,
        lengths: Tensor | None,
        starts: Sequence[Any],
        scope: str | None,
    ) -> tuple[Any, Sequence[Any]]:
        outputs, *ends = nn.static_bidirectional_rnn(
            ways[0].cell,
            ways[1].cell,
            values,
            initial_state_fw=starts[0],
            initial_state_bw=starts[1],
            sequence_length=lengths,
            scope=scope,
        )
        return outputs, ends


class DynamicRnn(CellNetwork):
    """`dynamic_rnn`: the cell's operations once, in a `tf.while_loop`.

    `parallel_iterations` and `swap_memory` are the loop's. With `time_major` x is transposed once
    in a call, and so are the outputs; else each `dynamic_rnn` transposes what it takes and gives.
    """

    def __init__(
        self,
        case: Case,
        *,
        time_major: bool = False,
        parallel_iterations: int | None = None,
        swap_memory: bool = False,
        make: MakeCell = make_cell,
    ) -> None:
        super().__init__(case, make=make)
        self.time_axis = 0 if time_major else 1
        self._options = {
            "time_major": time_major,
            "parallel_iterations": parallel_iterations,
            "swap_memory": swap_memory,
        }

    def _one(
        self, way: Way, values: Any, lengths: Tensor | None, start: Any, scope: str | None
    ) -> tuple[Any, Any]:
        return nn.dynamic_rnn(
            way.cell,
            values,
            initial_state=start,
            sequence_length=lengths,
            scope=scope,
            **self._options,
        )

    def _both(
        self,
        ways: Sequence[Way],
        values: Any,
        lengths: Tensor | None,
        starts: Sequence[Any],
        scope: str | None,
    ) -> tuple[Any, Sequence[Any]]:
        outputs, ends = nn.bidirectional_dynamic_rnn(
            ways[0].cell,
            ways[1].cell,
            values,
            initial_state_fw=starts[0],
            initial_state_bw=starts[1],
            sequence_length=lengths,
            scope=scope,
            **self._options,
        )
        return self._side_by_side(*outputs), ends


def built_dynamic_rnn(case: Case) -> DynamicRnn:
    """A `DynamicRnn` that has its variables, for a `tf.function`."""
    network = DynamicRnn(case)
    network.build()
    return network


class RawRnn(CellNetwork):
    """`raw_rnn`: a loop that ends when all sequences have; a function of the caller reads inputs.

    Rows that are done emit zeros and keep their state; what is emitted ends with the longest.
    """

    time_axis = 0

    def _one(
        self, way: Way, values: Any, lengths: Tensor | None, start: Any, scope: str | None
    ) -> tuple[Any, Any]:
        steps, batch = tf.shape(values)[0], values.shape[1]
        ends = tf.fill([batch], steps) if lengths is None else lengths
        inputs = tf.TensorArray(self._dtype, steps).unstack(values)
        emitted, final, _ = nn.raw_rnn(way.cell, _loop(inputs, values, ends, start), scope=scope)
        outputs = emitted.stack()
        return tf.pad(outputs, [[0, steps - tf.shape(outputs)[0]], [0, 0], [0, 0]]), final


def _loop(inputs: Any, values: Tensor, ends: Tensor, start: Any) -> Callable[..., Any]:
    """A `loop_fn` that reads one step of x [T, B, D] after the other until all ends are reached."""

    def loop_fn(time: Tensor, output: Tensor, state: Any, _loop_state: Any) -> Any:
        done = time >= ends
        x = tf.cond(
            tf.reduce_all(done), lambda: tf.zeros_like(values[0]), lambda: inputs.read(time)
        )
        return done, x, start if output is None else state, output, None

    return loop_fn


class StateSavingRnn(StepsNetwork):
    """`static_state_saving_rnn`: `static_rnn` that takes its state from a saver and leaves it so.

    The saver reads the bound initial state and writes the final one into variables, as between the
    parts of a long sequence. What a layer reads backward is saved likewise.
    """

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        self.saved = {
            f"{place}_{name}": variable(f"saved_{place}_{name}", case.dtype, (case.batch, width))
            for place, layer in enumerate(self._stack)
            for name, width in layer.state.items()
        }

    def _one(
        self, way: Way, values: Any, lengths: Tensor | None, start: Any, scope: str | None
    ) -> tuple[Any, Any]:
        names = [f"{place}_{name}" for place in way.places for name in self._stack[place].state]
        given = dict(zip(names, tf.nest.flatten(start), strict=True))
        return nn.static_state_saving_rnn(
            way.cell,
            values,
            state_saver=_Saver(given, self.saved),
            state_name=way.state(names),
            sequence_length=lengths,
            scope=scope,
        )

    def _reversed(self, values: Any, lengths: Tensor | None) -> Any:
        if lengths is None:
            return values[::-1]
        return tf.unstack(reversed_in_place(tf.stack(values, axis=1), lengths, 1), axis=1)

    def _side_by_side(self, fw: Any, bw: Any) -> Any:
        return [tf.concat(both, axis=1) for both in zip(fw, bw, strict=True)]


class _Saver:
    """State saver of `static_state_saving_rnn`: the source and the sink of states."""

    def __init__(self, start: Mapping[str, Tensor], stores: Mapping[str, Tensor]) -> None:
        self._start = start
        self._stores = stores

    def state(self, name: str) -> Tensor:
        return self._start[name]

    def save_state(self, name: str, value: Tensor) -> Any:
        """The operation that saves, which the last output waits for."""
        return self._stores[name].assign(value, read_value=False)
