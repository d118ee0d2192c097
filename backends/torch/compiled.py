"""The hand-written loop unrolled and compiled by torch.compile: dynamo, AOTAutograd, inductor.

For mode "train" the region is the forward pass with the loss, and through AOTAutograd its backward;
the update, and with it the learning rate, stays outside. torch.compile over `nn.LSTM` would compile
nothing, hence the explicit loop and `fullgraph=True`.

Inductor keeps what it compiled in a folder, which `BackendInfo.compile_cache` lets the harness
choose: with a full one, the first call does not compile. Headers that it precompiles (about ten
seconds, once) stay in the user's own folder whatever is chosen.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from importlib import import_module
from types import FunctionType
from typing import Any

import torch

from backends.api import Case, Mode, Stage, Unavailable
from backends.torch.loop import LoopRunner, Program, network_function
from backends.torch.network import Function
from backends.torch.torchscript import deprecated_jit


def _check_compiler(device: torch.device) -> None:
    """Raise `Unavailable` where the compiler that inductor calls is absent.

    On a CPU that is a C++ compiler, on a GPU the C compiler of Triton's launchers.
    """
    if device.type == "cpu":
        names, variable, language = [os.environ.get("CXX", "g++")], "CXX", "C++"
    else:
        given = os.environ.get("CC")
        names, variable, language = [given] if given else ["gcc", "clang", "cc"], "CC", "C"
    if not any(map(shutil.which, names)):
        needed = f"torch.compile needs a {language} compiler"
        raise Unavailable(f"{needed}: {' or '.join(names)} ({variable}) is not on PATH")


def _with_own_code(function: Function) -> Function:
    """Copy of a function with a code object of its own.

    Dynamo keeps compiled programs by code object: runners that shared one would search each other's
    programs at every call, and the ninth would hit the recompile limit.
    """
    assert isinstance(function, FunctionType)
    return FunctionType(
        function.__code__.replace(),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )


class _OneGraph:
    """The inductor backend, which counts the graph's nodes and compiles no second graph.

    A graph break or a recompilation would otherwise hide in a call that is timed as steady. Where
    another shape is fed on purpose, to see what torch does, it may compile as torch would.
    """

    def __init__(self, inductor: Callable[[Any, Any], Any]) -> None:
        self._inductor = inductor
        self._nodes = 0
        self._reshaped = False

    def reshape(self) -> None:
        """Let further graphs be compiled."""
        self._reshaped = True

    def __call__(self, graph: Any, inputs: Any) -> Any:
        if self._reshaped:
            return self._inductor(graph, inputs)
        if self._nodes:
            raise RuntimeError("torch.compile asks for a second graph: a guard failed")
        self._nodes = len(graph.graph.nodes)
        return self._inductor(graph, inputs)

    def size(self) -> Mapping[str, int]:
        """Nodes of dynamo's graph; nothing before the first call, which compiles."""
        return {"nodes": self._nodes} if self._nodes else {}


def build_static(case: Case, mode: Mode, device: torch.device, stage: Stage) -> LoopRunner:
    """The loop of T steps as one compiled program; the first call compiles.

    Raises `Unavailable` without a compiler.
    """
    _check_compiler(device)
    # Seconds of import, which only this strategy needs. It meets TorchScript inside torch itself.
    with stage("import-compiler"), deprecated_jit("script_method"):
        backend = _OneGraph(import_module("torch._inductor.compile_fx").compile_fx)
    call = torch.compile(
        _with_own_code(network_function(case, mode)),
        fullgraph=True,
        dynamic=False,
        backend=backend,
    )
    program = Program(call=call, size=backend.size, fixed_shape=True, reshape=backend.reshape)
    return LoopRunner(case, mode, device, program)
