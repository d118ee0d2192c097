"""One step of each cell: a pure function of fused weights, an input and a state by name.

A cell is a function of a layer that gives its step, `step(w, x, state) -> (y, new state)`: w the
layer's arrays (`backends.layout.usual`), x [B, I], the state's arrays [B, width], y [B, O]. Row
vectors, gates side by side along the last axis: z [B, G*H] = x W + h U + b; s is the logistic
function, phi the cell's activation. Conventions are those of `backends.reference.cells`, where the
sources of the equations are. Python numbers are weakly typed, so that every step keeps the dtype of
its arguments. Cells around other cells are in `backends.jax.wrappers`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.nn import sigmoid

from backends.spec import BidirectionalGrid, Coupled, Grid, Gru, Lstm, Rnn, TimeFreq, prefixed
from backends.stack import Layer

Arrays = dict[str, jax.Array]
Step = Callable[[Arrays, jax.Array, Arrays], tuple[jax.Array, Arrays]]

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {"tanh": jnp.tanh, "relu": jax.nn.relu}


def clip(v: jax.Array, limit: float | None) -> jax.Array:
    """V within +-limit; None is no limit."""
    if limit is None:
        return v
    # Of v's dtype: where JAX has 64 bits, `jnp.clip` traces numbers in float64.
    low, high = jnp.asarray([-limit, limit], v.dtype)
    return jnp.clip(v, low, high)


# --- basic cells ----------------------------------------------------------------------------------


def rnn(layer: Layer) -> Step:
    """Vanilla RNN: y = h' = phi(x W + h U + b)."""
    phi = ACTIVATIONS[layer.of(Rnn).activation]

    def step(w: Arrays, x: jax.Array, state: Arrays) -> tuple[jax.Array, Arrays]:
        h = phi(x @ w["W"] + state["h"] @ w["U"] + w["b"])
        return h, {"h": h}

    return step


def lstm(layer: Layer) -> Step:
    """LSTM: c' = s(f + forget_bias) c + s(i) phi(g), clipped;  h' = s(o) phi(c').

    With peepholes i and f see p c, and o sees p c'. With a projection h' = h' Q, which is clipped.
    y = h'.
    """
    cell = layer.of(Lstm)
    phi = ACTIVATIONS[cell.activation]

    def step(w: Arrays, x: jax.Array, state: Arrays) -> tuple[jax.Array, Arrays]:
        c = state["c"]
        z = x @ w["W"] + state["h"] @ w["U"] + w["b"]
        i, g, f, o = jnp.split(z, 4, axis=-1)
        if cell.peepholes:
            p_i, p_f, p_o = jnp.split(w["p"], 3)
            i, f = i + p_i * c, f + p_f * c
        c = sigmoid(f + layer.forget_bias) * c + sigmoid(i) * phi(g)
        c = clip(c, cell.cell_clip)
        if cell.peepholes:
            o = o + p_o * c
        h = sigmoid(o) * phi(c)
        if cell.projection is not None:
            h = clip(h @ w["Q_h"], cell.projection_clip)
        return h, {"c": c, "h": h}

    return step


def gru(layer: Layer) -> Step:
    """GRU, reset before the product: c = phi(x W_c + (r h) U_c + b_c);  y = h' = u h + (1 - u) c.

    r = s(x W_r + h U_r + b_r), u = s(x W_u + h U_u + b_u). The reset comes before the product, so
    there are two recurrent products: U holds r and u.
    """
    phi = ACTIVATIONS[layer.of(Gru).activation]

    def step(w: Arrays, x: jax.Array, state: Arrays) -> tuple[jax.Array, Arrays]:
        h = state["h"]
        r_x, u_x, c_x = jnp.split(x @ w["W"] + w["b"], 3, axis=-1)
        r_h, u_h = jnp.split(h @ w["U"], 2, axis=-1)
        r, u = sigmoid(r_x + r_h), sigmoid(u_x + u_h)
        c = phi(c_x + (r * h) @ w["U_c"])
        h = u * h + (1 - u) * c
        return h, {"h": h}

    return step


def gru_reset_after(_layer: Layer) -> Step:
    """GRU, reset after the product: c = tanh(x W_c + b_c + r (h U_c + b_hc)).

    r, u and y = h' as in `gru`.
    """

    def step(w: Arrays, x: jax.Array, state: Arrays) -> tuple[jax.Array, Arrays]:
        h = state["h"]
        r_x, u_x, c_x = jnp.split(x @ w["W"] + w["b"], 3, axis=-1)
        r_h, u_h, c_h = jnp.split(h @ w["U"], 3, axis=-1)
        r, u = sigmoid(r_x + r_h), sigmoid(u_x + u_h)
        c = jnp.tanh(c_x + r * (c_h + w["b_hc"]))
        h = u * h + (1 - u) * c
        return h, {"h": h}

    return step


def coupled(layer: Layer) -> Step:
    """LSTM with one gate: F = s(f + forget_bias + p_f c);  c' = F c + (1 - F) tanh(g).

    y = h' = s(o + p_o c') tanh(c'), projected as in `lstm`. With layer normalisation there is no
    bias, and g, f and o are normalised before anything is added, c' before it is stored and used.
    """
    cell = layer.of(Coupled)

    def step(w: Arrays, x: jax.Array, state: Arrays) -> tuple[jax.Array, Arrays]:
        c = state["c"]
        z = x @ w["W"] + state["h"] @ w["U"]
        if cell.layer_norm:
            gammas, betas = jnp.split(w["gamma"], 4), jnp.split(w["beta"], 4)
            parts = zip(gammas[:3], betas[:3], jnp.split(z, 3, axis=-1), strict=True)
            g, f, o = (normalised(*part) for part in parts)
        else:
            g, f, o = jnp.split(z + w["b"], 3, axis=-1)
        if cell.peepholes:
            p_f, p_o = jnp.split(w["p"], 2)
            f = f + p_f * c
        forget = sigmoid(f + layer.forget_bias)
        c = forget * c + (1 - forget) * jnp.tanh(g)
        if cell.layer_norm:
            c = normalised(gammas[3], betas[3], c)
        if cell.peepholes:
            o = o + p_o * c
        h = sigmoid(o) * jnp.tanh(c)
        if cell.projection is not None:
            h = clip(h @ w["Q_h"], cell.projection_clip)
        return h, {"c": c, "h": h}

    return step


def normalised(gamma: jax.Array, beta: jax.Array, v: jax.Array) -> jax.Array:
    """Gamma (v - mean) / sqrt(var + 1e-12) + beta, over the features of each row."""
    centred = v - jnp.mean(v, axis=-1, keepdims=True)
    variance = jnp.mean(centred**2, axis=-1, keepdims=True)
    return gamma * centred / jnp.sqrt(variance + 1e-12) + beta


# --- frequency cells ------------------------------------------------------------------------------


def time_freq(layer: Layer) -> Step:
    """One LSTM over the windows x_k of a step; m is 0 before the first and handed to the next.

    z = x_k W + m_k U + m V + b;  c_k' = s(f + forget_bias + p_f c_k) c_k + s(i + p_i c_k) tanh(g),
    clipped;  m = m_k' = s(o + p_o c_k') tanh(c_k').  y = [m_0' ... m_N-1'].
    """
    cell = layer.of(TimeFreq)
    size, starts = cell.size(layer.inputs), cell.windows(layer.inputs)

    def step(w: Arrays, x: jax.Array, state: Arrays) -> tuple[jax.Array, Arrays]:
        m = jnp.zeros((len(x), layer.hidden), x.dtype)
        outputs: list[jax.Array] = []
        new: Arrays = {}
        for k, start in enumerate(starts):
            x_k, c = x[:, start : start + size], state[f"c_{k}"]
            z = x_k @ w["W"] + state[f"m_{k}"] @ w["U"] + m @ w["V"] + w["b"]
            i, g, f, o = jnp.split(z, 4, axis=-1)
            if cell.peepholes:
                p_i, p_f, p_o = jnp.split(w["p"], 3)
                i, f = i + p_i * c, f + p_f * c
            c = clip(sigmoid(f + layer.forget_bias) * c + sigmoid(i) * jnp.tanh(g), cell.cell_clip)
            if cell.peepholes:
                o = o + p_o * c
            m = sigmoid(o) * jnp.tanh(c)
            outputs.append(m)
            new |= {f"c_{k}": c, f"m_{k}": m}
        return jnp.concatenate(outputs, axis=-1), new

    return step


def grid(layer: Layer) -> Step:
    """Two LSTMs for each window x_k: F along frequency, T along time.

    z_F = x_k W_f + m_k U_f + m V_f + b_f; z_T the same with W_t ... b_t, or z_F where shared.
    For d = F, T, with c_F = c and c_T = c_k, and P_g = p_g.f c + p_g.t c_k what gate g sees:
    c_d' = s(f_d + forget_bias + P_f) c_d + s(i_d + P_i) tanh(g_d), clipped; where coupled, one
    minus s(i_d + P_i) is in the place of s(f_d ...). m_d' = s(o_d + P_o') tanh(c_d'), with P_o' of
    the new cells. (c, m) are 0 before the first window of a part of the inputs, then (c_F', m_F').
    The new state is (c_T', m_T'), y = [m_T', m_F'] of every window.
    """
    cell = layer.of(Grid)
    parts = cell.windows(layer.inputs)

    def step(w: Arrays, x: jax.Array, state: Arrays) -> tuple[jax.Array, Arrays]:
        outputs: list[jax.Array] = []
        new: Arrays = {}
        for b, starts in enumerate(parts):
            y, part = _grid_part(layer, cell, b, starts, w, x, state)
            outputs.append(y)
            new |= part
        return jnp.concatenate(outputs, axis=-1), new

    return step


def _grid_part(
    layer: Layer, cell: Grid, b: int, starts: Sequence[int], w: Arrays, x: jax.Array, state: Arrays
) -> tuple[jax.Array, Arrays]:
    """One part of the inputs, with its own weights."""
    size = cell.size(layer.inputs)
    c_f = m_f = jnp.zeros((len(x), layer.hidden), x.dtype)
    outputs: list[jax.Array] = []
    new: Arrays = {}
    for k, start in enumerate(starts):
        x_k, c_t, m_t = x[:, start : start + size], state[f"c_{b}.{k}"], state[f"m_{b}.{k}"]
        # Where the weights are shared, so are the gates: one set serves both ways.
        scopes = [f"{kind}{b}" for kind in cell.matrices]
        gates = [_grid_gates(layer, cell, scope, w, x_k, m_t, m_f, c_f, c_t) for scope in scopes]
        (i_f, forget_f, g_f, o_f), (i_t, forget_t, g_t, o_t) = gates[0], gates[-1]
        c_f = clip(forget_f * c_f + i_f * g_f, cell.cell_clip)
        c_t = clip(forget_t * c_t + i_t * g_t, cell.cell_clip)
        m_f = sigmoid(_looks(cell, w, f"{scopes[0]}.o", o_f, c_f, c_t)) * jnp.tanh(c_f)
        m_t = sigmoid(_looks(cell, w, f"{scopes[-1]}.o", o_t, c_f, c_t)) * jnp.tanh(c_t)
        outputs += [m_t, m_f]
        new |= {f"c_{b}.{k}": c_t, f"m_{b}.{k}": m_t}
    return jnp.concatenate(outputs, axis=-1), new


def _grid_gates(
    layer: Layer,
    cell: Grid,
    scope: str,
    w: Arrays,
    x: jax.Array,
    m_t: jax.Array,
    m_f: jax.Array,
    c_f: jax.Array,
    c_t: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Input gate, forget gate, tanh(g), and o before its peepholes, of one set of weights."""
    z = x @ w[f"W_{scope}"] + m_t @ w[f"U_{scope}"] + m_f @ w[f"V_{scope}"] + w[f"b_{scope}"]
    parts = dict(zip(cell.gates, jnp.split(z, len(cell.gates), axis=-1), strict=True))
    i = sigmoid(_looks(cell, w, f"{scope}.i", parts["i"], c_f, c_t))
    if cell.coupled:
        forget = 1 - i
    else:
        forget = sigmoid(_looks(cell, w, f"{scope}.f", parts["f"] + layer.forget_bias, c_f, c_t))
    return i, forget, jnp.tanh(parts["g"]), parts["o"]


def _looks(
    cell: Grid, w: Arrays, gate: str, z: jax.Array, c_f: jax.Array, c_t: jax.Array
) -> jax.Array:
    """Z of a gate, and what that sees of the two cells through its peepholes."""
    if not cell.peepholes:
        return z
    p_f, p_t = jnp.split(w[f"p_{gate}"], 2)
    return z + p_f * c_f + p_t * c_t


def bidirectional_grid(layer: Layer) -> Step:
    """A grid over the windows, and one with its own weights over the windows in reverse order.

    Of the second one, windows begin `offset` later over inputs with as many zeros behind them (over
    inputs with zeros before them where it is negative). y = [forward's, backward's]; the second
    one's outputs and state are in the order in which it goes.
    """
    cell = layer.of(BidirectionalGrid)
    parts = cell.grid.windows(layer.inputs)
    shift = max(cell.offset, 0)
    back = tuple(tuple(start + shift for start in reversed(starts)) for starts in parts)

    def step(w: Arrays, x: jax.Array, state: Arrays) -> tuple[jax.Array, Arrays]:
        zeros = jnp.zeros((len(x), abs(cell.offset)), x.dtype)
        shifted = jnp.concatenate([x, zeros] if cell.offset > 0 else [zeros, x], axis=-1)
        outputs: list[jax.Array] = []
        new: Arrays = {}
        for way, inputs, windows in (("fw", x, parts), ("bw", shifted, back)):
            for b, starts in enumerate(windows):
                y, part = _grid_part(
                    layer, cell.grid, b, starts, _scope(w, way), inputs, _scope(state, way)
                )
                outputs.append(y)
                new |= {prefixed(way, name): value for name, value in part.items()}
        return jnp.concatenate(outputs, axis=-1), new

    return step


def _scope(arrays: Arrays, scope: str) -> Arrays:
    """The arrays of one scope, without it in their names: "W_fw.f0" -> "W_f0"."""
    mark = f"_{scope}."
    return {name.replace(mark, "_", 1): v for name, v in arrays.items() if mark in name}
