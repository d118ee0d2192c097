"""Copies of a batch lie in memory of their own, and each call reads the next."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from backends import IMPLEMENTATIONS
from backends.api import Case, Runner
from tests.checks import (
    Build,
    Check,
    copies_are_of_the_batch,
    copies_are_of_the_batch_in_training,
    ready,
)
from tests.support import data, on

CASE = Case(cell="rnn", seq_len=3, batch=2, inputs=5, hidden=4)


#: One of each kind of runner: the others inherit what they do with copies.
RUNNERS = (
    *("torch/dynamic", "torch/fused", "jax/dynamic", "jax/static"),
    *("tensorflow/static", "tensorflow/dynamic", "tensorflow/keras"),
)


@pytest.mark.parametrize("check", [copies_are_of_the_batch, copies_are_of_the_batch_in_training])
@pytest.mark.parametrize(
    "implementation", [on(IMPLEMENTATIONS[implementation]) for implementation in RUNNERS]
)
def test_whichever_copy_is_read_it_is_the_batch(
    build_with: Callable[[str], Build], implementation: str, check: Check
) -> None:
    case = replace(CASE, cell="lstm", layers=2, lengths="ragged", initial_state="random")
    check(build_with(implementation), case)


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
def test_each_copy_has_its_memory(
    build_with: Callable[[str], Build], implementation: str, addresses: Callable[[Any], list[int]]
) -> None:
    with ready(build_with(implementation), CASE, "train", *data(CASE)) as runner:
        bound = addresses(runner)
        runner.rotate(3)
        seen = []
        for _ in range(6):
            runner.advance()
            seen.append(tuple(addresses(runner)))
        assert seen[:3] == seen[3:]
        assert len({*itertools.chain.from_iterable(seen[:3]), *bound}) == 8


def _outputs(runner: Runner) -> Any:
    out = runner.forward()
    runner.sync(out)
    return runner.fetch(out).outputs


@pytest.mark.xdist_group("tensorflow")
@pytest.mark.parametrize(
    "implementation", ["tensorflow/static", "tensorflow/dynamic", "tensorflow/keras"]
)
def test_tensorflow_reads_a_copy_that_was_made_when_it_was_rotated(
    build_with: Callable[[str], Build], implementation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where each copy is the batch and a number, the outputs tell which one a call has read."""
    tf = pytest.importorskip("tensorflow")
    weights, batch = data(CASE)
    with ready(build_with(implementation), CASE, "forward", weights, batch) as runner:
        numbers = itertools.count(1)
        with monkeypatch.context() as patched:
            patched.setattr(tf.raw_ops, "DeepCopy", lambda x: x + float(next(numbers)))
            runner.rotate(2)
        seen = []
        for _ in range(4):
            runner.advance()
            seen.append(_outputs(runner))
        for number, outputs in enumerate(seen[:2], start=1):
            runner.bind(replace(batch, x=batch.x + np.float32(number)))
            np.testing.assert_allclose(outputs, _outputs(runner), rtol=1e-6)
        np.testing.assert_array_equal(seen[:2], seen[2:])
        assert np.abs(seen[0] - seen[1]).max() > 1e-3


@pytest.mark.xdist_group("tensorflow")
def test_a_graph_s_size_is_without_what_copies(build_with: Callable[[str], Build]) -> None:
    with ready(build_with("tensorflow/dynamic"), CASE, "train", *data(CASE)) as runner:
        before = runner.program_size()
        for copies in (2, 3):
            runner.rotate(copies)
            assert runner.program_size() == before


@pytest.mark.xdist_group("tensorflow")
def test_a_session_has_taken_each_copy_before_a_call_is_timed(
    build_with: Callable[[str], Build],
) -> None:
    """It makes an executor for each, at the first time: not between calls that are timed."""
    with ready(build_with("tensorflow/dynamic"), CASE, "forward", *data(CASE)) as runner:
        taken: list[int] = []
        session: Any = runner._session  # type: ignore[attr-defined]

        def callable_of(take: Any) -> Callable[[], None]:
            number = int(take.name.rpartition("_")[2]) if "_" in take.name else 0
            return lambda: taken.append(number)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(session, "make_callable", callable_of)
            runner.rotate(3)
        assert len(taken) == len(set(taken)) == 3
        runner.advance()
        assert taken[3:] == taken[:1]
