"""CUDA graphs of the eager loop, by a stand-in that records operations on a CPU."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from itertools import chain
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

import backends
from backends.api import CELL_NAMES, Case, Mode, Unavailable, Unsupported, Weights, unstaged
from backends.data import zero_batch, zero_weights
from tests.checks import (
    Build,
    Check,
    a_rotation_goes_round_its_batches,
    a_rotation_goes_round_its_batches_in_training,
    a_state_carries_on,
    fetch_survives_rebind,
    forward_is_the_oracles,
    nothing_is_constant,
    nothing_is_constant_in_training,
    padding_is_ignored,
    padding_is_ignored_in_training,
    training_is_the_oracles,
    two_steps_are_the_oracles,
    work_grows_with_time,
)
from tests.support import SIZES, SMALLEST, case_of, data

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

from backends.torch import graphed  # noqa: E402
from backends.torch.graphed import GraphedRunner  # noqa: E402
from backends.torch.loop import LoopRunner, Program, network_function  # noqa: E402
from backends.torch.runner import TorchRunner  # noqa: E402
from tests.recorded import recorded  # noqa: E402

CPU = torch.device("cpu")
CASE = SMALLEST
FULL = replace(CASE, lengths="full")


def build_with(runner: type[GraphedRunner]) -> Build:
    def build(case: Case, mode: Mode) -> GraphedRunner:
        return runner(case, mode, CPU, unstaged, recorded)

    return build


build = build_with(GraphedRunner)


@pytest.mark.parametrize(
    "check",
    [
        a_rotation_goes_round_its_batches,
        a_rotation_goes_round_its_batches_in_training,
        a_state_carries_on,
        fetch_survives_rebind,
        nothing_is_constant,
        nothing_is_constant_in_training,
        padding_is_ignored,
        padding_is_ignored_in_training,
        two_steps_are_the_oracles,
        work_grows_with_time,
    ],
)
def test_it_passes(check: Check) -> None:
    check(build, CASE)


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_every_cell_is_the_oracles(cell: str) -> None:
    case = case_of(replace(CASE, seq_len=2, layers=1, **SIZES), cell)
    forward_is_the_oracles(build, case)
    training_is_the_oracles(build, case)


@pytest.mark.parametrize("direction", ["forward", "bidirectional", "two-stacks"])
@pytest.mark.parametrize("lengths", ["full", "ragged"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layers_and_directions_are_the_oracles(direction: Any, lengths: Any, dtype: Any) -> None:
    case = replace(CASE, direction=direction, lengths=lengths, dtype=dtype)
    forward_is_the_oracles(build, case)
    training_is_the_oracles(build, case)


class OnOneDevice(TorchDispatchMode):
    """Fails on an operation with tensors of another device than its own.

    A copy from the host waits for its end, which a stream that is captured must not.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs, result)):
            if isinstance(leaf, torch.Tensor):
                assert leaf.device.type == "meta", f"{func} has a tensor on {leaf.device}"
        return result


@pytest.mark.parametrize("cell", CELL_NAMES)
@pytest.mark.parametrize("lengths", ["full", "ragged"])
def test_nothing_that_is_captured_goes_to_the_host(cell: str, lengths: Any) -> None:
    """On a device that has no numbers: what asks for one fails by itself."""
    case = case_of(replace(CASE, seq_len=2, layers=1, lengths=lengths, **SIZES), cell)
    modes: tuple[Mode, ...] = ("forward", "train")
    for mode in modes:
        program = Program(call=network_function(case, mode))
        runner = LoopRunner(case, mode, torch.device("meta"), program)
        runner.load(zero_weights(case))
        runner.feed(zero_batch(case))
        with OnOneDevice():
            runner.forward() if mode == "forward" else runner.train()


def test_a_number_from_the_host_would_be_seen() -> None:
    from_host = torch.zeros(2)
    with OnOneDevice(), pytest.raises(AssertionError, match=r"^aten\._to_copy.* on cpu"):
        from_host.to("meta")


# --- what a graph keeps as it was captured --------------------------------------------------------


class RateOfTheCapture(GraphedRunner):
    """Its learning rate is a Python number."""

    def _descend(self, gradients: Sequence[Any]) -> None:
        TorchRunner._descend(self, gradients)


class OtherTensors(GraphedRunner):
    """Its weights come to lie elsewhere."""

    def load(self, weights: Weights) -> None:
        LoopRunner.load(self, weights)


@pytest.mark.parametrize(
    ("runner", "check"),
    [
        (RateOfTheCapture, two_steps_are_the_oracles),
        (RateOfTheCapture, training_is_the_oracles),
        (OtherTensors, forward_is_the_oracles),
        (OtherTensors, training_is_the_oracles),
    ],
)
def test_a_fault_is_seen(runner: type[GraphedRunner], check: Check) -> None:
    with pytest.raises(AssertionError):
        check(build_with(runner), FULL)


@pytest.mark.parametrize("mode", ["forward", "train"])
def test_nothing_comes_to_lie_elsewhere(mode: Mode) -> None:
    runner = build(CASE, mode)

    def addresses() -> list[int]:
        held = [runner._x, *runner._lengths, *runner._leaves, *chain.from_iterable(runner._state)]
        held += [runner._targets, runner._rate] if mode == "train" else []
        return [tensor.data_ptr() for tensor in held]

    before = addresses()
    for seed in (1, 2):
        weights, batch = data(replace(CASE, seed=seed))
        runner.load(weights)
        runner.bind(replace(batch, learning_rate=0.1 * seed))
    assert addresses() == before


def test_a_call_runs_no_python_of_the_loop() -> None:
    runner = build(CASE, "train")
    weights, batch = data(CASE)
    runner.load(weights)
    runner.bind(batch)
    with patch.object(runner, "_loss", side_effect=AssertionError("the loop ran again")):
        first = runner.fetch_loss(runner.train())
        assert runner.fetch_loss(runner.train()) < first


def test_building_moves_no_weights() -> None:
    """Those that calls before the capture would have moved are overwritten, and were not moved."""
    runner = build(CASE, "train")
    for layer in runner.weights():
        for name, array in layer.items():
            assert not array.any(), name


def test_what_was_computed_to_capture_is_not_needed() -> None:
    """A call that is captured computes nothing: all that it gave comes from a replay."""

    def spoilt(call: Any, device: Any) -> Any:
        graph, out = recorded(call, device)
        graph.spoil()
        return graph, out

    def build(case: Case, mode: Mode) -> GraphedRunner:
        return GraphedRunner(case, mode, CPU, unstaged, spoilt)

    forward_is_the_oracles(build, FULL)
    training_is_the_oracles(build, FULL)


def test_a_batch_of_another_shape_is_refused() -> None:
    runner = build(CASE, "forward")
    for change, message in (({"seq_len": 4}, "T=3, got T=4"), ({"batch": 2}, "B=3, got B=2")):
        _, batch = data(replace(CASE, **change))
        with pytest.raises(Unsupported, match=f"{message}$"):
            runner.bind(batch)
    _, longer = data(replace(CASE, seq_len=4))
    with pytest.raises(RuntimeError, match="size of tensor"):
        runner.feed(longer)


@pytest.mark.parametrize("mode", ["forward", "train"])
def test_a_runner_serves_one_mode(mode: Mode) -> None:
    runner = build(CASE, mode)
    other = {"forward": "train", "train": "forward"}[mode]
    with pytest.raises(ValueError, match=f"^captured for mode '{mode}', not for '{other}'$"):
        getattr(runner, other)()


def test_what_was_taken_does_not_change_with_the_callers_arrays() -> None:
    runner = build(CASE, "forward")
    weights, batch = data(CASE)
    runner.load(weights)
    runner.bind(batch)
    want = runner.fetch(runner.forward()).outputs
    batch.x[:] = 0
    for array in weights[0].values():
        array[:] = 0
    np.testing.assert_array_equal(runner.fetch(runner.forward()).outputs, want)


def test_closing_lets_go_of_the_graph() -> None:
    runner = build(CASE, "forward")
    graph = runner._graph
    with patch.object(graph, "reset") as reset:
        runner.close()
    reset.assert_called_once_with()
    assert vars(runner) == {}


# --- the capture itself ---------------------------------------------------------------------------


class ScriptedCuda:
    """What `torch.cuda` has for a capture; `said` is all that it was asked, in order."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.current = "default"

    def device(self, device: Any) -> AbstractContextManager[None]:
        self.said.append(f"device {device}")
        return nullcontext()

    def Stream(self) -> ScriptedStream:  # noqa: N802
        return ScriptedStream("side", self)

    def current_stream(self) -> ScriptedStream:
        return ScriptedStream(self.current, self)

    @contextmanager
    def stream(self, stream: ScriptedStream) -> Any:
        before, self.current = self.current, stream.name
        yield
        self.current = before

    def CUDAGraph(self) -> str:  # noqa: N802
        return "a graph"

    @contextmanager
    def graph(self, graph: str, stream: ScriptedStream) -> Any:
        assert graph == "a graph"
        self.said.append(f"begin on {stream.name}")
        with self.stream(stream):
            yield
        self.said.append("end")


class ScriptedStream:
    def __init__(self, name: str, cuda: ScriptedCuda) -> None:
        self.name = name
        self._cuda = cuda

    def wait_stream(self, other: ScriptedStream) -> None:
        self._cuda.said.append(f"{self.name} waits for {other.name}")


def test_a_capture_is_warmed_up_on_the_stream_that_it_is_captured_on() -> None:
    cuda = ScriptedCuda()

    def call() -> str:
        cuda.said.append(f"call on {cuda.current}")
        return "results"

    with patch.object(torch, "cuda", cuda):
        found = graphed.cuda_graph(call, torch.device("cuda", 1))
    assert found == ("a graph", "results")
    assert cuda.said == [
        "device cuda:1",
        "side waits for default",
        *["call on side"] * 3,
        "default waits for side",
        "begin on side",
        "call on side",
        "end",
    ]


# --- the registry ---------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["lstm", "grid"])
def test_a_cpu_is_refused(cell: str) -> None:
    case = case_of(CASE, cell)
    reason = "device cpu: CUDA graphs record what a GPU is given to do"
    assert backends.refusal("torch/graphed", case, "train") == reason
    with pytest.raises(Unsupported, match=f"^{re.escape(reason)}$"):
        backends.create("torch").build(case, "graphed", "forward")


def test_a_gpu_is_not_refused_but_lacks_here() -> None:
    case = replace(CASE, device="gpu")
    assert backends.refusal("torch/graphed", case, "train") is None
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(Unavailable, match=r"^device gpu: torch .* finds no GPU"):
        backends.create("torch").build(case, "graphed", "forward")


def test_the_capture_is_a_stage_of_the_build() -> None:
    stages: list[str] = []

    def stage(name: str) -> AbstractContextManager[None]:
        stages.append(name)
        return nullcontext()

    GraphedRunner(CASE, "forward", CPU, stage, recorded)
    assert stages == ["capture"]
