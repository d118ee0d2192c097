"""The oracle, which everything else is held against."""

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
from backends.api import CELL_NAMES, MODES, Array, Batch, Case, Unsupported, Weights
from backends.data import (
    initial_state,
    make_weights,
    zero_state,
)
from backends.products import flops
from backends.reference.network import expected, forward
from backends.stack import input_width, layers
from tests.support import CASES, case_of, data

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
        half_mean_square(case, moved(weights, direction, distance), batch) for distance in (e, -e)
    )
    return (ahead - behind) / (2 * e)


def half_mean_square(case: Case, weights: Weights, batch: Batch) -> float:
    error = forward(case, weights, batch).outputs - batch.targets
    return float((error**2).sum() / (2 * case.batch * case.seq_len))


def zeros_like(weights: Weights) -> list[dict[str, Array]]:
    return [{name: np.zeros_like(array) for name, array in layer.items()} for layer in weights]


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_entries_of_the_gradients_are_finite_differences(cell: str) -> None:
    """Of each block the first and the last entry, and some between."""
    # Of few units of relu all may be off, and of few outputs all at the clip.
    few = not cell.endswith(("relu", "clip", "full"))
    case = case_of(replace(CASE, inputs=4, hidden=4 if few else 8), cell)
    weights, batch = data(case)
    gradients = expected(case, weights, batch).gradients
    for index, layer in enumerate(gradients):
        for name, gradient in layer.items():
            assert np.abs(gradient).max() > 1e-6, f"{name} has nothing to compare"
            places = list(np.ndindex(gradient.shape))
            for place in places[:: max(1, (len(places) - 1) // 3)]:
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
    assert expected(CASE, weights, batch).loss == pytest.approx(
        half_mean_square(CASE, weights, batch)
    )


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
    case = replace(case, lengths="full", seq_len=case.seq_len + cut, direction="forward")
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


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm", "lstm-full", "coupled-full"])
def test_the_last_state_is_the_last_output(cell: str) -> None:
    case = replace(CASE, cell=cell, lengths="full")
    output = forward(case, *data(case))
    assert_array_equal(output.state[-1]["h"], output.outputs[:, -1])
    assert list(layers(case)[-1].state)[-1] == "h"


@given(case=CASES)
def test_masks_of_ones_drop_nothing(case: Case) -> None:
    case = replace(case, cell="dropout-lstm", direction="forward")
    weights, batch = data(case)
    kept = replace(batch, x=np.where(np.arange(input_width(case)) < case.inputs, batch.x, 1.0))
    plain = replace(batch, x=batch.x[:, :, : case.inputs])
    want = forward(replace(case, cell="lstm"), weights, plain)
    assert_array_equal(forward(case, weights, kept).outputs, want.outputs)
    assert (forward(case, weights, batch).outputs != want.outputs).any()


def test_a_shared_cell_has_the_weights_and_gradients_of_all_its_layers() -> None:
    shared = replace(CASE, cell="lstm-shared", inputs=CASE.hidden)
    weights, batch = data(shared)
    assert len(weights) == 1
    apart = expected(replace(shared, cell="lstm"), weights * 2, batch)
    found = expected(shared, weights, batch)
    assert_array_equal(found.output.outputs, apart.output.outputs)
    for name, gradient in found.gradients[0].items():
        both = apart.gradients[0][name] + apart.gradients[1][name]
        assert_allclose(gradient, both, rtol=1e-12, atol=1e-15)


@given(case=CASES)
def test_one_layer_both_ways_is_a_network_and_one_of_the_sequence_reversed(case: Case) -> None:
    case = replace(case, cell="gru", layers=1, lengths="full", direction="bidirectional")
    weights, batch = data(case)
    both = forward(case, weights, batch)
    one_way = replace(case, direction="forward")
    start = initial_state(case, batch)
    for way, turn in enumerate((slice(None), slice(None, None, -1))):
        part = replace(batch, x=batch.x[:, turn], initial_state=(start[way],))
        part = replace(part, targets=batch.targets[:, :, : case.hidden])
        want = forward(one_way, (weights[way],), part)
        columns = slice(way * case.hidden, (way + 1) * case.hidden)
        assert_allclose(both.outputs[:, :, columns], want.outputs[:, turn], atol=1e-14)


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
