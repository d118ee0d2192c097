"""The oracle's results: of a case as files, computed once a run and read by every worker; or here.

Only the process that computes them loads autograd: it is no part of a measured worker's memory.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from backends.api import Array, Batch, Case, Expected, Mode, Output, Weights
from backends.data import make_batch, make_weights

#: An implementation is compared with the oracle on so many batches of different values: what keeps
#: a result, or closed over its first batch, is right on one.
CHECKED_BATCHES = 2


def compute_expected(
    case: Case, weights: Weights, batch: Batch, *, gradients: bool = True
) -> Expected:
    """All of the oracle's results, in this process; no `gradients` where they are not asked for."""
    from backends.reference.network import expected  # noqa: PLC0415

    return expected(case, weights, batch, gradients=gradients)


def compute_output(case: Case, weights: Weights, batch: Batch) -> Output:
    """The oracle's outputs and final state, in this process."""
    from backends.reference.network import forward  # noqa: PLC0415

    return forward(case, weights, batch)


def path_of(path: Path, number: int) -> Path:
    """The file with the oracle's results of a batch, by number, beside the first one's."""
    return path if number == 0 else path.with_suffix(f".{number}.npz")


def write_all(path: Path, case: Case, mode: Mode) -> None:
    """Compute and write what implementations of a case must compute, a file a batch.

    The gradients, which take 12 times as long as the outputs, are there for training alone.
    """
    weights = make_weights(case)
    for number in range(CHECKED_BATCHES):
        batch = make_batch(case, number)
        found = compute_expected(case, weights, batch, gradients=mode == "train")
        write_expected(path_of(path, number), found)


def write_expected(path: Path, expected: Expected) -> None:
    """Write an .npz without pickled objects, whole or not at all."""
    arrays: dict[str, Array] = {
        "outputs": expected.output.outputs,
        "loss": np.asarray(expected.loss),
    }
    for index, layer in enumerate(expected.output.state):
        arrays.update({f"state/{index}/{name}": value for name, value in layer.items()})
    for index, gradients in enumerate(expected.gradients):
        arrays.update({f"gradients/{index}/{name}": value for name, value in gradients.items()})
    temporary = path.with_suffix(".part.npz")
    np.savez(temporary, allow_pickle=False, **arrays)
    temporary.replace(path)


def read_expected(path: Path) -> Expected:
    """Read what `write_expected` wrote."""
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)

    def layers(part: str) -> tuple[dict[str, Array], ...]:
        result: dict[int, dict[str, Array]] = {}
        for key, value in arrays.items():
            kind, _, rest = key.partition("/")
            if kind == part:
                index, name = rest.split("/")
                result.setdefault(int(index), {})[name] = value
        return tuple(result[index] for index in sorted(result))

    return Expected(
        output=Output(outputs=arrays["outputs"], state=layers("state")),
        loss=float(arrays["loss"]),
        gradients=layers("gradients"),
    )
