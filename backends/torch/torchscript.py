"""The hand-written loop in TorchScript: recorded (`traced`) or parsed from source (`scripted`).

The profiling executor optimises at the second call, not the first.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from backends.api import Case, Mode, Stage
from backends.data import zero_batch, zero_weights
from backends.stack import Layer
from backends.torch.loop import LoopRunner, Program, build_dynamic, network_function
from backends.torch.network import Function, layer_function


@contextmanager
def deprecated_jit(name: str) -> Iterator[None]:
    """Silence the notice that `torch.jit.<name>` is deprecated, and nothing else."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", f"`torch.jit.{name}` is deprecated", DeprecationWarning)
        yield


def _count(block: Any) -> int:
    """Nodes of a graph, those of its loop bodies and branches included."""
    return sum(1 + sum(map(_count, node.blocks())) for node in block.nodes())


def _program(call: Function, *parts: Any, fixed_shape: bool) -> Program:
    """A program whose size is that of its TorchScript parts together."""

    def size() -> Mapping[str, int]:
        return {"nodes": sum(_count(part.inlined_graph) for part in parts)}

    return Program(call=call, size=size, fixed_shape=fixed_shape)


def _tuples(forward: Function) -> Function:
    """The function with the final state in tuples: a trace cannot return nested lists."""

    def traceable(*arguments: Any) -> Any:
        outputs, state = forward(*arguments)
        return outputs, tuple(tuple(layer) for layer in state)

    return traceable


def build_traced(case: Case, mode: Mode, device: torch.device, stage: Stage) -> LoopRunner:
    """The operations of one run, recorded: T steps one after the other."""
    example = build_dynamic(case, mode, device, stage)
    example.load(zero_weights(case))
    example.bind(zero_batch(case))
    function = network_function(case, mode)
    if mode == "forward":
        function = _tuples(function)
    with stage("trace"), deprecated_jit("trace"):
        # mse_loss compares shapes in Python, and the trace warns that it keeps the answer. torch
        # ignores such warnings about itself, but its filter is gone where the filters were reset.
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning, module=r"torch\.nn\.")
        # check_trace would trace and run everything a second time.
        traced = torch.jit.trace(function, example.arguments(), check_trace=False)
    return LoopRunner(case, mode, device, _program(traced, traced, fixed_shape=True))


def build_scripted(case: Case, mode: Mode, device: torch.device, stage: Stage) -> LoopRunner:
    """The loop over time as TorchScript's interpreter runs it, for any T.

    A function of its own for each layer, each one call. A loop over layers within one would join
    the first one's input, of which no gradient is wanted, with the others', of which one is.
    """
    scripted: list[Any] = []

    def carry(layer: Layer) -> Function:
        scripted.append(torch.jit.script(layer_function(layer)))
        return scripted[-1]

    with stage("script"), deprecated_jit("script"):
        call = network_function(case, mode, carry)
    return LoopRunner(case, mode, device, _program(call, *scripted, fixed_shape=False))
