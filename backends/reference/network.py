"""The oracle's time loop, forward and backward, in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backends.api import Array, Batch, Case, Output, State, Weights
from backends.data import check_batch, initial_state
from backends.reference.cells import CELLS, LayerStateDict, Tape


@dataclass(frozen=True, kw_only=True)
class Expected:
    """Everything that an implementation of a case is compared with, in float64."""

    output: Output
    loss: float
    gradients: Weights


def _as64(layers: Weights | State) -> list[dict[str, Array]]:
    return [{k: np.asarray(v, np.float64) for k, v in layer.items()} for layer in layers]


def _alive(batch: Batch, t: int) -> Array:
    """[B, 1]: whether step t lies within each sequence."""
    if batch.lengths is None:
        return np.ones((batch.x.shape[0], 1), bool)
    return (t < batch.lengths)[:, None]


def _run(
    case: Case, weights: Weights, batch: Batch
) -> tuple[Array, list[LayerStateDict], list[list[Tape]]]:
    """Outputs [B, T, H], final state, and a tape for each step and layer."""
    check_batch(case, batch)
    cell = CELLS[case.cell]
    layers, state = _as64(weights), _as64(initial_state(case, batch))
    x = np.asarray(batch.x, np.float64)
    outputs = np.zeros((*x.shape[:2], case.hidden))
    tapes: list[list[Tape]] = []
    for t in range(x.shape[1]):
        alive, value, tape_t = _alive(batch, t), x[:, t], []
        for index, layer in enumerate(layers):
            new, tape = cell.forward(layer, value, state[index], case.forget_bias)
            tape_t.append(tape)
            value = new["h"]
            state[index] = {k: np.where(alive, new[k], state[index][k]) for k in new}
        outputs[:, t] = np.where(alive, value, 0.0)
        tapes.append(tape_t)
    return outputs, state, tapes


def forward(case: Case, weights: Weights, batch: Batch) -> Output:
    """Outputs [B, T, H] and final state: y_t = 0 and the state held where t >= n_b.

    Raises `ValueError` for a batch that does not fit the case.
    """
    outputs, state, _ = _run(case, weights, batch)
    return Output(outputs=outputs, state=tuple(state))


def expected(case: Case, weights: Weights, batch: Batch) -> Expected:
    """Forward, loss, and the loss's gradient through time (see `backends.api.Runner`)."""
    outputs, state, tapes = _run(case, weights, batch)
    b, t_max = outputs.shape[:2]
    error = outputs - batch.targets
    loss = float((error**2).sum() / (2 * b * t_max))
    cell, layers = CELLS[case.cell], _as64(weights)
    grads = [{k: np.zeros_like(v) for k, v in layer.items()} for layer in layers]
    d_state = [{k: np.zeros_like(v) for k, v in layer.items()} for layer in state]
    for t in reversed(range(t_max)):
        alive = _alive(batch, t)
        d_value = np.where(alive, error[:, t] / (b * t_max), 0.0)
        for index in reversed(range(case.layers)):
            d_new = {k: np.where(alive, v, 0.0) for k, v in d_state[index].items()}
            d_new["h"] = d_new["h"] + d_value
            d_value, d_old = cell.backward(layers[index], tapes[t][index], d_new, grads[index])
            d_state[index] = {k: np.where(alive, d_old[k], d_state[index][k]) for k in d_old}
    return Expected(
        output=Output(outputs=outputs, state=tuple(state)), loss=loss, gradients=tuple(grads)
    )
