"""The time loop over a cell and the loss: plain functions of tensors, the same for all strategies.

They are called as they are (`dynamic`), compiled (`static`) and traced; of the scripted network a
layer is TorchScript. That reads the source: it resolves the cell through the closure, and wants the
annotations and the lists.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from backends.stack import Layer
from backends.torch.layout import preparation
from backends.torch.wrappers import make_step

Function = Callable[..., Any]

#: A layer's function, whose weights it has (`Layer.weights`), and whether it reads from the end.
Part = tuple[Function, int, bool]


def loss_of(outputs: Tensor, targets: Tensor) -> Tensor:
    """The loss of `backends.api.Runner`; `mse_loss` divides by B T O, the loss by 2 B T."""
    return mse_loss(outputs, targets) * (0.5 * outputs.shape[-1])


def backwards(x: Tensor, lengths: Tensor | None) -> Tensor:
    """X [B, T, I] with the first n_b steps of each sequence reversed; padding stays in its place.

    Its own inverse. All of time is reversed where lengths [B] is None.
    """
    if lengths is None:
        return x.flip(1)
    steps = torch.arange(x.shape[1], device=x.device)
    ends = lengths.unsqueeze(1)
    source = torch.where(steps < ends, ends - 1 - steps, steps)
    return x.gather(1, source.unsqueeze(2).expand_as(x))


def without_padding(y: Tensor, lengths: Tensor) -> Tensor:
    """Y [B, T, O], 0 where a sequence has ended."""
    steps = torch.arange(y.shape[1], device=y.device)
    return torch.where((steps < lengths.unsqueeze(1)).unsqueeze(2), y, 0.0)


def layer_function(layer: Layer) -> Function:
    """One layer of a cell over time.

    The function takes x [B, T, I], the layer's tensors, its initial state and the lengths [B] or
    None; it returns outputs [B, T, O], not yet zero where a sequence has ended, and the final
    state. (x is one tensor: of a list's elements TorchScript does not know that nobody asks for
    their gradient, and computes it, an eighth of a training step.)
    """
    prepare = preparation(layer)
    step = make_step(layer)

    def run(
        x: Tensor,
        weights: list[Tensor],
        initial: list[Tensor],
        lengths: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        prepared = prepare(weights)
        state = initial
        outputs: list[Tensor] = []
        if lengths is None:
            for value in x.unbind(1):
                y, state = step(value, state, prepared)
                outputs.append(y)
        else:
            ends = lengths.unsqueeze(1)
            for t, value in enumerate(x.unbind(1)):
                y, new = step(value, state, prepared)
                outputs.append(y)
                state = [
                    torch.where(ends > t, after, before)
                    for after, before in zip(new, state)  # noqa: B905 (TorchScript)
                ]
        return torch.stack(outputs, 1), state

    return run


def forward_function(rows: list[list[Part]], *, independent: bool) -> Function:
    """The forward pass: the layers of a depth over all of time, then those of the next.

    Both directions of a depth are a row. `independent` says that each has its own outputs as the
    next one's inputs, and not both, side by side.

    The function takes x [B, T, D], the tensors of each set of weights, each layer's initial state
    and the lengths [B] or None; it returns outputs [B, T, O] and the final state of each layer.
    """

    def forward(
        x: Tensor,
        weights: list[list[Tensor]],
        initial: list[list[Tensor]],
        lengths: Tensor | None = None,
    ) -> tuple[Tensor, list[list[Tensor]]]:
        values = [x]
        final: list[list[Tensor]] = []
        for row in rows:
            outputs: list[Tensor] = []
            for way, (run, place, reverse) in enumerate(row):
                value = values[way % len(values)]
                value = backwards(value, lengths) if reverse else value
                y, last = run(value, weights[place], initial[len(final)], lengths)
                outputs.append(backwards(y, lengths) if reverse else y)
                final.append(last)
            values = outputs if independent else [side_by_side(outputs)]
        y = side_by_side(values)
        return (y if lengths is None else without_padding(y, lengths)), final

    return forward


def side_by_side(outputs: list[Tensor]) -> Tensor:
    """The outputs [B, T, O] of both directions, or of the one."""
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, 2)


def loss_function(forward: Function) -> Function:
    """The loss of a forward function; targets [B, T, O] come before the lengths."""

    def loss(
        x: Tensor,
        weights: list[list[Tensor]],
        initial: list[list[Tensor]],
        targets: Tensor,
        lengths: Tensor | None = None,
    ) -> Tensor:
        y, _ = forward(x, weights, initial, lengths)
        return loss_of(y, targets)

    return loss
