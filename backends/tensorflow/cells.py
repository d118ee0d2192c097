"""The `rnn_cell` class of each cell, and the steps of those that TensorFlow 2 no longer has.

Row vectors; s is the logistic function, and a kernel K is [W; U] with the gates side by side, so
that a step is one product [x, h] K. `w` are the variables by TensorFlow's names
(`backends.tensorflow.layout`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from backends.spec import (
    BasicLstm,
    BidirectionalGrid,
    Cell,
    Coupled,
    Grid,
    Gru,
    GruResetAfter,
    Lstm,
    Rnn,
    TimeFreq,
    Wrapper,
)
from backends.stack import Layer
from backends.tensorflow.layout import NORMALISED
from backends.tensorflow.stepcell import Step, StepCell, Tensor, Tensors
from backends.tensorflow.wrappers import WRAPPERS, MakeCell

rnn_cell = tf.compat.v1.nn.rnn_cell

#: None is the classes' own default, tanh.
_ACTIVATIONS = {"tanh": None, "relu": tf.nn.relu}


def clip(v: Tensor, limit: float | None) -> Tensor:
    """V within +-limit; None is no limit."""
    return v if limit is None else tf.clip_by_value(v, -limit, limit)


def affine(kernel: Tensor, bias: Tensor, *values: Tensor) -> Tensor:
    """[x, h] K + b."""
    return tf.nn.bias_add(tf.matmul(tf.concat(values, axis=1), kernel), bias)


# --- TensorFlow's own -----------------------------------------------------------------------------


def rnn(layer: Layer, dtype: str) -> Any:
    """Vanilla RNN: y = h' = phi([x, h] K + b)."""
    activation = _ACTIVATIONS[layer.of(Rnn).activation]
    return rnn_cell.BasicRNNCell(layer.hidden, activation=activation, dtype=dtype)


def lstm(layer: Layer, dtype: str) -> Any:
    """LSTM: c' = s(f + forget_bias) c + s(i) phi(g), clipped;  y = h' = s(o) phi(c'), projected.

    i, g, f, o = [x, h] K + b; with peepholes i and f see c, and o sees c'.
    """
    cell = layer.of(Lstm)
    return rnn_cell.LSTMCell(
        layer.hidden,
        use_peepholes=cell.peepholes,
        cell_clip=cell.cell_clip,
        num_proj=None if cell.projection is None else cell.recurrent(layer.hidden),
        proj_clip=cell.projection_clip,
        forget_bias=layer.forget_bias,
        activation=_ACTIVATIONS[cell.activation],
        dtype=dtype,
    )


def basic_lstm(layer: Layer, dtype: str) -> Any:
    """The LSTM without options, in a class of its own."""
    return rnn_cell.BasicLSTMCell(layer.hidden, forget_bias=layer.forget_bias, dtype=dtype)


def gru(layer: Layer, dtype: str) -> Any:
    """GRU, reset before the product: c = phi([x, r h] K_c + b_c);  y = h' = u h + (1 - u) c."""
    activation = _ACTIVATIONS[layer.of(Gru).activation]
    return rnn_cell.GRUCell(layer.hidden, activation=activation, dtype=dtype)


# --- contributed, and gone with TensorFlow 1 ------------------------------------------------------


def gru_reset_after(_layer: Layer) -> Step:
    """GRU, reset after the product: c = tanh(x W_c + b_c + r (h U_c + b_hc)).

    Three products a step, as CudnnCompatibleGRUCell of tf.contrib.cudnn_rnn had, and its variables.
    """

    def step(w: Tensors, x: Tensor, state: Tensors) -> tuple[Tensor, dict[str, Tensor]]:
        h = state["h"]
        gates = affine(w["gates/kernel"], w["gates/bias"], x, h)
        r, u = tf.split(tf.sigmoid(gates), 2, axis=1)
        scope = "candidate/hidden_projection"
        inner = tf.nn.bias_add(tf.matmul(h, w[f"{scope}/kernel"]), w[f"{scope}/bias"])
        scope = "candidate/input_projection"
        outer = tf.nn.bias_add(tf.matmul(x, w[f"{scope}/kernel"]), w[f"{scope}/bias"])
        c = tf.tanh(outer + r * inner)
        h = u * h + (1 - u) * c
        return h, {"h": h}

    return step


def coupled(layer: Layer) -> Step:
    """LSTM with one gate: F = s(f + forget_bias + p_f c);  c' = F c + (1 - F) tanh(g).

    y = h' = s(o + p_o c') tanh(c'), projected as in `lstm`. With layer normalisation there is no
    bias, and g, f and o are normalised before anything is added, c' before it is stored and used.
    """
    cell = layer.of(Coupled)

    def step(w: Tensors, x: Tensor, state: Tensors) -> tuple[Tensor, dict[str, Tensor]]:
        c = state["c"]
        z = tf.matmul(tf.concat([x, state["h"]], axis=1), w["W"])
        if not cell.layer_norm:
            z = tf.nn.bias_add(z, w["B"])
        g, f, o = tf.split(z, 3, axis=1)
        if cell.layer_norm:
            g, f, o = normalised(w, "g", g), normalised(w, "f", f), normalised(w, "o", o)
        if cell.peepholes:
            f = f + w["W_F_diag"] * c
        forget = tf.sigmoid(f + layer.forget_bias)
        c = forget * c + (1 - forget) * tf.tanh(g)
        if cell.layer_norm:
            c = normalised(w, "c", c)
        if cell.peepholes:
            o = o + w["W_O_diag"] * c
        h = tf.sigmoid(o) * tf.tanh(c)
        if cell.projection is not None:
            h = clip(tf.matmul(h, w["W_P"]), cell.projection_clip)
        return h, {"c": c, "h": h}

    return step


def normalised(w: Tensors, gate: str, v: Tensor) -> Tensor:
    """Gamma (v - mean) / sqrt(var + 1e-12) + beta, over the features of each row."""
    scope = NORMALISED[gate]
    mean, variance = tf.nn.moments(v, [1], keepdims=True)
    return tf.nn.batch_normalization(
        v, mean, variance, w[f"{scope}/beta"], w[f"{scope}/gamma"], variance_epsilon=1e-12
    )


def time_freq(layer: Layer) -> Step:
    """One LSTM over the windows x_k of a step; m is 0 before the first and handed to the next.

    z = [x_k, m_k, m] K + b;  c_k' = s(f + forget_bias + p_f c_k) c_k + s(i + p_i c_k) tanh(g),
    clipped;  m = m_k' = s(o + p_o c_k') tanh(c_k').  y = [m_0' ... m_N-1'].
    """
    cell = layer.of(TimeFreq)
    size, starts = cell.size(layer.inputs), cell.windows(layer.inputs)

    def step(w: Tensors, x: Tensor, state: Tensors) -> tuple[Tensor, dict[str, Tensor]]:
        m = tf.zeros_like(state["m_0"])
        outputs: list[Tensor] = []
        new: dict[str, Tensor] = {}
        for k, start in enumerate(starts):
            c = state[f"c_{k}"]
            z = affine(w["W"], w["B"], x[:, start : start + size], state[f"m_{k}"], m)
            i, g, f, o = tf.split(z, 4, axis=1)
            if cell.peepholes:
                i, f = i + w["W_I_diag"] * c, f + w["W_F_diag"] * c
            c = tf.sigmoid(f + layer.forget_bias) * c + tf.sigmoid(i) * tf.tanh(g)
            c = clip(c, cell.cell_clip)
            if cell.peepholes:
                o = o + w["W_O_diag"] * c
            m = tf.sigmoid(o) * tf.tanh(c)
            outputs.append(m)
            new |= {f"c_{k}": c, f"m_{k}": m}
        return tf.concat(outputs, axis=1), new

    return step


def grid(layer: Layer) -> Step:
    """Two LSTMs for each window x_k: F along frequency, T along time.

    z_F = [x_k, m_k, m] K_f + b_f; z_T the same with K_t and b_t, or z_F where shared.
    For d = F, T, with c_F = c and c_T = c_k, and P_g = p_g.f c + p_g.t c_k what gate g sees:
    c_d' = s(f_d + forget_bias + P_f) c_d + s(i_d + P_i) tanh(g_d), clipped; where coupled, one
    minus s(i_d + P_i) is in the place of s(f_d ...). m_d' = s(o_d + P_o') tanh(c_d'), with P_o' of
    the new cells. (c, m) are 0 before the first window of a part of the inputs, then (c_F', m_F').
    The new state is (c_T', m_T'), y = [m_T', m_F'] of every window.
    """
    cell = layer.of(Grid)
    parts = cell.windows(layer.inputs)

    def step(w: Tensors, x: Tensor, state: Tensors) -> tuple[Tensor, dict[str, Tensor]]:
        outputs: list[Tensor] = []
        new: dict[str, Tensor] = {}
        for b, starts in enumerate(parts):
            y, part = _grid_part(layer, cell, b, starts, w, x, state)
            outputs.append(y)
            new |= part
        return tf.concat(outputs, axis=1), new

    return step


def _grid_part(
    layer: Layer, cell: Grid, b: int, starts: Sequence[int], w: Tensors, x: Tensor, state: Tensors
) -> tuple[Tensor, dict[str, Tensor]]:
    """One part of the inputs, with its own weights."""
    size = cell.size(layer.inputs)
    c_f = m_f = tf.zeros_like(state[f"c_{b}.0"])
    outputs: list[Tensor] = []
    new: dict[str, Tensor] = {}
    for k, start in enumerate(starts):
        c_t, m_t = state[f"c_{b}.{k}"], state[f"m_{b}.{k}"]
        values = (x[:, start : start + size], m_t, m_f)
        z = {way: affine(w[f"W_{way}_{b}"], w[f"B_{way}_{b}"], *values) for way in cell.matrices}
        cells, opens = {}, {}
        for way, c in (("f", c_f), ("t", c_t)):
            own = way if way in z else "f"
            gates = dict(zip(cell.gates, tf.split(z[own], len(cell.gates), axis=1), strict=True))
            i = tf.sigmoid(gates["i"] + _looks(cell, w, "I", own, b, c_f, c_t))
            if cell.coupled:
                forget = 1 - i
            else:
                looks = _looks(cell, w, "F", own, b, c_f, c_t)
                forget = tf.sigmoid(gates["f"] + layer.forget_bias + looks)
            cells[way] = clip(forget * c + i * tf.tanh(gates["g"]), cell.cell_clip)
            opens[way] = (own, gates["o"])
        c_f, c_t = cells["f"], cells["t"]
        m_f, m_t = (
            tf.sigmoid(o + _looks(cell, w, "O", own, b, c_f, c_t)) * tf.tanh(cells[way])
            for way, (own, o) in opens.items()
        )
        outputs += [m_t, m_f]
        new |= {f"c_{b}.{k}": c_t, f"m_{b}.{k}": m_t}
    return tf.concat(outputs, axis=1), new


def _looks(
    cell: Grid, w: Tensors, gate: str, way: str, b: int, c_f: Tensor, c_t: Tensor
) -> Tensor | float:
    """Peephole contributions of the two cells to a gate."""
    if not cell.peepholes:
        return 0.0
    name = f"W_{gate}_diag_{'freq' if way == 'f' else 'time'}"
    return w[f"{name}f_{b}"] * c_f + w[f"{name}t_{b}"] * c_t


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
    padding = [[0, 0], [max(-cell.offset, 0), shift]]

    def step(w: Tensors, x: Tensor, state: Tensors) -> tuple[Tensor, dict[str, Tensor]]:
        outputs: list[Tensor] = []
        new: dict[str, Tensor] = {}
        for way, inputs, windows in (("fw", x, parts), ("bw", tf.pad(x, padding), back)):
            own = {k.removeprefix(f"{way}d/"): v for k, v in w.items() if k.startswith(way)}
            mark = f"_{way}."
            there = {k.replace(mark, "_", 1): v for k, v in state.items() if mark in k}
            for b, starts in enumerate(windows):
                y, part = _grid_part(layer, cell.grid, b, starts, own, inputs, there)
                outputs.append(y)
                new |= {name.replace("_", mark, 1): value for name, value in part.items()}
        return tf.concat(outputs, axis=1), new

    return step


CELLS: dict[type[Cell], MakeCell] = {Rnn: rnn, Lstm: lstm, BasicLstm: basic_lstm, Gru: gru}

STEPS: dict[type[Cell], Callable[[Layer], Step]] = {
    GruResetAfter: gru_reset_after,
    Coupled: coupled,
    TimeFreq: time_freq,
    Grid: grid,
    BidirectionalGrid: bidirectional_grid,
}


def basic_cell(layer: Layer, dtype: str) -> Any:
    """The cell of a layer that is no wrapper."""
    kind = type(layer.cell)
    return (
        CELLS[kind](layer, dtype) if kind in CELLS else StepCell(layer, dtype, STEPS[kind](layer))
    )


def make_cell(layer: Layer, dtype: str, basic: MakeCell = basic_cell) -> Any:
    """The cell of a layer; its variables come when it is first called, as in any program.

    `basic` makes the cells that are no wrappers.
    """
    if not isinstance(layer.cell, Wrapper):
        return basic(layer, dtype)
    inner = make_cell(layer.inner(), dtype, basic)
    return WRAPPERS[type(layer.cell)](layer, dtype, inner)


@contextmanager
def legacy_warnings_ignored() -> Iterator[None]:
    """Without the warnings of `rnn_cell` that its classes, and how they are called, are old."""
    with warnings.catch_warnings():
        for message in (
            r"`tf\.nn\.rnn_cell\.\w+` is deprecated",
            r"`layer\.updates` will be removed",
        ):
            warnings.filterwarnings("ignore", message, category=UserWarning)
        yield
