"""Every implementation against the float64 oracle, and the checks against planted faults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import pytest

from backends.api import (
    CELL_NAMES,
    Case,
    CellName,
    Dtype,
    Implementation,
    Lengths,
    Mode,
    Runner,
    Unsupported,
)
from backends.reference.adapter import OracleRunner
from tests import faulty
from tests.checks import (
    Build,
    Check,
    fetch_survives_rebind,
    forward_is_the_oracles,
    nothing_is_constant,
    padding_is_ignored,
    training_is_the_oracles,
    two_steps_are_the_oracles,
    work_grows_with_time,
)
from tests.support import BUILT_FOR_ONE_TIME, NETWORKS, SLOW_TO_BUILD, on, refusal

BuildWith = Callable[[str], Build]

#: The smallest case of every kind: two layers, ragged with an empty sequence, a state to start at.
CASE = Case(
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


#: Slow to build, or at so few steps another's program: unrolled by 8, a scan of T=3 is no loop.
FEW = SLOW_TO_BUILD | {"jax/scan-unroll"}


# --- the matrix -----------------------------------------------------------------------------------


def matrix() -> list[object]:
    """Implementation x cell x lengths x layers x dtype.

    In the half that is not slow, every two of these values still meet. Of `FEW` only two are not.
    """
    axes = (NETWORKS, CELL_NAMES, ("full", "ragged"), (1, 2), ("float32", "float64"))
    return [_point(*values) for values in product(*axes)]


def _point(
    entry: Implementation, cell: CellName, lengths: Lengths, layers: int, dtype: Dtype
) -> object:
    odd = (layers == 2) != (lengths == "ragged")
    case = replace(
        CASE,
        cell=cell,
        lengths=lengths,
        layers=layers,
        dtype=dtype,
        initial_state="random" if odd else "zeros",
    )
    slow = odd != (dtype == "float64")
    if entry.name in FEW:
        slow = slow or (cell, lengths, layers) not in {("gru", "full", 1), ("lstm", "ragged", 2)}
    return on(entry, case, slow=slow, name=f"{cell}-{lengths}-{layers}-{dtype}")


@pytest.mark.parametrize(("implementation", "case"), matrix())
def test_it_computes_what_the_oracle_computes(
    build_with: BuildWith, implementation: str, case: Case
) -> None:
    build = build_with(implementation)
    reason = refusal(implementation, case)
    if reason is not None:
        for mode in ("forward", "train"):
            with pytest.raises(Unsupported, match=reason):
                build(case, mode)
        return
    forward_is_the_oracles(build, case)
    training_is_the_oracles(build, case)


# --- what a comparison of outputs does not see ----------------------------------------------------


CHECKS: tuple[Check, ...] = (
    fetch_survives_rebind,
    nothing_is_constant,
    two_steps_are_the_oracles,
    padding_is_ignored,
    work_grows_with_time,
)


@pytest.mark.parametrize(
    ("implementation", "check"),
    [
        # What is slow to build has one of them each time: it sees weights and batches that change.
        on(
            entry,
            check,
            slow=entry.name in SLOW_TO_BUILD and check is not nothing_is_constant,
            name=check.__name__,
        )
        for entry in NETWORKS
        for check in CHECKS
    ],
)
def test_it_passes(build_with: BuildWith, implementation: str, check: Check) -> None:
    check(build_with(implementation), CASE)


@pytest.mark.parametrize(
    "implementation", [on(entry, slow=entry.name in SLOW_TO_BUILD) for entry in NETWORKS]
)
def test_another_time_is_computed_or_refused(build_with: BuildWith, implementation: str) -> None:
    longer = replace(CASE, seq_len=CASE.seq_len + 1)

    def bound_to_longer(case: Case, mode: Mode) -> Runner:
        return build_with(implementation)(CASE, mode)

    if implementation in BUILT_FOR_ONE_TIME:
        with pytest.raises(Unsupported, match=r" T=3, got T=4$"):
            forward_is_the_oracles(bound_to_longer, longer)
    else:
        forward_is_the_oracles(bound_to_longer, longer)


# --- the checks themselves ------------------------------------------------------------------------

LITTLE_WORK = r"T=128 takes .* as long as T=8"
OTHER_OUTPUTS = r"outputs differ by"
OTHER_STATE = r"state differ by"
OTHER_GRADIENTS = r"gradients differ by"
OTHER_LOSS = r"loss differ by"
NOT_SGD = r"Not equal to tolerance"

FAULTS: tuple[tuple[type[OracleRunner], Check, str], ...] = (
    (faulty.Pruned, work_grows_with_time, LITTLE_WORK),
    (faulty.LastStep, work_grows_with_time, LITTLE_WORK),
    (faulty.Recomputing, fetch_survives_rebind, OTHER_OUTPUTS),
    (faulty.ConstantWeights, nothing_is_constant, OTHER_OUTPUTS),
    (faulty.ConstantLengths, nothing_is_constant, OTHER_OUTPUTS),
    (faulty.NoUpdate, training_is_the_oracles, OTHER_GRADIENTS),
    (faulty.NoUpdate, two_steps_are_the_oracles, NOT_SGD),
    (faulty.DoubleUpdate, training_is_the_oracles, OTHER_GRADIENTS),
    (faulty.DoubleUpdate, two_steps_are_the_oracles, NOT_SGD),
    (faulty.ConstantRate, two_steps_are_the_oracles, NOT_SGD),
    (faulty.FrozenBias, training_is_the_oracles, OTHER_GRADIENTS),
    (faulty.FrozenBias, two_steps_are_the_oracles, NOT_SGD),
    (faulty.LossAfterUpdate, training_is_the_oracles, OTHER_LOSS),
    (faulty.LossAfterUpdate, two_steps_are_the_oracles, NOT_SGD),
    (faulty.PaddedState, padding_is_ignored, OTHER_STATE),
    (faulty.RepeatedOutput, padding_is_ignored, OTHER_OUTPUTS),
)

#: Faults of benchmarks in which every published output was right.
UNSEEN = (
    faulty.Pruned,
    faulty.LastStep,
    faulty.Recomputing,
    faulty.ConstantWeights,
    faulty.ConstantLengths,
)


def build_faulty(runner: type[OracleRunner]) -> Build:
    def build(case: Case, mode: Mode) -> Runner:
        return runner(case)

    return build


@pytest.mark.parametrize(("runner", "check", "message"), FAULTS)
def test_a_fault_is_rejected(runner: type[OracleRunner], check: Check, message: str) -> None:
    case = replace(CASE, dtype="float64")
    with pytest.raises(AssertionError, match=message):
        check(build_faulty(runner), case)


@pytest.mark.parametrize("runner", UNSEEN)
def test_a_comparison_of_outputs_does_not_see_it(runner: type[OracleRunner]) -> None:
    forward_is_the_oracles(build_faulty(runner), CASE)
