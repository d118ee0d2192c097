"""Every implementation against the float64 oracle, and the checks against planted faults."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest

import backends
from backends.api import (
    CELL_NAMES,
    Case,
    Direction,
    Dtype,
    Implementation,
    Lengths,
    Mode,
    Runner,
    Unsupported,
)
from backends.devices import is_gpu
from backends.reference.adapter import OracleRunner
from tests import faulty
from tests.checks import (
    Build,
    Check,
    a_rotation_goes_round_its_batches,
    a_rotation_goes_round_its_batches_in_training,
    a_state_carries_on,
    fetch_survives_rebind,
    forward_is_the_oracles,
    nothing_is_constant,
    nothing_is_constant_in_training,
    padding_is_ignored,
    padding_is_ignored_in_training,
    training_is_the_oracles,
    two_steps_are_the_oracles,
    work_grows_with_time,
)
from tests.support import BUILT_FOR_ONE_TIME, DEVICE, NETWORKS, SLOW_TO_BUILD, SMALLEST, case_of, on

BuildWith = Callable[[str], Build]

CASE = replace(SMALLEST, device=DEVICE)


#: Options of one strategy: its cells are looked at under all of them in turn, and all in slow.
OPTIONS = (
    tuple(entry.name for entry in NETWORKS if entry.name.startswith("jax/scan-unroll-")),
    (
        "tensorflow/dynamic-v2",
        "tensorflow/dynamic-time-major",
        "tensorflow/dynamic-swap",
        "tensorflow/dynamic-parallel-1",
    ),
)

#: Cells whose every combination of the other axes is looked at; of the others one, and all in slow.
BASIC = ("lstm", "gru", "gru-reset-after")

#: Cells with a step of so many operations that two steps of one layer are enough; more in slow.
LONG = ("time-freq", "grid", "bidirectional-grid")

#: Of what is slow to build, all that is not slow.
FEW_POINTS = {("gru", "full", 1), ("lstm", "ragged", 2)}


# --- the matrix -----------------------------------------------------------------------------------


Variant = tuple[Lengths, int, Dtype, Direction]

#: Every two values of these axes meet in the half that comes first.
VARIANTS: tuple[Variant, ...] = (
    ("full", 1, "float32", "forward"),
    ("ragged", 2, "float32", "forward"),
    ("full", 2, "float64", "bidirectional"),
    ("ragged", 1, "float64", "bidirectional"),
    ("ragged", 2, "float64", "two-stacks"),
    ("full", 2, "float32", "two-stacks"),
    ("ragged", 2, "float32", "bidirectional"),
    ("full", 2, "float64", "forward"),
    ("full", 1, "float64", "forward"),
    ("ragged", 1, "float32", "forward"),
    ("full", 1, "float32", "bidirectional"),
    ("ragged", 2, "float64", "forward"),
)


def matrix() -> list[object]:
    """Implementation x cell x lengths, layers, dtype and direction."""
    return [
        point
        for place, entry in enumerate(NETWORKS)
        for number, cell in enumerate(CELL_NAMES)
        for point in _points(entry, cell, place + number)
    ]


def _points(entry: Implementation, cell: str, turn: int) -> Iterator[object]:
    """All variants of a cell that there are; those marked slow that a change is not tested with."""
    cases = {variant: _case(cell, *variant) for variant in VARIANTS}
    there = [variant for variant, case in cases.items() if case is not None]
    chosen = _chosen(entry.name, cell, turn, there)
    for variant in there:
        lengths, layers, dtype, direction = variant
        name = f"{cell}-{lengths}-{layers}-{dtype}-{direction}"
        yield on(entry, cases[variant], slow=variant not in chosen, name=name)


def _chosen(
    implementation: str, cell: str, turn: int, variants: Sequence[Variant]
) -> Sequence[Variant]:
    """The variants of a cell that a change is tested with; `turn` goes through them."""
    half = [variant for variant in VARIANTS[:6] if variant in variants]
    if implementation in SLOW_TO_BUILD:
        return [variant for variant in half[:2] if (cell, *variant[:2]) in FEW_POINTS]
    options = next((names for names in OPTIONS if implementation in names), ())
    if options and turn % len(options):
        return []
    if cell.startswith(LONG):
        half = [variant for variant in variants if variant[1] == 1 and variant[3] == "forward"]
    elif cell in BASIC and not options:
        return half
    return [half[turn % len(half)]]


def _case(
    cell: str, lengths: Lengths, layers: int, dtype: Dtype, direction: Direction
) -> Case | None:
    """The case, or None where there is none of that cell."""
    random = (layers == 2) != (lengths == "ragged")
    case = replace(
        CASE,
        seq_len=2 if cell.startswith(LONG) else CASE.seq_len,
        lengths=lengths,
        layers=layers,
        dtype=dtype,
        direction=direction,
        initial_state="random" if random else "zeros",
    )
    try:
        return case_of(case, cell)
    except ValueError:
        return None


def halves() -> list[object]:
    """Every implementation in both half types, in bfloat16 with another cell each time.

    Of the options of one strategy the first alone, and all in slow.
    """
    return [
        on(
            entry,
            case_of(_of_half_type(cell, dtype), cell),
            slow=entry.name in SLOW_TO_BUILD or any(entry.name in names[1:] for names in OPTIONS),
            name=f"{cell}-{dtype}",
        )
        for place, entry in enumerate(NETWORKS)
        for cell, dtype in (
            ("lstm", "float16"),
            (CELL_NAMES[(7 * place + 3) % len(CELL_NAMES)], "bfloat16"),
        )
    ]


def _of_half_type(cell: str, dtype: Dtype) -> Case:
    """More units and steps, so that errors add up."""
    steps = 2 if cell.startswith(LONG) else 12
    return replace(CASE, layers=1, inputs=8, hidden=8, seq_len=steps, dtype=dtype)


@pytest.mark.parametrize(("implementation", "case"), [*matrix(), *halves()])
def test_it_computes_what_the_oracle_computes(
    build_with: BuildWith, implementation: str, case: Case
) -> None:
    build = build_with(implementation)
    checks: dict[Mode, Check] = {
        "forward": forward_is_the_oracles,
        "train": training_is_the_oracles,
    }
    for mode, check in checks.items():
        reason = backends.refusal(implementation, case, mode)
        if reason is None:
            check(build, case)
        else:
            with pytest.raises(Unsupported, match=f"^{re.escape(reason)}$"):
                build(case, mode)


# --- what a comparison of outputs does not see ----------------------------------------------------


CHECKS: dict[Check, Mode] = {
    fetch_survives_rebind: "forward",
    nothing_is_constant: "forward",
    padding_is_ignored: "forward",
    a_state_carries_on: "forward",
    a_rotation_goes_round_its_batches: "forward",
    work_grows_with_time: "forward",
    nothing_is_constant_in_training: "train",
    two_steps_are_the_oracles: "train",
    padding_is_ignored_in_training: "train",
    a_rotation_goes_round_its_batches_in_training: "train",
}


@pytest.mark.parametrize(
    ("implementation", "check"),
    [
        # What is slow to build has one of them each time: it sees weights and batches that change.
        on(
            entry,
            check,
            slow=entry.name in SLOW_TO_BUILD and not check.__name__.startswith("nothing_is"),
            name=check.__name__,
        )
        for entry in NETWORKS
        for check, mode in CHECKS.items()
        if backends.refusal(entry.name, CASE, mode) is None
    ],
)
def test_it_passes(build_with: BuildWith, implementation: str, check: Check) -> None:
    if is_gpu(DEVICE) and check is work_grows_with_time:
        pytest.skip("what the process computes itself is no measure of a GPU's work")
    check(build_with(implementation), CASE)


@pytest.mark.parametrize(
    "implementation",
    [
        on(entry, slow=entry.name in SLOW_TO_BUILD)
        for entry in NETWORKS
        if backends.refusal(entry.name, CASE, "forward") is None
    ],
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
NOT_NUMBERS = r"outputs: not finite"
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
    (faulty.AlwaysFromZeros, a_state_carries_on, OTHER_OUTPUTS),
    (faulty.PaddedState, a_state_carries_on, OTHER_STATE),
    (faulty.KeepsLast, a_rotation_goes_round_its_batches, OTHER_OUTPUTS),
    (faulty.KeepsViews, a_rotation_goes_round_its_batches, NOT_NUMBERS),
    (faulty.KeepsTargets, a_rotation_goes_round_its_batches_in_training, OTHER_LOSS),
)

#: Faults of benchmarks in which every published output was right.
UNSEEN = (
    faulty.Pruned,
    faulty.LastStep,
    faulty.Recomputing,
    faulty.ConstantWeights,
    faulty.ConstantLengths,
    faulty.KeepsLast,
)


def build_faulty(runner: type[OracleRunner]) -> Build:
    def build(case: Case, mode: Mode) -> Runner:
        return runner(case)

    return build


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
@pytest.mark.parametrize(("runner", "check", "message"), FAULTS)
def test_a_fault_is_rejected(
    runner: type[OracleRunner], check: Check, message: str, dtype: Dtype
) -> None:
    if dtype == "bfloat16" and (message in (NOT_SGD, LITTLE_WORK) or runner is faulty.Recomputing):
        pytest.skip("a small step is lost in rounding, time has no dtype, or fetch is in float64")
    case = replace(CASE, dtype=dtype)
    with pytest.raises(AssertionError, match=message):
        check(build_faulty(runner), case)


@pytest.mark.parametrize("runner", UNSEEN)
def test_a_comparison_of_outputs_does_not_see_it(runner: type[OracleRunner]) -> None:
    forward_is_the_oracles(build_faulty(runner), replace(CASE, dtype="float64"))


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (forward_is_the_oracles, "outputs or state are float64, not float32"),
        (two_steps_are_the_oracles, "weights after a step are float64, not float32"),
    ],
)
def test_another_dtype_is_rejected(check: Check, message: str) -> None:
    """Its values are right."""
    with pytest.raises(AssertionError, match=message):
        check(build_faulty(faulty.Wider), CASE)
