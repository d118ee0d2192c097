"""Whether an implementation computes the same function as the float64 oracle, and by how much not.

The executable that is checked is the one that is timed. A training runner shows its gradients by
one step at a learning rate so large (a power of two) that the weights' update *is* the gradient:
an implementation that computes gradients and forgets to apply them fails, and so does one that
applies something else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from backends.api import Array, Batch, Case, Expected, Output, Runner, State, Weights

#: Large enough that an update drowns the weight it is added to; a power of two divides exactly.
PROBE_LEARNING_RATE = 2.0**24


#: Errors of arrays that are smaller than this, of the largest value of all, are relative to it.
LEAST_SHARE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """Largest error accepted: outputs and state absolute (values are of order 1), others relative.

    A gradient's is relative to the largest value of its array (see `LEAST_SHARE`).
    """

    forward: float
    loss: float
    gradient: float


def _of_rounding(unit: float) -> Tolerance:
    return Tolerance(forward=10 * unit, loss=10 * unit, gradient=100 * unit)


#: Seen on correct implementations: float64 2e-15, float32 forward 6e-7 (1e-6 at T=200), gradients
#: 4e-6. The bounds leave a factor of ten and more for other summation orders.
#:
#: Half types round by up to u = 2^-p, p the bits of their significand, 8 of bfloat16 and 11 of
#: float16. Seen over all cells at T = 10, nine of them at T = 50 and 200: outputs 4 u (residuals,
#: which grow with depth), loss 2 u, gradients 10 u in most cells and 57 u in one array of
#: attention, whose terms nearly cancel. What takes no step, or two for one, is off by 256 u in
#: bfloat16. The oracle computes with the rounded weights and inputs: these are errors of
#: arithmetic.
TOLERANCES: Mapping[str, Tolerance] = {
    "float64": Tolerance(forward=1e-12, loss=1e-12, gradient=1e-12),
    "float32": Tolerance(forward=1e-5, loss=1e-4, gradient=1e-4),
    "bfloat16": _of_rounding(2.0**-8),
    "float16": _of_rounding(2.0**-11),
}


#: TF32 leaves the factors of products float16's bits, rounded or, twice as much, cut off. Seen with
#: both simulated, T = 5 to 200 and H = 64 to 1024: outputs and state 7 u, loss 2 u, gradients 1 %
#: in most cells, but 27 % with relu, where a value comes to the other side of 0.
TF32 = replace(TOLERANCES["float16"], gradient=TOLERANCES["bfloat16"].gradient)


def tolerance(case: Case) -> Tolerance:
    """Largest allowed errors of a case."""
    return TF32 if case.tf32 == "on" else TOLERANCES[case.dtype]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Largest absolute error, and the same relative to the largest expected value of its array."""

    absolute: float
    relative: float

    def worst(self, other: Difference) -> Difference:
        return Difference(
            # Unlike `max`, this keeps a NaN whichever side it is on.
            absolute=float(np.maximum(self.absolute, other.absolute)),
            relative=float(np.maximum(self.relative, other.relative)),
        )


@dataclass(frozen=True, kw_only=True)
class Check:
    """Errors by part ("outputs", "state", "loss", "gradients") and what is wrong, if anything."""

    differences: Mapping[str, Difference]
    fault: str | None


_OTHER_SHAPE = Difference(absolute=math.inf, relative=math.inf)
_NOT_FINITE = Difference(absolute=math.nan, relative=math.nan)


def difference(
    actual: Array, expected: Array, *, otherwise: float = 1.0, least: float = 0.0
) -> Difference:
    """Compare two arrays. Another shape counts as infinite, a value that is not finite as NaN.

    `otherwise` is what an error is relative to where all that is expected is zero, `least` where it
    is smaller than that.
    """
    actual = np.asarray(actual, np.float64)
    if actual.shape != expected.shape:
        return _OTHER_SHAPE
    if not np.isfinite(actual).all():
        return _NOT_FINITE
    absolute = float(np.abs(actual - expected).max(initial=0.0))
    largest = float(np.abs(expected).max(initial=0.0))
    scale = max(largest, least) if largest else otherwise
    return Difference(absolute=absolute, relative=absolute / scale)


def parts_difference(actual: Weights | State, expected: Weights | State) -> Difference:
    """Compare weights, or states, array by array; other names count as another shape."""
    worst = Difference(absolute=0.0, relative=0.0)
    if len(actual) != len(expected):
        return _OTHER_SHAPE
    # A gradient can be zero in a whole array (no step remembers, so none forgets): what rounding
    # leaves there is held against the largest of the others. Or its terms nearly cancel, and what
    # is left is rounded as they are: b_att's was 1e-5 of the largest, and in float32 off by 1e-4.
    largest = max(float(np.abs(a).max(initial=0.0)) for layer in expected for a in layer.values())
    for got, want in zip(actual, expected, strict=True):
        if set(got) != set(want):
            return _OTHER_SHAPE
        for name in want:
            worst = worst.worst(_part(got[name], want[name], largest))
    return worst


def _part(actual: Array, expected: Array, largest: float) -> Difference:
    """One array among others, whose largest value this is."""
    return difference(actual, expected, otherwise=largest or 1.0, least=LEAST_SHARE * largest)


def _fault(part: str, error: float, limit: float, unit: str = "") -> str | None:
    """Fault of a part, or None."""
    if math.isnan(error):
        return f"{part}: not finite"
    if math.isinf(error):
        return f"{part} have another shape or other names than expected"
    if error > limit:
        return f"{part} differ by {error:.3g}{unit}, more than {limit:.0e}"
    return None


def check_forward(case: Case, output: Output, expected: Expected) -> Check:
    """Compare outputs and final state with the oracle's."""
    differences = {
        "outputs": difference(output.outputs, expected.output.outputs),
        "state": parts_difference(output.state, expected.output.state),
    }
    limit = tolerance(case).forward
    faults = (_fault(part, error.absolute, limit) for part, error in differences.items())
    return Check(differences=differences, fault=next(filter(None, faults), None))


def other_dtype(case: Case, output: Output) -> str | None:
    """Fault of the dtype of outputs and state, or None.

    Values alone would not show it: what computes in float64 is right in float32, and slower.
    """
    for array in (output.outputs, *(a for layer in output.state for a in layer.values())):
        if array.dtype != case.dtype:
            return f"outputs or state are {array.dtype}, not {case.dtype}"
    return None


def other_weights_dtype(case: Case, weights: Weights) -> str | None:
    """Fault of the dtype of the weights after a training step: the dtype of its program."""
    for array in (a for layer in weights for a in layer.values()):
        if array.dtype != case.dtype:
            return f"weights after a step are {array.dtype}, not {case.dtype}"
    return None


_RELATIVE = " of the largest value"


def check_loss(case: Case, loss: float, expected: Expected) -> Check:
    """Compare a loss with the oracle's."""
    error = difference(np.asarray(loss, np.float64), np.asarray(expected.loss))
    fault = _fault("loss", error.relative, tolerance(case).loss, _RELATIVE)
    return Check(differences={"loss": error}, fault=fault)


def check_train(case: Case, loss: float, gradients: Weights, expected: Expected) -> Check:
    """Compare the loss and the gradients of a step with the oracle's."""
    of_loss = check_loss(case, loss, expected)
    error = parts_difference(gradients, expected.gradients)
    fault = _fault("gradients", error.relative, tolerance(case).gradient, _RELATIVE)
    return Check(
        differences={**of_loss.differences, "gradients": error}, fault=of_loss.fault or fault
    )


def probe_gradients(runner: Runner, weights: Weights, batch: Batch) -> tuple[float, Weights]:
    """Loss and gradients of a training runner, read from one step of the timed executable.

    Leaves the runner with the given weights and batch.
    """
    runner.load(weights)
    runner.bind(replace(batch, learning_rate=PROBE_LEARNING_RATE))
    probed = _probe(runner, weights)
    runner.load(weights)
    runner.bind(batch)
    return probed


def probe_rotated(
    runner: Runner, weights: Weights, batches: Sequence[Batch]
) -> list[tuple[float, Weights]]:
    """Loss and gradients of each of several batches, in a rotation, as timed calls read them.

    Leaves the runner with the given weights and the first batch.
    """
    runner.bind(replace(batches[0], learning_rate=PROBE_LEARNING_RATE))
    runner.rotate(batches)
    found = []
    for _ in batches:
        runner.load(weights)
        runner.advance()
        found.append(_probe(runner, weights))
    runner.load(weights)
    runner.bind(batches[0])
    return found


def _probe(runner: Runner, weights: Weights) -> tuple[float, Weights]:
    """Loss and gradients of one step from these weights, which are loaded."""
    out = runner.train()
    runner.sync(out)
    loss, after = runner.fetch_loss(out), runner.weights()
    gradients = tuple(
        {
            name: (np.asarray(old[name], np.float64) - np.asarray(new[name], np.float64))
            / PROBE_LEARNING_RATE
            for name in old
        }
        for old, new in zip(weights, after, strict=True)
    )
    return loss, gradients


def worst_of(checks: Sequence[Check]) -> Check:
    """The checks of several batches as one: the largest errors, and the first fault."""
    differences = dict(checks[0].differences)
    for check in checks[1:]:
        for part, error in check.differences.items():
            differences[part] = differences[part].worst(error) if part in differences else error
    faults = (
        check.fault if number == 0 else f"batch {number + 1}: {check.fault}"
        for number, check in enumerate(checks)
        if check.fault is not None
    )
    return Check(differences=differences, fault=next(faults, None))
