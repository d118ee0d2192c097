"""One step of each cell in torch operations.

A cell is a function of a layer that gives its step, `step(x, state, weights) -> (y, new state)`: x
[B, I] one time step's input, the state's arrays [B, width] in the order of `Layer.state`, the
weights in the order of `backends.torch.layout`, as its `preparation` leaves them (the forget bias
is in b already), y [B, O]. s is the logistic function, phi the cell's activation.

The product with the input is inside the step, as in TensorFlow's cells and in `nn.LSTMCell`;
`nn.LSTM` takes it out of the loop, and is the strategy `fused`. Steps are called from Python,
traced, compiled and scripted alike: they keep to what TorchScript parses, take numbers from
`constants`, and read no shape, which a trace would record as a node of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from backends.spec import (
    BidirectionalGrid,
    Coupled,
    Grid,
    Gru,
    Lstm,
    Rnn,
    TimeFreq,
)
from backends.stack import Layer
from backends.torch.layout import constants, layout, places

Step = Callable[[Tensor, list[Tensor], list[Tensor]], tuple[Tensor, list[Tensor]]]

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "relu": torch.relu}


# --- basic cells ----------------------------------------------------------------------------------


def rnn(layer: Layer) -> Step:
    """Vanilla RNN: y = h' = phi(x W + h U + b)."""
    phi = ACTIVATIONS[layer.of(Rnn).activation]

    def step(x: Tensor, state: list[Tensor], weights: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        W, U, b = weights
        h = phi(torch.addmm(torch.addmm(b, x, W), state[0], U))
        return h, [h]

    return step


def lstm(layer: Layer) -> Step:
    """LSTM: i, g, f, o = x W + h U + b, with (c', h') of `_memory`;  y = h', or h' Q, clipped."""
    cell = layer.of(Lstm)
    memory = _memory(layer, cell, cell.activation)
    project = _projection(layer, cell.projection_clip)
    to = constants(**places(layer), projects=cell.projection is not None)

    def step(x: Tensor, state: list[Tensor], weights: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        c, h = state
        z = torch.addmm(torch.addmm(weights[to.b], x, weights[to.W]), h, weights[to.U])
        c, h = memory(z, c, weights)
        if to.projects:
            h = project(h, weights)
        return h, [c, h]

    return step


def _memory(
    layer: Layer, cell: Lstm | TimeFreq, activation: str = "tanh"
) -> Callable[[Tensor, Tensor, list[Tensor]], tuple[Tensor, Tensor]]:
    """Cell update: c' = s(f + p_f c) c + s(i + p_i c) phi(g), clipped;  h' = s(o) phi(c').

    With peepholes o sees p_o c'.
    """
    phi = ACTIVATIONS[activation]
    to = constants(**places(layer), peepholes=cell.peepholes, **_clipping(cell.cell_clip))

    def memory(z: Tensor, c: Tensor, weights: list[Tensor]) -> tuple[Tensor, Tensor]:
        i, g, f, o = z.chunk(4, 1)
        if to.peepholes:
            i = torch.addcmul(i, weights[to.p_i], c)
            f = torch.addcmul(f, weights[to.p_f], c)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * phi(g)
        if to.clips:
            c = c.clamp(-to.limit, to.limit)
        if to.peepholes:
            o = torch.addcmul(o, weights[to.p_o], c)
        return c, torch.sigmoid(o) * phi(c)

    return memory


def _projection(layer: Layer, limit: float | None) -> Callable[[Tensor, list[Tensor]], Tensor]:
    """H Q, clipped."""
    to = constants(**places(layer), **_clipping(limit))

    def project(h: Tensor, weights: list[Tensor]) -> Tensor:
        h = torch.mm(h, weights[to.Q_h])
        if to.clips:
            h = h.clamp(-to.limit, to.limit)
        return h

    return project


def _clipping(limit: float | None) -> dict[str, bool | float]:
    """Constants: whether something is clipped, and at what."""
    return {"clips": limit is not None, "limit": 0.0 if limit is None else limit}


def gru(layer: Layer) -> Step:
    """GRU, reset before the product: c = phi(x W_c + (r h) U_c + b_c);  y = h' = u h + (1 - u) c.

    r, u = s(x W + h U + b).
    """
    phi = ACTIVATIONS[layer.of(Gru).activation]

    def step(x: Tensor, state: list[Tensor], weights: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        h = state[0]
        W, U, b, W_c, U_c, b_c = weights
        r, u = torch.sigmoid(torch.addmm(torch.addmm(b, x, W), h, U)).chunk(2, 1)
        c = phi(torch.addmm(torch.addmm(b_c, x, W_c), r * h, U_c))
        h = torch.lerp(c, h, u)  # c + u (h - c)
        return h, [h]

    return step


def gru_reset_after(_layer: Layer) -> Step:
    """GRU, reset after the product: c = tanh(x_c + r h_c);  y = h' = u h + (1 - u) c.

    x_r, x_u, x_c = x W + b; h_r, h_u, h_c = h U + [0, 0, b_hc]; r = s(x_r + h_r), u = s(x_u + h_u).
    """

    def step(x: Tensor, state: list[Tensor], weights: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        h = state[0]
        W, U, b, b_h = weights
        x_r, x_u, x_c = torch.addmm(b, x, W).chunk(3, 1)
        h_r, h_u, h_c = torch.addmm(b_h, h, U).chunk(3, 1)
        r = torch.sigmoid(x_r + h_r)
        u = torch.sigmoid(x_u + h_u)
        c = torch.tanh(x_c + r * h_c)
        h = torch.lerp(c, h, u)  # c + u (h - c)
        return h, [h]

    return step


def coupled(layer: Layer) -> Step:
    """LSTM with one gate: F = s(f + p_f c);  c' = F c + (1 - F) tanh(g);  g, f, o = x W + h U + b.

    y = h' = s(o + p_o c') tanh(c'), projected as in `lstm`. With layer normalisation there is no
    bias, and g, f and o are normalised before anything is added, c' before it is stored and used.
    """
    cell = layer.of(Coupled)
    project = _projection(layer, cell.projection_clip)
    norm = normalised(layer)
    to = constants(
        **places(layer),
        peepholes=cell.peepholes,
        layer_norm=cell.layer_norm,
        projects=cell.projection is not None,
    )

    def step(x: Tensor, state: list[Tensor], weights: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        c, h = state
        W, U = weights[to.W], weights[to.U]
        if to.layer_norm:
            g, f, o = torch.addmm(torch.mm(x, W), h, U).chunk(3, 1)
            g = norm(g, weights[to.gamma_g], weights[to.beta_g])
            f = norm(f, weights[to.gamma_f], weights[to.beta_f])
            o = norm(o, weights[to.gamma_o], weights[to.beta_o])
        else:
            g, f, o = torch.addmm(torch.addmm(weights[to.b], x, W), h, U).chunk(3, 1)
        if to.peepholes:
            f = torch.addcmul(f, weights[to.p_f], c)
        g = torch.tanh(g)
        c = torch.lerp(g, c, torch.sigmoid(f))  # g + F (c - g)
        if to.layer_norm:
            c = norm(c, weights[to.gamma_c], weights[to.beta_c])
        if to.peepholes:
            o = torch.addcmul(o, weights[to.p_o], c)
        h = torch.sigmoid(o) * torch.tanh(c)
        if to.projects:
            h = project(h, weights)
        return h, [c, h]

    return step


def normalised(layer: Layer) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Gamma (v - mean) / sqrt(var + 1e-12) + beta, over the features of each row."""
    to = constants(hidden=layer.hidden)

    def norm(v: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        return torch.layer_norm(v, [to.hidden], gamma, beta, 1e-12)

    return norm


# --- frequency cells ------------------------------------------------------------------------------


def time_freq(layer: Layer) -> Step:
    """One LSTM over the windows x_k of a step; m is 0 before the first and handed to the next.

    i, g, f, o = x_k W + m_k U + m V + b, with (c_k', m_k') of `_memory`, and m = m_k'.
    y = [m_0' ... m_N-1'].
    """
    cell = layer.of(TimeFreq)
    memory = _memory(layer, cell)
    to = constants(starts=cell.windows(layer.inputs), size=cell.size(layer.inputs))

    def step(x: Tensor, state: list[Tensor], weights: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        W, U, V, b = weights[0], weights[1], weights[2], weights[3]
        m = torch.zeros_like(state[0])
        outputs: list[Tensor] = []
        new: list[Tensor] = []
        for k, start in enumerate(to.starts):
            z = torch.addmm(b, x.narrow(1, start, to.size), W)
            z = torch.addmm(torch.addmm(z, state[2 * k + 1], U), m, V)
            c, m = memory(z, state[2 * k], weights)
            outputs.append(m)
            new += [c, m]
        return torch.cat(outputs, 1), new

    return step


def grid(layer: Layer) -> Step:
    """Two LSTMs for each window x_k: F along frequency, T along time, with weights of each part.

    z_F, z_T = x_k W + m_k U + m V + b, or z_F = z_T where shared; c_F', c_T' of `_directed`, with
    c_F = c and c_T = c_k. m_d' = s(o_d + P_o') tanh(c_d'). (c, m) are 0 before the first window of
    a part, then (c_F', m_F'). The new state is (c_T', m_T'), y = [m_T', m_F'] of every window.
    """
    cell = layer.of(Grid)
    return _parts(layer, cell, cell.windows(layer.inputs))


def _parts(layer: Layer, cell: Grid, windows: tuple[tuple[int, ...], ...]) -> Step:
    """All parts of a grid, whose windows begin where `windows` says."""
    looks = 2 * (len(cell.gates) - 1) * len(cell.matrices) if cell.peepholes else 0
    arrays = len("WUVb") + looks
    first, *others = (_grid_part(layer, cell, starts) for starts in windows)
    for before, other in enumerate(others, start=1):
        states = 2 * sum(len(starts) for starts in windows[:before])
        first = _beside(first, other, states=states, arrays=before * arrays)
    return first


def _beside(first: Step, second: Step, *, states: int, arrays: int) -> Step:
    """Two steps with the same x; the first has as many arrays of the state and of the weights."""
    to = constants(states=states, arrays=arrays)

    def step(x: Tensor, state: list[Tensor], weights: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        y, new = first(x, state[: to.states], weights[: to.arrays])
        y_2, new_2 = second(x, state[to.states :], weights[to.arrays :])
        return torch.cat([y, y_2], 1), new + new_2

    return step


def _grid_part(layer: Layer, cell: Grid, starts: tuple[int, ...]) -> Step:
    """One part of the inputs, with its own weights: W, U, V, b, then the peepholes."""
    directed = _directed(cell)
    end = 4 + 2 * (len(cell.gates) - 1)
    to = constants(
        starts=starts,
        size=cell.size(layer.inputs),
        shared=cell.shared,
        peepholes=cell.peepholes,
        p_f_end=end,
        p_t=4 if cell.shared else end,
    )

    def step(x: Tensor, state: list[Tensor], weights: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        W, U, V, b = weights[0], weights[1], weights[2], weights[3]
        c_f = torch.zeros_like(state[0])
        m_f = c_f
        outputs: list[Tensor] = []
        new: list[Tensor] = []
        for k, start in enumerate(to.starts):
            c_t, m_t = state[2 * k], state[2 * k + 1]
            z = torch.addmm(b, x.narrow(1, start, to.size), W)
            z = torch.addmm(torch.addmm(z, m_t, U), m_f, V)
            if to.shared:
                z_f, z_t = z, z
            else:
                z_f, z_t = z.chunk(2, 1)
            c_f_new, o_f = directed(z_f, c_f, c_f, c_t, weights[4:])
            c_t, o_t = directed(z_t, c_t, c_f, c_t, weights[to.p_t :])
            c_f = c_f_new
            if to.peepholes:
                p_f, p_t = weights[to.p_f_end - 2 : to.p_f_end], weights[-2:]  # of both o
                o_f = torch.addcmul(torch.addcmul(o_f, p_f[0], c_f), p_f[1], c_t)
                o_t = torch.addcmul(torch.addcmul(o_t, p_t[0], c_f), p_t[1], c_t)
            m_f = torch.sigmoid(o_f) * torch.tanh(c_f)
            m_t = torch.sigmoid(o_t) * torch.tanh(c_t)
            outputs += [m_t, m_f]
            new += [c_t, m_t]
        return torch.cat(outputs, 1), new

    return step


def _directed(
    cell: Grid,
) -> Callable[[Tensor, Tensor, Tensor, Tensor, list[Tensor]], tuple[Tensor, Tensor]]:
    """One way of a grid: c_d' = s(f + P_f) c_d + s(i + P_i) tanh(g), clipped; and its o.

    P_g = p_g.f c_F + p_g.t c_T is what gate g sees. Where coupled, 1 - s(i + P_i) is in the place
    of s(f ...). `p` begins with the peepholes of i and of f.
    """
    to = constants(coupled=cell.coupled, peepholes=cell.peepholes, **_clipping(cell.cell_clip))

    def directed(
        z: Tensor, c: Tensor, c_f: Tensor, c_t: Tensor, p: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        if to.coupled:
            i, g, o = z.chunk(3, 1)
        else:
            i, g, f, o = z.chunk(4, 1)
        if to.peepholes:
            i = torch.addcmul(torch.addcmul(i, p[0], c_f), p[1], c_t)
        if to.coupled:
            c = torch.lerp(c, torch.tanh(g), torch.sigmoid(i))  # c + s(i) (tanh(g) - c)
        else:
            if to.peepholes:
                f = torch.addcmul(torch.addcmul(f, p[2], c_f), p[3], c_t)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        if to.clips:
            c = c.clamp(-to.limit, to.limit)
        return c, o

    return directed


def bidirectional_grid(layer: Layer) -> Step:
    """A grid over the windows, and one with its own weights over the windows in reverse order.

    Of the second one, windows begin `offset` later over inputs with as many zeros behind them (over
    inputs with zeros before them where it is negative). y = [forward's, backward's]; the second
    one's outputs and state are in the order in which it goes.
    """
    cell = layer.of(BidirectionalGrid)
    windows = cell.grid.windows(layer.inputs)
    shift = max(cell.offset, 0)
    back = tuple(tuple(start + shift for start in reversed(starts)) for starts in windows)
    backward = _padded(_parts(layer, cell.grid, back), max(-cell.offset, 0), shift)
    return _beside(
        _parts(layer, cell.grid, windows),
        backward,
        states=len(layer.state) // 2,
        arrays=len(layout(layer)) // 2,
    )


def _padded(inner: Step, before: int, behind: int) -> Step:
    """A step over x with columns of zeros before and behind it."""
    to = constants(before=before, behind=behind)

    def step(x: Tensor, state: list[Tensor], weights: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        return inner(torch.constant_pad_nd(x, [to.before, to.behind]), state, weights)

    return step
