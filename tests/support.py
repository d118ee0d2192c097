"""What the tests of every implementation share: where each runs, and what each must refuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import strategies as st

import backends
from backends.api import CELL_NAMES, Batch, Case, Implementation, Weights
from backends.data import make_batch, make_weights

#: Everything that computes a network; the limits compute products alone.
NETWORKS = backends.of_kind(("static", "dynamic", "fused", "oracle"))

#: Each program takes seconds to compile.
SLOW_TO_BUILD = {"torch/static"}


#: Programs of T steps, or of T's shape: another T is refused when it is bound.
BUILT_FOR_ONE_TIME = {
    "jax/static",
    "jax/dynamic",
    "jax/scan-unroll",
    "tensorflow/static",
    "tensorflow/keras-unrolled",
    "torch/static",
    "torch/traced",
}


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Cases that an implementation must refuse, and the reason that it must give (a pattern)."""

    implementation: str
    reason: str
    applies: Callable[[Case], bool]


#: All that is unsupported. A case that is refused and is not here fails, and so does the reverse.
REFUSALS = (
    Refusal(
        implementation="tensorflow/fused",
        reason="cell .*lstm",
        applies=lambda case: case.cell not in {"basic-lstm", "lstm"},
    ),
    Refusal(
        implementation="tensorflow/fused",
        reason="dtype float64.*float32",
        applies=lambda case: case.cell in {"basic-lstm", "lstm"} and case.dtype == "float64",
    ),
    Refusal(
        implementation="torch/fused",
        reason="cell gru: .*another function",
        applies=lambda case: case.cell == "gru",
    ),
)


def refusal(implementation: str, case: Case) -> str | None:
    """The pattern of the reason for which a case must be refused, or None."""
    for entry in REFUSALS:
        if entry.implementation == implementation and entry.applies(case):
            return entry.reason
    return None


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


#: Small cases of every kind.
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
