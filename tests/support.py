"""What the tests of every implementation share: where each runs, and what each must refuse."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import reject
from hypothesis import strategies as st

import backends
from backends.api import CELL_NAMES, Batch, Case, Implementation, Weights
from backends.data import make_batch, make_weights

#: What the conformance suite computes on: a GPU where there is one and it is named.
DEVICE = os.environ.get("RNN_BENCH_TEST_DEVICE", "cpu")

#: Backends that compute on the CPU, wherever they are.
ON_CPU_ALONE = ("reference", "onnx")

#: Everything that computes a network; the limits compute products alone.
NETWORKS = backends.of_kind(("static", "dynamic", "fused", "oracle"))

#: Each program takes seconds to compile.
SLOW_TO_BUILD = {"torch/static"}

#: Programs of T steps, or of T's shape: another T is refused when it is bound.
BUILT_FOR_ONE_TIME = {
    "jax/static",
    "jax/dynamic",
    "jax/scan-unroll-2",
    "jax/scan-unroll-4",
    "jax/scan-unroll-8",
    "jax/scan-unroll-16",
    "jax/scan-unroll-32",
    "jax/fori",
    "jax/while",
    "jax/fused",
    "tensorflow/static",
    "tensorflow/static-block",
    "tensorflow/keras-unrolled",
    "tensorflow/state-saving",
    "torch/static",
    "torch/traced",
    "torch/graphed",
}

#: The smallest case of every kind: two layers, ragged with an empty sequence, a state to start at.
SMALLEST = Case(
    cell="lstm",
    seq_len=3,
    batch=3,
    inputs=5,
    hidden=4,
    layers=2,
    lengths="ragged",
    initial_state="random",
    forget_bias=0.7,
)


def on(entry: Implementation, *values: object, slow: bool = False, name: str = "") -> object:
    """A parameter set for one implementation; its tests run in one process for each backend."""
    marks = [pytest.mark.xdist_group(entry.backend)]
    if slow:
        marks.append(pytest.mark.slow)
    identity = f"{entry.name}-{name}" if name else entry.name
    return pytest.param(entry.name, *values, marks=marks, id=identity)


def data(case: Case) -> tuple[Weights, Batch]:
    """A case's weights and batch.

    Of a ragged batch of two or more, one sequence is full and one empty, the others are evenly
    between; which is which turns with the seed.
    """
    batch = make_batch(case)
    if batch.lengths is not None:
        even = np.linspace(case.seq_len, 0, case.batch).round().astype(np.int32)
        batch = replace(batch, lengths=np.roll(even, case.seed))
    return make_weights(case), batch


#: A case of every cell fits these: what is added to is as wide as what is added.
SIZES = {"inputs": 4, "hidden": 4}


def case_of(case: Case, cell: str) -> Case:
    """The case with another cell; its inputs as wide as its hidden units where that cell asks."""
    try:
        return replace(case, cell=cell)
    except ValueError:
        return replace(case, cell=cell, inputs=case.hidden)


@st.composite
def cases(draw: st.DrawFn, **fields: st.SearchStrategy[Any]) -> Case:
    """Cases of fields; those of cells that cannot have the sizes are left out."""
    try:
        return draw(st.builds(Case, **fields))
    except ValueError:
        reject()


#: Small cases of every kind.
CASES = cases(
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
    direction=st.sampled_from(["forward", "bidirectional", "two-stacks"]),
)
