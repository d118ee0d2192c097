"""Block operations against the oracle, and against TensorFlow's gradient of its own cells."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import backends
from backends.api import CELL_NAMES, Array, Batch, Case, Dtype, Mode, Output, State, Weights
from backends.cells import CELLS, Entry
from backends.data import initial_state, make_batch, make_weights, zero_batch
from backends.layout import pack, unpack
from backends.reference.network import expected
from backends.spec import Cell, Gru, Lstm, Residual
from backends.stack import Layer, layers
from backends.tensorflow.blocksupport import block_lstm_refusal, cell_refusal
from bench.outputs import check_forward, check_train
from tests.support import SMALLEST, data

pytestmark = pytest.mark.xdist_group("tensorflow")

if backends.missing("tensorflow"):
    pytest.skip(backends.missing("tensorflow") or "", allow_module_level=True)

CASE = replace(SMALLEST, seq_len=4)
FULL = replace(CASE, lengths="full")
CLIPPED_PEEPHOLES = "lstm-peephole-clip"
RUNNERS = ("static-v1", "static-v2", "dynamic-v1", "dynamic-v2")


@pytest.fixture(scope="module", autouse=True)
def tensorflow() -> None:
    backends.create("tensorflow")


@pytest.fixture(scope="module", autouse=True)
def more_cells() -> Iterator[None]:
    """Peepholes with a clip, which o must see clipped; a residual around peepholes."""
    with pytest.MonkeyPatch.context() as patch:
        for name, cell in {
            CLIPPED_PEEPHOLES: Lstm(peepholes=True, cell_clip=0.25),
            "residual-peephole": Residual(cell=Lstm(peepholes=True)),
        }.items():
            patch.setitem(CELLS, name, Entry(title=name, cells=(cell,)))
        layers.cache_clear()
        yield
    layers.cache_clear()


# --- a graph of a network -------------------------------------------------------------------------


class Cells:
    """Cells of one kind under `static_rnn` or `dynamic_rnn`, with the interface of a network."""

    def __init__(self, case: Case, make: Callable[[Layer, str], Any], *, static: bool) -> None:
        from backends.tensorflow.cells import legacy_warnings_ignored

        self._quiet = legacy_warnings_ignored
        self._static = static
        self._layers = layers(case)
        with self._quiet():
            self._cells = [make(layer, case.dtype) for layer in self._layers]

    @property
    def variables(self) -> list[Any]:
        return [value for cell in self._cells for value in cell.trainable_weights]

    def __call__(self, x: Any, lengths: Any, state: Any) -> tuple[Any, Any]:
        import tensorflow as tf

        v1 = tf.compat.v1.nn
        given = [list(layer.values()) for layer in state]
        start = tuple(v1.rnn_cell.LSTMStateTuple(*s) if len(s) > 1 else s[0] for s in given)
        with self._quiet():
            cell = v1.rnn_cell.MultiRNNCell(self._cells)
            options = {"initial_state": start, "sequence_length": lengths}
            if self._static:
                steps, final = v1.static_rnn(cell, tf.unstack(x, axis=1), **options)
                outputs = tf.stack(steps, axis=1)
            else:
                outputs, final = v1.dynamic_rnn(cell, x, **options)
        return outputs, tuple(
            dict(zip(layer.state, tf.nest.flatten(last), strict=True))
            for layer, last in zip(self._layers, final, strict=True)
        )

    def pack(self, weights: Weights) -> list[Array]:
        from backends.tensorflow.layout import layout

        given = zip(self._layers, weights, strict=True)
        return [value for layer, own in given for value in pack(layout(layer), own).values()]

    def unpack(self, values: Any) -> Weights:
        from backends.tensorflow.layout import layout

        rest = iter(values)
        return tuple(
            unpack(layout(layer), {name: next(rest) for name in layout(layer)}, layer.blocks)
            for layer in self._layers
        )


@contextmanager
def network_of(case: Case, kind: str, *, plain: bool = False) -> Iterator[Any]:
    """A network in a graph of its own; `plain` has TensorFlow's cells instead of block cells."""
    import tensorflow as tf

    from backends.tensorflow.block import BlockLstm, BlockLstmV2
    from backends.tensorflow.blockcells import make_block_cell
    from backends.tensorflow.graph import control_flow

    blocks = {"BlockLSTM": BlockLstm, "BlockLSTMV2": BlockLstmV2}
    with tf.Graph().as_default(), control_flow(v2=kind.endswith("-v2")):
        if kind in blocks:
            yield blocks[kind](case)
        else:
            make = plain_cell if plain else make_block_cell
            yield Cells(case, make, static=kind.startswith("static"))


def plain_cell(layer: Layer, dtype: str) -> Any:
    """The cell that a block cell is compared with; its variables are in the same order."""
    import tensorflow as tf

    rnn_cell = tf.compat.v1.nn.rnn_cell
    if isinstance(layer.cell, Gru):
        return rnn_cell.GRUCell(layer.hidden, dtype=dtype)
    return rnn_cell.LSTMCell(layer.hidden, forget_bias=layer.forget_bias, dtype=dtype)


def run(
    case: Case, kind: str, weights: Weights, batch: Batch, *, mode: Mode, plain: bool = False
) -> tuple[Output, float, Weights]:
    """Output, loss, and in mode "train" the gradients."""
    import tensorflow as tf

    with network_of(case, kind, plain=plain) as network:
        feed: dict[Any, Array] = {}

        def given(value: Array, shape: Any = None) -> Any:
            place = tf.compat.v1.placeholder(value.dtype, value.shape if shape is None else shape)
            feed[place] = value
            return place

        steps = None if kind.startswith(("dynamic", "Block")) else case.seq_len
        state = tuple(
            {name: given(value) for name, value in layer.items()}
            for layer in initial_state(case, batch)
        )
        outputs, final = network(
            given(batch.x, (case.batch, steps, batch.x.shape[2])),
            None if batch.lengths is None else given(batch.lengths),
            state,
        )
        shape = batch.targets.shape
        loss = tf.reduce_sum((outputs - batch.targets) ** 2) / (2 * shape[0] * shape[1])
        variables = network.variables
        wanted = tf.gradients(loss, variables) if mode == "train" else []
        places = [tf.compat.v1.placeholder(value.dtype, value.shape) for value in variables]
        writes = [value.assign(place) for value, place in zip(variables, places, strict=True)]
        with tf.compat.v1.Session() as session:
            session.run(writes, dict(zip(places, network.pack(weights), strict=True)))
            values = session.run([outputs, loss, wanted, final], feed)
    gradients: Weights = ()
    if mode == "train":
        gradients = network.unpack(values[2])
        if kind == "BlockLSTMV2":  # what `unpack` takes off is no part of a gradient
            gradients = tuple({**w, "b_f": w["b_f"] + case.forget_bias} for w in gradients)
    found: State = tuple(values[3])
    return Output(outputs=values[0], state=found), float(values[1]), gradients


def is_the_oracles(case: Case, kind: str, batch: Batch | None = None) -> None:
    """Forward, and loss and gradients where they are not refused."""
    weights, own = data(case)
    batch = own if batch is None else batch
    truth = expected(case, weights, batch)
    train = all(layer_clip(layer.cell) is None for layer in layers(case))
    output, loss, gradients = run(case, kind, weights, batch, mode="train" if train else "forward")
    fault = check_forward(case, output, truth).fault
    assert fault is None, fault
    if train:
        fault = check_train(case, loss, gradients, truth).fault
        assert fault is None, fault


def layer_clip(cell: Cell) -> float | None:
    return cell.cell_clip if isinstance(cell, Lstm) else None


# --- block cells ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", RUNNERS)
@pytest.mark.parametrize("case", [CASE, FULL], ids=["ragged", "full"])
@pytest.mark.parametrize(
    "cell", ["basic-lstm", "lstm-peephole", "lstm-clip", CLIPPED_PEEPHOLES, "gru"]
)
def test_a_block_cell_computes_what_the_oracle_computes(cell: str, case: Case, kind: str) -> None:
    is_the_oracles(replace(case, cell=cell), kind)


@pytest.mark.parametrize("kind", RUNNERS)
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_block_cells_gradient_is_that_of_tensorflows_cell(cell: str, kind: str) -> None:
    case = replace(CASE, cell=cell)
    weights, batch = data(case)
    _, loss, gradients = run(case, kind, weights, batch, mode="train")
    _, other_loss, others = run(case, kind, weights, batch, mode="train", plain=True)
    assert loss == pytest.approx(other_loss, rel=1e-6)
    for layer, other in zip(gradients, others, strict=True):
        for name in other:
            np.testing.assert_allclose(layer[name], other[name], rtol=0, atol=2e-6)


@pytest.mark.parametrize("kind", ["static-v1", "dynamic-v1"])
@pytest.mark.parametrize("cell", ["lstm-peephole", "gru"])
def test_block_cells_have_the_variables_of_their_layout(cell: str, kind: str) -> None:
    import tensorflow as tf

    from backends.tensorflow.layout import layout

    case = replace(CASE, cell=cell, layers=1)
    with network_of(case, kind) as network:
        batch = zero_batch(case)
        state = tuple(dict(s) for s in initial_state(case, batch))
        network(tf.constant(batch.x), None, state)
        found = network.variables
        names = list(layout(layers(case)[0]))
        assert len(found) == len(names)
        for value, name in zip(found, names, strict=True):
            assert value.name.endswith(f"/{name}:0")


def test_importing_twice_registers_once() -> None:
    """A gradient registered a second time is an error; a program may import this from anywhere."""
    from importlib import import_module

    from tensorflow.python.framework import ops

    import_module("backends.tensorflow.blockcells")
    import_module("backends.tensorflow.blockcells")
    for name in ("LSTMBlockCell", "GRUBlockCell"):
        found = ops.gradient_registry.lookup(name)
        assert found.__module__ == "backends.tensorflow.blockcells"


@pytest.mark.parametrize("kind", ["dynamic-v1", "BlockLSTM", "BlockLSTMV2"])
def test_the_clip_is_ignored_in_the_gradient(kind: str) -> None:
    """Why training with a clip is refused: its gradient is another than the oracle's."""
    case = replace(CASE, cell="lstm-clip")
    weights, batch = data(case)
    truth = expected(case, weights, batch)
    output, loss, gradients = run(case, kind, weights, batch, mode="train")
    assert check_forward(case, output, truth).fault is None
    fault = check_train(case, loss, gradients, truth).fault
    assert fault is not None
    assert fault.startswith("gradients differ by")


# --- a sequence in one operation ------------------------------------------------------------------


@pytest.mark.parametrize("op", ["BlockLSTM", "BlockLSTMV2"])
@pytest.mark.parametrize("direction", ["forward", "bidirectional", "two-stacks"])
@pytest.mark.parametrize("case", [CASE, FULL], ids=["ragged", "full"])
@pytest.mark.parametrize("cell", ["lstm", "lstm-peephole", CLIPPED_PEEPHOLES])
def test_a_block_lstm_computes_what_the_oracle_computes(
    cell: str, case: Case, direction: Any, op: str
) -> None:
    is_the_oracles(replace(case, cell=cell, direction=direction), op)


@pytest.mark.parametrize("op", ["BlockLSTM", "BlockLSTMV2"])
@pytest.mark.parametrize("cell", ["lstm-shared", "residual-lstm", "residual-peephole"])
def test_layers_that_need_as_many_inputs_as_outputs(cell: str, op: str) -> None:
    case = replace(CASE, cell=cell, inputs=CASE.hidden)
    is_the_oracles(case, op)
    is_the_oracles(replace(case, direction="two-stacks"), op)


@pytest.mark.parametrize("op", ["BlockLSTM", "BlockLSTMV2"])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_empty_sequences_and_another_time(op: str, direction: Any) -> None:
    case = replace(CASE, direction=direction)
    batch = make_batch(replace(case, seq_len=7))
    is_the_oracles(case, op, batch)
    is_the_oracles(case, op, replace(batch, lengths=np.zeros(case.batch, np.int32)))


@pytest.mark.parametrize("op", ["BlockLSTM", "BlockLSTMV2"])
def test_padding_is_not_read(op: str) -> None:
    case = replace(CASE, direction="bidirectional")
    weights, batch = data(case)
    assert batch.lengths is not None
    padding = np.arange(case.seq_len) >= batch.lengths[:, None]
    noisy = replace(batch, x=np.where(padding[:, :, None], 100 * batch.x - 50, batch.x))
    truth = expected(case, weights, batch)
    output, loss, gradients = run(case, op, weights, noisy, mode="train")
    assert check_forward(case, output, truth).fault is None
    assert not output.outputs[padding].any()
    assert check_train(case, loss, gradients, truth).fault is None


def test_tensorflows_own_gradient_of_v2_is_wrong() -> None:
    """Once it is right, `BlockLstmV2` needs none of its own."""
    import tensorflow as tf

    from backends.tensorflow.block import BlockLstmV2

    class Unhelped(BlockLstmV2):
        def op(self, layer: Layer, **inputs: Any) -> Any:
            return tf.raw_ops.BlockLSTMV2(**inputs)

    weights, batch = data(FULL)
    state = initial_state(FULL, batch)
    found = []
    for kind in (BlockLstmV2, Unhelped):
        with tf.Graph().as_default():
            network = kind(FULL)
            outputs, _ = network(tf.constant(batch.x), None, state)
            gradients = tf.gradients(tf.reduce_sum(outputs), network.variables)
            feed = dict(zip(network.variables, network.pack(weights), strict=True))
            with tf.compat.v1.Session() as session:
                session.run([value.assign(packed) for value, packed in feed.items()])
                found.append(session.run(gradients))
    assert np.abs(found[0][0] - found[1][0]).max() > 0.1


def test_v2_folds_the_forget_bias_into_the_bias() -> None:
    import tensorflow as tf

    from backends.tensorflow.block import BlockLstmV2

    weights = make_weights(CASE)
    with tf.Graph().as_default():
        network = BlockLstmV2(CASE)
        kernel, bias, *_ = packed = network.pack(weights)
        h = CASE.hidden
        np.testing.assert_array_equal(kernel[: CASE.inputs, 2 * h : 3 * h], weights[0]["W_g"])
        np.testing.assert_allclose(bias[h : 2 * h], weights[0]["b_f"] + 0.7, rtol=1e-6)
        for layer, same in zip(network.unpack(packed), weights, strict=True):
            assert list(layer) == list(same)
            for name in same:
                assert layer[name].dtype == same[name].dtype
                np.testing.assert_allclose(layer[name], same[name], rtol=0, atol=1e-7)


def test_a_plain_block_lstm_has_the_operations_that_were_published() -> None:
    import tensorflow as tf

    case = replace(FULL, layers=1)
    with network_of(case, "BlockLSTM") as network:
        x = tf.compat.v1.placeholder(tf.float32, (case.batch, None, case.inputs))
        state = tuple(
            {name: tf.compat.v1.placeholder(tf.float32, value.shape) for name, value in s.items()}
            for s in initial_state(case, make_batch(case))
        )
        graph = x.graph
        before = len(graph.get_operations())
        network(x, None, state)
        types = [op.type for op in graph.get_operations()[before:]]
    shape = ["Shape", "Const", "Const", "Const", "StridedSlice"]
    last = ["Const", "Const", "Const", "StridedSlice"]
    reads = ["ReadVariableOp", "ReadVariableOp"]
    transpose = ["Const", "Transpose"]
    assert [name for name in types if name not in {"Cast", "Identity"}] == [
        *shape, *transpose, "Const", *reads, "BlockLSTM", *last, *last, *transpose,
    ]  # fmt: skip


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "mode", "reason"),
    [
        (Lstm(), "train", None),
        (Residual(cell=Gru()), "train", None),
        (Lstm(peepholes=True, cell_clip=0.25), "forward", None),
        (
            Lstm(cell_clip=0.25),
            "train",
            "mode train: LSTMBlockCell ignores a cell clip in its gradient",
        ),
        (
            Lstm(cell_clip=0.0),
            "forward",
            "cell_clip=0.0: LSTMBlockCell takes a clip of 0 or less for none",
        ),
        (Lstm(projection="half"), "forward", "LSTMBlockCell has no projection"),
        (Residual(cell=Gru(activation="relu")), "forward", "GRUBlockCell has tanh alone, not relu"),
    ],
)
def test_what_a_block_cell_refuses(cell: Cell, mode: Mode, reason: str | None) -> None:
    assert cell_refusal(cell, mode) == reason


@pytest.mark.parametrize("name", CELL_NAMES)
@pytest.mark.parametrize("mode", ["forward", "train"])
def test_what_a_block_lstm_refuses_of_the_published_cells(name: str, mode: Mode) -> None:
    case = replace(CASE, cell=name, inputs=CASE.hidden)
    expressed = {
        "basic-lstm", "lstm", "lstm-peephole", "lstm-shared", "residual-lstm",
        *({"lstm-clip"} if mode == "forward" else ()),
    }  # fmt: skip
    assert (block_lstm_refusal("BlockLSTM", case, mode) is None) == (name in expressed)
    assert block_lstm_refusal("BlockLSTM", replace(case, dtype="float64"), mode) is not None


@pytest.mark.parametrize(
    ("cell", "dtype", "mode", "reason"),
    [
        (
            "gru",
            "float32",
            "forward",
            "cell gru: BlockLSTMV2 computes an LSTM, alone or in a residual",
        ),
        (
            "lstm-clip",
            "float32",
            "train",
            "cell lstm-clip: mode train: BlockLSTMV2 ignores a cell clip in its gradient",
        ),
        ("lstm", "float64", "forward", "dtype float64: BlockLSTMV2 has float32 and float16"),
    ],
)
def test_a_refusal_names_the_operation_and_the_value(
    cell: str, dtype: Dtype, mode: Mode, reason: str
) -> None:
    assert block_lstm_refusal("BlockLSTMV2", replace(CASE, cell=cell, dtype=dtype), mode) == reason
