"""Published vectors: cells as TensorFlow 1 computed them, with random weights, in float64.

`golden_cells.json` has each one's weights in TensorFlow's layout, where a kernel is [W; U] with the
gates side by side: i, g, f, o in the LSTM (there called i, j, f, o), and r, u in the GRU.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from backends.api import Array, Batch, Case, CellName, Dtype, LayerWeights, Output, State, Weights
from backends.cells import CELLS
from backends.data import split

_FILE = Path(__file__).with_name("golden_cells.json")

#: TensorFlow's classes that this release has, without options.
_CELLS: Mapping[str, CellName] = {
    "BasicRNN": "rnn",
    "GRU": "gru",
    "GRUResetAfter": "gru-reset-after",
    "BasicLSTM": "basic-lstm",
    "LSTM": "lstm",
}

NAMES = (
    "rnn",
    "gru",
    "gru_reset_after",
    "basic_lstm",
    "basic_lstm_fb0",
    "unroll_rnn_lengths",
    "unroll_gru_lengths",
    "unroll_multi_lstm_lengths",
    "bidirectional_lstm_lengths",
)


@dataclass(frozen=True, kw_only=True)
class Vector:
    """A case with its data, and what TensorFlow computed of it."""

    case: Case
    weights: Weights
    batch: Batch
    output: Output

    def cast(self, dtype: Dtype) -> Vector:
        """The same with weights and batch in another dtype; the output stays as published."""
        state = self.batch.initial_state
        assert state is not None
        batch = replace(
            self.batch,
            x=self.batch.x.astype(dtype),
            targets=self.batch.targets.astype(dtype),
            initial_state=tuple(_cast(layer, dtype) for layer in state),
        )
        weights = tuple(_cast(layer, dtype) for layer in self.weights)
        return replace(self, case=replace(self.case, dtype=dtype), weights=weights, batch=batch)


def entry(name: str) -> dict[str, Any]:
    """A vector as the file has it."""
    (found,) = (each for each in json.loads(_FILE.read_text()) if each["name"] == name)
    assert isinstance(found, dict)
    return found


def load(name: str) -> Vector:
    """A vector by name; a single step is a sequence of T=1, a bidirectional one its first half."""
    raw = entry(name)
    if raw["runner"] == "bidirectional":
        raw |= {key: raw[key][0] for key in ("weights", "state", "output", "new_state")}
    if raw["cell"] != "Multi":
        layers = ([raw["weights"]], [raw["state"]], [raw["new_state"]])
        return _vector(raw, [(raw["cell"], raw["params"])], *layers)
    cells = raw["params"]["cells"]
    weights = [_scoped(raw["weights"], f"cell_{layer}/") for layer in range(len(cells))]
    return _vector(raw, cells, weights, raw["state"], raw["new_state"])


def _scoped(variables: Mapping[str, Any], scope: str) -> dict[str, Any]:
    """The variables of one scope, by their names in it."""
    inside = {name: value for name, value in variables.items() if name.startswith(scope)}
    return {name.removeprefix(scope): value for name, value in inside.items()}


def _vector(
    raw: Mapping[str, Any],
    cells: Sequence[tuple[str, Mapping[str, Any]]],
    weights: Sequence[Mapping[str, Any]],
    state: Sequence[Any],
    new_state: Sequence[Any],
) -> Vector:
    ((tf_cell, params),) = dict(cells).items()  # all layers alike
    cell = _CELLS[tf_cell]
    x, outputs = np.array(raw["inputs"]), np.array(raw["output"])
    if raw["runner"] == "step":
        x, outputs = x[:, None], outputs[:, None]
    lengths = raw["sequence_length"]
    case = Case(
        cell=cell,
        seq_len=x.shape[1],
        batch=x.shape[0],
        inputs=x.shape[2],
        hidden=params["H"],
        layers=len(cells),
        lengths="full" if lengths is None else "ragged",
        dtype="float64",
        initial_state="random",
        forget_bias=params.get("forget_bias", 1.0),
    )
    batch = Batch(
        x=x,
        targets=np.zeros_like(outputs),
        lengths=None if lengths is None else np.array(lengths, np.int32),
        initial_state=_states(cell, state),
    )
    return Vector(
        case=case,
        weights=tuple(canonical(cell, layer) for layer in weights),
        batch=batch,
        output=Output(outputs=outputs, state=_states(cell, new_state)),
    )


def canonical(cell: CellName, variables: Mapping[str, Any]) -> LayerWeights:
    """One layer's canonical blocks from TensorFlow's variables of it."""
    tf = {name: np.array(value) for name, value in variables.items()}
    gates = CELLS[cell].gates
    if cell not in {"gru", "gru-reset-after"}:
        return _from_kernel(tf["kernel"], tf["bias"], gates)
    blocks = _from_kernel(tf["gates/kernel"], tf["gates/bias"], gates[:2])
    if cell == "gru":
        return blocks | _from_kernel(tf["candidate/kernel"], tf["candidate/bias"], gates[2:])
    return blocks | {
        "W_c": tf["candidate/input_kernel"],
        "U_c": tf["candidate/hidden_kernel"],
        "b_c": tf["candidate/input_bias"],
        "b_hc": tf["candidate/hidden_bias"],
    }


def _from_kernel(kernel: Array, bias: Array, gates: Sequence[str]) -> dict[str, Array]:
    """Blocks of a kernel [I + H, G*H] and a bias [G*H]."""
    hidden = len(bias) // len(gates)
    w, u = kernel[:-hidden], kernel[-hidden:]
    return split(w, "W", gates) | split(u, "U", gates) | split(bias, "b", gates)


def _states(cell: CellName, layers: Sequence[Any]) -> State:
    """By name: TensorFlow has c before h, and no tuple around an only state."""
    names = CELLS[cell].state
    if len(names) == 1:
        return tuple({names[0]: np.array(layer)} for layer in layers)
    return tuple(
        {name: np.array(value) for name, value in zip(names, layer, strict=True)}
        for layer in layers
    )


def _cast(layer: Mapping[str, Array], dtype: Dtype) -> dict[str, Array]:
    return {name: array.astype(dtype) for name, array in layer.items()}
