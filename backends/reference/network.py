"""The oracle's time loop in float64; its gradient is autograd's."""

from __future__ import annotations

from typing import Any

import autograd
import autograd.numpy as np
import numpy

from backends.api import Array, Batch, Case, Expected, Output, State, Weights
from backends.data import check_batch, initial_state
from backends.reference.cells import Arrays, make_step
from backends.stack import Layer, rows


def _as64(parts: Weights | State) -> tuple[dict[str, Array], ...]:
    return tuple({k: numpy.asarray(v, numpy.float64) for k, v in part.items()} for part in parts)


def _reversed(values: list[Any], lengths: Array) -> list[Any]:
    """T arrays [B, n]: the first n_b of each sequence b in reverse, those behind where they are."""
    result = []
    for t in range(len(values)):
        source = numpy.where(t < lengths, lengths - 1 - t, t)
        rows = [values[source[b]][b] for b in range(len(lengths))]
        result.append(np.stack(rows))
    return result


def _run_layer(
    layer: Layer, w: Arrays, values: list[Any], lengths: Array, state: Arrays
) -> tuple[list[Any], Arrays]:
    """Outputs of one layer, 0 at t >= n_b, and its state after n_b steps."""
    step = make_step(layer)
    if layer.reverse:
        values = _reversed(values, lengths)
    outputs = []
    for t, x in enumerate(values):
        alive = (t < lengths)[:, None]
        y, new = step(w, x, state)
        # The columns of masks that are handed on are nothing that ends with a sequence, and no
        # layer reads them there.
        outputs.append(np.where(alive, y, 0.0))
        state = {name: np.where(alive, new[name], state[name]) for name in new}
    return (_reversed(outputs, lengths) if layer.reverse else outputs), state


def _run(case: Case, weights: Any, batch: Batch) -> tuple[Any, tuple[Arrays, ...]]:
    """Outputs [B, T, O] and final state, of weights in float64."""
    b, t = batch.x.shape[:2]
    lengths = numpy.full(b, t) if batch.lengths is None else numpy.asarray(batch.lengths)
    x = numpy.asarray(batch.x, numpy.float64)
    values = [list(numpy.moveaxis(x, 1, 0))]
    state = _as64(initial_state(case, batch))
    final: list[Arrays] = []
    for row in rows(case):
        outputs = []
        for way, layer in enumerate(row):
            w, source = weights[layer.weights], values[way % len(values)]
            y, end = _run_layer(layer, w, source, lengths, state[len(final)])
            outputs.append(y)
            final.append(end)
        values = outputs if case.direction == "two-stacks" else [_side_by_side(outputs)]
    return np.stack(_side_by_side(values), axis=1), tuple(final)


def _side_by_side(row: list[list[Any]]) -> list[Any]:
    """The outputs of both directions, or of the one, at every step."""
    return [np.concatenate(values, axis=1) for values in zip(*row, strict=True)]


def forward(case: Case, weights: Weights, batch: Batch) -> Output:
    """Outputs [B, T, O] and final state: y_t = 0 and the state held where t >= n_b.

    Raises `ValueError` for a batch that does not fit the case.
    """
    check_batch(case, batch)
    outputs, state = _run(case, _as64(weights), batch)
    return Output(outputs=outputs, state=state)


def expected(case: Case, weights: Weights, batch: Batch, *, gradients: bool = True) -> Expected:
    """Forward, loss, and the loss's gradient through time (see `backends.api.Runner`).

    Without `gradients` nothing goes back through time: that is most of the work, and of the memory.

    Raises `ValueError` for a batch that does not fit the case.
    """
    output = forward(case, weights, batch)
    b, t = batch.x.shape[:2]
    targets = numpy.asarray(batch.targets, numpy.float64)

    def loss_of(outputs: Any) -> Any:
        return np.sum((outputs - targets) ** 2) / (2 * b * t)

    loss = float(loss_of(output.outputs))
    if not gradients:
        return Expected(output=output, loss=loss, gradients=())
    given = _as64(weights)

    def loss_by(trained: Any) -> Any:
        # Taken apart once: each look into what autograd records is an operation of its own.
        rest = iter(trained)
        outputs, _ = _run(case, [{name: next(rest) for name in layer} for layer in given], batch)
        return loss_of(outputs)

    found = iter(autograd.grad(loss_by)([w for layer in given for w in layer.values()]))
    slopes = tuple({name: next(found) for name in layer} for layer in given)
    return Expected(output=output, loss=loss, gradients=slopes)
