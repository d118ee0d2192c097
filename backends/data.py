"""Seeded canonical weights and batches, and the layout conversions that adapters share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from backends.api import Array, Batch, Case, LayerState, LayerWeights, State, Weights
from backends.cells import CELLS


def make_weights(case: Case) -> Weights:
    """Canonical weights of a case, uniform in +-1/sqrt(H), in the case's dtype, from its seed."""
    rng = np.random.default_rng([case.seed, 1])
    spec, h = CELLS[case.cell], case.hidden
    bound = h**-0.5

    def draw(*shape: int) -> Array:
        return rng.uniform(-bound, bound, shape).astype(case.dtype)

    layers: list[LayerWeights] = []
    for layer in range(case.layers):
        blocks: dict[str, Array] = {}
        for gate in spec.gates:
            blocks[f"W_{gate}"] = draw(case.layer_inputs(layer), h)
            blocks[f"U_{gate}"] = draw(h, h)
            blocks[f"b_{gate}"] = draw(h)
        for name in spec.extra_biases:
            blocks[name] = draw(h)
        layers.append(blocks)
    return tuple(layers)


def make_batch(case: Case) -> Batch:
    """Inputs, targets, lengths and initial state of a case, in its dtype, from its seed.

    Ragged lengths are uniform in 1..T; the first sequence of a batch of two or more has length T.
    Padding holds ordinary numbers: an implementation that reads it gives a wrong answer.
    """
    rng = np.random.default_rng([case.seed, 2])
    b, t, h = case.batch, case.seq_len, case.hidden
    x = rng.standard_normal((b, t, case.inputs)).astype(case.dtype)
    targets = (0.5 * rng.standard_normal((b, t, h))).astype(case.dtype)
    lengths: Array | None = None
    if case.lengths == "ragged":
        lengths = rng.integers(1, t + 1, b).astype(np.int32)
        if b > 1:
            lengths[0] = t
    state: State | None = None
    if case.initial_state == "random":
        state = tuple(
            {
                name: (0.5 * rng.standard_normal((b, h))).astype(case.dtype)
                for name in CELLS[case.cell].state
            }
            for _ in range(case.layers)
        )
    return Batch(x=x, targets=targets, lengths=lengths, initial_state=state)


def zero_weights(case: Case) -> Weights:
    """Zeros in the shapes of `make_weights`: an example to trace with, made in no time."""
    spec, h = CELLS[case.cell], case.hidden
    return tuple(
        {
            **{f"W_{g}": np.zeros((case.layer_inputs(n), h), case.dtype) for g in spec.gates},
            **{f"U_{g}": np.zeros((h, h), case.dtype) for g in spec.gates},
            **{f"b_{g}": np.zeros(h, case.dtype) for g in spec.gates},
            **{name: np.zeros(h, case.dtype) for name in spec.extra_biases},
        }
        for n in range(case.layers)
    )


def zero_batch(case: Case) -> Batch:
    """Zeros in the shapes of `make_batch`, with full lengths."""
    b, t = case.batch, case.seq_len
    return Batch(
        x=np.zeros((b, t, case.inputs), case.dtype),
        targets=np.zeros((b, t, case.hidden), case.dtype),
        lengths=np.full(b, t, np.int32) if case.lengths == "ragged" else None,
    )


def zero_state(case: Case, batch: int | None = None) -> State:
    """The all-zero state of a case: L layers of [B, H] arrays."""
    shape = (case.batch if batch is None else batch, case.hidden)
    return tuple(
        {name: np.zeros(shape, case.dtype) for name in CELLS[case.cell].state}
        for _ in range(case.layers)
    )


def initial_state(case: Case, batch: Batch) -> State:
    """The batch's initial state, or zeros where it has none."""
    if batch.initial_state is not None:
        return batch.initial_state
    return zero_state(case, batch.x.shape[0])


def fuse(layer: LayerWeights, kind: str, gates: Sequence[str]) -> Array:
    """Blocks of one kind ("W", "U", "b") side by side in the order of `gates`: [.., G*H]."""
    return np.concatenate([layer[f"{kind}_{gate}"] for gate in gates], axis=-1)


def split(fused: Array, kind: str, gates: Sequence[str]) -> dict[str, Array]:
    """The inverse of `fuse`."""
    parts = np.split(np.asarray(fused), len(gates), axis=-1)
    return {f"{kind}_{gate}": part for gate, part in zip(gates, parts, strict=True)}


def concat_state(state: LayerState, names: Sequence[str]) -> Array:
    """The named arrays of one layer's state side by side."""
    return np.concatenate([state[name] for name in names], axis=-1)


def check_batch(case: Case, batch: Batch) -> None:
    """Raise `ValueError` for a batch that no implementation of the case may accept."""
    b, t = batch.x.shape[0], batch.x.shape[1]
    if batch.x.shape[2] != case.inputs:
        raise ValueError(f"x has {batch.x.shape[2]} features, the case has inputs={case.inputs}")
    if batch.targets.shape != (b, t, case.hidden):
        raise ValueError(f"targets {batch.targets.shape}: must be {(b, t, case.hidden)}")
    if (batch.lengths is None) != (case.lengths == "full"):
        raise ValueError(f"lengths={batch.lengths} for a case with {case.lengths} lengths")
    if batch.initial_state is not None:
        _check_state(case, batch.initial_state, b)
    if batch.lengths is not None:
        if batch.lengths.shape != (b,):
            raise ValueError(f"lengths {batch.lengths.shape}: must be {(b,)}")
        for length in batch.lengths.tolist():
            if not 0 <= length <= t:
                raise ValueError(f"length {length}: must be between 0 and T={t}")


def _check_state(case: Case, state: State, batch: int) -> None:
    """Raise `ValueError` for a state that has not all arrays [B, H] of all layers."""
    if len(state) != case.layers:
        raise ValueError(f"initial state of {len(state)} layers, the case has {case.layers}")
    wanted = (batch, case.hidden)
    for number, layer in enumerate(state):
        for name in CELLS[case.cell].state:
            shape = layer[name].shape if name in layer else None
            if shape != wanted:
                raise ValueError(
                    f"initial state {name} of layer {number} {shape}: must be {wanted}"
                )
