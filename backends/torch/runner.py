"""Common part of all torch runners: data on the device, one call, one SGD step, copies out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backends.api import Array, Batch, Case, Mode, Output, State, Weights
from backends.data import check_batch, initial_state, rotated
from backends.stack import layers

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def synchronize(device: torch.device) -> None:
    """Block until the device has done what was enqueued; eager CPU operations are done already."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def to_host(tensor: Tensor) -> Array:
    """A copy in NumPy that shares nothing with the tensor."""
    here = tensor.detach().cpu()
    if here.dtype == torch.bfloat16:  # which torch does not hand to NumPy, nor take from it
        return np.array(here.view(torch.int16).numpy().view("bfloat16"))
    return np.array(here.numpy())


def from_host(array: Array) -> Tensor:
    """A copy on the CPU that shares nothing with the array, in its dtype."""
    if array.dtype == "bfloat16":
        return torch.tensor(array.view(np.int16)).view(torch.bfloat16)
    return torch.tensor(array)


class TorchRunner(ABC):
    """One case on one device; a subclass has the weights, the state's layout and the program."""

    def __init__(self, case: Case, mode: Mode, device: torch.device) -> None:
        self._case = case
        self._mode = mode
        self._device = device
        self._leaves: list[Tensor] = []  # what a training step takes gradients of
        self._bound: list[Tensor] = []  # of the batch that is bound, while there is a rotation
        self._rotation: Iterator[list[Tensor]] | None = None

    @abstractmethod
    def load(self, weights: Weights) -> None:
        """See `backends.api.Runner`."""

    @abstractmethod
    def weights(self) -> Weights:
        """See `backends.api.Runner`."""

    @abstractmethod
    def _bind_state(self, state: State) -> None:
        """Take the initial state."""

    @abstractmethod
    def _bind_lengths(self, lengths: Array | None) -> None:
        """Take the lengths [B]."""

    @abstractmethod
    def _forward(self) -> tuple[Tensor, Any]:
        """Outputs [B, T, O] and the final state in the subclass's layout."""

    @abstractmethod
    def _loss(self) -> Tensor:
        """The scalar loss, with its graph."""

    @abstractmethod
    def _layer_states(self, state: Any) -> Sequence[Sequence[Tensor]]:
        """A final state by layer, each in the order of the cell's state."""

    def bind(self, batch: Batch) -> None:
        check_batch(self._case, batch)
        self.feed(batch)

    def feed(self, batch: Batch) -> None:
        self._bound, self._rotation = [], None
        self._x = self._resident(batch.x)
        if self._mode == "train":  # else they would count as memory of the forward pass
            self._targets = self._resident(batch.targets)
        self._learning_rate = batch.learning_rate
        self._bind_lengths(batch.lengths)
        self._bind_state(initial_state(self._case, batch))
        synchronize(self._device)

    def rotate(self, batches: Sequence[Batch]) -> None:
        if self._rotation is None:
            read = [self._x, self._targets] if self._mode == "train" else [self._x]
            self._bound = [tensor.clone() for tensor in read]
        self._take(*self._bound)
        self._rotation = None  # releases its tensors before there are others
        self._rotation = cycle(
            [[self._resident(array) for array in rotated(b, self._mode)] for b in batches]
        )
        synchronize(self._device)

    def advance(self) -> None:
        if self._rotation is not None:
            self._take(*next(self._rotation))

    def _take(self, x: Tensor, targets: Tensor | None = None) -> None:
        """Let the next call read these."""
        self._x = x
        if targets is not None:
            self._targets = targets

    def forward(self) -> Any:
        with torch.inference_mode():
            return self._forward()

    def train(self) -> Tensor:
        loss = self._loss()
        # `grad` hands the gradients over and stores none: there is nothing to clear.
        gradients = torch.autograd.grad(loss, self._leaves)
        with torch.no_grad():
            self._descend(gradients)
        return loss.detach()

    def sync(self, out: object) -> None:
        synchronize(self._device)

    def fetch(self, out: Any) -> Output:
        outputs, state = out
        return Output(
            outputs=to_host(outputs),
            state=tuple(
                {name: to_host(value) for name, value in zip(layer.state, values, strict=True)}
                for layer, values in zip(layers(self._case), self._layer_states(state), strict=True)
            ),
        )

    def fetch_loss(self, out: Tensor) -> float:
        return float(out.item())

    def program_size(self) -> Mapping[str, int]:
        return {}

    def close(self) -> None:
        vars(self).clear()  # the tensors, and the program with what it was compiled to

    def _descend(self, gradients: Sequence[Tensor]) -> None:
        """A step of SGD, in place."""
        for tensor, gradient in self._updates(gradients):
            tensor.sub_(gradient, alpha=self._learning_rate)

    def _updates(self, gradients: Sequence[Tensor]) -> Iterable[tuple[Tensor, Tensor]]:
        """Arrays to update, each with its gradient."""
        return zip(self._leaves, gradients, strict=True)

    def _resident(self, array: Array) -> Tensor:
        """A copy on the device: the caller may write into its array afterwards."""
        return from_host(array).to(self._device, DTYPES[self._case.dtype])
