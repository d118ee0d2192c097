"""Cells around other cells, and which function gives the step of which cell."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

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
from backends.torch.cells import (
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
from backends.torch.layout import constants, layout, places


def residual(layer: Layer) -> Step:
    """Y = x + cell(x)."""
    inner = make_step(layer.inner())

    def step(x: Tensor, state: list[Tensor], weights: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        y, new = inner(x, state, weights)
        return x + y, new

    return step


def dropout(layer: Layer) -> Step:
    """Y = mask_out y', state' times mask_state, of y', state' = cell(mask_in x, state).

    x has the masks behind its features: this layer's in the order input, state, output, then those
    of the layers above, which are handed on behind y. The state's c is not dropped.
    """
    inner = make_step(layer.inner())
    widths = {part: width for part, (width, _) in masks_of(layer).items()}
    own = [widths.get(part, 0) for part in ("input", "state", "output")]
    names, dropped = list(layer.state), Dropout.dropped(layer.state)
    to = constants(
        columns=(layer.inputs, *own, layer.masks - sum(own)),
        drops_inputs="input" in widths,
        drops_state="state" in widths,
        drops_outputs="output" in widths,
        hands_on=layer.masks > sum(own),
        dropped=tuple(names.index(name) for name in dropped),
        widths=tuple(layer.state[name] for name in dropped),
    )

    def step(x: Tensor, state: list[Tensor], weights: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        value, mask_in, mask_state, mask_out, others = torch.split_with_sizes(x, to.columns, 1)
        if to.drops_inputs:
            value = value * mask_in
        y, new = inner(value, state, weights)
        if to.drops_state:
            masks = torch.split_with_sizes(mask_state, to.widths, 1)
            for k, place in enumerate(to.dropped):
                new[place] = new[place] * masks[k]
        if to.drops_outputs:
            y = y * mask_out
        if to.hands_on:
            y = torch.cat([y, others], 1)
        return y, new

    return step


def attention(layer: Layer) -> Step:
    """Attention over the window w_1 ... w_L of the last outputs, the oldest first.

    y', s' = cell([x, a] K_in + b_in, s);  q = [all of s'];  e_l = sum(v tanh(w_l M + q Q + b));
    a' = sum(softmax(e)_l w_l);  y = [y', a'] K_out + b_out;  the window drops w_1 and appends y.
    """
    inner = make_step(layer.inner())
    width, length = layer.outputs, layer.of(Attention).window
    to = constants(
        **places(layer),
        states=len(layer.inner().state),
        arrays=len(layout(layer.inner())),
        length=length,
        width=width,
        kept=(length - 1) * width,
    )

    def step(x: Tensor, state: list[Tensor], weights: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        a, last = state[to.states], state[to.states + 1]
        x = torch.addmm(weights[to.b_in], x, weights[to.X_in])
        x = torch.addmm(x, a, weights[to.A_in])
        y, new = inner(x, state[: to.states], weights[: to.arrays])
        query = torch.addmm(weights[to.b_att], torch.cat(new, 1), weights[to.Q_att])
        window = last.reshape(-1, to.length, to.width)
        hidden = torch.tanh(torch.matmul(window, weights[to.M_att]) + query.unsqueeze(1))
        weight = torch.softmax(torch.matmul(hidden, weights[to.v_att]), 1)
        a = torch.bmm(weight.unsqueeze(1), window).squeeze(1)
        y = torch.addmm(weights[to.b_out], y, weights[to.Y_out])
        y = torch.addmm(y, a, weights[to.A_out])
        last = torch.cat([last.narrow(1, to.width, to.kept), y], 1)
        return y, new + [a, last]  # noqa: RUF005 (TorchScript)

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
