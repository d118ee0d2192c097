"""ONNX Runtime: what the conformance suite does not see of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import backends
from backends.api import Case, Unavailable
from backends.data import make_batch, make_weights
from backends.onnx import INFO
from backends.reference.network import forward
from tests.support import data

pytestmark = pytest.mark.xdist_group("onnx")

if backends.missing("onnx"):
    pytest.skip(backends.missing("onnx") or "", allow_module_level=True)

CASE = Case(cell="lstm", seq_len=3, batch=2, inputs=5, hidden=4, layers=2)


def graph_of(case: Case) -> Any:
    from backends.onnx.model import write
    from backends.onnx.runner import packed

    return write(case, packed(case, make_weights(case))).graph


def operators(case: Case) -> Counter[str]:
    return Counter(node.op_type for node in graph_of(case).node)


def optimised(case: Case, tmp_path: Path) -> Counter[str]:
    """The operators that a session with loaded weights runs."""
    import onnx

    runner: Any = backends.create("onnx").build(case, "fused", "forward")
    runner._options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    runner.load(make_weights(case))
    runner.close()
    model = onnx.load(tmp_path / "optimised.onnx")
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize(
    ("cell", "operator"),
    [("rnn", "RNN"), ("gru", "GRU"), ("lstm-peephole", "LSTM"), ("coupled", "LSTM")],
)
def test_a_layer_is_one_operator(cell: str, operator: str) -> None:
    case = replace(CASE, cell=cell)
    # Two layers between what makes them time-major and back, and drops the axis of directions.
    assert operators(case) == {operator: 2, "Transpose": 2, "Squeeze": 2}
    both = operators(replace(case, direction="bidirectional"))
    assert both[operator] == 2, "both directions are one operator"
    assert operators(replace(case, direction="two-stacks"))[operator] == 4


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn", "coupled", "residual-lstm"])
def test_nothing_is_folded_for_weights_that_are_known(cell: str, tmp_path: Path) -> None:
    case = replace(CASE, cell=cell, inputs=CASE.hidden)
    runs = optimised(case, tmp_path)
    kind = {"gru": "GRU", "rnn": "RNN"}.get(cell, "LSTM")
    assert runs[kind] == operators(case)[kind] == 2


def test_data_are_inputs_of_the_graph() -> None:
    assert {value.name for value in graph_of(CASE).input} == {"x", "h0", "c0", "h1", "c1"}


def test_a_runner_has_nodes_once_it_has_weights() -> None:
    runner = backends.create("onnx").build(CASE, "fused", "forward")
    runner.load(make_weights(CASE))
    assert runner.program_size() == {"nodes": sum(operators(CASE).values())}
    runner.close()


def test_what_the_caller_does_to_its_arrays_changes_nothing() -> None:
    """`OrtValue.ortvalue_from_numpy` is a view."""
    weights, batch = data(CASE)
    want = forward(CASE, weights, batch).outputs
    runner = backends.create("onnx").build(CASE, "fused", "forward")
    runner.load(weights)
    runner.bind(batch)
    batch.x[:] = 0
    for layer in weights:
        for block in layer.values():
            np.asarray(block)[:] = 0
    found = runner.fetch(runner.forward())
    np.testing.assert_allclose(found.outputs, want, rtol=0, atol=1e-5)
    runner.close()


def test_fetched_results_are_copies() -> None:
    weights, batch = data(CASE)
    runner = backends.create("onnx").build(CASE, "fused", "forward")
    runner.load(weights)
    runner.bind(batch)
    first = runner.fetch(runner.forward())
    kept = first.outputs.copy()
    runner.load(make_weights(replace(CASE, seed=1)))
    runner.forward()
    np.testing.assert_array_equal(first.outputs, kept)
    runner.close()


def test_any_batch_and_time_can_be_bound() -> None:
    other = replace(CASE, seq_len=7, batch=5)
    weights, batch = make_weights(CASE), make_batch(other)
    runner = backends.create("onnx").build(CASE, "fused", "forward")
    runner.load(weights)
    runner.bind(batch)
    found = runner.fetch(runner.forward())
    want = forward(other, weights, batch)
    np.testing.assert_allclose(found.outputs, want.outputs, rtol=0, atol=1e-5)
    runner.close()


def test_a_session_has_its_threads_and_no_more() -> None:
    def new_threads(count: int) -> int:
        before = psutil.Process().num_threads()
        runner = backends.create("onnx", threads=count).build(CASE, "fused", "forward")
        runner.load(make_weights(CASE))
        found = psutil.Process().num_threads() - before
        runner.close()
        return found

    # The caller is one of them.
    assert [new_threads(1), new_threads(3)] == [0, 2]


def test_nothing_is_sent_anywhere() -> None:
    assert INFO.environment(1)["ORT_DISABLE_TELEMETRY"] == "1"


def test_another_device_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="device gpu: onnxruntime's CPU package runs on cpu"):
        backends.create("onnx").build(replace(CASE, device="gpu"), "fused", "forward")


@pytest.mark.parametrize("call", ["train", "fetch_loss"])
def test_there_is_no_training(call: str) -> None:
    runner: Any = backends.create("onnx").build(CASE, "fused", "forward")
    arguments = () if call == "train" else (None,)
    with pytest.raises(ValueError, match="built for mode 'forward', not for 'train'"):
        getattr(runner, call)(*arguments)
