"""The oracle's results: of a case as a file, computed once a run and read by every worker; or here.

Only what computes them loads autograd: it is no part of the memory of whoever is measured.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from backends.api import Array, Batch, Case, Expected, Output, Weights


def compute_expected(case: Case, weights: Weights, batch: Batch) -> Expected:
    """All of the oracle's results, in this process."""
    from backends.reference.network import expected  # noqa: PLC0415

    return expected(case, weights, batch)


def compute_output(case: Case, weights: Weights, batch: Batch) -> Output:
    """The oracle's outputs and final state, in this process."""
    from backends.reference.network import forward  # noqa: PLC0415

    return forward(case, weights, batch)


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
