"""What only TensorFlow's adapter has: graphs, sessions, control flow versions, block operations."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import backends
from backends.api import CELL_NAMES, Batch, Case, Unavailable, Unsupported, Weights
from backends.data import make_batch, make_weights
from backends.kernels import of_spans
from backends.reference.adapter import OracleRunner
from backends.reference.network import expected
from backends.stack import parameters
from bench.outputs import check_forward, check_train, probe_gradients

if backends.missing("tensorflow"):
    pytest.skip(backends.missing("tensorflow") or "", allow_module_level=True)

CASE = Case(cell="lstm", seq_len=6, batch=4, inputs=3, hidden=5, forget_bias=0.7)
RAGGED = replace(CASE, seq_len=4, lengths="ragged", initial_state="random", layers=2)

GRAPHS = (
    *("static", "dynamic", "dynamic-v2", "dynamic-time-major", "dynamic-swap"),
    *("dynamic-parallel-1", "raw", "state-saving", "static-block", "dynamic-block"),
    *("fused", "fused-v2"),
)
STRATEGIES = (*GRAPHS, "keras", "keras-unrolled", "xla")
UNROLLED = ("static", "state-saving", "static-block", "keras-unrolled")

V1_LOOP = {"Enter", "Exit", "NextIteration", "Switch", "Merge", "LoopCond"}
V2_LOOP = {"While", "StatelessWhile"}
#: What becomes of a product depends on the CPU: oneDNN replaces some on some.
PRODUCTS = {"MatMul", "_FusedMatMul", "_MklMatMul", "_MklNativeFusedMatMul", "_MklNativeMatMul"}


@pytest.fixture(scope="module")
def backend() -> Any:
    return backends.create("tensorflow")


@pytest.fixture
def build(backend: Any) -> Any:
    """Build runners, loaded and bound with a case's own data; they are closed after the test."""
    runners = []

    def one(case: Case, strategy: str, mode: str = "forward") -> Any:
        runner = backend.build(case, strategy, mode)
        runners.append(runner)
        runner.load(make_weights(case))
        runner.bind(make_batch(case))
        return runner

    yield one
    for runner in runners:
        runner.close()


def longer(case: Case, seq_len: int) -> tuple[Weights, Batch]:
    """A case's weights with a batch of another T."""
    return make_weights(case), make_batch(replace(case, seq_len=seq_len))


def op_types(runner: Any) -> Counter[str]:
    """Operations of a runner's graph by type, those of its functions too."""
    definition = runner._graph.as_graph_def()
    counts = Counter(node.op for node in definition.node)
    for function in definition.library.function:
        counts.update(node.op for node in function.node_def)
    return counts


def ancestors(op: Any) -> set[Any]:
    """Everything that must have run before an operation."""
    seen: set[Any] = set()
    todo = [op]
    while todo:
        current = todo.pop()
        for other in [*(value.op for value in current.inputs), *current.control_inputs]:
            if other not in seen:
                seen.add(other)
                todo.append(other)
    return seen


# --- control flow ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["forward", "train"])
def test_dynamic_is_a_loop_of_its_version(build: Any, mode: str) -> None:
    v1 = set(op_types(build(RAGGED, "dynamic", mode)))
    v2 = set(op_types(build(RAGGED, "dynamic-v2", mode)))
    assert v1 >= V1_LOOP
    assert not v1 & V2_LOOP
    assert v2 & V2_LOOP
    assert not v2 & V1_LOOP


@pytest.mark.parametrize("seq_len", [6, 12])
def test_static_has_every_step_in_the_graph(build: Any, seq_len: int) -> None:
    case = replace(CASE, seq_len=seq_len)
    static, dynamic = op_types(build(case, "static")), op_types(build(case, "dynamic"))
    assert static["MatMul"] == seq_len
    assert dynamic["MatMul"] == 1
    assert not set(static) & (V1_LOOP | V2_LOOP)


def test_static_with_lengths_has_conditionals_of_version_1(build: Any) -> None:
    types = op_types(build(RAGGED, "static"))
    assert types["Merge"] > 0
    assert not set(types) & {"If", "StatelessIf"}


def test_fused_is_one_operation_a_layer(build: Any) -> None:
    types = op_types(build(RAGGED, "fused"))
    assert types["BlockLSTM"] == 2
    assert types["MatMul"] == 0


@pytest.mark.parametrize("strategy", ["static-block", "dynamic-block", "fused", "fused-v2"])
@pytest.mark.parametrize("mode", ["forward", "train"])
def test_a_block_operation_takes_the_place_of_a_product(
    build: Any, strategy: str, mode: str
) -> None:
    case = replace(CASE, layers=2)
    types = op_types(build(case, strategy, mode))
    op = {"fused": "BlockLSTM", "fused-v2": "BlockLSTMV2"}.get(strategy, "LSTMBlockCell")
    steps = case.seq_len if strategy == "static-block" else 1
    assert types[op] == 2 * steps
    assert types["MatMul"] == 0 or mode == "train"
    grad = {"BlockLSTM": "BlockLSTMGrad", "BlockLSTMV2": "BlockLSTMGradV2"}.get(op, f"{op}Grad")
    assert types[grad] == (2 * steps if mode == "train" else 0)


def test_a_gru_has_its_own_block(build: Any) -> None:
    types = op_types(build(replace(CASE, cell="gru", layers=2), "static-block", "train"))
    assert types["GRUBlockCell"] == types["GRUBlockCellGrad"] == 2 * CASE.seq_len


# --- the runners' options -------------------------------------------------------------------------


def loops(runner: Any, attribute: str) -> set[Any]:
    """The values of an attribute of the loops' entries, or of the stacks that their steps fill."""
    ops = runner._graph.get_operations()
    kind = "Enter" if attribute == "parallel_iterations" else "StackPushV2"
    return {op.get_attr(attribute) for op in ops if op.type == kind}


@pytest.mark.parametrize(
    ("strategy", "parallel", "swap"),
    [
        ("dynamic", 32, False),
        ("dynamic-time-major", 32, False),
        ("dynamic-swap", 32, True),
        ("dynamic-parallel-1", 1, False),
    ],
)
def test_a_loop_has_the_options_of_its_name(
    build: Any, strategy: str, parallel: int, swap: bool
) -> None:
    runner = build(RAGGED, strategy, "train")
    assert parallel in loops(runner, "parallel_iterations")
    assert loops(runner, "parallel_iterations") <= {parallel, 1}
    assert loops(runner, "swap_memory") == {swap}


def test_time_major_transposes_once_however_many_loops_there_are(build: Any) -> None:
    case = replace(CASE, layers=3, direction="bidirectional")
    plain, major = (
        op_types(build(case, strategy))["Transpose"]
        for strategy in ("dynamic", "dynamic-time-major")
    )
    assert major == 2
    # Of each depth there are two loops.
    assert plain == 3 * 2 * 2


def test_raw_is_a_loop_that_reads_one_step_at_a_time(build: Any) -> None:
    types = op_types(build(RAGGED, "raw"))
    assert set(types) >= V1_LOOP
    # The first step's input is read before the loop.
    assert types["TensorArrayReadV3"] == 2
    assert types["MatMul"] == 2


@pytest.mark.parametrize("mode", ["forward", "train"])
@pytest.mark.parametrize("case", [CASE, RAGGED, replace(RAGGED, direction="bidirectional")])
def test_state_saving_leaves_the_final_state_with_its_saver(
    build: Any, case: Case, mode: str
) -> None:
    runner = build(case, "state-saving", mode)
    final = expected(case, make_weights(case), make_batch(case)).output.state
    runner.sync(runner.forward() if mode == "forward" else runner.train())
    saved = runner._network.saved
    assert len(saved) == sum(len(layer) for layer in final)
    for name, variable in saved.items():
        place, _, part = name.partition("_")
        with runner._graph.as_default():
            read = variable.read_value()
        found = runner._session.run(read)
        np.testing.assert_allclose(found, final[int(place)][part], rtol=0, atol=1e-5)
        assert np.abs(found).max() > 0


# --- cells ----------------------------------------------------------------------------------------


def trained_values(runner: Any) -> int:
    return sum(int(np.prod(value.shape)) for value in runner._network.variables)


def test_one_cell_as_every_layer_has_the_variables_of_one(build: Any) -> None:
    """The tutorial's slip: `MultiRNNCell([cell] * n)`."""
    case = replace(CASE, inputs=5, layers=3)
    shared = build(replace(case, cell="lstm-shared"), "static")
    assert trained_values(shared) * 3 == trained_values(build(case, "static"))
    assert op_types(shared)["MatMul"] == 3 * case.seq_len


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_a_cell_has_as_many_values_as_its_parameters(build: Any, cell: str) -> None:
    case = Case(cell=cell, seq_len=1, batch=2, inputs=4, hidden=4, layers=2)
    assert trained_values(build(case, "dynamic")) == parameters(case)


@pytest.mark.parametrize("variational", [False, True])
def test_tensorflows_dropout_keeps_as_many_as_our_masks_do(variational: bool) -> None:
    """What a wrapper draws itself: its statistics are those of the masks that are given."""
    import tensorflow as tf

    rnn_cell = tf.compat.v1.nn.rnn_cell
    batch, width, keep = 200, 500, 0.7

    class Echo(rnn_cell.RNNCell):  # type: ignore[name-defined, misc]
        """Hands on inputs and state."""

        state_size = output_size = width

        def call(self, inputs: Any, state: Any) -> Any:
            return inputs, state

    with tf.Graph().as_default():
        wrapped = rnn_cell.DropoutWrapper(
            Echo(),
            input_keep_prob=keep,
            state_keep_prob=0.5,
            variational_recurrent=variational,
            input_size=tf.TensorShape([width]),
            dtype=tf.float32,
        )
        ones = tf.ones([batch, width])
        steps = [wrapped(ones, ones) for _ in range(2)]
        with tf.compat.v1.Session() as session:
            (first, state), (second, _) = session.run(steps)
    for values, kept in ((first, keep), (state, 0.5)):
        np.testing.assert_allclose(np.unique(values), [0, 1 / kept], rtol=1e-6)
        # Five standard deviations of the fraction, of as many draws as there are.
        draws = width if variational else batch * width
        assert (values > 0).mean() == pytest.approx(kept, abs=5 * 0.5 / draws**0.5)
    same = (first == second).all()
    assert same == variational
    assert (first == first[:1]).all() == variational


@pytest.mark.parametrize("strategy", ["dynamic", "dynamic-v2"])
@pytest.mark.parametrize("enabled", [True, False])
def test_the_process_keeps_its_control_flow(build: Any, strategy: str, enabled: bool) -> None:
    import tensorflow as tf

    from backends.tensorflow.graph import control_flow

    with control_flow(v2=enabled):
        build(CASE, strategy)
        assert tf.compat.v1.control_flow_v2_enabled() is enabled


def test_control_flow_is_put_back_after_an_error(backend: Any) -> None:
    import tensorflow as tf

    from backends.tensorflow.graph import control_flow

    before = tf.compat.v1.control_flow_v2_enabled()
    with pytest.raises(KeyError), control_flow(v2=not before):
        raise KeyError
    assert tf.compat.v1.control_flow_v2_enabled() is before


def test_xla_is_compiled_as_a_whole(build: Any) -> None:
    def must_compile(strategy: str) -> bool:
        attributes = build(CASE, strategy)._program.function_def.attr
        return bool(attributes["_XlaMustCompile"].b)

    assert must_compile("xla")
    assert not must_compile("keras")


def test_size_grows_with_time_only_where_time_is_unrolled(build: Any) -> None:
    for strategy in ("static", "dynamic", "dynamic-v2", "keras", "keras-unrolled"):
        short, long = (
            build(replace(CASE, seq_len=t), strategy).program_size()["nodes"] for t in (6, 12)
        )
        if strategy in UNROLLED:
            assert long > short + 6 * 5, strategy
        else:
            assert long == short, strategy


# --- what a call runs -----------------------------------------------------------------------------


def executed(runner: Any, name: str) -> Counter[str]:
    """Operations by type that are left of a graph's call when the optimizer is done with it."""
    import tensorflow as tf

    metadata = tf.compat.v1.RunMetadata()
    options = tf.compat.v1.RunOptions(output_partition_graphs=True)
    runner._session.run(
        runner._graph.get_operation_by_name(name), options=options, run_metadata=metadata
    )
    return Counter(node.op for graph in metadata.partition_graphs for node in graph.node)


def test_no_step_is_pruned_from_a_static_forward(build: Any) -> None:
    runner = build(replace(CASE, seq_len=12, layers=2), "static")
    counts = executed(runner, "forward")
    assert sum(counts[name] for name in PRODUCTS) == 2 * 12


@pytest.mark.parametrize("strategy", GRAPHS)
def test_fetch_reads_variables_and_runs_nothing(build: Any, strategy: str) -> None:
    runner = build(RAGGED, strategy)
    for result in runner._results:
        behind = {op.type for op in ancestors(result.op)}
        assert behind == {"VarHandleOp", "ReadVariableOp"}


@pytest.mark.parametrize("strategy", ["dynamic", "fused", "keras"])
def test_results_stay_when_another_batch_is_bound(build: Any, strategy: str) -> None:
    runner = build(RAGGED, strategy)
    out = runner.forward()
    runner.bind(make_batch(replace(RAGGED, seed=9)))
    runner.sync(out)
    truth = expected(RAGGED, make_weights(RAGGED), make_batch(RAGGED))
    assert check_forward(RAGGED, runner.fetch(out), truth).fault is None


@pytest.mark.parametrize("strategy", ["dynamic", "keras"])
def test_what_was_taken_does_not_change_with_the_callers_arrays(build: Any, strategy: str) -> None:
    case = replace(CASE, cell="gru-reset-after", lengths="ragged", initial_state="random")
    runner, weights, batch = build(case, strategy), make_weights(case), make_batch(case)
    truth = expected(case, make_weights(case), make_batch(case))
    runner.load(weights)
    runner.bind(batch)
    state = batch.initial_state or ()
    for array in [batch.x, batch.lengths, *(value for layer in state for value in layer.values())]:
        assert array is not None
        array[...] = 1
    for layer in weights:
        for array in layer.values():
            array[...] = 0
    assert check_forward(case, runner.fetch(runner.forward()), truth).fault is None


def test_training_leaves_the_callers_weights_alone(build: Any) -> None:
    case = replace(CASE, cell="gru-reset-after")
    runner, weights = build(case, "dynamic", "train"), make_weights(case)
    runner.load(weights)
    runner.train()
    for layer, same in zip(weights, make_weights(case), strict=True):
        for name in layer:
            np.testing.assert_array_equal(layer[name], same[name])


# --- shapes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name not in UNROLLED])
def test_another_time_is_taken(build: Any, strategy: str) -> None:
    runner = build(RAGGED, strategy)
    runner.forward()
    weights, batch = longer(RAGGED, 9)
    runner.bind(batch)
    truth = expected(RAGGED, weights, batch)
    assert check_forward(RAGGED, runner.fetch(runner.forward()), truth).fault is None


@pytest.mark.parametrize("strategy", UNROLLED)
def test_another_time_is_refused(build: Any, strategy: str) -> None:
    runner = build(CASE, strategy)
    with pytest.raises(Unsupported, match=r"^graph is built for T=6, got T=9$"):
        runner.bind(longer(CASE, 9)[1])


@pytest.mark.parametrize("strategy", ["dynamic", "keras"])
def test_another_batch_size_is_refused(build: Any, strategy: str) -> None:
    runner = build(CASE, strategy)
    with pytest.raises(Unsupported, match=r"^graph is built for B=4, got B=3$"):
        runner.bind(make_batch(replace(CASE, batch=3)))


@pytest.mark.parametrize("strategy", GRAPHS)
def test_a_batch_of_empty_sequences(build: Any, strategy: str) -> None:
    weights, batch = make_weights(RAGGED), make_batch(RAGGED)
    batch = replace(batch, lengths=np.zeros(RAGGED.batch, np.int32))
    truth = expected(RAGGED, weights, batch)
    runner = build(RAGGED, strategy)
    runner.bind(batch)
    assert check_forward(RAGGED, runner.fetch(runner.forward()), truth).fault is None
    loss, gradients = probe_gradients(build(RAGGED, strategy, "train"), weights, batch)
    assert check_train(RAGGED, loss, gradients, truth).fault is None


# --- training -------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", GRAPHS)
def test_no_weight_is_updated_before_all_have_been_read(build: Any, strategy: str) -> None:
    runner = build(RAGGED, strategy, "train")
    ports = {port.read.op for port in runner._weight_ports}
    handles = {value.handle.op for value in runner._network.variables}
    ops = runner._graph.get_operations()
    reads = {
        op
        for op in ops
        if op.type == "ReadVariableOp"
        and ancestors(op) & handles
        and set(op.outputs[0].consumers()) - ports
    }
    updates = [op for op in ops if op.type == "AssignSubVariableOp"]
    assert len(updates) == len(handles)
    assert len(reads) == len(handles)
    for update in updates:
        assert ancestors(update) >= reads
    assert ancestors(runner._graph.get_operation_by_name("loss")) >= set(updates)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_three_steps_are_the_oracles(build: Any, strategy: str) -> None:
    runner, oracle = build(RAGGED, strategy, "train"), OracleRunner(RAGGED)
    oracle.load(make_weights(RAGGED))
    for seed in range(3):
        batch = replace(make_batch(replace(RAGGED, seed=seed)), learning_rate=0.5)
        runner.bind(batch)
        oracle.bind(batch)
        loss, truth = runner.fetch_loss(runner.train()), oracle.train()
        assert loss == pytest.approx(truth, rel=1e-5)
    for layer, truth_layer in zip(runner.weights(), oracle.weights(), strict=True):
        for name in truth_layer:
            np.testing.assert_allclose(layer[name], truth_layer[name], atol=1e-5)


def test_a_loss_stays_when_more_steps_are_taken(build: Any) -> None:
    for strategy in ("dynamic", "keras"):
        runner = build(CASE, strategy, "train")
        first = runner.train()
        value = runner.fetch_loss(first)
        assert runner.fetch_loss(runner.train()) < value
        assert runner.fetch_loss(first) == value


def test_keras_trains_one_bias_for_u_and_r(build: Any) -> None:
    runner = build(replace(CASE, cell="gru-reset-after"), "keras", "train")
    runner.train()
    bias = runner._network.variables[2].numpy()  # [2, 3 H]: of the input, of the state
    assert not bias[1, :10].any()
    assert bias[1, 10:].all()


@pytest.mark.parametrize("strategy", ["dynamic", "keras"])
def test_a_runner_serves_one_mode(build: Any, strategy: str) -> None:
    with pytest.raises(ValueError, match="built for mode 'train', not for 'forward'"):
        build(CASE, strategy, "train").forward()
    with pytest.raises(ValueError, match="built for mode 'forward', not for 'train'"):
        build(CASE, strategy).train()


def test_forward_mode_has_no_gradients(build: Any) -> None:
    types = op_types(build(CASE, "fused"))
    assert types["BlockLSTMGrad"] == 0
    assert types["AssignSubVariableOp"] == 0
    assert op_types(build(CASE, "fused", "train"))["BlockLSTMGrad"] == 1


# --- a limit on a GPU, as TensorFlow is asked for it ----------------------------------------------


def test_sessions_and_eager_tensorflow_are_both_limited(
    backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow as tf

    from backends.tensorflow.adapter import TensorflowBackend

    with pytest.raises(Unavailable, match="device gpu:99: "):
        backend.limit("gpu:99", 2**30)
    gpus = [tf.config.PhysicalDevice(f"/physical_device:GPU:{n}", "GPU") for n in range(3)]
    logical: dict[Any, Any] = {}
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
    monkeypatch.setattr(tf.config, "set_logical_device_configuration", logical.__setitem__)
    monkeypatch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", "false")
    limited = TensorflowBackend(1)
    limited.limit("gpu:1", 300 * 2**20 + 7)
    assert os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    assert logical == {gpus[1]: [tf.config.LogicalDeviceConfiguration(memory_limit=300)]}
    options = limited._config.gpu_options
    entries = [list(entry.memory_limit_mb) for entry in options.experimental.virtual_devices]
    assert entries == [[], [300], []]
    assert options.allow_growth
    # A session refuses both at once.
    assert not options.per_process_gpu_memory_fraction
    assert not backend._config.gpu_options.experimental.virtual_devices


# --- what is refused, what is reported ------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "strategy", "error", "message"),
    [
        (replace(CASE, cell="gru"), "fused", Unsupported, "cell gru: BlockLSTM computes an LSTM"),
        (replace(CASE, dtype="float64"), "fused", Unsupported, "dtype float64: .* float32"),
        (CASE, "scan", Unsupported, "strategy scan: tensorflow has static, dynamic, dynamic-v2"),
        (
            replace(CASE, device="gpu:9"),
            "static",
            Unavailable,
            "device gpu:9: TensorFlow .* finds ",
        ),
    ],
)
def test_refusals_come_before_any_work(
    backend: Any, case: Case, strategy: str, error: type[Exception], message: str
) -> None:
    def no_stage(name: str) -> Any:
        raise AssertionError(name)

    with pytest.raises(error, match=message):
        backend.build(case, strategy, "forward", no_stage)


@pytest.mark.parametrize(
    ("strategy", "stages"),
    [("dynamic", ["graph", "gradients", "session"]), ("keras", ["variables", "trace"])],
)
def test_a_build_names_its_stages(backend: Any, strategy: str, stages: list[str]) -> None:
    seen: list[str] = []

    @contextmanager
    def stage(name: str) -> Any:
        seen.append(name)
        yield

    backend.build(CASE, strategy, "train", stage).close()
    assert seen == stages


def test_the_strategies_are_those_of_the_manifest(backend: Any) -> None:
    from backends.tensorflow.adapter import _FUNCTIONS, _GRAPHS, BARE

    assert [strategy.name for strategy in backends.BACKENDS["tensorflow"].strategies] == [
        *_GRAPHS,
        *_FUNCTIONS,
        *BARE,
    ]


def test_threads_are_what_was_asked_for(backend: Any) -> None:
    assert backend.threads() == {"intra_op": 1, "inter_op": 1}
    assert backends.create("tensorflow").threads() == backend.threads()


def test_import_starts_nothing() -> None:
    """A process may still be forked after it."""
    script = """
import os
from backends.tensorflow import environment
os.environ.update(environment(2))
import backends.tensorflow.adapter
from tensorflow.python.eager import context
assert context.context_safe() is None
assert len(os.listdir("/proc/self/task")) == 1
"""
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, capture_output=True)


def profiled(backend: Any, runner: Any, call: Any) -> Any:
    runner.sync(call())
    return backend.kernels(runner, "cpu", lambda: runner.sync(call()))


@pytest.mark.parametrize("strategy", ["static", "dynamic", "dynamic-v2", "xla"])
def test_the_profiler_sees_a_product_a_step(backend: Any, build: Any, strategy: str) -> None:
    runner = build(CASE, strategy)
    # An executor learns what is cheap, and the profiler then leaves it out.
    for _ in range(500):
        runner.forward()
    seen = profiled(backend, runner, runner.forward)
    assert sum(seen[name] for name in PRODUCTS & set(seen)) == CASE.seq_len
    if strategy != "xla":
        assert (seen["Sigmoid"], seen["Tanh"]) == (3 * CASE.seq_len, 2 * CASE.seq_len)
    loops = {"Less", "LogicalAnd", "compare_and_fusion"} & set(seen)
    assert bool(loops) == (strategy != "static")
    assert not [name for name in seen if name.startswith("__inference") or "while" in name]
    assert not (V1_LOOP | V2_LOOP | {"Const", "NoOp"}) & set(seen)


def test_a_trace_is_a_call_of_what_is_timed(backend: Any, build: Any) -> None:
    """A training step that is traced moves the weights as any other; a session has one executor."""
    one, other = build(CASE, "dynamic", "train"), build(CASE, "dynamic", "train")
    one.train()
    backend.kernels(other, "cpu", lambda: None)
    for mine, theirs in zip(one.weights(), other.weights(), strict=True):
        for name, value in mine.items():
            np.testing.assert_array_equal(value, theirs[name])
            assert not np.array_equal(value, make_weights(CASE)[0][name])


def test_the_profiler_sees_a_functions_operations(backend: Any, build: Any) -> None:
    seen = profiled(backend, runner := build(CASE, "keras"), runner.forward)
    assert PRODUCTS & set(seen)


def test_the_profiler_sees_the_block_operation(backend: Any, build: Any) -> None:
    runner = build(CASE, "fused", "train")
    seen = profiled(backend, runner, runner.train)
    assert (seen["BlockLSTM"], seen["BlockLSTMGrad"]) == (1, 1)
    assert not PRODUCTS & set(seen)


def test_on_a_gpu_the_streams_of_an_xspace_are_read() -> None:
    """From the message that the profiler writes, as XLA's collector fills it: no GPU is there."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    from backends.tensorflow.kernels import _spans

    space = xplane_pb2.XSpace()
    plane = space.planes.add(name="/device:GPU:0")
    for number, (name, line, duration) in enumerate(
        [
            ("volta_sgemm_128x64_nn", "Stream #13(Kernel)", 30),
            ("MemcpyD2D", "Stream #14(MemcpyD2D)", 1),
            ("MatMul", "TensorFlow Ops", 40),
        ]
    ):
        plane.event_metadata[number].name = name
        event = plane.lines.add(name=line).events.add()
        event.metadata_id, event.duration_ps = number, duration
    assert of_spans(_spans(space), "gpu") == {"volta_sgemm_128x64_nn": 1, "MemcpyD2D": 1}
    with pytest.raises(RuntimeError, match="CUPTI"):
        of_spans(_spans(xplane_pb2.XSpace()), "gpu")


@pytest.mark.parametrize("on", [False, True])
def test_tf32_is_off_until_a_case_wants_it(on: bool) -> None:
    import tensorflow as tf

    from backends.tensorflow.adapter import TensorflowBackend

    tf.config.experimental.enable_tensor_float_32_execution(True)
    try:
        fresh = TensorflowBackend(threads=1)
        assert not tf.config.experimental.tensor_float_32_execution_enabled()
        fresh._tf32.require(replace(CASE, device="gpu", tf32="on" if on else "off"))
        assert tf.config.experimental.tensor_float_32_execution_enabled() is on
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(False)
