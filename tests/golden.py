"""Published vectors: cells as TensorFlow 1 computed them, with random weights, in float64.

`golden_cells.json` has each one's weights in TensorFlow's layout, where a kernel has the rows of
the inputs above those of the state, and the gates side by side: i, g, f, o in the LSTM (there
called i, j, f, o), and r, u in the GRU. Each vector is a cell of its own in the registry, under the
name "golden:<name>", since many have options that no published cell of this project has.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from backends.api import Array, Batch, Case, Dtype, LayerWeights, Output, State, Weights
from backends.cells import CELLS, Entry
from backends.spec import (
    Attention,
    BasicLstm,
    BidirectionalGrid,
    Cell,
    Coupled,
    Grid,
    Gru,
    GruResetAfter,
    Lstm,
    Residual,
    Rnn,
    TimeFreq,
)
from backends.stack import Layer, layers, weight_layers

_FILE = Path(__file__).with_name("golden_cells.json")

_ENTRIES: dict[str, dict[str, Any]] = {each["name"]: each for each in json.loads(_FILE.read_text())}

NAMES = tuple(_ENTRIES)


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
    return _ENTRIES[name]


def load(name: str) -> Vector:
    """A vector by name; a single step is a sequence of T=1."""
    raw = entry(name)
    x, outputs = np.array(raw["inputs"]), np.array(raw["output"])
    if raw["runner"] == "step":
        x, outputs = x[:, None], outputs[:, None]
    both_ways = raw["runner"] == "bidirectional"
    if both_ways:
        outputs = np.concatenate(outputs, axis=-1)
    described = _described(raw)
    cells, units = zip(*(_cell(*each) for each in described), strict=True)
    cell = f"golden:{name}"
    CELLS[cell] = Entry(title="a published vector", cells=cells, hidden=units)
    lengths = raw["sequence_length"]
    case = Case(
        cell=cell,
        seq_len=x.shape[1],
        batch=x.shape[0],
        inputs=x.shape[2],
        hidden=units[0],
        layers=len(cells),
        lengths="full" if lengths is None else "ragged",
        dtype="float64",
        initial_state="random",
        forget_bias=described[0][1].get("forget_bias", 1.0),
        direction="bidirectional" if both_ways else "forward",
    )
    batch = Batch(
        x=x,
        targets=np.zeros_like(outputs),
        lengths=None if lengths is None else np.array(lengths, np.int32),
        initial_state=_states(case, raw["state"]),
    )
    return Vector(
        case=case,
        weights=_weights(case, raw),
        batch=batch,
        output=Output(outputs=outputs, state=_states(case, raw["new_state"])),
    )


def _described(raw: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Each layer's cell as the file describes it: TensorFlow's class and its arguments."""
    if raw["cell"] == "Multi":
        return [(name, params) for name, params in raw["params"]["cells"]]
    return [(raw["cell"], raw["params"])]


def _cell(name: str, p: Mapping[str, Any]) -> tuple[Cell, int]:
    """The cell with its options, and its hidden units."""
    if name in {"Attention", "Residual"}:
        inner, hidden = _cell(*p["cell"])
        wrapped = (
            Attention(cell=inner, window=p["L"]) if name == "Attention" else Residual(cell=inner)
        )
        return wrapped, hidden
    projection = {"projection": p.get("num_proj"), "projection_clip": p.get("proj_clip")}
    peepholes, cell_clip = p.get("peep", False), p.get("cell_clip")
    cells: Mapping[str, Cell] = {
        "BasicRNN": Rnn(),
        "GRU": Gru(),
        "GRUResetAfter": GruResetAfter(),
        "BasicLSTM": BasicLstm(),
        "LSTM": Lstm(peepholes=peepholes, cell_clip=cell_clip, **projection),
        "LSTMBlock": Lstm(peepholes=peepholes, cell_clip=cell_clip),
        "CoupledIFG": Coupled(
            peepholes=peepholes, layer_norm=p.get("layer_norm", False), **projection
        ),
    }
    return cells.get(name) or _frequency_cell(name, p), p["H"]


def _frequency_cell(name: str, p: Mapping[str, Any]) -> Cell:
    windows: dict[str, Any] = {
        "feature_size": p["feature_size"],
        "frequency_skip": p["frequency_skip"],
        "peepholes": p.get("peep", False),
        "cell_clip": p.get("cell_clip"),
    }
    if name == "TimeFreqLSTM":
        return TimeFreq(**windows)
    parts = tuple(zip(p["starts"], p["ends"], strict=True)) if "starts" in p else 1
    shared, coupled = p.get("share", False), p.get("coupled", False)
    grid = Grid(frequency_blocks=parts, shared=shared, coupled=coupled, **windows)
    if name == "GridLSTM":
        return grid
    assert name == "BidirectionalGridLSTM"
    return BidirectionalGrid(grid=grid, offset=p.get("backward_slice_offset", 0))


# --- weights --------------------------------------------------------------------------------------


def _weights(case: Case, raw: Mapping[str, Any]) -> Weights:
    if isinstance(raw["weights"], list):  # one for each direction
        given = raw["weights"]
    elif raw["cell"] == "Multi":
        given = [_scoped(raw["weights"], f"cell_{layer}/") for layer in range(case.layers)]
    else:
        given = [raw["weights"]]
    return tuple(
        canonical(layer, variables)
        for layer, variables in zip(weight_layers(case), given, strict=True)
    )


def _scoped(variables: Mapping[str, Any], scope: str) -> dict[str, Any]:
    """The variables of one scope, by their names in it."""
    inside = {name: value for name, value in variables.items() if name.startswith(scope)}
    return {name.removeprefix(scope): value for name, value in inside.items()}


def canonical(layer: Layer, variables: Mapping[str, Any]) -> LayerWeights:
    """One layer's canonical blocks from TensorFlow's variables of it."""
    tf = {name: np.array(value) for name, value in variables.items()}
    blocks = dict(_blocks(layer, tf))
    shapes = {name: block.shape for name, block in blocks.items()}
    assert shapes == layer.blocks, f"{shapes} are not {layer.blocks}"
    return blocks


def _blocks(layer: Layer, tf: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:  # noqa: C901, PLR0912 (one case a cell)
    match layer.cell:
        case Rnn():
            yield from _cut(tf["kernel"], "h", W=layer.inputs)
            yield from _cut(tf["bias"], "h")
        case Lstm():
            yield from _cut(tf["kernel"], "igfo", W=layer.inputs)
            yield from _cut(tf["bias"], "igfo")
            yield from _named(tf, p_i="w_i_diag", p_f="w_f_diag", p_o="w_o_diag")
            yield from _named(tf, Q_h="projection/kernel")
        case Gru() | GruResetAfter():
            yield from _cut(tf["gates/kernel"], "ru", W=layer.inputs)
            yield from _cut(tf["gates/bias"], "ru")
            if isinstance(layer.cell, Gru):
                yield from _cut(tf["candidate/kernel"], "c", W=layer.inputs)
                yield from _cut(tf["candidate/bias"], "c")
            yield from _named(tf, W_c="candidate/input_kernel", U_c="candidate/hidden_kernel")
            yield from _named(tf, b_c="candidate/input_bias", b_hc="candidate/hidden_bias")
        case Coupled():
            yield from _cut(tf["W"], "gfo", W=layer.inputs)
            if not layer.cell.layer_norm:  # else made, and never added
                yield from _cut(tf["B"], "gfo")
            yield from _named(tf, p_f="W_F_diag", p_o="W_O_diag", Q_h="W_P")
            scopes = {"g": "transform", "f": "forget", "o": "output", "c": "state"}
            for gate, scope in scopes.items():
                for kind in ("gamma", "beta"):
                    yield from _named(tf, **{f"{kind}_{gate}": f"{scope}/{kind}"})
        case TimeFreq():
            size = layer.cell.size(layer.inputs)
            yield from _cut(tf["W"], "igfo", W=size, U=layer.hidden)
            yield from _cut(tf["B"], "igfo")
            yield from _named(tf, p_i="W_I_diag", p_f="W_F_diag", p_o="W_O_diag")
        case Grid():
            yield from _grid_blocks(layer, layer.cell, tf)
        case BidirectionalGrid(grid=inner):
            for way, scope in (("fw", "fwd/"), ("bw", "bwd/")):
                for name, block in _grid_blocks(layer, inner, _scoped(tf, scope)):
                    yield name.replace("_", f"_{way}.", 1), block
        case Residual():
            yield from _blocks(layer.inner(), tf)
        case Attention():
            yield from _attention_blocks(layer, tf)


def _attention_blocks(layer: Layer, tf: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
    yield from _rows(tf["kernel"], layer.inputs, "X_in", "A_in")
    yield from _blocks(layer.inner(), _scoped(tf, "cell/"))
    yield from _rows(tf["attn_output_projection/kernel"], layer.outputs, "Y_out", "A_out")
    yield from _named(tf, b_in="bias", M_att="attention/attn_w", v_att="attention/attn_v")
    yield from _named(tf, Q_att="attention/kernel", b_att="attention/bias")
    yield from _named(tf, b_out="attn_output_projection/bias")


def _grid_blocks(layer: Layer, cell: Grid, tf: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
    ways = {"f": "freq", "t": "time"}
    for scope in cell.sets(layer.inputs):
        way, b = scope[0], scope[1:]
        gates = [f"{scope}.{gate}" for gate in cell.gates]
        yield from _cut(tf[f"W_{way}_{b}"], gates, W=cell.size(layer.inputs), U=layer.hidden)
        yield from _cut(tf[f"B_{way}_{b}"], gates)
        for gate in "ifo":
            for at in "ft":
                name = f"W_{gate.upper()}_diag_{ways[way]}{at}_{b}"
                yield from _named(tf, **{f"p_{scope}.{gate}.{at}": name})


def _cut(value: Array, gates: Sequence[str], **rows: int) -> Iterator[tuple[str, Array]]:
    """A kernel cut into gates, and these into W, U and V of so many rows; or a bias into gates."""
    kinds = ["W", "U", "V"][: len(rows) + 1] if rows else ["b"]
    for gate, part in zip(gates, np.split(value, len(gates), axis=-1), strict=True):
        pieces = np.split(part, np.cumsum(list(rows.values()))) if rows else [part]
        for kind, piece in zip(kinds, pieces, strict=True):
            yield f"{kind}_{gate}", piece


def _rows(value: Array, first: int, *names: str) -> Iterator[tuple[str, Array]]:
    yield from zip(names, np.split(value, [first]), strict=True)


def _named(tf: Mapping[str, Array], **names: str) -> Iterator[tuple[str, Array]]:
    """The blocks that TensorFlow has as variables of their own, where it has them."""
    yield from ((block, tf[name]) for block, name in names.items() if name in tf)


# --- states ---------------------------------------------------------------------------------------


def _states(case: Case, given: Any) -> State:
    """By name: TensorFlow has c before h, and no tuple around an only state or layer."""
    values = list(_leaves(given))
    stack = layers(case)
    if len(values) == 1 and len(stack[0].state) > 1:  # side by side in one matrix
        values = np.split(values[0], len(stack[0].state), axis=1)
    named = iter(values)
    state = tuple({name: next(named) for name in layer.state} for layer in stack)
    assert next(named, None) is None
    return state


def _leaves(given: Any) -> Iterator[Array]:
    """The matrices [B, width] of nested lists, in their order."""
    if isinstance(given[0][0], (int, float)):
        yield np.array(given)
        return
    for part in given:
        yield from _leaves(part)


def _cast(layer: Mapping[str, Array], dtype: Dtype) -> dict[str, Array]:
    return {name: array.astype(dtype) for name, array in layer.items()}
