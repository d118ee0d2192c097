"""What counts as the same function, and what each kind of difference is called."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from backends.api import Case, Dtype, Expected
from backends.data import make_batch, make_weights
from backends.reference.network import expected
from bench.outputs import (
    TOLERANCES,
    check_forward,
    check_train,
    difference,
    other_weights_dtype,
    parts_difference,
    worst_of,
)

CASE = Case(cell="lstm", seq_len=1, batch=2, inputs=3, hidden=4)


@pytest.fixture
def truth() -> Expected:
    return expected(CASE, make_weights(CASE), make_batch(CASE))


def test_what_is_equal_passes(truth: Expected) -> None:
    assert check_forward(CASE, truth.output, truth).fault is None
    assert check_train(CASE, truth.loss, truth.gradients, truth).fault is None


def test_rounding_where_the_gradient_is_zero_is_no_fault(truth: Expected) -> None:
    """One step from a zero state: nothing is forgotten, so the forget gate has no gradient."""
    assert not truth.gradients[0]["b_f"].any()
    rounded = ({**truth.gradients[0], "b_f": truth.gradients[0]["b_f"] + 1e-9},)
    assert check_train(CASE, truth.loss, rounded, truth).fault is None
    wrong = ({**truth.gradients[0], "b_f": truth.gradients[0]["b_f"] + 1e-2},)
    assert "gradients differ" in str(check_train(CASE, truth.loss, wrong, truth).fault)


def test_a_loss_that_is_not_finite_is_a_fault(truth: Expected) -> None:
    check = check_train(CASE, math.nan, truth.gradients, truth)
    assert check.fault == "loss: not finite"


@pytest.mark.parametrize("bad", [0, 1])
def test_the_worst_of_several_batches_counts_and_is_named(truth: Expected, bad: int) -> None:
    losses = [truth.loss, truth.loss]
    losses[bad] *= 1.5
    checks = [check_train(CASE, loss, truth.gradients, truth) for loss in losses]
    worst = worst_of(checks)
    assert worst.fault is not None
    assert worst.fault.startswith("batch 2: loss differ" if bad else "loss differ")
    assert worst.differences["loss"].relative == pytest.approx(0.5)
    assert worst_of(checks[1 - bad : 2 - bad]).fault is None


def test_another_shape_is_named_and_is_no_nan(truth: Expected) -> None:
    turned = replace(truth.output, outputs=truth.output.outputs.swapaxes(0, 1))
    check = check_forward(CASE, turned, truth)
    assert "another shape" in str(check.fault)
    assert math.isinf(check.differences["outputs"].absolute)


def test_a_nan_survives_the_worst_of_several() -> None:
    fine, nan = difference(np.ones(2), np.ones(2)), difference(np.array([1, np.nan]), np.ones(2))
    assert math.isnan(fine.worst(nan).absolute)
    assert math.isnan(nan.worst(fine).absolute)


def test_an_array_of_what_is_left_is_rounded_as_its_terms_are() -> None:
    """Errors are relative to 1e-4 of the largest of all, where an array is smaller than that."""
    truth = ({"W": np.array([2.0]), "b": np.array([1e-5])},)
    found = parts_difference(({"W": np.array([2.0]), "b": np.array([1.2e-5])},), truth)
    assert found.relative == pytest.approx(2e-6 / 2e-4)
    small = ({"W": np.array([2.0]), "b": np.array([1e-3])},)
    found = parts_difference(({"W": np.array([2.0]), "b": np.array([2e-3])},), small)
    assert found.relative == pytest.approx(1.0)
    # What is not there at all is still found.
    missing = parts_difference(({"W": np.array([2.0]), "b": np.array([0.0])},), truth)
    assert missing.relative > TOLERANCES["float32"].gradient


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_weights_after_a_step_show_what_it_computes_in(dtype: Dtype) -> None:
    case = Case(cell="rnn", seq_len=2, batch=1, inputs=2, hidden=2, dtype=dtype)
    weights = make_weights(case)
    assert other_weights_dtype(case, weights) is None
    other = "float64" if dtype != "float64" else "float32"
    moved = ({**weights[0], "b_h": weights[0]["b_h"].astype(other)},)
    fault = other_weights_dtype(case, moved)
    assert fault == f"weights after a step are {other}, not {dtype}"
