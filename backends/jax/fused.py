"""cuDNN's LSTM, by `jax.experimental.rnn`: all layers, directions and steps in one operation.

Its weights are one vector: W_ih and W_hh of each layer in turn, then b_ih and b_hh of each, gates
i, f, g, o, a matrix as [4H, I] row after row. The two directions of a depth are neighbours, as in
`backends.stack.layers`. (The module's own account, as of JAX 0.10.2; on ROCm JAX's tests swap two
gates.) The two biases act as their sum. The canonical bias is b_ih;
b_hh is a constant, the forget bias or zero, of which no gradient is taken, so that a step of SGD
moves the sum once.

Whether its products are in TF32 is what `jax_default_matmul_precision` says when it is traced.
By its source (jaxlib/gpu/rnn_kernels.cc) each call copies the lengths to the host and waits for
that, in training twice, and the forward pass keeps what a gradient needs, in either mode.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import rnn

from backends.api import Array, Case, Unavailable, Weights
from backends.jax.network import Layers, Lengths, Network
from backends.layout import Fused
from backends.stack import Layer, layers

#: (x [B, T, D], h_0, c_0 [L, B, H], weights [P], lengths [B] int32, **sizes) -> (y, h_n, c_n).
Kernel = Callable[..., tuple[jax.Array, jax.Array, jax.Array]]

_GATES = ("i", "f", "g", "o")
_MATRICES = (Fused(("W",), _GATES, transposed=True), Fused(("U",), _GATES, transposed=True))
_BIAS = Fused(("b",), _GATES)


def require_cuda(name: str, platform: str) -> None:
    """Raise `Unavailable` for a GPU, "gpu:1", whose platform in XLA's words is not CUDA."""
    if "cuda" not in platform.lower():
        raise Unavailable(f"device {name}: jax.experimental.rnn is cuDNN's, XLA has {platform}")


def fused(case: Case, kernel: Kernel = rnn.lstm) -> Network:
    """The network of a case that `backends.jax.support` does not refuse."""
    stack = layers(case)

    def run(
        flat: jax.Array, x: jax.Array, lengths: Lengths, state: Layers
    ) -> tuple[jax.Array, Layers]:
        b, t = x.shape[:2]
        h, c = (jnp.stack([layer[name] for layer in state]) for name in ("h", "c"))
        # An empty sequence runs one step, and `_ended` takes that back: nothing rests on what cuDNN
        # makes of a length of 0.
        ends = jnp.full(b, t, jnp.int32) if lengths is None else jnp.maximum(lengths, 1)
        y, h_n, c_n = kernel(
            x,
            h,
            c,
            jnp.where(_is_constant(stack), lax.stop_gradient(flat), flat),
            ends,
            input_size=case.inputs,
            hidden_size=case.hidden,
            num_layers=case.layers,
            dropout=0.0,
            bidirectional=case.direction == "bidirectional",
        )
        if lengths is not None:
            y, h_n, c_n = _ended(lengths, y, (h_n, h), (c_n, c))
        return y, tuple({"c": c_n[k], "h": h_n[k]} for k in range(len(stack)))

    return Network(
        run=run,
        shaped=lambda array: array(sum(_sizes(stack))),
        pack=lambda weights: _pack(stack, weights).astype(case.dtype),
        unpack=lambda flat: _unpack(stack, flat),
    )


def _ended(
    lengths: jax.Array,
    y: jax.Array,
    h: tuple[jax.Array, jax.Array],
    c: tuple[jax.Array, jax.Array],
) -> tuple[jax.Array, ...]:
    """Outputs 0 where a sequence has ended, and an empty one's state (final, initial) the initial.

    The kernel has written zeros there. What it makes of a gradient there is nowhere said: with this
    it is given zeros.
    """
    times = jnp.arange(y.shape[1], dtype=jnp.int32)
    y = jnp.where((times < lengths[:, None])[:, :, None], y, 0)
    begun = (lengths > 0)[:, None]
    return y, jnp.where(begun, *h), jnp.where(begun, *c)


# --- the vector of weights ------------------------------------------------------------------------


def _sizes(stack: tuple[Layer, ...]) -> list[int]:
    """Numbers of each part: W_ih, W_hh of each layer, then b_ih, b_hh of each."""
    matrices = [matrix.shape(layer.blocks) for layer in stack for matrix in _MATRICES]
    return [rows * columns for rows, columns in matrices] + [
        4 * layer.hidden for layer in stack for _ in range(2)
    ]


def _pack(stack: tuple[Layer, ...], weights: Weights) -> Array:
    """The vector [P] of canonical weights."""
    parts = [matrix.pack(blocks).ravel() for blocks in weights for matrix in _MATRICES]
    for layer, blocks in zip(stack, weights, strict=True):
        constant = [layer.forget_bias if gate == "f" else 0.0 for gate in _GATES]
        parts += [_BIAS.pack(blocks), np.repeat(constant, layer.hidden)]
    return np.concatenate(parts)


def _unpack(stack: tuple[Layer, ...], flat: Array) -> Weights:
    """The inverse of `_pack`."""
    parts = iter(np.split(flat, list(accumulate(_sizes(stack)))[:-1]))
    found: list[dict[str, Array]] = []
    for layer in stack:
        blocks: dict[str, Array] = {}
        for matrix in _MATRICES:
            blocks |= matrix.unpack(next(parts).reshape(matrix.shape(layer.blocks)), layer.blocks)
        found.append(blocks)
    for layer, known in zip(stack, found, strict=True):
        known.update(_BIAS.unpack(next(parts), layer.blocks))
        next(parts)  # b_hh
    return tuple(found)


def _is_constant(stack: tuple[Layer, ...]) -> jax.Array:
    """Mask of b_hh in the vector: [P] bool, computed, since as data it would be as large as P."""
    sizes = _sizes(stack)
    biases, width = sum(sizes[: 2 * len(stack)]), sizes[-1]
    place = lax.iota(np.int32, sum(sizes)) - biases
    return (place >= 0) & (place // width % 2 == 1)
