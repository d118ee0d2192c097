"""The LSTM of the comparison as an expert writes it in plain JAX: no adapter, no harness."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Call = Callable[[], Any]
Read = Callable[[Any], dict[str, np.ndarray]]
Arrays = tuple[jax.Array, ...]
#: A dict as the adapter's: JAX flattens it by name, and XLA lays buffers out in that order. With
#: another order the instructions are the same, and a step at T=10 takes -9 to +7 % more, which
#: differs from process to process.
Params = dict[str, jax.Array]


def _cell(params: Params, carry: Arrays, x: jax.Array) -> tuple[Arrays, jax.Array]:
    h, c = carry
    i, g, f, o = jnp.split(x @ params["W"] + h @ params["U"] + params["b"], 4, axis=-1)
    c = jax.nn.sigmoid(f + 1.0) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return (h, c), h


def _network(strategy: str) -> Callable[[Params, jax.Array, Arrays], tuple[jax.Array, Arrays]]:
    """(params, x, (h, c)) -> (outputs, (h, c)), unrolled by Python or scanned."""

    def unrolled(params: Params, x: jax.Array, carry: Arrays) -> tuple[jax.Array, Arrays]:
        outputs = []
        for t in range(x.shape[1]):
            carry, y = _cell(params, carry, x[:, t])
            outputs.append(y)
        return jnp.stack(outputs, axis=1), carry

    def scanned(params: Params, x: jax.Array, carry: Arrays) -> tuple[jax.Array, Arrays]:
        factor = strategy.removeprefix("scan-unroll-")
        unroll = 1 if strategy == "dynamic" else int(factor)
        cell = partial(_cell, params)
        carry, ys = jax.lax.scan(cell, carry, jnp.swapaxes(x, 0, 1), unroll=unroll)
        return jnp.swapaxes(ys, 0, 1), carry

    return unrolled if strategy == "static" else scanned


def build(strategy: str, mode: str, data: dict[str, np.ndarray]) -> tuple[Call, Read]:
    """A call that runs the forward pass, or one training step, and what reads what it computed."""
    x, h, c, targets = (jnp.array(data[name]) for name in ("x", "h", "c", "targets"))
    inputs = x.shape[2]
    kernel = data["kernel_igfo"]
    arrays = {"W": kernel[:inputs], "U": kernel[inputs:], "b": data["bias_igfo"]}
    params = {name: jnp.array(array) for name, array in arrays.items()}
    network = _network(strategy)

    if mode == "forward":
        forward = jax.jit(network)

        def infer() -> tuple[jax.Array, Arrays]:
            return jax.block_until_ready(forward(params, x, (h, c)))

        def results(out: tuple[jax.Array, Arrays]) -> dict[str, np.ndarray]:
            outputs, (h, c) = map(jax.device_get, out)
            return {"outputs": outputs, "h": h, "c": c}

        return infer, results

    def loss(params: Params, x: jax.Array, carry: Arrays, targets: jax.Array) -> jax.Array:
        outputs, _ = network(params, x, carry)
        return 0.5 * jnp.sum((outputs - targets) ** 2) / (x.shape[0] * x.shape[1])

    @partial(jax.jit, donate_argnums=0)
    def step(
        params: Params, x: jax.Array, carry: Arrays, targets: jax.Array
    ) -> tuple[jax.Array, Params]:
        value, gradients = jax.value_and_grad(loss)(params, x, carry, targets)
        return value, jax.tree.map(lambda p, g: p - 0.01 * g, params, gradients)

    def train() -> jax.Array:
        nonlocal params
        value, params = jax.block_until_ready(step(params, x, (h, c), targets))
        return value

    def read(out: jax.Array) -> dict[str, np.ndarray]:
        # Copies: a view would keep the buffers from being donated.
        w, u, b = (np.array(params[name]) for name in "WUb")
        return {"loss": np.array(out), "kernel_igfo": np.concatenate([w, u]), "bias_igfo": b}

    return train, read
