"""The network as a pure function, with the loop over time as its argument; loss and SGD step."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from backends.api import Case
from backends.jax.cells import CELLS, Arrays

#: L layers of fused weights, or of states by name.
Layers = tuple[Arrays, ...]
#: (state, (t, x_t [B, D])) -> (state, y_t [B, H]).
TimeStep = Callable[[Layers, tuple[Any, jax.Array]], tuple[Layers, jax.Array]]
#: (step, state, x [B, T, D]) -> (final state, outputs [B, T, H]).
Loop = Callable[[TimeStep, Layers, jax.Array], tuple[Layers, jax.Array]]


def unrolled(step: TimeStep, state: Layers, x: jax.Array) -> tuple[Layers, jax.Array]:
    """The Python loop: T copies of the step in the program."""
    outputs = []
    for t in range(x.shape[1]):
        state, y = step(state, (t, x[:, t]))
        outputs.append(y)
    return state, jnp.stack(outputs, axis=1)


def scanned(
    step: TimeStep, state: Layers, x: jax.Array, unroll: int = 1
) -> tuple[Layers, jax.Array]:
    """One loop in the program, `unroll` copies of the step in its body (no loop where T <= that).

    `lax.scan` runs over the first axis: x and the outputs are transposed here.
    """
    times = jnp.arange(x.shape[1], dtype=jnp.int32)
    state, outputs = lax.scan(step, state, (times, jnp.swapaxes(x, 0, 1)), unroll=unroll)
    return state, jnp.swapaxes(outputs, 0, 1)


LOOPS: dict[str, Loop] = {
    "static": unrolled,
    "dynamic": scanned,
    "scan-unroll": partial(scanned, unroll=8),
}


def run(
    case: Case,
    loop: Loop,
    weights: Layers,
    x: jax.Array,  # [B, T, D]
    lengths: jax.Array | None,  # [B] int32
    state: Layers,
) -> tuple[jax.Array, Layers]:
    """Outputs [B, T, H] and final state: y_t = 0 and the state held where t >= n_b."""
    cell = CELLS[case.cell].step

    def step(old: Layers, time: tuple[Any, jax.Array]) -> tuple[Layers, jax.Array]:
        t, value = time
        alive = None if lengths is None else (t < lengths)[:, None]
        new: list[Arrays] = []
        for layer, held in zip(weights, old, strict=True):
            moved = cell(layer, value, held, case.forget_bias)
            value = moved["h"]
            if alive is not None:
                moved = {name: jnp.where(alive, moved[name], held[name]) for name in moved}
            new.append(moved)
        return tuple(new), value if alive is None else jnp.where(alive, value, 0)

    final, outputs = loop(step, state, x)
    return outputs, final


def forward_program(case: Case, loop: Loop) -> Callable[..., tuple[jax.Array, Layers]]:
    """(weights, x, lengths, state) -> (outputs, final state)."""
    return partial(run, case, loop)


def train_program(case: Case, loop: Loop) -> Callable[..., tuple[jax.Array, Layers]]:
    """(weights, x, lengths, state, targets, rate) -> (loss before the update, new weights).

    The loss is that of `backends.api.Runner`; every weight moves by -rate * gradient.
    """

    def step(
        weights: Layers,
        x: jax.Array,
        lengths: jax.Array | None,
        state: Layers,
        targets: jax.Array,  # [B, T, H]
        rate: jax.Array,  # [], the case's dtype
    ) -> tuple[jax.Array, Layers]:
        def loss(weights: Layers) -> jax.Array:
            outputs, _ = run(case, loop, weights, x, lengths, state)
            return jnp.sum((outputs - targets) ** 2) / (2 * x.shape[0] * x.shape[1])

        value, gradients = jax.value_and_grad(loss)(weights)
        return value, jax.tree.map(lambda w, g: w - rate * g, weights, gradients)

    return step
