"""Weights, batches and their layouts; parameters and FLOPs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from backends.api import Array, Case, CellName, Weights
from backends.cells import CELLS
from backends.data import (
    check_batch,
    concat_state,
    fuse,
    initial_state,
    make_batch,
    make_weights,
    split,
    zero_state,
)
from backends.products import flops
from backends.reference.network import forward
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


@pytest.mark.parametrize(
    ("cell", "layers", "count"),
    [
        ("rnn", 1, 60),
        ("gru", 1, 180),
        ("gru-reset-after", 1, 185),
        ("lstm", 1, 240),
        ("basic-lstm", 1, 240),
        ("basic-lstm", 2, 460),
    ],
)
def test_parameters_of_known_networks(cell: CellName, layers: int, count: int) -> None:
    """TensorFlow's variables of I=6, H=5; reset-after GRU has H more, for b_hc."""
    case = Case(cell=cell, seq_len=1, batch=1, inputs=6, hidden=5, layers=layers)
    assert CELLS[cell].parameters(case) == count


@given(case=CASES)
def test_parameters_are_the_entries_of_the_weights(case: Case) -> None:
    entries = sum(array.size for layer in make_weights(case) for array in layer.values())
    assert CELLS[case.cell].parameters(case) == entries


@given(case=CASES)
def test_flops_are_the_multiplications_of_every_weight(case: Case) -> None:
    """A forward pass multiplies each entry of W and U once for every step of every sequence.

    Training takes as many again for the gradient of the weights and for that of what they multiply,
    which the inputs of the first layer do not need.
    """
    kernels = [
        array.size
        for layer in make_weights(case)
        for name, array in layer.items()
        if not name.startswith("b_")
    ]
    first = case.inputs * case.hidden * len(CELLS[case.cell].gates)
    steps = case.batch * case.seq_len
    assert flops(case, "forward") == 2 * steps * sum(kernels)
    assert flops(case, "train") == 3 * 2 * steps * sum(kernels) - 2 * steps * first


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
    assert batch.x.shape == (case.batch, case.seq_len, case.inputs)
    assert batch.targets.shape == (case.batch, case.seq_len, case.hidden)
    assert (batch.initial_state is None) == (case.initial_state == "zeros")
    state = initial_state(case, batch)
    assert len(state) == case.layers
    for layer in state:
        assert tuple(layer) == CELLS[case.cell].state
        assert {array.shape for array in layer.values()} == {(case.batch, case.hidden)}


@given(case=CASES, gates=st.permutations(("i", "g", "f", "o")))
def test_split_is_the_inverse_of_fuse(case: Case, gates: list[str]) -> None:
    (layer, *_) = make_weights(replace(case, cell="lstm"))
    for kind in ("W", "U", "b"):
        fused = fuse(layer, kind, gates)
        assert_array_equal(fused[..., : case.hidden], layer[f"{kind}_{gates[0]}"])
        blocks = split(fused, kind, gates)
        assert set(blocks) == {name for name in layer if name.startswith(f"{kind}_")}
        for name, block in blocks.items():
            assert_array_equal(block, layer[name])


def test_states_are_joined_in_the_order_asked_for() -> None:
    (layer, *_) = make_batch(CASE).initial_state or ()
    assert_array_equal(concat_state(layer, ("h", "c")), np.hstack([layer["h"], layer["c"]]))


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
