"""The LSTM of the comparison as somebody writes it in plain JAX: no adapter, no harness."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np


def _cell(params: tuple[jax.Array, ...], carry: tuple[jax.Array, jax.Array], x: jax.Array):
    w, u, bias = params
    h, c = carry
    i, g, f, o = jnp.split(x @ w + h @ u + bias, 4, axis=-1)
    c = jax.nn.sigmoid(f + 1.0) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return (h, c), h


def build(strategy: str, mode: str, data: dict[str, np.ndarray]) -> Callable[[], object]:
    """A call that runs the forward pass, or one training step, and waits for it."""
    x, targets = jnp.asarray(data["x"]), jnp.asarray(data["targets"])
    inputs, batch, steps = x.shape[2], x.shape[0], x.shape[1]
    kernel, bias = jnp.asarray(data["kernel_igfo"]), jnp.asarray(data["bias_igfo"])
    params = (kernel[:inputs], kernel[inputs:], bias)
    hidden = targets.shape[2]

    def network(params: tuple[jax.Array, ...], x: jax.Array):
        zeros = jnp.zeros((batch, hidden), x.dtype)
        carry = (zeros, zeros)
        if strategy == "static":
            outputs = []
            for t in range(steps):
                carry, y = _cell(params, carry, x[:, t])
                outputs.append(y)
            return jnp.stack(outputs, axis=1), carry
        unroll = 8 if strategy == "scan-unroll" else 1
        carry, ys = jax.lax.scan(
            lambda c, x_t: _cell(params, c, x_t), carry, jnp.swapaxes(x, 0, 1), unroll=unroll
        )
        return jnp.swapaxes(ys, 0, 1), carry

    if mode == "forward":
        forward = jax.jit(network)
        return lambda: jax.block_until_ready(forward(params, x))

    def loss(params: tuple[jax.Array, ...], x: jax.Array, targets: jax.Array) -> jax.Array:
        return 0.5 * jnp.sum((network(params, x)[0] - targets) ** 2) / (batch * steps)

    @jax.jit
    def step(params: tuple[jax.Array, ...], x: jax.Array, targets: jax.Array):
        value, gradients = jax.value_and_grad(loss)(params, x, targets)
        return value, tuple(p - 0.01 * g for p, g in zip(params, gradients, strict=True))

    def train() -> jax.Array:
        nonlocal params
        value, params = step(params, x, targets)
        jax.block_until_ready(params)
        return value

    return train
