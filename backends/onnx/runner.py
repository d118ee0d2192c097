"""A session over resident data: `load` makes it, `bind` copies, `forward` only runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import onnxruntime

from backends.api import Array, Batch, Case, LayerWeights, Output, State, Weights
from backends.data import check_batch, initial_state
from backends.onnx.cells import make_operator
from backends.onnx.model import groups, state_names, weight_groups, write
from backends.stack import output_width


def session_options(threads: int) -> Any:
    """A session that runs one node after the other, its pool within the node.

    Threads of the pool spin while they wait, as they do for users of the library.
    """
    options = onnxruntime.SessionOptions()
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return options


class OnnxRunner:
    """A case's forward pass, for any B and T.

    Weights are part of the model, so the session is made when they are loaded, and not before.
    """

    def __init__(self, case: Case, threads: int) -> None:
        self._case = case
        self._options = session_options(threads)
        self._weights: dict[str, Array] = {}
        self._inputs: dict[str, Any] = {}
        self._outputs: dict[str, Any] = {}
        self._rotation: Iterator[Any] | None = None

    def load(self, weights: Weights) -> None:
        self._weights = packed(self._case, weights)
        model = write(self._case, self._weights)
        self._nodes = len(model.graph.node)
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), self._options, providers=["CPUExecutionProvider"]
        )
        self._bind()

    def bind(self, batch: Batch) -> None:
        check_batch(self._case, batch)
        self.feed(batch)

    def feed(self, batch: Batch) -> None:
        self._rotation = None
        self._bound = _resident(batch.x)
        self._inputs = {"x": self._bound}
        if batch.lengths is not None:
            self._inputs["lengths"] = _resident(batch.lengths.astype(np.int32, copy=False))
        # New outputs each time: a handle on those of the last call keeps what it has.
        b, t = batch.x.shape[:2]
        self._outputs = {"outputs": _empty((b, t, output_width(self._case)))}
        for name, value in _stacked(self._case, initial_state(self._case, batch)).items():
            self._inputs[name] = _resident(value)
            self._outputs[f"{name}_final"] = _empty(value.shape)
        if self._weights:
            self._bind()

    def _bind(self) -> None:
        """Give the session what is there of inputs and outputs."""
        self._binding = self._session.io_binding()
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name, value in self._outputs.items():
            self._binding.bind_ortvalue_output(name, value)

    def rotate(self, batches: Sequence[Batch]) -> None:
        self._take(self._bound)
        self._rotation = None  # releases its values before there are others
        self._rotation = cycle([_resident(batch.x) for batch in batches])

    def advance(self) -> None:
        if self._rotation is not None:
            self._take(next(self._rotation))

    def _take(self, x: Any) -> None:
        """Let the next call read this, of the session that there is or of the next one."""
        self._inputs["x"] = x
        if self._weights:
            self._binding.bind_ortvalue_input("x", x)

    def forward(self) -> Any:
        self._session.run_with_iobinding(self._binding)
        return self._outputs

    def train(self) -> Any:
        raise ValueError("built for mode 'forward', not for 'train'")

    def sync(self, out: object) -> None:
        """A run on CPUs returns when all is computed."""

    def fetch(self, out: Mapping[str, Any]) -> Output:
        state: list[dict[str, Array]] = []
        for number, group in enumerate(groups(self._case)):
            names = {name[0]: name for name in state_names(group, number)}
            for way, layer in enumerate(group):
                finals = {name: out[f"{names[name]}_final"].numpy()[way] for name in layer.state}
                state.append({name: np.array(value) for name, value in finals.items()})
        return Output(outputs=np.array(out["outputs"].numpy()), state=tuple(state))

    def fetch_loss(self, out: object) -> float:
        raise ValueError("built for mode 'forward', not for 'train'")

    def weights(self) -> Weights:
        found: dict[int, LayerWeights] = {}
        for name, group in weight_groups(self._case).items():
            arrays = {
                key: self._weights[f"{key}{name}"]
                for key in ("W", "R", "B", "P")
                if f"{key}{name}" in self._weights
            }
            for way, layer in enumerate(group):
                one = {key: array[way] for key, array in arrays.items()}
                found[layer.weights] = make_operator(layer).unpack(layer, one)
        return tuple(found[place] for place in sorted(found))

    def program_size(self) -> Mapping[str, int]:
        """Nodes of the model as it was written, once it is."""
        return {"nodes": self._nodes}

    def close(self) -> None:
        vars(self).clear()


def _resident(array: Array) -> Any:
    """A copy in memory of the library's own.

    `ortvalue_from_numpy` would only hold a view of the caller's array.
    """
    value = _empty(array.shape, array.dtype)
    value.update_inplace(np.ascontiguousarray(array))
    return value


def _empty(shape: Sequence[int], dtype: Any = np.float32) -> Any:
    return onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(shape), np.dtype(dtype).type)


def packed(case: Case, weights: Weights) -> dict[str, Array]:
    """The weights of all operators by name, [directions, ...] each."""
    found: dict[str, Array] = {}
    for name, group in weight_groups(case).items():
        ways = [make_operator(layer).pack(layer, weights[layer.weights]) for layer in group]
        found |= {f"{key}{name}": np.stack([way[key] for way in ways]) for key in ways[0]}
    return found


def _stacked(case: Case, state: State) -> dict[str, Array]:
    """The initial state [directions, B, H] of each operator."""
    found: dict[str, Array] = {}
    place = 0
    for number, group in enumerate(groups(case)):
        parts = state[place : place + len(group)]
        place += len(group)
        for name in state_names(group, number):
            found[name] = np.stack([part[name[0]] for part in parts])
    return found
