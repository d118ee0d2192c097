"""CudnnRNNV3: what the graph asks of it, and, by what stands in for it, what it is given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import backends
from backends.api import CELL_NAMES, Case, Mode, Runner, Unsupported, unstaged
from backends.cells import CELLS, Entry
from backends.data import make_weights
from backends.spec import Lstm
from backends.stack import layers
from backends.tensorflow import INFO
from backends.tensorflow.cudnnsupport import cudnn_refusal
from tests.checks import (
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
)
from tests.support import SMALLEST, cases

pytestmark = pytest.mark.xdist_group("tensorflow")

if backends.missing("tensorflow"):
    pytest.skip(backends.missing("tensorflow") or "", allow_module_level=True)

CASE = replace(SMALLEST, seq_len=4, dtype="float64")
GPU = replace(CASE, device="gpu")
EXPRESSED = ("rnn", "rnn-relu", "basic-lstm", "lstm", "lstm-projection", "gru-reset-after")
#: Every cell with one layer and with two, full and ragged, one way and both.
VARIANTS: tuple[dict[str, Any], ...] = (
    {"layers": 1, "lengths": "full", "direction": "bidirectional", "dtype": "float32"},
    {"layers": 2, "lengths": "ragged", "direction": "forward"},
)
#: Of some cells more.
MORE: tuple[dict[str, Any], ...] = (
    {"layers": 2, "lengths": "ragged", "direction": "bidirectional"},
    {"layers": 1, "lengths": "ragged", "direction": "two-stacks"},
    {"layers": 1, "lengths": "full", "direction": "forward", "dtype": "float32"},
)
POINTS = [
    *((cell, variant) for cell in EXPRESSED for variant in VARIANTS),
    *(("lstm", variant) for variant in MORE),
    ("lstm-projection", MORE[0]),
    ("gru-reset-after", MORE[0]),
]


@pytest.fixture(scope="module", autouse=True)
def tensorflow() -> None:
    backends.create("tensorflow")


def build(case: Case, mode: Mode, operations: Any = None) -> Runner:
    """The strategy's own runner, on the CPU, around what stands in for cuDNN."""
    import tensorflow as tf

    from backends.tensorflow.cudnn import Operations, build_cudnn
    from tests import cudnn_standin as other

    standing_in = Operations(
        rnn=other.rnn, to_params=other.to_params, to_canonical=other.to_canonical
    )
    config = tf.compat.v1.ConfigProto()
    return build_cudnn(
        case, mode, unstaged, device="/cpu:0", config=config, operations=operations or standing_in
    )


# --- what it is given, and what is made of its results --------------------------------------------


@pytest.mark.parametrize(
    ("cell", "variant"), POINTS, ids=["-".join(map(str, (c, *v.values()))) for c, v in POINTS]
)
def test_it_computes_what_the_oracle_computes(cell: str, variant: dict[str, Any]) -> None:
    case = replace(CASE, cell=cell, **variant)
    forward_is_the_oracles(build, case)
    training_is_the_oracles(build, case)


@pytest.mark.parametrize(
    ("check", "cell"),
    [
        (a_rotation_goes_round_its_batches, "lstm"),
        (a_rotation_goes_round_its_batches_in_training, "lstm"),
        (a_state_carries_on, "lstm"),
        (fetch_survives_rebind, "lstm"),
        (nothing_is_constant, "lstm"),
        (nothing_is_constant_in_training, "lstm"),
        (padding_is_ignored, "gru-reset-after"),
        (padding_is_ignored_in_training, "lstm"),
        (two_steps_are_the_oracles, "lstm"),
        (two_steps_are_the_oracles, "gru-reset-after"),
    ],
)
def test_it_is_as_any_other_runner(check: Check, cell: str) -> None:
    check(build, replace(CASE, cell=cell, layers=1))


def test_what_stands_in_fails_on_an_empty_sequence_as_cudnn_does() -> None:
    """So that the tests above see whether the network lets one through."""
    import tensorflow as tf

    from tests.cudnn_standin import flat_rnn

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        lengths = tf.compat.v1.placeholder("int32", [2])
        found = flat_rnn(
            input=tf.zeros([2, 2, 1]), input_h=tf.zeros([1, 2, 1]), input_c=tf.zeros([]),
            params=tf.zeros([4]), sequence_lengths=lengths, is_training=False,
            rnn_mode="rnn_tanh", time_major=True,
        )  # fmt: skip
        with pytest.raises(tf.errors.InvalidArgumentError):
            session.run(found.output, {lengths: [2, 0]})
        assert session.run(found.output, {lengths: [2, 1]}).shape == (2, 2, 1)


def test_training_both_biases_would_be_seen() -> None:
    """The buffer of ones and zeros is what holds the constants."""
    from backends.tensorflow.cudnn import CudnnRnn

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CudnnRnn, "project", lambda _self, gradients: gradients)
        with pytest.raises(AssertionError):
            two_steps_are_the_oracles(build, replace(CASE, layers=1))


@given(
    case=cases(
        cell=st.sampled_from(EXPRESSED),
        seq_len=st.just(2),
        batch=st.just(1),
        inputs=st.integers(1, 4),
        hidden=st.integers(2, 5),
        layers=st.integers(1, 3),
        forget_bias=st.floats(-2, 2),
        direction=st.sampled_from(["forward", "bidirectional"]),
        dtype=st.sampled_from(["float32", "float64"]),
        seed=st.integers(0, 99),
    )
)
def test_unpacking_is_the_inverse_of_packing(case: Case) -> None:
    import tensorflow as tf

    from backends.tensorflow.cudnn import CudnnRnn

    weights = make_weights(case)
    with tf.Graph().as_default():
        network = CudnnRnn(case, training=False)
        found = network.unpack(network.pack(weights))
    for layer, same in zip(found, weights, strict=True):
        assert list(layer) == list(same)
        for name in same:
            assert layer[name].dtype == case.dtype
            np.testing.assert_array_equal(layer[name], same[name])


def test_arrays_are_in_the_documented_order() -> None:
    """Matrices [out, in] of the inputs and of the recurrence by gate, i, f, g, o, then biases."""
    import tensorflow as tf

    from backends.tensorflow.cudnn import CudnnRnn

    case = replace(CASE, layers=1)
    (weights,) = make_weights(case)
    with tf.Graph().as_default():
        arrays = CudnnRnn(case, training=False).pack((weights,))
    names = [f"{kind}_{gate}" for kind in "WUb" for gate in "ifgo"]
    for name, array in zip(names, arrays, strict=False):
        np.testing.assert_array_equal(array, weights[name].T)
    constants = [float(array[0]) for array in arrays[len(names) :]]
    assert constants == [0.0, 0.7, 0.0, 0.0]
    assert all(np.ptp(array) == 0 for array in arrays[len(names) :])


# --- the graph ------------------------------------------------------------------------------------


@pytest.fixture
def unopened(monkeypatch: pytest.MonkeyPatch) -> None:
    """No session looks for the kernels that there are not."""
    from backends.tensorflow import graph

    monkeypatch.setattr(graph.v1, "Session", MagicMock())


def operations_of(case: Case, mode: Mode) -> Iterator[Any]:
    """The operations of cuDNN's in a graph for a GPU."""
    from backends.tensorflow.cudnn import CUDNN

    runner: Any = build(case, mode, CUDNN)
    return (op for op in runner._graph.get_operations() if "Cudnn" in op.type)


@pytest.mark.usefixtures("unopened")
@pytest.mark.parametrize(
    ("cell", "rnn_mode", "projection"),
    [
        ("lstm", "lstm", 0),
        ("lstm-projection", "lstm", 2),
        ("gru-reset-after", "gru", 0),
        ("rnn", "rnn_tanh", 0),
        ("rnn-relu", "rnn_relu", 0),
    ],
)
@pytest.mark.parametrize("mode", ["forward", "train"])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_one_operation_for_all_layers(
    cell: str, rnn_mode: str, projection: int, mode: Mode, direction: Any
) -> None:
    case = replace(GPU, cell=cell, direction=direction, dtype="float32")
    found = {op.type: op for op in operations_of(case, mode)}
    version = "V2" if projection else ""
    conversions = {f"CudnnRNNCanonicalToParams{version}", f"CudnnRNNParamsToCanonical{version}"}
    gradient = {"CudnnRNNBackpropV3"} if mode == "train" else set()
    assert set(found) == {"CudnnRNNV3", *conversions, *gradient}
    ways = 2 if direction == "bidirectional" else 1
    op = found["CudnnRNNV3"]
    assert op.get_attr("rnn_mode") == rnn_mode.encode()
    assert op.get_attr("input_mode") == b"linear_input"
    assert op.get_attr("direction") == [b"unidirectional", b"bidirectional"][ways - 1]
    assert op.get_attr("num_proj") == projection
    assert op.get_attr("is_training") is (mode == "train")
    assert op.get_attr("time_major") is True
    assert op.get_attr("dropout") == 0
    width = projection or case.hidden
    assert op.inputs[0].shape.as_list() == [None, case.batch, case.inputs]
    assert op.inputs[1].shape.as_list() == [2 * ways, case.batch, width]
    if rnn_mode == "lstm":
        assert op.inputs[2].shape.as_list() == [2 * ways, case.batch, case.hidden]
    assert op.inputs[4].dtype == "int32"
    assert op.outputs[0].shape[2] == ways * width
    gates = {"lstm": 4, "gru": 3}.get(rnn_mode, 1)
    read = found[f"CudnnRNNParamsToCanonical{version}"]
    assert len(read.outputs) == 2 * ways * (4 * gates + bool(projection))


@pytest.mark.usefixtures("unopened")
def test_only_the_step_is_timed() -> None:
    """No conversion is upstream of the call: these are of `load` and `weights`."""
    from backends.tensorflow.cudnn import CUDNN

    runner: Any = build(GPU, "train", CUDNN)
    loss = runner._graph.get_tensor_by_name("loss:0")
    found, waiting = set(), [loss.op]
    while waiting:
        op = waiting.pop()
        if op not in found:
            found.add(op)
            waiting += [value.op for value in op.inputs] + list(op.control_inputs)
    types = [op.type for op in found if "Cudnn" in op.type]
    assert sorted(types) == ["CudnnRNNBackpropV3", "CudnnRNNV3"]


@pytest.mark.parametrize(
    ("op", "on_the_host"),
    [
        ("CudnnRNNV3", {"sequence_lengths", "host_reserved"}),
        ("CudnnRNNBackpropV3", {"sequence_lengths", "host_reserved"}),
        ("CudnnRNNCanonicalToParams", {"num_layers", "num_units", "input_size"}),
        ("CudnnRNNCanonicalToParamsV2", {"num_layers", "num_units", "input_size"}),
        ("CudnnRNNParamsToCanonical", {"num_layers", "num_units", "input_size"}),
        ("CudnnRNNParamsToCanonicalV2", {"num_layers", "num_units", "input_size"}),
    ],
)
def test_there_are_kernels_for_gpus_alone(op: str, on_the_host: set[str]) -> None:
    from tensorflow.python.framework import kernels

    found = kernels.get_registered_kernels_for_op(op).kernel
    if not found:
        pytest.skip("this TensorFlow was built without CUDA")
    assert {kernel.device_type for kernel in found} == {"GPU"}
    assert {name for kernel in found for name in kernel.host_memory_arg} == on_the_host


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CELL_NAMES)
def test_which_cells_are_expressed(name: str) -> None:
    case = replace(GPU, cell=name, inputs=GPU.hidden)
    reason = cudnn_refusal(case, "train")
    assert (reason is None) == (name in EXPRESSED)
    assert reason is None or reason.startswith(f"cell {name}: ")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"device": "cpu"}, "device cpu: cuDNN is for a GPU alone"),
        ({"device": "gpu:1"}, None),
        ({"dtype": "float32", "lengths": "half"}, None),
        ({"dtype": "float16"}, None),
        (
            {"dtype": "bfloat16"},
            "dtype bfloat16: CudnnRNNV3 casts bfloat16 to float32, and computes in that",
        ),
        ({"direction": "bidirectional"}, None),
        (
            {"direction": "two-stacks"},
            "direction two-stacks: CudnnRNNV3 joins both directions after every layer",
        ),
        ({"direction": "two-stacks", "layers": 1}, None),
        (
            {"cell": "lstm-peephole", "device": "cpu"},
            "cell lstm-peephole: CudnnRNNV3 has no peepholes",
        ),
        (
            {"cell": "lstm-shared", "inputs": 4},
            "cell lstm-shared: CudnnRNNV3 has weights of its own for every layer",
        ),
        ({"cell": "lstm-shared", "layers": 1}, None),
        ({"cell": "mixed", "layers": 1}, None),
        (
            {"cell": "lstm-projection", "hidden": 1},
            "cell lstm-projection: CudnnRNNV3 projects to less than its hidden units, 1, not to 1",
        ),
        (
            {"cell": "gru"},
            "cell gru: CudnnRNNV3 applies the reset gate after the product, another function",
        ),
    ],
)
def test_what_is_refused(changes: dict[str, Any], reason: str | None) -> None:
    assert INFO.refusal("cudnn", replace(GPU, **changes), "forward") == reason


def test_layers_that_differ_are_refused() -> None:
    with pytest.MonkeyPatch.context() as patch:
        cells = (Lstm(projection="half"), Lstm())
        patch.setitem(CELLS, "two", Entry(title="two", cells=cells))
        layers.cache_clear()
        reason = cudnn_refusal(replace(GPU, cell="two"), "forward")
    layers.cache_clear()
    assert reason == "cell two: CudnnRNNV3 has layers that are alike, and these differ"


@pytest.mark.parametrize("strategy", ["cudnn", "keras-cudnn"])
def test_the_adapter_refuses_on_a_cpu(strategy: str) -> None:
    backend = backends.create("tensorflow")
    with pytest.raises(Unsupported, match=r"^device cpu: cuDNN is for a GPU alone$"):
        backend.build(CASE, strategy, "forward")


# --- Keras ----------------------------------------------------------------------------------------


@pytest.fixture
def keras_sees_a_gpu(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Keras takes what stands in for its kernel; the calls of it."""
    import tensorflow as tf

    from tests.cudnn_standin import flat_rnn

    calls = []

    def called(**inputs: Any) -> Any:
        calls.append(inputs)
        return flat_rnn(**inputs)

    rnn = import_module("keras.src.backend.tensorflow.rnn")
    monkeypatch.setattr(rnn, "_is_gpu_available", lambda: True)
    build = {"is_cuda_build": True, "is_rocm_build": False}
    monkeypatch.setattr(tf.sysconfig, "get_build_info", lambda: build)
    monkeypatch.setattr(tf.raw_ops, "CudnnRNNV3", called)
    return calls


def build_keras(case: Case, mode: Mode) -> Runner:
    from backends.tensorflow.adapter import _FUNCTIONS

    return _FUNCTIONS["keras-cudnn"](case, mode, unstaged, device="/cpu:0")


@pytest.mark.parametrize("cell", ["lstm", "gru-reset-after", "residual-lstm"])
@pytest.mark.parametrize(
    "variant",
    [
        {"lengths": "full"},
        {"lengths": "ragged"},
        {"lengths": "ragged", "direction": "bidirectional", "layers": 1},
    ],
    ids=lambda v: "-".join(map(str, v.values())),
)
def test_keras_layers_on_cudnn(
    keras_sees_a_gpu: list[dict[str, Any]], cell: str, variant: dict[str, Any]
) -> None:
    case = replace(CASE, cell=cell, inputs=CASE.hidden, **variant)
    forward_is_the_oracles(build_keras, case)
    assert len(keras_sees_a_gpu) == len(layers(case))
    training_is_the_oracles(build_keras, case)


def test_without_the_kernel_keras_does_not_loop_instead() -> None:
    with pytest.raises(ValueError, match="cuDNN is not supported"):
        build_keras(replace(CASE, lengths="full"), "forward")


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("lstm", None),
        ("gru-reset-after", None),
        ("residual-lstm", None),
        ("lstm-shared", None),
        ("rnn", "Keras' SimpleRNN has no kernel of cuDNN's"),
        ("gru", "Keras takes cuDNN's kernel for a GRU with reset_after=True"),
        ("lstm-relu", "Keras takes cuDNN's kernel for tanh, not relu"),
        ("lstm-projection", "Keras' LSTM has no projection"),
    ],
)
def test_what_keras_has_cudnns_kernel_for(cell: str, reason: str | None) -> None:
    case = replace(GPU, cell=cell, inputs=GPU.hidden)
    said = None if reason is None else f"cell {cell}: {reason}"
    assert INFO.refusal("keras-cudnn", case, "forward") == said


def test_keras_is_not_asked_for_cudnn_in_bfloat16() -> None:
    reason = "dtype bfloat16: CudnnRNNV3 casts bfloat16 to float32, and computes in that"
    assert INFO.refusal("keras-cudnn", replace(GPU, dtype="bfloat16"), "forward") == reason
    assert INFO.refusal("keras-cudnn", replace(GPU, dtype="float16"), "forward") is None
