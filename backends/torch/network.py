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

from backends.torch.cells import Cell

Function = Callable[..., Any]


def loss_of(outputs: Tensor, targets: Tensor) -> Tensor:
    """The loss of `backends.api.Runner`; `mse_loss` divides by B T H, the loss by 2 B T."""
    return mse_loss(outputs, targets) * (0.5 * outputs.shape[-1])


def layer_function(cell: Cell) -> Function:
    """One layer of a cell over time.

    The function takes x [B, T, I], the layer's tensors, its initial state and the lengths [B] or
    None; it returns outputs [B, T, H], not yet zero where a sequence has ended, and the final
    state. (x is one tensor: of a list's elements TorchScript does not know that nobody asks for
    their gradient, and computes it, an eighth of a training step.)
    """
    prepare = cell.prepare
    step = cell.step

    def layer(
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
                state = step(value, state, prepared)
                outputs.append(state[-1])
        else:
            ends = lengths.unsqueeze(1)
            for t, value in enumerate(x.unbind(1)):
                new = step(value, state, prepared)
                outputs.append(new[-1])
                state = [
                    torch.where(ends > t, after, before)
                    for after, before in zip(new, state)  # noqa: B905 (TorchScript)
                ]
        return torch.stack(outputs, 1), state

    return layer


def forward_function(layer: Function) -> Function:
    """The forward pass: each layer over all of time, then the next.

    The function takes x [B, T, D], the tensors of each layer, each layer's initial state and the
    lengths [B] or None; it returns outputs [B, T, H] and the final state of each layer.
    """

    def forward(
        x: Tensor,
        weights: list[list[Tensor]],
        initial: list[list[Tensor]],
        lengths: Tensor | None = None,
    ) -> tuple[Tensor, list[list[Tensor]]]:
        y = x
        final: list[list[Tensor]] = []
        for tensors, state in zip(weights, initial, strict=True):
            y, last = layer(y, tensors, state, lengths)
            final.append(last)
        if lengths is not None:
            steps = torch.arange(x.shape[1], device=x.device)
            y = torch.where((steps < lengths.unsqueeze(1)).unsqueeze(2), y, 0.0)
        return y, final

    return forward


def loss_function(forward: Function) -> Function:
    """The loss of a forward function; targets [B, T, H] come before the lengths."""

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
