"""The network as a pure function, with the loop over time as its argument; loss and SGD step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from backends.api import Case, Weights
from backends.jax.cells import Arrays
from backends.jax.support import UNROLL_FACTORS
from backends.jax.wrappers import make_step
from backends.layout import pack, unpack, usual
from backends.stack import Layer, layers, levels, weight_layers

#: Fused weights of each set, or the state of each layer, by name.
Layers = tuple[Arrays, ...]
#: n_b of each sequence [B] int32, or None where all have T steps.
Lengths: TypeAlias = jax.Array | None
#: (state, (t, x_t [B, D])) -> (state, y_t [B, O]).
TimeStep = Callable[[Layers, tuple[Any, jax.Array]], tuple[Layers, jax.Array]]
#: (step, state, x [B, T, D], lengths) -> (final state, outputs [B, T, O]).
Loop = Callable[[TimeStep, Layers, jax.Array, Lengths], tuple[Layers, jax.Array]]


# --- loops ----------------------------------------------------------------------------------------


def unrolled(
    step: TimeStep, state: Layers, x: jax.Array, _lengths: Lengths
) -> tuple[Layers, jax.Array]:
    """The Python loop: T copies of the step in the program."""
    outputs = []
    for t in range(x.shape[1]):
        state, y = step(state, (t, x[:, t]))
        outputs.append(y)
    return state, jnp.stack(outputs, axis=1)


def scanned(
    step: TimeStep, state: Layers, x: jax.Array, _lengths: Lengths, unroll: int = 1
) -> tuple[Layers, jax.Array]:
    """One loop in the program, `unroll` copies of the step in its body (no loop where T <= that).

    `lax.scan` runs over the first axis: x and the outputs are transposed here.
    """
    times = jnp.arange(x.shape[1], dtype=jnp.int32)
    state, outputs = lax.scan(step, state, (times, jnp.swapaxes(x, 0, 1)), unroll=unroll)
    return state, jnp.swapaxes(outputs, 0, 1)


def counted(
    step: TimeStep, state: Layers, x: jax.Array, _lengths: Lengths
) -> tuple[Layers, jax.Array]:
    """`lax.fori_loop` over T steps, which writes each output into an array that it carries.

    Of a number of steps that is known JAX makes a scan, or there would be no gradient. The bounds
    are int32: of Python's numbers they would be int64.
    """
    move, outputs = _writing(step, state, x)
    state, outputs = lax.fori_loop(np.int32(0), np.int32(x.shape[1]), move, (state, outputs))
    return state, jnp.swapaxes(outputs, 0, 1)


def until_the_longest(
    step: TimeStep, state: Layers, x: jax.Array, lengths: Lengths
) -> tuple[Layers, jax.Array]:
    """`lax.while_loop` that ends with the longest sequence of the batch, as TensorFlow 1's loops.

    Outputs behind it stay the zeros that they begin as.
    """
    move, outputs = _writing(step, state, x)
    end = np.int32(x.shape[1]) if lengths is None else jnp.max(lengths)
    _, (state, outputs) = lax.while_loop(
        lambda carry: carry[0] < end,
        lambda carry: (carry[0] + 1, move(*carry)),
        (jnp.int32(0), (state, outputs)),
    )
    return state, jnp.swapaxes(outputs, 0, 1)


#: (state, outputs [T, B, O]).
Carry = tuple[Layers, jax.Array]


def _writing(
    step: TimeStep, state: Layers, x: jax.Array
) -> tuple[Callable[[Any, Carry], Carry], jax.Array]:
    """Function that moves a carry from time t to t + 1, and the outputs before the first: zeros.

    Time is the first axis here, so that a step reads and writes one piece of memory.
    """
    times = jnp.swapaxes(x, 0, 1)
    first = jax.ShapeDtypeStruct(times.shape[1:], times.dtype)
    _, y = jax.eval_shape(step, state, (jax.ShapeDtypeStruct((), jnp.int32), first))

    def move(t: Any, carry: Carry) -> Carry:
        state, y = step(carry[0], (t, lax.dynamic_index_in_dim(times, t, keepdims=False)))
        return state, lax.dynamic_update_index_in_dim(carry[1], y, t, 0)

    return move, jnp.zeros((len(times), *y.shape), y.dtype)


LOOPS: dict[str, Loop] = {
    "static": unrolled,
    "dynamic": scanned,
    **{f"scan-unroll-{factor}": partial(scanned, unroll=factor) for factor in UNROLL_FACTORS},
    "fori": counted,
    "while": until_the_longest,
}


# --- the network ----------------------------------------------------------------------------------


def run(
    case: Case,
    loop: Loop,
    weights: Layers,
    x: jax.Array,  # [B, T, D]
    lengths: Lengths,
    state: Layers,
) -> tuple[jax.Array, Layers]:
    """Outputs [B, T, O] and final state: y_t = 0 and the state held where t >= n_b."""
    final: dict[int, Arrays] = {}
    for level in levels(case):
        sides = []
        for places in level:
            stack = [layers(case)[place] for place in places]
            held = tuple(state[place] for place in places)
            moved, outputs = _run_stack(stack, loop, weights, x, lengths, held)
            final |= zip(places, moved, strict=True)
            sides.append(outputs)
        x = sides[0] if len(sides) == 1 else jnp.concatenate(sides, axis=-1)
    return x, tuple(final[place] for place in range(len(final)))


def _run_stack(
    stack: Sequence[Layer],
    loop: Loop,
    weights: Layers,
    x: jax.Array,
    lengths: Lengths,
    state: Layers,
) -> tuple[Layers, jax.Array]:
    """Layers that read in one direction, all within a step of one loop: (state, outputs)."""
    cells = [(make_step(layer), weights[layer.weights]) for layer in stack]

    def step(old: Layers, time: tuple[Any, jax.Array]) -> tuple[Layers, jax.Array]:
        t, value = time
        alive = None if lengths is None else (t < lengths)[:, None]
        new: list[Arrays] = []
        for (cell, w), held in zip(cells, old, strict=True):
            value, moved = cell(w, value, held)
            if alive is not None:
                moved = {name: jnp.where(alive, moved[name], held[name]) for name in moved}
            new.append(moved)
        return tuple(new), value if alive is None else jnp.where(alive, value, 0)

    if not stack[0].reverse:
        return loop(step, state, x, lengths)
    final, outputs = loop(step, state, _reversed(x, lengths), lengths)
    return final, _reversed(outputs, lengths)


def _reversed(x: jax.Array, lengths: Lengths) -> jax.Array:
    """The first n_b steps of each sequence in reverse, those behind where they are: [B, T, D]."""
    if lengths is None:
        return jnp.flip(x, axis=1)
    times = jnp.arange(x.shape[1], dtype=jnp.int32)
    ends = lengths[:, None]
    source = jnp.where(times < ends, ends - 1 - times, times)
    rows = jnp.arange(x.shape[0], dtype=jnp.int32)[:, None]
    # A permutation of each row, within its bounds: the gradient adds no two values in one place.
    return x.at[rows, source].get(mode="promise_in_bounds", unique_indices=True)


@dataclass(frozen=True, kw_only=True)
class Network:
    """A case's forward pass, and how it holds the weights: a tree of arrays.

    `run(weights, x [B, T, D], lengths, state)` gives the outputs [B, T, O] and the final state.
    `shaped(array)` is the tree with `array(*shape)` in each array's place; `pack` and `unpack` make
    it of canonical weights and the contrary, in NumPy.
    """

    run: Callable[..., tuple[jax.Array, Layers]]
    shaped: Callable[[Callable[..., Any]], Any]
    pack: Callable[[Weights], Any]
    unpack: Callable[[Any], Weights]


def looped(case: Case, loop: Loop) -> Network:
    """The cells of a case in a loop over time, with their weights by name."""
    stack = weight_layers(case)
    layouts = [usual(layer) for layer in stack]

    def shaped(array: Callable[..., Any]) -> Any:
        return tuple(
            {name: array(*fused.shape(layer.blocks)) for name, fused in layout.items()}
            for layer, layout in zip(stack, layouts, strict=True)
        )

    def packed(weights: Weights) -> Any:
        return tuple(map(pack, layouts, weights))

    def unpacked(arrays: Any) -> Weights:
        return tuple(map(unpack, layouts, arrays, [layer.blocks for layer in stack]))

    return Network(run=partial(run, case, loop), shaped=shaped, pack=packed, unpack=unpacked)


# --- programs -------------------------------------------------------------------------------------


def train_program(network: Network) -> Callable[..., tuple[jax.Array, Any]]:
    """(weights, x, lengths, state, targets, rate) -> (loss before the update, new weights).

    The loss is that of `backends.api.Runner`; every weight moves by -rate * gradient.
    """

    def step(
        weights: Any,
        x: jax.Array,
        lengths: Lengths,
        state: Layers,
        targets: jax.Array,  # [B, T, O]
        rate: jax.Array,  # [], the case's dtype
    ) -> tuple[jax.Array, Any]:
        def loss(weights: Any) -> jax.Array:
            outputs, _ = network.run(weights, x, lengths, state)
            return jnp.sum((outputs - targets) ** 2) / (2 * x.shape[0] * x.shape[1])

        value, gradients = jax.value_and_grad(loss)(weights)
        return value, jax.tree.map(lambda w, g: w - rate * g, weights, gradients)

    return step
