"""Seeded canonical weights and batches of a case."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from backends.api import Array, Batch, Case, Mode, State, Weights
from backends.spec import Dropout
from backends.stack import input_width, layers, masks_of, output_width, weight_layers


def make_weights(case: Case) -> Weights:
    """Canonical weights of a case, uniform in +-1/sqrt(H), in the case's dtype, from its seed."""
    rng = np.random.default_rng([case.seed, 1])
    bound = case.hidden**-0.5
    return tuple(
        {
            name: rng.uniform(-bound, bound, shape).astype(case.dtype)
            for name, shape in layer.blocks.items()
        }
        for layer in weight_layers(case)
    )


def make_batch(case: Case, number: int = 0) -> Batch:
    """Inputs, targets, lengths and initial state of a case, in its dtype, from its seed.

    Each `number` has features and targets of its own; masks, lengths and initial state are the
    same. Ragged lengths are uniform in 1..T, "half" ones in 1..T / 2; the first sequence of a batch
    of two or more is as long as can be. Padding holds ordinary numbers: an implementation that
    reads it gives a wrong answer.
    """
    rng = np.random.default_rng([case.seed, 2])
    x, targets = _draw(case, rng)
    if number:
        x, targets = _draw(case, np.random.default_rng([case.seed, 2, number]))
    b, t = case.batch, case.seq_len
    lengths: Array | None = None
    if case.lengths != "full":
        longest = t if case.lengths == "ragged" else max(1, t // 2)
        lengths = rng.integers(1, longest + 1, b).astype(np.int32)
        if b > 1:
            lengths[0] = longest
    state: State | None = None
    if case.initial_state == "random":
        state = tuple(
            {
                name: (0.5 * rng.standard_normal((b, width))).astype(case.dtype)
                for name, width in layer.state.items()
            }
            for layer in layers(case)
        )
    x = np.concatenate([x, *_make_masks(case)], axis=2)
    return Batch(x=x, targets=targets, lengths=lengths, initial_state=state)


def _draw(case: Case, rng: np.random.Generator) -> tuple[Array, Array]:
    """Features [B, T, D] and targets [B, T, O]."""
    b, t = case.batch, case.seq_len
    x = rng.standard_normal((b, t, case.inputs)).astype(case.dtype)
    targets = (0.5 * rng.standard_normal((b, t, output_width(case)))).astype(case.dtype)
    return x, targets


def varied_batches(case: Case, like: Batch, rng: np.random.Generator, count: int) -> list[Batch]:
    """Batches of a case for calls that are timed: features and targets that no other call gave.

    Drawn once, in float32; the features of each batch are those times a factor of its own between
    0.75 and 1.25. The factors of neighbours differ by 0.19 or more, so that no feature of one is
    the other's in a half type either. Targets are those of all batches. The rest is as in `like`.
    """
    b, t = case.batch, case.seq_len
    drawn = rng.standard_normal((b, t, case.inputs), dtype=np.float32)
    drawn = drawn.astype(np.promote_types(case.dtype, np.float32), copy=False)
    targets = 0.5 * rng.standard_normal(like.targets.shape, dtype=np.float32)
    targets = targets.astype(case.dtype, copy=False)
    x = np.empty((count, *like.x.shape), case.dtype)
    x[..., case.inputs :] = like.x[..., case.inputs :]
    for number in range(count):
        # The golden ratio spreads any number of factors over the range, and neighbours apart.
        factor = drawn.dtype.type(0.75 + 0.5 * (number * _GOLDEN % 1))
        np.multiply(drawn, factor, out=x[number, ..., : case.inputs], casting="unsafe")
    return [replace(like, x=each, targets=targets) for each in x]


_GOLDEN = (5**0.5 - 1) / 2


def rotated(batch: Batch, mode: Mode) -> tuple[Array, ...]:
    """The arrays that `Runner.rotate` takes of a batch: inputs, and in training targets."""
    return (batch.x, batch.targets) if mode == "train" else (batch.x,)


def _make_masks(case: Case) -> list[Array]:
    """The masks [B, T, columns] of all dropout cells, in the order of `Layer.masks`."""
    rng = np.random.default_rng([case.seed, 3])
    masks: list[Array] = []
    for layer in layers(case):
        for width, keep in masks_of(layer).values():
            fixed = layer.of(Dropout).variational
            shape = (1, 1, width) if fixed else (case.batch, case.seq_len, width)
            kept = np.floor(keep + rng.random(shape)) / keep
            masks.append(np.broadcast_to(kept, (case.batch, case.seq_len, width)))
    return [mask.astype(case.dtype) for mask in masks]


def zero_weights(case: Case) -> Weights:
    """Zeros in the shapes of `make_weights`: an example to trace with, made in no time."""
    return tuple(
        {name: np.zeros(shape, case.dtype) for name, shape in layer.blocks.items()}
        for layer in weight_layers(case)
    )


def zero_batch(case: Case) -> Batch:
    """Zeros in the shapes of `make_batch`, with full lengths."""
    b, t = case.batch, case.seq_len
    return Batch(
        x=np.zeros((b, t, input_width(case)), case.dtype),
        targets=np.zeros((b, t, output_width(case)), case.dtype),
        lengths=np.full(b, t, np.int32) if case.lengths != "full" else None,
    )


def zero_state(case: Case, batch: int | None = None) -> State:
    """The all-zero state of a case: arrays [B, width] of each layer."""
    b = case.batch if batch is None else batch
    return tuple(
        {name: np.zeros((b, width), case.dtype) for name, width in layer.state.items()}
        for layer in layers(case)
    )


def initial_state(case: Case, batch: Batch) -> State:
    """The batch's initial state, or zeros where it has none."""
    if batch.initial_state is not None:
        return batch.initial_state
    return zero_state(case, batch.x.shape[0])


def check_batch(case: Case, batch: Batch) -> None:
    """Raise `ValueError` for a batch that no implementation of the case may accept."""
    b, t = batch.x.shape[0], batch.x.shape[1]
    if batch.x.shape[2] != input_width(case):
        masks = input_width(case) - case.inputs
        has = f"inputs={case.inputs}" + (f" and {masks} columns of masks" if masks else "")
        raise ValueError(f"x has {batch.x.shape[2]} features, the case has {has}")
    if batch.targets.shape != (b, t, output_width(case)):
        raise ValueError(f"targets {batch.targets.shape}: must be {(b, t, output_width(case))}")
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
    """Raise `ValueError` for a state that has not all arrays [B, width] of all layers."""
    stack = layers(case)
    if len(state) != len(stack):
        raise ValueError(f"initial state of {len(state)} layers, the case has {len(stack)}")
    for number, (given, layer) in enumerate(zip(state, stack, strict=True)):
        for name, width in layer.state.items():
            shape = given[name].shape if name in given else None
            if shape != (batch, width):
                raise ValueError(
                    f"initial state {name} of layer {number} {shape}: must be {(batch, width)}"
                )
