"""The time loop over a cell and the loss: plain functions of tensors, the same for all strategies.

They are called as they are (`dynamic`), compiled (`static`), traced and scripted. TorchScript reads
the source: it resolves the cell through the closure, and wants the annotations and the lists.
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


def forward_function(cell: Cell) -> Function:
    """The forward pass of layers of a cell.

    The function takes x [B, T, D], the tensors of each layer, each layer's initial state and the
    lengths [B] or None; it returns outputs [B, T, H] and the final state of each layer.
    """
    prepare = cell.prepare
    step = cell.step

    def forward(
        x: Tensor,
        weights: list[list[Tensor]],
        initial: list[list[Tensor]],
        lengths: Tensor | None = None,
    ) -> tuple[Tensor, list[list[Tensor]]]:
        layers = [prepare(layer) for layer in weights]
        state = list(initial)  # the caller's list stays as it is
        alive: Tensor | None = None  # [B, T, 1]
        steps_alive: list[Tensor] = []  # T times [B, 1]
        if lengths is not None:
            steps = torch.arange(x.shape[1], device=x.device)
            alive = (steps < lengths.unsqueeze(1)).unsqueeze(2)
            steps_alive = alive.unbind(1)
        outputs: list[Tensor] = []
        for t, x_t in enumerate(x.unbind(1)):
            value = x_t
            for index, layer in enumerate(layers):
                new = step(value, state[index], layer)
                value = new[-1]
                if alive is not None:
                    new = [
                        torch.where(steps_alive[t], after, before)
                        for after, before in zip(new, state[index])  # noqa: B905 (TorchScript)
                    ]
                state[index] = new
            outputs.append(value)
        y = torch.stack(outputs, 1)
        if alive is not None:
            y = torch.where(alive, y, 0.0)
        return y, state

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
