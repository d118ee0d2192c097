"""The LSTM of the comparison as somebody writes it in plain PyTorch: no adapter, no harness."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn


def _tensors(data: dict[str, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`kernel` [I+H, 4H] in gate order i, f, g, o (forget bias folded in) as torch stores it."""
    inputs = data["x"].shape[2]
    w_ih = torch.tensor(data["kernel_ifgo"][:inputs].T.copy())
    w_hh = torch.tensor(data["kernel_ifgo"][inputs:].T.copy())
    return w_ih, w_hh, torch.tensor(data["bias_ifgo"])


def _loop(
    x: torch.Tensor, w_ih: torch.Tensor, w_hh: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    batch, steps, _ = x.shape
    h = torch.zeros(batch, w_hh.shape[1])
    c = torch.zeros(batch, w_hh.shape[1])
    outputs = []
    for t in range(steps):
        gates = nn.functional.linear(x[:, t], w_ih, bias) + nn.functional.linear(h, w_hh)
        i, f, g, o = gates.chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        outputs.append(h)
    return torch.stack(outputs, 1)


def _train(
    forward: Callable[[], torch.Tensor], parameters: list[torch.Tensor], data: dict[str, np.ndarray]
) -> Callable[[], torch.Tensor]:
    targets = torch.tensor(data["targets"])
    scale = 0.5 / (targets.shape[0] * targets.shape[1])

    def step() -> torch.Tensor:
        loss = scale * ((forward() - targets) ** 2).sum()
        for parameter in parameters:
            parameter.grad = None
        loss.backward()
        with torch.no_grad():
            for parameter in parameters:
                parameter.sub_(parameter.grad, alpha=0.01)
        return loss

    return step


def build(strategy: str, mode: str, data: dict[str, np.ndarray]) -> Callable[[], object]:
    """A call that runs the forward pass, or one training step."""
    torch.set_num_threads(1)
    x = torch.tensor(data["x"])
    w_ih, w_hh, bias = _tensors(data)
    if strategy == "fused":
        layer = nn.LSTM(x.shape[2], w_hh.shape[1], batch_first=True)
        with torch.no_grad():
            layer.weight_ih_l0.copy_(w_ih)
            layer.weight_hh_l0.copy_(w_hh)
            layer.bias_ih_l0.copy_(bias)
            layer.bias_hh_l0.zero_()
        layer.bias_hh_l0.requires_grad_(False)
        parameters = [layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0]

        def forward() -> torch.Tensor:
            return layer(x)[0]
    else:
        parameters = [w_ih, w_hh, bias]
        if mode == "train":
            for parameter in parameters:
                parameter.requires_grad_()
        function = {
            "dynamic": lambda: _loop,
            "traced": lambda: torch.jit.trace(_loop, (x, *parameters), check_trace=False),
            "scripted": lambda: torch.jit.script(_scripted_loop),
        }[strategy]()

        def forward() -> torch.Tensor:
            return function(x, *parameters)

    if mode == "train":
        return _train(forward, parameters, data)

    def without_gradients() -> torch.Tensor:
        with torch.no_grad():
            return forward()

    return without_gradients


def _scripted_loop(
    x: torch.Tensor, w_ih: torch.Tensor, w_hh: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    h = torch.zeros(x.size(0), w_hh.size(1))
    c = torch.zeros(x.size(0), w_hh.size(1))
    outputs: list[torch.Tensor] = []
    for t in range(x.size(1)):
        gates = nn.functional.linear(x[:, t], w_ih, bias) + nn.functional.linear(h, w_hh)
        i, f, g, o = gates.chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        outputs.append(h)
    return torch.stack(outputs, 1)
