"""Cells around other cells, and which function gives the step of which cell."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from backends.jax.cells import (
    Arrays,
    Step,
    bidirectional_grid,
    coupled,
    grid,
    gru,
    gru_reset_after,
    lstm,
    rnn,
    time_freq,
)
from backends.spec import (
    Attention,
    BasicLstm,
    BidirectionalGrid,
    Cell,
    Coupled,
    Dropout,
    Grid,
    Gru,
    GruResetAfter,
    Lstm,
    Residual,
    Rnn,
    TimeFreq,
)
from backends.stack import Layer, masks_of


def residual(layer: Layer) -> Step:
    """Y = x + cell(x)."""
    inner = make_step(layer.inner())

    def step(w: Arrays, x: jax.Array, state: Arrays) -> tuple[jax.Array, Arrays]:
        y, new = inner(w, x, state)
        return x + y, new

    return step


def dropout(layer: Layer) -> Step:
    """Y = mask_out y', state' times mask_state, of y', state' = cell(mask_in x, state).

    x has the masks behind its features: this layer's in the order input, state, output, then those
    of the layers above, which are handed on behind y. The state's c is not dropped.
    """
    inner = make_step(layer.inner())
    widths = {part: width for part, (width, _) in masks_of(layer).items()}
    above = layer.masks - sum(widths.values())

    def step(w: Arrays, x: jax.Array, state: Arrays) -> tuple[jax.Array, Arrays]:
        value, start, masks = x[:, : layer.inputs], layer.inputs, {}
        for part, width in widths.items():
            masks[part] = x[:, start : start + width]
            start += width
        if "input" in masks:
            value = value * masks["input"]
        y, new = inner(w, value, state)
        if "state" in masks:
            new = {**new, **_dropped(layer, new, masks["state"])}
        if "output" in masks:
            y = y * masks["output"]
        return jnp.concatenate([y, x[:, start:]], axis=-1) if above else y, new

    return step


def _dropped(layer: Layer, new: Arrays, mask: jax.Array) -> Arrays:
    """The arrays of a new state that are dropped, times their columns of the mask."""
    begin, result = 0, {}
    for name in Dropout.dropped(layer.state):
        width = layer.state[name]
        result[name] = new[name] * mask[:, begin : begin + width]
        begin += width
    return result


def attention(layer: Layer) -> Step:
    """Attention over the window w_1 ... w_L of the last outputs, the oldest first.

    y', s' = cell([x, a] K_in + b_in, s);  q = [all of s'];  e_l = sum(v tanh(w_l M + q Q + b));
    a' = sum(softmax(e)_l w_l);  y = [y', a'] K_out + b_out;  the window drops w_1 and appends y.
    """
    inner = make_step(layer.inner())
    names = list(layer.inner().state)
    length = layer.of(Attention).window

    def step(w: Arrays, x: jax.Array, state: Arrays) -> tuple[jax.Array, Arrays]:
        value = x @ w["X_in"] + state["attention"] @ w["A_in"] + w["b_in"]
        y, new = inner(w, value, {name: state[name] for name in names})
        query = jnp.concatenate([new[name] for name in names], axis=-1) @ w["Q_att"] + w["b_att"]
        window = jnp.reshape(state["window"], (len(x), length, -1))
        energy = jnp.sum(w["v_att"] * jnp.tanh(window @ w["M_att"] + query[:, None]), axis=-1)
        weight = jax.nn.softmax(energy, axis=-1)
        a = jnp.sum(weight[:, :, None] * window, axis=1)
        y = y @ w["Y_out"] + a @ w["A_out"] + w["b_out"]
        last = jnp.concatenate([state["window"][:, y.shape[1] :], y], axis=-1)
        return y, {**new, "attention": a, "window": last}

    return step


STEPS: dict[type[Cell], Callable[[Layer], Step]] = {
    Rnn: rnn,
    Lstm: lstm,
    BasicLstm: lstm,
    Gru: gru,
    GruResetAfter: gru_reset_after,
    Coupled: coupled,
    TimeFreq: time_freq,
    Grid: grid,
    BidirectionalGrid: bidirectional_grid,
    Residual: residual,
    Dropout: dropout,
    Attention: attention,
}


def make_step(layer: Layer) -> Step:
    """The step of a layer."""
    return STEPS[type(layer.cell)](layer)
