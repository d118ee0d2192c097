"""One step of each cell in NumPy: slow and obvious, what others must equal.

A cell is a function of a layer that gives its step, `step(w, x, state) -> (y, new state)`: w the
layer's canonical blocks, x [B, I], the state's arrays [B, width] by name, y [B, O]. Row vectors;
z_g = x W_g + h U_g + b_g; s is the logistic function, phi the cell's activation.

`autograd.numpy` is NumPy whose functions can be differentiated: gradients come from these lines.

Sources: LSTM: Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000; peepholes
Gers & Schmidhuber 2000; projection Sak et al. 2014, arXiv:1402.1128. GRU: Cho et al. 2014,
arXiv:1406.1078 (reset before the product) and arXiv:1412.3555 as cuDNN has it (after). Coupled
gates: Greff et al. 2015, arXiv:1503.04069; layer normalisation: Ba et al. 2016, arXiv:1607.06450.
Frequency: Li et al. 2015 (TF-LSTM), Kalchbrenner et al. 2015, arXiv:1507.01526 and Li & Sainath
2016 (grid). Attention: the window of Cheng et al. 2016, arXiv:1601.06733. Dropout: Zaremba et al.
2014, arXiv:1409.2329, and Gal & Ghahramani 2015, arXiv:1512.05287 (variational). Conventions (which
gate multiplies the old state, where the forget bias goes) are TensorFlow's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import autograd.numpy as np
from autograd.extend import defvjp

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

#: A NumPy array, or what autograd puts in its place while it records.
Array = Any
Arrays = Mapping[str, Array]
Step = Callable[[Arrays, Array, Arrays], tuple[Array, dict[str, Array]]]


# autograd's own divides by the square of cosh, which overflows where tanh is flat.
defvjp(np.tanh, lambda y, _v: lambda g: g * (1.0 - y**2))


def sigmoid(v: Array) -> Array:
    """1 / (1 + exp(-v)), without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * v))


def relu(v: Array) -> Array:
    """max(v, 0)."""
    return np.maximum(v, 0.0)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"tanh": np.tanh, "relu": relu}


def clip(v: Array, limit: float | None) -> Array:
    """V within +-limit; None is no limit."""
    return v if limit is None else np.clip(v, -limit, limit)


def affine(w: Arrays, gate: str, x: Array, h: Array) -> Array:
    """X W_g + h U_g + b_g."""
    return x @ w[f"W_{gate}"] + h @ w[f"U_{gate}"] + w[f"b_{gate}"]


# --- basic cells ----------------------------------------------------------------------------------


def rnn(layer: Layer) -> Step:
    """Vanilla RNN: y = h' = phi(x W + h U + b)."""
    phi = ACTIVATIONS[layer.of(Rnn).activation]

    def step(w: Arrays, x: Array, state: Arrays) -> tuple[Array, dict[str, Array]]:
        h = phi(affine(w, "h", x, state["h"]))
        return h, {"h": h}

    return step


def lstm(layer: Layer) -> Step:
    """LSTM: c' = s(f + forget_bias) c + s(i) phi(g), clipped;  h' = s(o) phi(c').

    With peepholes i and f see p c, and o sees p c'. With a projection h' = h' Q, which is clipped.
    y = h'.
    """
    cell = layer.of(Lstm)
    phi = ACTIVATIONS[cell.activation]

    def step(w: Arrays, x: Array, state: Arrays) -> tuple[Array, dict[str, Array]]:
        c, h = state["c"], state["h"]
        i, g, f, o = (affine(w, gate, x, h) for gate in "igfo")
        if cell.peepholes:
            i, f = i + w["p_i"] * c, f + w["p_f"] * c
        c = sigmoid(f + layer.forget_bias) * c + sigmoid(i) * phi(g)
        c = clip(c, cell.cell_clip)
        if cell.peepholes:
            o = o + w["p_o"] * c
        h = sigmoid(o) * phi(c)
        if cell.projection is not None:
            h = clip(h @ w["Q_h"], cell.projection_clip)
        return h, {"c": c, "h": h}

    return step


def gru(layer: Layer) -> Step:
    """GRU, reset before the product: c = phi(x W_c + (r h) U_c + b_c);  y = h' = u h + (1 - u) c.

    r = s(x W_r + h U_r + b_r), u = s(x W_u + h U_u + b_u).
    """
    phi = ACTIVATIONS[layer.of(Gru).activation]

    def step(w: Arrays, x: Array, state: Arrays) -> tuple[Array, dict[str, Array]]:
        h = state["h"]
        r = sigmoid(affine(w, "r", x, h))
        u = sigmoid(affine(w, "u", x, h))
        c = phi(affine(w, "c", x, r * h))
        h = u * h + (1 - u) * c
        return h, {"h": h}

    return step


def gru_reset_after(_layer: Layer) -> Step:
    """GRU, reset after the product: c = tanh(x W_c + b_c + r (h U_c + b_hc)).

    r, u and y = h' as in `gru`.
    """

    def step(w: Arrays, x: Array, state: Arrays) -> tuple[Array, dict[str, Array]]:
        h = state["h"]
        r = sigmoid(affine(w, "r", x, h))
        u = sigmoid(affine(w, "u", x, h))
        c = np.tanh(x @ w["W_c"] + w["b_c"] + r * (h @ w["U_c"] + w["b_hc"]))
        h = u * h + (1 - u) * c
        return h, {"h": h}

    return step


def coupled(layer: Layer) -> Step:
    """LSTM with one gate: F = s(f + forget_bias + p_f c);  c' = F c + (1 - F) tanh(g).

    y = h' = s(o + p_o c') tanh(c'), projected as in `lstm`. With layer normalisation there is no
    bias, and g, f and o are normalised before anything is added, c' before it is stored and used.
    """
    cell = layer.of(Coupled)

    def step(w: Arrays, x: Array, state: Arrays) -> tuple[Array, dict[str, Array]]:
        c, h = state["c"], state["h"]
        if cell.layer_norm:
            g, f, o = (
                normalised(w, gate, x @ w[f"W_{gate}"] + h @ w[f"U_{gate}"]) for gate in "gfo"
            )
        else:
            g, f, o = (affine(w, gate, x, h) for gate in "gfo")
        if cell.peepholes:
            f = f + w["p_f"] * c
        forget = sigmoid(f + layer.forget_bias)
        c = forget * c + (1 - forget) * np.tanh(g)
        if cell.layer_norm:
            c = normalised(w, "c", c)
        if cell.peepholes:
            o = o + w["p_o"] * c
        h = sigmoid(o) * np.tanh(c)
        if cell.projection is not None:
            h = clip(h @ w["Q_h"], cell.projection_clip)
        return h, {"c": c, "h": h}

    return step


def normalised(w: Arrays, name: str, v: Array) -> Array:
    """Gamma (v - mean) / sqrt(var + 1e-12) + beta, over the features of each row."""
    centred = v - np.mean(v, axis=1, keepdims=True)
    variance = np.mean(centred**2, axis=1, keepdims=True)
    return w[f"gamma_{name}"] * centred / np.sqrt(variance + 1e-12) + w[f"beta_{name}"]


# --- frequency cells ------------------------------------------------------------------------------


def time_freq(layer: Layer) -> Step:
    """One LSTM over the windows x_k of a step; m is 0 before the first and handed to the next.

    z = x_k W + m_k U + m V + b;  c_k' = s(f + forget_bias + p_f c_k) c_k + s(i + p_i c_k) tanh(g),
    clipped;  m = m_k' = s(o + p_o c_k') tanh(c_k').  y = [m_0' ... m_N-1'].
    """
    cell = layer.of(TimeFreq)
    size, starts = cell.size(layer.inputs), cell.windows(layer.inputs)

    def step(w: Arrays, x: Array, state: Arrays) -> tuple[Array, dict[str, Array]]:
        m = np.zeros((len(x), layer.hidden))
        outputs: list[Array] = []
        new: dict[str, Array] = {}
        for k, start in enumerate(starts):
            x_k, c = x[:, start : start + size], state[f"c_{k}"]
            i, g, f, o = (
                affine(w, gate, x_k, state[f"m_{k}"]) + m @ w[f"V_{gate}"] for gate in "igfo"
            )
            if cell.peepholes:
                i, f = i + w["p_i"] * c, f + w["p_f"] * c
            c = clip(sigmoid(f + layer.forget_bias) * c + sigmoid(i) * np.tanh(g), cell.cell_clip)
            if cell.peepholes:
                o = o + w["p_o"] * c
            m = sigmoid(o) * np.tanh(c)
            outputs.append(m)
            new |= {f"c_{k}": c, f"m_{k}": m}
        return np.concatenate(outputs, axis=1), new

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

    def step(w: Arrays, x: Array, state: Arrays) -> tuple[Array, dict[str, Array]]:
        outputs: list[Array] = []
        new: dict[str, Array] = {}
        for b, starts in enumerate(parts):
            y, part = _grid_part(layer, cell, b, starts, w, x, state)
            outputs.append(y)
            new |= part
        return np.concatenate(outputs, axis=1), new

    return step


def _grid_part(
    layer: Layer, cell: Grid, b: int, starts: Sequence[int], w: Arrays, x: Array, state: Arrays
) -> tuple[Array, dict[str, Array]]:
    """One part of the inputs, with its own weights."""
    size = cell.size(layer.inputs)
    c_f = m_f = np.zeros((len(x), layer.hidden))
    outputs: list[Array] = []
    new: dict[str, Array] = {}
    for k, start in enumerate(starts):
        x_k, c_t, m_t = x[:, start : start + size], state[f"c_{b}.{k}"], state[f"m_{b}.{k}"]
        cells, gates = {}, {}
        for way, c in (("f", c_f), ("t", c_t)):
            scope = f"f{b}" if cell.shared else f"{way}{b}"
            z = {
                gate: affine(w, f"{scope}.{gate}", x_k, m_t) + m_f @ w[f"V_{scope}.{gate}"]
                for gate in cell.gates
            }
            i = sigmoid(z["i"] + _looks(cell, w, f"{scope}.i", c_f, c_t))
            if cell.coupled:
                forget = 1 - i
            else:
                looks = _looks(cell, w, f"{scope}.f", c_f, c_t)
                forget = sigmoid(z["f"] + layer.forget_bias + looks)
            cells[way] = clip(forget * c + i * np.tanh(z["g"]), cell.cell_clip)
            gates[way] = (scope, z["o"])
        c_f, c_t = cells["f"], cells["t"]
        m_f, m_t = (
            sigmoid(o + _looks(cell, w, f"{scope}.o", c_f, c_t)) * np.tanh(cells[way])
            for way, (scope, o) in gates.items()
        )
        outputs += [m_t, m_f]
        new |= {f"c_{b}.{k}": c_t, f"m_{b}.{k}": m_t}
    return np.concatenate(outputs, axis=1), new


def _looks(cell: Grid, w: Arrays, gate: str, c_f: Array, c_t: Array) -> Array:
    """Peephole contributions of the two cells to a gate."""
    return w[f"p_{gate}.f"] * c_f + w[f"p_{gate}.t"] * c_t if cell.peepholes else 0.0


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

    def step(w: Arrays, x: Array, state: Arrays) -> tuple[Array, dict[str, Array]]:
        zeros = np.zeros((len(x), abs(cell.offset)))
        shifted = np.concatenate([x, zeros] if cell.offset > 0 else [zeros, x], axis=1)
        outputs: list[Array] = []
        new: dict[str, Array] = {}
        for way, inputs, windows in (("fw", x, parts), ("bw", shifted, back)):
            for b, starts in enumerate(windows):
                y, part = _grid_part(
                    layer, cell.grid, b, starts, _scope(w, way), inputs, _scope(state, way)
                )
                outputs.append(y)
                new |= {name.replace("_", f"_{way}.", 1): value for name, value in part.items()}
        return np.concatenate(outputs, axis=1), new

    return step


def _scope(arrays: Arrays, scope: str) -> dict[str, Array]:
    """The arrays of one scope, without it in their names: "W_fw.f0.i" -> "W_f0.i"."""
    mark = f"_{scope}."
    return {name.replace(mark, "_", 1): v for name, v in arrays.items() if mark in name}


# --- wrappers -------------------------------------------------------------------------------------


def residual(layer: Layer) -> Step:
    """Y = x + cell(x)."""
    inner = make_step(layer.inner())

    def step(w: Arrays, x: Array, state: Arrays) -> tuple[Array, dict[str, Array]]:
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

    def step(w: Arrays, x: Array, state: Arrays) -> tuple[Array, dict[str, Array]]:
        value, start, masks = x[:, : layer.inputs], layer.inputs, {}
        for part, width in widths.items():
            masks[part] = x[:, start : start + width]
            start += width
        y, new = inner(w, value * masks.get("input", 1.0), state)
        if "state" in masks:
            begin = 0
            for name in Dropout.dropped(new):
                width = new[name].shape[1]
                new[name] = new[name] * masks["state"][:, begin : begin + width]
                begin += width
        return np.concatenate([y * masks.get("output", 1.0), x[:, start:]], axis=1), new

    return step


def attention(layer: Layer) -> Step:
    """Attention over the window w_1 ... w_L of the last outputs, the oldest first.

    y', s' = cell([x, a] K_in + b_in, s);  q = [all of s'];  e_l = sum(v tanh(w_l M + q Q + b));
    a' = sum(softmax(e)_l w_l);  y = [y', a'] K_out + b_out;  the window drops w_1 and appends y.
    """
    inner = make_step(layer.inner())
    names = list(layer.inner().state)
    length = layer.of(Attention).window

    def step(w: Arrays, x: Array, state: Arrays) -> tuple[Array, dict[str, Array]]:
        value = x @ w["X_in"] + state["attention"] @ w["A_in"] + w["b_in"]
        y, new = inner(w, value, {name: state[name] for name in names})
        query = np.concatenate([new[name] for name in names], axis=1) @ w["Q_att"] + w["b_att"]
        window = np.reshape(state["window"], (len(x), length, -1))
        energy = np.sum(w["v_att"] * np.tanh(window @ w["M_att"] + query[:, None]), axis=2)
        weight = np.exp(energy - np.max(energy, axis=1, keepdims=True))
        weight = weight / np.sum(weight, axis=1, keepdims=True)
        a = np.sum(weight[:, :, None] * window, axis=1)
        y = y @ w["Y_out"] + a @ w["A_out"] + w["b_out"]
        last = np.concatenate([state["window"][:, y.shape[1] :], y], axis=1)
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
