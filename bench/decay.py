"""Share of a gradient that is left d steps back, read from the training step that is timed.

The inputs are one-hot, x_t = e_t with D = T and B = 1. Row t of the gradient of each input matrix
W_g [T, H] is then the gradient with respect to that gate's pre-activation at step t alone, and with
respect to x_t it is the sum of dz_g W_g^T over gates. Only the last step has a loss: elsewhere the
targets are what the network computes. So the norm of that sum, after the factors of the loss are
taken out, is

    | d (v . y_T) / d x_t |     for a random unit vector v.

What the targets miss elsewhere by rounding is a gradient, too, of steps nearer by. The last step's
target is therefore off by `PULL` v and not by v: a power of two, which divides exactly, and next to
which neither that nor the rounding of a probing step is anything.

Values: `gradient_norm/b<forget bias>/s<seed>/d<distance>`, with "b-" for cells without a forget
bias, and `gradient_norm_error`, the largest relative error of a norm against the oracle's (of the
first seed of each forget bias).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

import backends
from backends.api import Array, Batch, Case, Weights
from backends.data import make_weights
from backends.spec import Coupled, Gru, GruResetAfter, Lstm, Rnn
from backends.stack import layers, output_width, weight_layers
from bench.expectation import compute_expected, compute_output
from bench.outputs import probe_gradients
from bench.subject import Subject

#: Sets of weights, and what is added to the forget gates of cells that have some.
SEEDS = 10
FORGET_BIASES = (0.0, 1.0, 3.0)

#: How far off the last step's target is.
PULL = 2.0**40

#: Cells that read a step's inputs through matrices W_g [D, H] and in no other way.
_CELLS = (Rnn, Gru, GruResetAfter, Lstm, Coupled)


def decay(subject: Subject) -> dict[str, float]:
    """The norms for each seed and forget bias; {} for a case that has no such experiment."""
    case = _case(subject)
    if case is None:
        return {}
    found: dict[str, float] = {}
    errors: list[float] = []
    for bias in FORGET_BIASES if layers(case)[0].cell.forgets else (None,):
        biased = case if bias is None else replace(case, forget_bias=bias)
        sibling = subject.sibling(biased)
        sibling.build()
        for number in range(SEEDS):
            label = f"gradient_norm/b{'-' if bias is None else format(bias, 'g')}/s{number}"
            seeded = replace(biased, seed=case.seed + number)
            weights, batch = make_weights(seeded), one_hot(seeded, make_weights(seeded))
            _loss, gradients = probe_gradients(sibling.runner, weights, batch)
            norms = by_distance(weights, gradients)
            found |= {f"{label}/d{distance}": norm for distance, norm in norms.items()}
            if number == 0:
                truth = by_distance(weights, compute_expected(seeded, weights, batch).gradients)
                errors += [abs(norms[d] / truth[d] - 1) for d in truth]
        sibling.runner.close()
    return {**found, "gradient_norm_error": max(errors)}


def _case(subject: Subject) -> Case | None:
    """The case with one-hot inputs, in float64 where the implementation computes in it."""
    given = subject.case
    plain = isinstance(layers(given)[0].cell, _CELLS) and given.direction == "forward"
    # One set of weights as every layer would hold the gradients of all of them in one.
    if not plain or given.seq_len < 2 or len(weight_layers(given)) < given.layers:
        return None
    case = replace(given, inputs=given.seq_len, batch=1, lengths="full")
    wider = replace(case, dtype="float64")
    for each in (wider, case):
        if backends.refusal(subject.implementation.name, each, "train") is None:
            return each
    return None


def one_hot(case: Case, weights: Weights) -> Batch:
    """The inputs, and targets that the outputs meet at every step but the last."""
    x = np.eye(case.seq_len, dtype=case.dtype)[np.newaxis]
    blank = np.zeros((1, case.seq_len, output_width(case)), case.dtype)
    given = Batch(x=x, targets=blank, lengths=None)
    v = np.random.default_rng([case.seed, 4]).standard_normal(output_width(case))
    targets = compute_output(case, weights, given).outputs
    targets[0, -1] -= PULL * v / np.linalg.norm(v)
    return replace(given, targets=targets.astype(case.dtype))


def by_distance(weights: Weights, gradients: Weights) -> Mapping[int, float]:
    """Steps from the last one -> norm: 1, 2, 4 and so on, and the first step's."""
    norms = _norms(weights, gradients)
    last = len(norms) - 1
    distances = [2**n for n in range(last.bit_length()) if 2**n < last] + [last]
    return {distance: float(norms[last - distance]) for distance in distances}


def _norms(weights: Weights, gradients: Weights) -> Array:
    """The norm [T] of d (v . y_T) / d x_t, with the loss's factor 1 / (B T) taken out."""
    parts = [
        np.asarray(gradients[0][name], np.float64) @ np.asarray(block, np.float64).T
        for name, block in weights[0].items()
        if name.startswith("W_")
    ]
    dx: Array = np.sum(parts, axis=0)
    norms: Array = np.linalg.norm(dx, axis=1) * len(dx) / PULL
    return norms
