"""One step of each cell in NumPy, and its gradient. Slow and obvious: what others must equal.

Row vectors; z_g = x W_g + h U_g + b_g. Every forward function returns the new state and a tape of
what its backward needs; every backward takes the gradient of the new state and returns that of x,
of the old state, and adds that of the weights to `grads`.

Sources: LSTM: Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000. GRU: Cho et
al. 2014, arXiv:1406.1078 (reset before the product) and arXiv:1412.3555 as cuDNN has it (after).
Conventions (which gate multiplies the old state, where the forget bias goes) are TensorFlow's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from backends.api import Array, CellName, LayerWeights

LayerStateDict = dict[str, Array]
Tape = Any
Forward = Callable[[LayerWeights, Array, LayerStateDict, float], tuple[LayerStateDict, Tape]]
Backward = Callable[
    [LayerWeights, Tape, LayerStateDict, dict[str, Array]], tuple[Array, LayerStateDict]
]


def sigmoid(v: Array) -> Array:
    """1 / (1 + exp(-v)), without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * v)))


def _affine(w: LayerWeights, gate: str, x: Array, h: Array) -> Array:
    return np.asarray(x @ w[f"W_{gate}"] + h @ w[f"U_{gate}"] + w[f"b_{gate}"])


def _affine_back(
    w: LayerWeights, gate: str, x: Array, h: Array, dz: Array, grads: dict[str, Array]
) -> tuple[Array, Array]:
    grads[f"W_{gate}"] += x.T @ dz
    grads[f"U_{gate}"] += h.T @ dz
    grads[f"b_{gate}"] += dz.sum(axis=0)
    return dz @ w[f"W_{gate}"].T, dz @ w[f"U_{gate}"].T


def rnn(
    w: LayerWeights, x: Array, state: LayerStateDict, _forget_bias: float
) -> tuple[LayerStateDict, Tape]:
    """New state: h' = tanh(x W + h U + b)."""
    h = np.tanh(_affine(w, "h", x, state["h"]))
    return {"h": h}, (x, state["h"], h)


def rnn_back(
    w: LayerWeights, tape: Tape, d: LayerStateDict, grads: dict[str, Array]
) -> tuple[Array, LayerStateDict]:
    """Gradient of `rnn`."""
    x, h_old, h = tape
    dx, dh = _affine_back(w, "h", x, h_old, d["h"] * (1 - h**2), grads)
    return dx, {"h": dh}


def lstm(
    w: LayerWeights, x: Array, state: LayerStateDict, forget_bias: float
) -> tuple[LayerStateDict, Tape]:
    """New state: c' = s(f + forget_bias) c + s(i) tanh(g);  h' = s(o) tanh(c')."""
    i = sigmoid(_affine(w, "i", x, state["h"]))
    g = np.tanh(_affine(w, "g", x, state["h"]))
    f = sigmoid(_affine(w, "f", x, state["h"]) + forget_bias)
    o = sigmoid(_affine(w, "o", x, state["h"]))
    c = f * state["c"] + i * g
    h = o * np.tanh(c)
    return {"c": c, "h": h}, (x, state, i, g, f, o, c)


def lstm_back(
    w: LayerWeights, tape: Tape, d: LayerStateDict, grads: dict[str, Array]
) -> tuple[Array, LayerStateDict]:
    """Gradient of `lstm`."""
    x, state, i, g, f, o, c = tape
    tanh_c = np.tanh(c)
    dc = d["c"] + d["h"] * o * (1 - tanh_c**2)
    dz = {
        "i": dc * g * i * (1 - i),
        "g": dc * i * (1 - g**2),
        "f": dc * state["c"] * f * (1 - f),
        "o": d["h"] * tanh_c * o * (1 - o),
    }
    dx, dh = np.zeros_like(x), np.zeros_like(state["h"])
    for gate, value in dz.items():
        dx_gate, dh_gate = _affine_back(w, gate, x, state["h"], value, grads)
        dx += dx_gate
        dh += dh_gate
    return dx, {"c": dc * f, "h": dh}


def gru(
    w: LayerWeights, x: Array, state: LayerStateDict, _forget_bias: float
) -> tuple[LayerStateDict, Tape]:
    """New state, with c = tanh(x W_c + (r h) U_c + b_c);  h' = u h + (1 - u) c."""
    h_old = state["h"]
    r = sigmoid(_affine(w, "r", x, h_old))
    u = sigmoid(_affine(w, "u", x, h_old))
    c = np.tanh(_affine(w, "c", x, r * h_old))
    return {"h": u * h_old + (1 - u) * c}, (x, h_old, r, u, c)


def gru_back(
    w: LayerWeights, tape: Tape, d: LayerStateDict, grads: dict[str, Array]
) -> tuple[Array, LayerStateDict]:
    """Gradient of `gru`."""
    x, h_old, r, u, c = tape
    dh = d["h"] * u
    dx_c, d_rh = _affine_back(w, "c", x, r * h_old, d["h"] * (1 - u) * (1 - c**2), grads)
    dx_r, dh_r = _affine_back(w, "r", x, h_old, d_rh * h_old * r * (1 - r), grads)
    dx_u, dh_u = _affine_back(w, "u", x, h_old, d["h"] * (h_old - c) * u * (1 - u), grads)
    return dx_c + dx_r + dx_u, {"h": dh + d_rh * r + dh_r + dh_u}


def gru_reset_after(
    w: LayerWeights, x: Array, state: LayerStateDict, _forget_bias: float
) -> tuple[LayerStateDict, Tape]:
    """New state, with c = tanh(x W_c + b_c + r (h U_c + b_hc));  h' = u h + (1 - u) c."""
    h_old = state["h"]
    r = sigmoid(_affine(w, "r", x, h_old))
    u = sigmoid(_affine(w, "u", x, h_old))
    inner = h_old @ w["U_c"] + w["b_hc"]
    c = np.tanh(x @ w["W_c"] + w["b_c"] + r * inner)
    return {"h": u * h_old + (1 - u) * c}, (x, h_old, r, u, c, inner)


def gru_reset_after_back(
    w: LayerWeights, tape: Tape, d: LayerStateDict, grads: dict[str, Array]
) -> tuple[Array, LayerStateDict]:
    """Gradient of `gru_reset_after`."""
    x, h_old, r, u, c, inner = tape
    dz_c = d["h"] * (1 - u) * (1 - c**2)
    grads["W_c"] += x.T @ dz_c
    grads["b_c"] += dz_c.sum(axis=0)
    d_inner = dz_c * r
    grads["U_c"] += h_old.T @ d_inner
    grads["b_hc"] += d_inner.sum(axis=0)
    dx_r, dh_r = _affine_back(w, "r", x, h_old, dz_c * inner * r * (1 - r), grads)
    dx_u, dh_u = _affine_back(w, "u", x, h_old, d["h"] * (h_old - c) * u * (1 - u), grads)
    dx = dz_c @ w["W_c"].T + dx_r + dx_u
    return dx, {"h": d["h"] * u + d_inner @ w["U_c"].T + dh_r + dh_u}


@dataclass(frozen=True)
class Cell:
    """A step and its gradient."""

    forward: Forward
    backward: Backward


CELLS: dict[CellName, Cell] = {
    "rnn": Cell(rnn, rnn_back),
    "basic-lstm": Cell(lstm, lstm_back),
    "lstm": Cell(lstm, lstm_back),
    "gru": Cell(gru, gru_back),
    "gru-reset-after": Cell(gru_reset_after, gru_reset_after_back),
}
