"""Weights, batches and their layouts; parameters and FLOPs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from backends.api import CELL_NAMES, Array, Case, Weights
from backends.data import (
    check_batch,
    initial_state,
    make_batch,
    make_weights,
    zero_state,
)
from backends.layout import Fused, pack, unpack, usual
from backends.products import flops
from backends.reference.network import forward
from backends.spec import (
    Attention,
    BasicLstm,
    BidirectionalGrid,
    Cell,
    Coupled,
    Dropout,
    Grid,
    Gru,
    GruResetAfter,
    Lstm,
    Residual,
    Rnn,
    TimeFreq,
    Wrapper,
)
from backends.stack import (
    Layer,
    input_width,
    layers,
    masks_of,
    output_width,
    parameters,
    weight_layers,
)
from tests.support import CASES

CASE = Case(
    cell="lstm",
    seq_len=4,
    batch=3,
    inputs=2,
    hidden=3,
    layers=2,
    lengths="ragged",
    dtype="float64",
    initial_state="random",
)


def flat(weights: Weights) -> Array:
    return np.concatenate([array.ravel() for layer in weights for array in layer.values()])


# --- counts ---------------------------------------------------------------------------------------


_PEEPHOLES = Grid(feature_size=2, frequency_skip=1, peepholes=True)

#: Cells of I=6, H=5 -> TensorFlow 1's variables, counted there; the reset-after GRU has H more than
#: the other, for b_hc.
PARAMETERS: dict[str, tuple[Cell, int]] = {
    "rnn": (Rnn(), 60),
    "gru": (Gru(), 180),
    "gru-reset-after": (GruResetAfter(), 185),
    "lstm": (Lstm(), 240),
    "basic-lstm": (BasicLstm(), 240),
    "lstm-peephole": (Lstm(peepholes=True), 255),
    "lstm-projection": (Lstm(projection=3), 215),
    "coupled": (Coupled(peepholes=True, projection=3), 175),
    "time-freq": (TimeFreq(feature_size=3, frequency_skip=1, peepholes=True), 295),
    "grid": (Grid(feature_size=2, frequency_skip=1), 520),
    "grid-shared": (replace(_PEEPHOLES, shared=True), 290),
    "grid-coupled": (replace(_PEEPHOLES, coupled=True), 430),
    "bidirectional-grid": (
        BidirectionalGrid(grid=Grid(feature_size=2, frequency_skip=1)),
        1040,
    ),
    "attention": (Attention(cell=BasicLstm(), window=4), 452),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_of_known_cells(name: str) -> None:
    cell, count = PARAMETERS[name]
    shapes = Layer(cell=cell, inputs=6, hidden=5).blocks.values()
    assert sum(int(np.prod(shape)) for shape in shapes) == count


def test_parameters_of_layers() -> None:
    two = Case(cell="basic-lstm", seq_len=1, batch=1, inputs=6, hidden=5, layers=2)
    assert parameters(two) == 460
    assert parameters(replace(two, cell="lstm-shared", inputs=5)) == 220
    assert parameters(replace(two, direction="two-stacks")) == 920
    # Both directions' outputs are the second layers' inputs.
    assert parameters(replace(two, direction="bidirectional")) == 480 + 2 * 4 * (10 + 5 + 1) * 5


@given(case=CASES)
def test_parameters_are_the_entries_of_the_weights(case: Case) -> None:
    entries = sum(array.size for layer in make_weights(case) for array in layer.values())
    assert parameters(case) == entries


def uses(layer: Layer, block: str) -> int:
    """How often a step multiplies by a matrix: once, or once for each window."""
    match layer.cell:
        case TimeFreq():
            return len(layer.cell.windows(layer.inputs))
        case Grid():
            part = int(block.partition("_")[2].partition(".")[0][1:])
            return len(layer.cell.windows(layer.inputs)[part])
        case BidirectionalGrid():
            part = int(block.partition("_")[2].split(".")[1][1:])
            return len(layer.cell.grid.windows(layer.inputs)[part])
        case Wrapper() if block in layer.inner().blocks:
            return uses(layer.inner(), block)
        case _:
            return 1


@given(case=CASES)
def test_flops_are_the_multiplications_of_every_weight(case: Case) -> None:
    """A forward pass multiplies each entry of a matrix once for every step of every sequence.

    Training takes as many again for the gradient of the weights and for that of what they multiply,
    which the inputs of the first layer do not need.
    """
    steps = case.batch * case.seq_len
    entries = first = 0
    for layer in layers(case):
        for name, shape in layer.blocks.items():
            if len(shape) == 2:
                count = shape[0] * shape[1] * uses(layer, name)
                entries += count
                # The inputs of a cell with attention around it hold what was attended to.
                outermost = "X_in" if "X_in" in layer.blocks else "W_"
                first += count if layer.depth == 0 and name.startswith(outermost) else 0
    assert flops(case, "forward") == 2 * steps * entries
    assert flops(case, "train") == 3 * 2 * steps * entries - 2 * steps * first


# --- layouts --------------------------------------------------------------------------------------


@given(case=CASES)
def test_unpack_is_the_inverse_of_pack(case: Case) -> None:
    for layer, weights in zip(weight_layers(case), make_weights(case), strict=True):
        arrays = pack(usual(layer), weights)
        assert {name: array.shape for name, array in arrays.items()} == {
            name: fused.shape(layer.blocks) for name, fused in usual(layer).items()
        }
        assert sum(array.size for array in arrays.values()) == sum(w.size for w in weights.values())
        again = unpack(usual(layer), arrays, layer.blocks)
        assert list(again) == list(weights)
        for name, block in weights.items():
            assert_array_equal(again[name], block)


@given(case=CASES, gates=st.permutations(("i", "g", "f", "o")))
def test_blocks_lie_in_the_order_asked_for(case: Case, gates: list[str]) -> None:
    case = replace(case, cell="lstm")
    (layer, *_), (weights, *_) = layers(case), make_weights(case)
    fused = Fused(("W", "U"), tuple(gates))
    array = fused.pack(weights)
    h, last = case.hidden, gates[-1]
    assert array.shape == (case.inputs + h, 4 * h)
    assert_array_equal(array[: case.inputs, :h], weights[f"W_{gates[0]}"])
    assert_array_equal(array[case.inputs :, 3 * h :], weights[f"U_{last}"])
    for name, block in fused.unpack(array, layer.blocks).items():
        assert_array_equal(block, weights[name])


# --- data -----------------------------------------------------------------------------------------


@given(case=CASES)
def test_data_is_that_of_its_seed(case: Case) -> None:
    other = replace(case, seed=case.seed + 1)
    assert_array_equal(flat(make_weights(case)), flat(make_weights(case)))
    assert not np.array_equal(flat(make_weights(case)), flat(make_weights(other)))
    assert_array_equal(make_batch(case).x, make_batch(case).x)
    assert not np.array_equal(make_batch(case).x, make_batch(other).x)


@given(case=CASES)
def test_float32_data_is_the_float64_data_rounded(case: Case) -> None:
    single = replace(case, dtype="float32")
    assert_array_equal(flat(make_weights(single)), flat(make_weights(case)).astype("float32"))
    one, two = make_batch(single), make_batch(case)
    assert {one.x.dtype, one.targets.dtype} == {np.dtype("float32")}
    assert_array_equal(one.x, two.x.astype("float32"))
    assert_array_equal(one.targets, two.targets.astype("float32"))
    assert (one.lengths is None) == (two.lengths is None)
    if one.lengths is not None:
        assert_array_equal(one.lengths, two.lengths)
    for layer, wide in zip(initial_state(single, one), initial_state(case, two), strict=True):
        for name in wide:
            assert_array_equal(layer[name], wide[name].astype("float32"))


@given(case=CASES)
def test_weights_do_not_depend_on_how_long_or_ragged_the_batch_is(case: Case) -> None:
    other = replace(case, seq_len=7, batch=5, lengths="full", initial_state="zeros")
    assert_array_equal(flat(make_weights(case)), flat(make_weights(other)))


@given(case=CASES)
def test_lengths_are_within_the_sequence_and_the_first_fills_it(case: Case) -> None:
    ragged = replace(case, lengths="ragged")
    lengths = make_batch(ragged).lengths
    assert lengths is not None
    assert lengths.dtype == np.int32
    assert lengths.min() >= 1
    assert lengths.max() <= case.seq_len
    assert case.batch == 1 or lengths[0] == case.seq_len
    check_batch(ragged, make_batch(ragged))


@given(case=CASES)
def test_a_batch_has_the_shapes_of_its_case(case: Case) -> None:
    batch = make_batch(case)
    assert batch.x.shape == (case.batch, case.seq_len, input_width(case))
    assert batch.targets.shape == (case.batch, case.seq_len, output_width(case))
    assert (batch.initial_state is None) == (case.initial_state == "zeros")
    state = initial_state(case, batch)
    assert len(state) == case.layers * (1 if case.direction == "forward" else 2)
    for given_state, layer in zip(state, layers(case), strict=True):
        assert {name: array.shape for name, array in given_state.items()} == {
            name: (case.batch, width) for name, width in layer.state.items()
        }


@pytest.mark.parametrize("cell", [name for name in CELL_NAMES if name.startswith("dropout-")])
def test_masks_keep_as_many_as_they_say_and_scale_them(cell: str) -> None:
    case = Case(cell=cell, seq_len=200, batch=20, inputs=20, hidden=20, layers=2)
    batch = make_batch(case)
    at = case.inputs
    for layer in layers(case):
        for width, keep in masks_of(layer).values():
            mask = batch.x[:, :, at : at + width]
            at += width
            kept = np.float32(1 / keep)
            assert set(np.unique(mask)) == {np.float32(0), kept}
            if layer.of(Dropout).variational:
                assert (mask == mask[:1, :1]).all()
            else:
                # 80,000 draws: five standard deviations.
                assert (mask > 0).mean() == pytest.approx(keep, abs=5 * 0.5 / mask.size**0.5)
                assert (mask != mask[:1, :1]).any()
    assert at == batch.x.shape[2]


@given(case=CASES)
def test_features_and_targets_do_not_depend_on_the_masks(case: Case) -> None:
    """A wrapped cell is given what the plain one is."""
    plain = replace(case, cell="lstm", direction="forward")
    wrapped = replace(plain, cell="dropout-lstm")
    one, other = make_batch(plain), make_batch(wrapped)
    assert_array_equal(one.x, other.x[:, :, : case.inputs])
    assert_array_equal(one.targets, other.targets)
    assert_array_equal(flat(make_weights(plain)), flat(make_weights(wrapped)))


def test_no_initial_state_is_the_zero_state() -> None:
    batch = replace(make_batch(CASE), initial_state=None)
    for layer, zeros in zip(initial_state(CASE, batch), zero_state(CASE), strict=True):
        assert set(layer) == set(zeros) == {"c", "h"}
        assert not any(array.any() for array in layer.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((3, 4, 5))}, "x has 5 features, the case has inputs=2"),
        ({"x": np.zeros((3, 6, 2))}, r"targets \(3, 4, 3\): must be \(3, 6, 3\)"),
        ({"lengths": None}, "lengths=None for a case with ragged lengths"),
        ({"lengths": np.array([1, 2])}, r"lengths \(2,\): must be \(3,\)"),
        ({"lengths": np.array([1, 2, 5])}, "length 5: must be between 0 and T=4"),
        ({"lengths": np.array([1, -1, 2])}, "length -1: must be between 0 and T=4"),
    ],
)
def test_a_batch_that_does_not_fit_is_an_error(change: dict[str, Any], message: str) -> None:
    batch = replace(make_batch(CASE), **change)
    with pytest.raises(ValueError, match=message):
        forward(CASE, make_weights(CASE), batch)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (({"c": np.zeros((2, 3)), "h": np.zeros((2, 3))},), "of 1 layers, the case has 2"),
        (({"c": np.zeros((1, 3)), "h": np.zeros((2, 3))},) * 2, r"c of layer 0 \(1, 3\): must be"),
        (({"h": np.zeros((2, 3))},) * 2, "c of layer 0 None: must be"),
    ],
)
def test_a_state_that_does_not_fit_is_an_error(state: Any, message: str) -> None:
    """One of a batch of one would be broadcast without a word."""
    case = Case(cell="lstm", seq_len=2, batch=2, inputs=3, hidden=3, layers=2)
    with pytest.raises(ValueError, match=message):
        check_batch(case, replace(make_batch(case), initial_state=state))


@pytest.mark.parametrize("name", ["seq_len", "batch", "inputs", "hidden", "layers"])
def test_an_empty_case_is_an_error(name: str) -> None:
    change: dict[str, Any] = {name: 0}
    with pytest.raises(ValueError, match=f"{name}=0: must be 1 or more"):
        replace(CASE, **change)


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (Lstm(projection=0), "projection=0: must be 1 or more"),
        (TimeFreq(feature_size=5), "inputs=4: narrower than a window of 5 features"),
        (Grid(feature_size=5), "inputs=4: a part of them is narrower than a window of 5 features"),
        (Residual(cell=Dropout(cell=Lstm())), "dropout goes around other wrappers: its masks"),
        (Attention(cell=Dropout(cell=Lstm()), window=2), "dropout goes around other wrappers"),
        (Dropout(cell=Attention(cell=Lstm(projection=0), window=2)), "projection=0: must be"),
        (Dropout(cell=Residual(cell=Lstm())), None),
    ],
)
def test_a_cell_says_what_it_cannot_have(cell: Cell, reason: str | None) -> None:
    found = cell.refusal(4, 4)
    assert found is None if reason is None else (found or "").startswith(reason)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cell": "lstn"}, "cell 'lstn': must be one of rnn, rnn-relu, "),
        ({"layers": 1001}, "layers=1001: must be 1,000 or less"),
        (
            {"cell": "residual-lstm"},
            "cell residual-lstm, layer 0: a residual adds inputs to outputs, and got 2 and 3",
        ),
        (
            {"cell": "lstm-shared"},
            "cell lstm-shared, layer 1: one cell as every layer needs as many outputs as inputs",
        ),
        (
            {"cell": "dropout-lstm", "direction": "bidirectional"},
            "cell dropout-lstm, layer 0: direction=bidirectional: masks are given for one",
        ),
        (
            {"cell": "grid-blocks", "inputs": 1},
            "cell grid-blocks, layer 0: inputs=1: a part of them is narrower than a window of 1",
        ),
    ],
)
def test_a_case_that_there_is_not_is_an_error(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        replace(CASE, **change)
