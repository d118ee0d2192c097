"""The oracle, the data and the counts that everything else is held against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import backends
from backends.api import CELL_NAMES, MODES, Array, Batch, Case, CellName, Unsupported, Weights
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
from backends.reference.network import expected, forward
from tests.support import data

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

CASES = st.builds(
    Case,
    cell=st.sampled_from(CELL_NAMES),
    seq_len=st.integers(1, 6),
    batch=st.integers(1, 4),
    inputs=st.integers(1, 4),
    hidden=st.integers(1, 4),
    layers=st.integers(1, 3),
    lengths=st.sampled_from(["full", "ragged"]),
    dtype=st.just("float64"),
    initial_state=st.sampled_from(["zeros", "random"]),
    forget_bias=st.floats(-2, 2),
    seed=st.integers(0, 2**32 - 1),
)


# --- gradients ------------------------------------------------------------------------------------


def moved(weights: Weights, direction: Weights, distance: float) -> Weights:
    return tuple(
        {name: layer[name] + distance * step[name] for name in layer}
        for layer, step in zip(weights, direction, strict=True)
    )


def slope(case: Case, weights: Weights, batch: Batch, direction: Weights) -> float:
    """The loss's central difference along a direction."""
    e = 1e-5
    ahead, behind = (
        expected(case, moved(weights, direction, distance), batch).loss for distance in (e, -e)
    )
    return (ahead - behind) / (2 * e)


def zeros_like(weights: Weights) -> list[dict[str, Array]]:
    return [{name: np.zeros_like(array) for name, array in layer.items()} for layer in weights]


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_every_entry_of_the_gradients_is_a_finite_difference(cell: CellName) -> None:
    case = replace(CASE, cell=cell)
    weights, batch = data(case)
    gradients = expected(case, weights, batch).gradients
    for index, layer in enumerate(gradients):
        for name, gradient in layer.items():
            assert np.abs(gradient).max() > 1e-6, f"{name} has nothing to compare"
            for place in np.ndindex(gradient.shape):
                direction = zeros_like(weights)
                direction[index][name][place] = 1.0
                difference = slope(case, weights, batch, tuple(direction))
                assert gradient[place] == pytest.approx(difference, abs=1e-9), (name, place)


@given(case=CASES)
@settings(max_examples=60)
def test_gradients_are_slopes_of_the_loss(case: Case) -> None:
    weights, batch = data(case)
    direction = make_weights(replace(case, seed=case.seed + 1))
    gradients = expected(case, weights, batch).gradients
    predicted = sum(
        float((gradient[name] * step[name]).sum())
        for gradient, step in zip(gradients, direction, strict=True)
        for name in step
    )
    assert slope(case, weights, batch, direction) == pytest.approx(predicted, abs=1e-8, rel=1e-6)


def test_the_loss_counts_padding_as_zeros() -> None:
    weights, batch = data(CASE)
    result = expected(CASE, weights, batch)
    error = result.output.outputs - batch.targets
    assert result.loss == pytest.approx((error**2).sum() / (2 * CASE.batch * CASE.seq_len))


# --- what a recurrence must satisfy ---------------------------------------------------------------


def rows(batch: Batch, chosen: slice) -> Batch:
    """Some sequences of a batch."""
    return replace(
        batch,
        x=batch.x[chosen],
        targets=batch.targets[chosen],
        lengths=None if batch.lengths is None else batch.lengths[chosen],
        initial_state=None
        if batch.initial_state is None
        else tuple({k: v[chosen] for k, v in layer.items()} for layer in batch.initial_state),
    )


@given(case=CASES)
def test_a_ragged_sequence_is_computed_as_if_it_were_alone_and_short(case: Case) -> None:
    case = replace(case, lengths="ragged")
    weights, batch = data(case)
    assert batch.lengths is not None
    whole = forward(case, weights, batch)
    for b, length in enumerate(batch.lengths.tolist()):
        alone = rows(batch, slice(b, b + 1))
        state = initial_state(case, alone)
        if length > 0:
            cut = replace(
                alone, x=alone.x[:, :length], targets=alone.targets[:, :length], lengths=None
            )
            short = forward(replace(case, lengths="full"), weights, cut)
            assert_allclose(whole.outputs[b, :length], short.outputs[0], atol=1e-14)
            state = short.state
        assert not whole.outputs[b, length:].any()
        for got, want in zip(whole.state, state, strict=True):
            for name in want:
                assert_allclose(got[name][b], want[name][0], atol=1e-14)


@given(case=CASES, cut=st.integers(1, 5))
def test_a_sequence_in_two_pieces_is_the_sequence(case: Case, cut: int) -> None:
    case = replace(case, lengths="full", seq_len=case.seq_len + cut)
    weights, batch = data(case)
    whole = forward(case, weights, batch)
    first = forward(
        case, weights, replace(batch, x=batch.x[:, :cut], targets=batch.targets[:, :cut])
    )
    second = forward(
        case,
        weights,
        Batch(
            x=batch.x[:, cut:],
            targets=batch.targets[:, cut:],
            lengths=None,
            initial_state=first.state,
        ),
    )
    pieces = np.concatenate([first.outputs, second.outputs], axis=1)
    assert_allclose(whole.outputs, pieces, atol=1e-14)


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_the_last_state_is_the_last_output(cell: CellName) -> None:
    case = replace(CASE, cell=cell, lengths="full")
    output = forward(case, *data(case))
    assert_array_equal(output.state[-1]["h"], output.outputs[:, -1])
    assert CELLS[cell].state[-1] == "h"


def test_the_two_grus_differ_in_where_the_reset_is() -> None:
    after = replace(CASE, cell="gru-reset-after")
    weights, batch = data(after)
    outputs = [
        forward(replace(after, cell=cell), weights, batch).outputs
        for cell in ("gru", "gru-reset-after")
    ]
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-3


def test_the_forget_bias_is_a_bias_of_the_forget_gate() -> None:
    case = replace(CASE, forget_bias=0.75)
    weights, batch = data(case)
    folded = tuple({**layer, "b_f": layer["b_f"] + 0.75} for layer in weights)
    want = forward(case, weights, batch).outputs
    assert_allclose(forward(replace(case, forget_bias=0.0), folded, batch).outputs, want, 1e-14)


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


@pytest.mark.parametrize("name", ["seq_len", "batch", "inputs", "hidden", "layers"])
def test_an_empty_case_is_an_error(name: str) -> None:
    change: dict[str, Any] = {name: 0}
    with pytest.raises(ValueError, match=f"{name}=0: must be 1 or more"):
        replace(CASE, **change)


# --- the public function, and the reference as a backend ------------------------------------------


def test_evaluate_takes_an_initial_state_in_place_of_the_batchs() -> None:
    weights, batch = data(CASE)
    zeros = zero_state(CASE)
    output = backends.evaluate("reference/numpy", CASE, weights, batch, zeros)
    want = forward(CASE, weights, replace(batch, initial_state=None))
    assert_array_equal(output.outputs, want.outputs)


def test_evaluate_of_an_unknown_implementation_is_an_error() -> None:
    with pytest.raises(KeyError, match="reference/abacus"):
        backends.evaluate("reference/abacus", CASE, *data(CASE))


@pytest.mark.parametrize(
    "of",
    [
        lambda runner: runner.fetch(None),
        lambda runner: runner.fetch_loss(None),
        lambda runner: runner.weights(),
    ],
)
def test_the_products_have_no_results(of: Callable[[Any], object]) -> None:
    runner = backends.create("reference").build(CASE, "products", "forward")
    with pytest.raises(Unsupported, match="the limit has no"):
        of(runner)


@pytest.mark.parametrize("mode", MODES)
def test_the_products_multiply_as_often_as_the_formula_says(mode: Any) -> None:
    runner: Any = backends.create("reference").build(CASE, "products", mode)
    done = sum(count * 2 * a.shape[0] * a.shape[1] * b.shape[1] for a, b, _, count in runner._steps)
    assert done == flops(CASE, mode)
    runner.sync(runner.forward())


def flat(weights: Weights) -> Array:
    return np.concatenate([array.ravel() for layer in weights for array in layer.values()])
