"""The eager loop captured once in a CUDA graph: a call is one launch of all that it enqueued.

A graph has the addresses and the numbers of the call that was captured. So what goes in lies in
tensors that stay, and `load` and `feed` write into them; what comes out lies where the graph writes
it, until the next call. The learning rate is such a tensor too: as the Python number that it is in
the eager step, every replay would use the one that it was captured with.

Captured as torch's notes on CUDA graphs ask: after calls on a side stream, in which cuBLAS takes
its workspaces and autograd its buffers, and on that stream. What a call needs in between stays
reserved for the graph until it is closed. The allocator counts it as the capture's, not a call's:
look for the peak in building.
https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from backends.api import Batch, Case, Mode, Stage, Weights
from backends.data import initial_state, zero_batch, zero_weights
from backends.layout import pack
from backends.stack import layers, weight_layers
from backends.torch.layout import layout
from backends.torch.loop import LoopRunner, Program, network_function
from backends.torch.runner import DTYPES, from_host, synchronize

#: Calls before the capture; the notes and `torch.cuda.make_graphed_callables` have three.
WARM_UP_CALLS = 3


class Graph(Protocol):
    """Captured graph: a `torch.cuda.CUDAGraph`, or a test's stand-in."""

    def replay(self) -> None:
        """Enqueue it all again, on the same addresses."""

    def reset(self) -> None:
        """Let go of it and of its memory."""


#: Takes a call: what it enqueues, captured, and what it returned, which every replay writes anew.
Capture = Callable[[Callable[[], Any], torch.device], tuple[Graph, Any]]


def cuda_graph(call: Callable[[], Any], device: torch.device) -> tuple[Graph, Any]:
    """Capture a call on a GPU. The call that is captured computes nothing yet."""
    with torch.cuda.device(device):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP_CALLS):
                call()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # Without a stream of ours it would be the one of the process's first capture, which may
        # have been on another GPU.
        with torch.cuda.graph(graph, stream=side):
            out = call()
    return graph, out


class GraphedRunner(LoopRunner):
    """The loop's call, captured when it is built, over zeros and at a learning rate of zero."""

    def __init__(
        self,
        case: Case,
        mode: Mode,
        device: torch.device,
        stage: Stage,
        capture: Capture = cuda_graph,
    ) -> None:
        program = Program(call=network_function(case, mode), fixed_shape=True)
        super().__init__(case, mode, device, program)
        self._rate = torch.zeros((), dtype=DTYPES[case.dtype], device=device)
        super().load(zero_weights(case))
        super().feed(zero_batch(case))
        eager = super().forward if mode == "forward" else super().train
        with stage("capture"):
            self._graph, self._out = capture(eager, device)
            synchronize(device)

    def load(self, weights: Weights) -> None:
        parts = zip(weight_layers(self._case), self._parameters, weights, strict=True)
        for layer, parameters, blocks in parts:
            for name, array in pack(layout(layer), blocks).items():
                _write(parameters[name], array)
        synchronize(self._device)

    def feed(self, batch: Batch) -> None:
        self._bound, self._rotation = [], None
        _write(self._x, batch.x)
        if self._mode == "train":
            _write(self._targets, batch.targets)
            _write(self._rate, batch.learning_rate)
        if batch.lengths is not None:
            _write(self._lengths[0], batch.lengths)
        state = initial_state(self._case, batch)
        for layer, tensors, given in zip(layers(self._case), self._state, state, strict=True):
            for name, tensor in zip(layer.state, tensors, strict=True):
                _write(tensor, given[name])
        synchronize(self._device)

    def _take(self, x: Tensor, targets: Tensor | None = None) -> None:
        """Copies into where the graph reads: as in its use, a batch has just been written there."""
        self._x.copy_(x)
        if targets is not None:
            self._targets.copy_(targets)
        synchronize(self._device)

    def forward(self) -> Any:
        return self._replay("forward")

    def train(self) -> Any:
        return self._replay("train")

    def close(self) -> None:
        self._graph.reset()
        super().close()

    def _replay(self, mode: Mode) -> Any:
        if mode != self._mode:
            raise ValueError(f"captured for mode {self._mode!r}, not for {mode!r}")
        self._graph.replay()
        return self._out

    def _descend(self, gradients: Sequence[Tensor]) -> None:
        for tensor, gradient in self._updates(gradients):
            tensor.addcmul_(gradient, self._rate, value=-1)


def _write(tensor: Tensor, values: npt.ArrayLike) -> None:
    """Put values where a tensor has its own; of another shape as torch will have it."""
    with torch.no_grad():
        tensor.copy_(from_host(np.asarray(values)))


def build_graphed(case: Case, mode: Mode, device: torch.device, stage: Stage) -> GraphedRunner:
    """The eager loop in a CUDA graph."""
    return GraphedRunner(case, mode, device, stage)
