"""The LSTM of the comparison as an expert writes it in plain PyTorch: no adapter, no harness."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

Call = Callable[[], Any]
Read = Callable[[Any], dict[str, np.ndarray]]
Three = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
#: What is called, what it trains, and W, U and b as they have become.
Network = tuple[Call, list[torch.Tensor], Callable[[], list[torch.Tensor]]]


def _forward(
    x: torch.Tensor,
    h: torch.Tensor,
    c: torch.Tensor,
    w: torch.Tensor,
    u: torch.Tensor,
    b: torch.Tensor,
) -> Three:
    """Outputs, h and c; `b` holds the forget bias."""
    outputs: list[torch.Tensor] = []
    for x_t in x.unbind(1):
        i, f, g, o = torch.addmm(torch.addmm(b, x_t, w), h, u).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        outputs.append(h)
    return torch.stack(outputs, 1), h, c


def _half_square(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    scale = 0.5 / (targets.shape[0] * targets.shape[1])
    return scale * nn.functional.mse_loss(outputs, targets, reduction="sum")


def _loss(
    x: torch.Tensor,
    h: torch.Tensor,
    c: torch.Tensor,
    w: torch.Tensor,
    u: torch.Tensor,
    b: torch.Tensor,
    targets: torch.Tensor,
) -> torch.Tensor:
    return _half_square(_forward(x, h, c, w, u, b)[0], targets)


def build(strategy: str, mode: str, data: dict[str, np.ndarray]) -> tuple[Call, Read]:
    """A call that runs the forward pass, or one training step, and what reads what it computed."""
    network = _module if strategy == "fused" else _loop
    function, weights, read_weights = network(strategy, mode, data)

    def forward() -> Any:
        with torch.inference_mode():
            return function()

    def train() -> torch.Tensor:
        loss = function()
        gradients = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.sub_(gradient, alpha=0.01)
        return loss.detach()

    def read(out: Any) -> dict[str, np.ndarray]:
        if mode == "train":
            w, u, b = read_weights()
            kernel = torch.cat([w, u]).detach().numpy()
            return {"loss": out.numpy(), "kernel_ifgo": kernel, "bias_ifgo": b.detach().numpy()}
        outputs, h, c = out
        return {"outputs": outputs.numpy(), "h": h.numpy(), "c": c.numpy()}

    return (train if mode == "train" else forward), read


def _loop(strategy: str, mode: str, data: dict[str, np.ndarray]) -> Network:
    """The functions above, as they are or compiled."""
    x, h, c = (torch.tensor(data[name]) for name in ("x", "h", "c"))
    inputs = x.shape[2]
    weights = [
        torch.tensor(array, requires_grad=mode == "train")
        for array in (data["kernel_ifgo"][:inputs], data["kernel_ifgo"][inputs:], data["bias_ifgo"])
    ]
    arguments = [x, h, c, *weights]
    function: Any = _forward
    if mode == "train":
        arguments.append(torch.tensor(data["targets"]))
        function = _loss
    if strategy == "static":
        function = torch.compile(function, fullgraph=True, dynamic=False)
    elif strategy == "traced":
        function = torch.jit.trace(function, tuple(arguments), check_trace=False)
    elif strategy == "scripted":
        function = torch.jit.script(function)
    return lambda: function(*arguments), weights, lambda: weights


def _module(_strategy: str, mode: str, data: dict[str, np.ndarray]) -> Network:
    """`nn.LSTM`. Of its two biases one is held at zero: trained, both would take the step."""
    x, targets = torch.tensor(data["x"]), torch.tensor(data["targets"])
    state = (torch.tensor(data["h"])[None], torch.tensor(data["c"])[None])
    inputs, hidden = x.shape[2], targets.shape[2]
    layer = nn.LSTM(inputs, hidden, batch_first=True).requires_grad_(requires_grad=False)
    kernel = torch.tensor(data["kernel_ifgo"].T)
    layer.weight_ih_l0.copy_(kernel[:, :inputs])
    layer.weight_hh_l0.copy_(kernel[:, inputs:])
    layer.bias_ih_l0.copy_(torch.tensor(data["bias_ifgo"]))
    layer.bias_hh_l0.zero_()
    weights = [layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0]

    def forward() -> Three:
        outputs, (h, c) = layer(x, state)
        return outputs, h[0], c[0]

    def loss() -> torch.Tensor:
        return _half_square(layer(x, state)[0], targets)

    if mode == "train":
        for weight in weights:
            weight.requires_grad_()
    else:
        layer.eval()
    w, u, b = weights
    return (loss if mode == "train" else forward), weights, lambda: [w.T, u.T, b]
