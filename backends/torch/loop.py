"""The runner of the hand-written loop, whatever calls it, and the eager strategy `dynamic`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from backends.api import Array, Batch, Case, Mode, Stage, State, Unsupported, Weights
from backends.layout import pack, unpack
from backends.stack import Layer, layers, rows, weight_layers
from backends.torch.layout import forget_biases, layout
from backends.torch.network import (
    Function,
    Part,
    forward_function,
    layer_function,
    loss_function,
)
from backends.torch.runner import TorchRunner, synchronize, to_host


def no_size() -> Mapping[str, int]:
    """Of what has no program to count."""
    return {}


def nothing() -> None:
    """Of what takes any shape, or refuses another one itself."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """A callable form of `network_function`; `fixed_shape`: made for the case's B and T alone.

    `reshape` is told before a call with another shape, which `bind` never makes.
    """

    call: Function
    size: Callable[[], Mapping[str, int]] = no_size
    fixed_shape: bool = False
    reshape: Callable[[], None] = nothing


def network_function(
    case: Case, mode: Mode, carry: Callable[[Layer], Function] = layer_function
) -> Function:
    """The case's forward pass, or for mode "train" its loss, as a Python function.

    `carry` makes what carries a layer over time. Each call returns new function objects.
    """
    parts: list[list[Part]] = [
        [(carry(layer), layer.weights, layer.reverse) for layer in row] for row in rows(case)
    ]
    forward = forward_function(parts, independent=case.direction == "two-stacks")
    return forward if mode == "forward" else loss_function(forward)


class LoopRunner(TorchRunner):
    """Layers of hand-written cells over time."""

    def __init__(self, case: Case, mode: Mode, device: torch.device, program: Program) -> None:
        super().__init__(case, mode, device)
        self._program = program

    def load(self, weights: Weights) -> None:
        self._parameters: list[dict[str, Tensor]] = []
        self._weights: list[list[Tensor]] = []
        for layer, blocks in zip(weight_layers(self._case), weights, strict=True):
            arrays = pack(layout(layer), blocks)
            parameters = {name: self._resident(array) for name, array in arrays.items()}
            constants = [self._resident(array) for array in forget_biases(layer)]
            self._parameters.append(parameters)
            self._weights.append([*parameters.values(), *constants])
        self._leaves = [tensor for layer in self._parameters for tensor in layer.values()]
        for tensor in self._leaves:
            tensor.requires_grad_(self._mode == "train")
        synchronize(self._device)

    def bind(self, batch: Batch) -> None:
        b, t = batch.x.shape[:2]
        if self._program.fixed_shape and t != self._case.seq_len:
            raise Unsupported(f"graph is built for T={self._case.seq_len}, got T={t}")
        if self._program.fixed_shape and b != self._case.batch:
            raise Unsupported(f"graph is built for B={self._case.batch}, got B={b}")
        super().bind(batch)

    def feed(self, batch: Batch) -> None:
        if batch.x.shape[:2] != (self._case.batch, self._case.seq_len):
            self._program.reshape()
        super().feed(batch)

    def weights(self) -> Weights:
        return tuple(
            unpack(
                layout(layer),
                {name: to_host(value) for name, value in parameters.items()},
                layer.blocks,
            )
            for layer, parameters in zip(weight_layers(self._case), self._parameters, strict=True)
        )

    def program_size(self) -> Mapping[str, int]:
        return self._program.size()

    def arguments(self) -> tuple[Any, ...]:
        """Arguments of the program; lengths only if the case has them."""
        targets = () if self._mode == "forward" else (self._targets,)
        return (self._x, self._weights, self._state, *targets, *self._lengths)

    def _bind_state(self, state: State) -> None:
        self._state = [
            [self._resident(given[name]) for name in layer.state]
            for layer, given in zip(layers(self._case), state, strict=True)
        ]

    def _bind_lengths(self, lengths: Array | None) -> None:
        self._lengths: tuple[Tensor, ...] = ()
        if lengths is not None:
            self._lengths = (torch.tensor(lengths, dtype=torch.int64, device=self._device),)

    def _forward(self) -> tuple[Tensor, Any]:
        return self._program.call(*self.arguments())

    def _loss(self) -> Tensor:
        return self._program.call(*self.arguments())

    def _layer_states(self, state: Any) -> Sequence[Sequence[Tensor]]:
        return state


def build_dynamic(case: Case, mode: Mode, device: torch.device, _stage: Stage) -> LoopRunner:
    """The loop run by Python, operation after operation."""
    return LoopRunner(case, mode, device, Program(call=network_function(case, mode)))
