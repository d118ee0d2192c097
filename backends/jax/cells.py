"""One step of each cell as a pure function of fused weights, an input and a state.

Row vectors, gates side by side along the last axis: z [B, G*H] = x W + h U + b. Conventions are
those of `backends.reference.cells`, where the sources of the equations are. Python numbers are
weakly typed, so that every step keeps the dtype of its arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from backends.api import CellName

Arrays = dict[str, jax.Array]
Step = Callable[[Arrays, jax.Array, Arrays, float], Arrays]


def rnn(w: Arrays, x: jax.Array, state: Arrays, _forget_bias: float) -> Arrays:
    """New state: h' = tanh(x W + h U + b)."""
    return {"h": jnp.tanh(x @ w["W"] + state["h"] @ w["U"] + w["b"])}


def lstm(w: Arrays, x: jax.Array, state: Arrays, forget_bias: float) -> Arrays:
    """New state: c' = s(f + forget_bias) c + s(i) tanh(g);  h' = s(o) tanh(c')."""
    z = x @ w["W"] + state["h"] @ w["U"] + w["b"]
    i, g, f, o = jnp.split(z, 4, axis=-1)
    c = jax.nn.sigmoid(f + forget_bias) * state["c"] + jax.nn.sigmoid(i) * jnp.tanh(g)
    return {"c": c, "h": jax.nn.sigmoid(o) * jnp.tanh(c)}


def gru(w: Arrays, x: jax.Array, state: Arrays, _forget_bias: float) -> Arrays:
    """New state, with c = tanh(x W_c + (r h) U_c + b_c);  h' = u h + (1 - u) c.

    The reset comes before the product, so there are two recurrent products: U holds r and u.
    """
    h = state["h"]
    r_x, u_x, c_x = jnp.split(x @ w["W"] + w["b"], 3, axis=-1)
    r_h, u_h = jnp.split(h @ w["U"], 2, axis=-1)
    r, u = jax.nn.sigmoid(r_x + r_h), jax.nn.sigmoid(u_x + u_h)
    c = jnp.tanh(c_x + (r * h) @ w["U_c"])
    return {"h": u * h + (1 - u) * c}


def gru_reset_after(w: Arrays, x: jax.Array, state: Arrays, _forget_bias: float) -> Arrays:
    """New state, with c = tanh(x W_c + b_c + r (h U_c + b_hc));  h' = u h + (1 - u) c."""
    h = state["h"]
    r_x, u_x, c_x = jnp.split(x @ w["W"] + w["b"], 3, axis=-1)
    r_h, u_h, c_h = jnp.split(h @ w["U"], 3, axis=-1)
    r, u = jax.nn.sigmoid(r_x + r_h), jax.nn.sigmoid(u_x + u_h)
    c = jnp.tanh(c_x + r * (c_h + w["b_hc"]))
    return {"h": u * h + (1 - u) * c}


@dataclass(frozen=True, kw_only=True)
class Block:
    """One fused array of a layer: the canonical blocks `<kind>_<gate>` side by side."""

    kind: str
    gates: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A step, and the fused arrays that it takes."""

    step: Step
    layout: Mapping[str, Block]


def _fused(*gates: str) -> dict[str, Block]:
    """The layout of a cell that needs one recurrent product a step."""
    return {kind: Block(kind=kind, gates=gates) for kind in ("W", "U", "b")}


_LSTM = Cell(step=lstm, layout=_fused("i", "g", "f", "o"))

CELLS: dict[CellName, Cell] = {
    "rnn": Cell(step=rnn, layout=_fused("h")),
    "basic-lstm": _LSTM,
    "lstm": _LSTM,
    "gru": Cell(
        step=gru,
        layout={
            "W": Block(kind="W", gates=("r", "u", "c")),
            "U": Block(kind="U", gates=("r", "u")),
            "U_c": Block(kind="U", gates=("c",)),
            "b": Block(kind="b", gates=("r", "u", "c")),
        },
    ),
    "gru-reset-after": Cell(
        step=gru_reset_after,
        layout=_fused("r", "u", "c") | {"b_hc": Block(kind="b", gates=("hc",))},
    ),
}
