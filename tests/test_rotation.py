"""Batches of a rotation lie in memory of their own, and each call reads the next."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends import IMPLEMENTATIONS
from backends.api import Case, Mode
from backends.data import check_batch, make_batch, varied_batches
from backends.reference import network
from bench.rotation import batches_needed
from tests.checks import (
    Build,
    Check,
    a_rotation_goes_round_its_batches,
    a_rotation_goes_round_its_batches_in_training,
    ready,
)
from tests.support import data, on

CASE = Case(cell="rnn", seq_len=3, batch=2, inputs=5, hidden=4)


#: One of each kind of runner: the others inherit how they rotate.
RUNNERS = ("torch/dynamic", "jax/dynamic", "tensorflow/dynamic", "tensorflow/keras", "onnx/fused")


@pytest.mark.parametrize(
    "implementation", [on(IMPLEMENTATIONS[implementation]) for implementation in RUNNERS]
)
def test_batches_of_earlier_rotations_are_released(
    build_with: Callable[[str], Build], implementation: str
) -> None:
    """Those of 60 rotations are 240 MB."""
    case = Case(cell="lstm", seq_len=8, batch=64, inputs=512, hidden=4)
    weights, batch = data(case)
    process = psutil.Process()
    with ready(build_with(implementation), case, "forward", weights, batch) as runner:
        others = [make_batch(case, number) for number in range(1, 5)]
        grown = []
        for _ in range(60):
            runner.rotate(others)
            for _ in others:
                runner.advance()
                runner.sync(runner.forward())
            grown.append(process.memory_info().rss)
    assert grown[-1] - grown[9] < 60e6


@pytest.mark.xdist_group("tensorflow")
@pytest.mark.parametrize(
    "check", [a_rotation_goes_round_its_batches, a_rotation_goes_round_its_batches_in_training]
)
def test_a_row_of_a_pool_is_its_batch_where_it_is_no_copy(
    build_with: Callable[[str], Build], check: Check
) -> None:
    """Inputs and targets of 256 bytes; those of other tests are no multiple of 64."""
    check(build_with("tensorflow/dynamic"), replace(CASE, seq_len=4, batch=4, inputs=4, hidden=4))


def _torch(runner: Any) -> list[int]:
    return [runner._x.data_ptr(), runner._targets.data_ptr()]


def _jax(runner: Any) -> list[int]:
    return [array.unsafe_buffer_pointer() for array in runner._inputs]


@pytest.mark.parametrize(
    ("implementation", "addresses"),
    [
        pytest.param("torch/fused", _torch, marks=pytest.mark.xdist_group("torch")),
        pytest.param("torch/dynamic", _torch, marks=pytest.mark.xdist_group("torch")),
        pytest.param("jax/dynamic", _jax, marks=pytest.mark.xdist_group("jax")),
    ],
)
def test_each_batch_has_its_memory(
    build_with: Callable[[str], Build], implementation: str, addresses: Callable[[Any], list[int]]
) -> None:
    with ready(build_with(implementation), CASE, "train", *data(CASE)) as runner:
        bound = addresses(runner)
        runner.rotate([make_batch(CASE, number) for number in range(3)])
        seen = []
        for _ in range(6):
            runner.advance()
            seen.append(tuple(addresses(runner)))
        assert seen[:3] == seen[3:]
        assert len({*itertools.chain.from_iterable(seen[:3]), *bound}) == 8


@pytest.mark.xdist_group("tensorflow")
def test_a_graph_does_not_grow_with_its_rotations(build_with: Callable[[str], Build]) -> None:
    """And its size is that of the program, without the operations that go round."""
    with ready(build_with("tensorflow/dynamic"), CASE, "train", *data(CASE)) as runner:
        before = runner.program_size()
        graph: Any = runner._graph  # type: ignore[attr-defined]
        sizes = []
        for count in (2, 7, 3):
            runner.rotate([make_batch(CASE, number) for number in range(count)])
            runner.advance()
            assert runner.program_size() == before
            sizes.append(len(graph.get_operations()))
        assert len(set(sizes)) == 1


def test_the_oracle_of_a_forward_job_takes_no_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, batch = data(CASE)
    whole = network.expected(CASE, weights, batch)
    monkeypatch.setattr(network.autograd, "grad", None)
    found = network.expected(CASE, weights, batch, gradients=False)
    assert found.gradients == ()
    assert found.loss == whole.loss
    np.testing.assert_array_equal(found.output.outputs, whole.output.outputs)


CASES = st.builds(
    Case,
    cell=st.sampled_from(["lstm", "gru", "dropout-lstm"]),
    seq_len=st.integers(1, 5),
    batch=st.integers(1, 4),
    inputs=st.integers(1, 6),
    hidden=st.integers(1, 5),
    dtype=st.sampled_from(["float32", "float64", "bfloat16"]),
    lengths=st.sampled_from(["full", "ragged"]),
    initial_state=st.sampled_from(["zeros", "random"]),
)


@given(CASES, st.integers(1, 40), st.integers(0, 99))
def test_varied_batches_differ_in_their_features_and_in_nothing_else(
    case: Case, count: int, seed: int
) -> None:
    rng, like = np.random.default_rng(seed), make_batch(case)
    first, second = (varied_batches(case, like, rng, count) for _ in range(2))
    assert len(first) == count
    seen = {batch.x[..., : case.inputs].tobytes() for batch in (*first, *second)}
    few = case.dtype == "bfloat16"  # it has too few values for many batches of one feature
    assert len(seen) == 2 * count or few
    for one, other in itertools.pairwise(first):
        assert np.all(
            (one.x != other.x) | (one.x == 0) | (np.arange(one.x.shape[2]) >= case.inputs)
        )
    for batch in first:
        check_batch(case, batch)
        assert batch.x.dtype == batch.targets.dtype == case.dtype
        assert np.abs(batch.x.astype(float)).max() < 10
        np.testing.assert_array_equal(batch.x[..., case.inputs :], like.x[..., case.inputs :])
        np.testing.assert_array_equal(batch.lengths, like.lengths)
        assert batch.learning_rate == like.learning_rate


@given(CASES, st.integers(1, 5))
def test_a_numbered_batch_has_other_values_and_the_same_rest(case: Case, number: int) -> None:
    first, other = make_batch(case), make_batch(case, number)
    assert not np.array_equal(first.x[..., : case.inputs], other.x[..., : case.inputs])
    np.testing.assert_array_equal(first.x[..., case.inputs :], other.x[..., case.inputs :])
    np.testing.assert_array_equal(first.lengths, other.lengths)
    for one, two in zip(first.initial_state or (), other.initial_state or (), strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], two[name])


@given(CASES, st.sampled_from(["forward", "train"]), st.integers(1, 1000))
def test_on_a_cpu_each_call_has_a_batch_as_far_as_memory_goes(
    case: Case, mode: Mode, calls: int
) -> None:
    assert batches_needed(case, mode, calls) == max(calls, 4)
    large = replace(case, seq_len=4000, batch=1000, inputs=64)
    assert batches_needed(large, mode, calls) == 4
