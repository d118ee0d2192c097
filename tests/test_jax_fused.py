"""cuDNN's LSTM in JAX, by the module's own reference in the place of the kernel."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, ClassVar
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import backends
from backends.api import CELL_NAMES, MODES, Case, Mode, Unavailable, Unsupported, unstaged
from backends.data import make_weights
from backends.stack import layers
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
)
from tests.support import SMALLEST, case_of, cases

if backends.missing("jax"):
    pytest.skip(backends.missing("jax") or "", allow_module_level=True)

CASE = SMALLEST
ON_GPU = replace(CASE, device="gpu")


@pytest.fixture(scope="module")
def backend() -> Any:
    return backends.create("jax")


def reference(
    x: Any, h_0: Any, c_0: Any, weights: Any, seq_lengths: Any, **sizes: Any
) -> tuple[Any, Any, Any]:
    """`rnn.lstm` as its module writes it out: the same vector of weights, the same arguments."""
    from jax.experimental import rnn

    names = ("input_size", "hidden_size", "num_layers", "bidirectional")
    arrays = rnn.unpack_lstm_weights(weights, *(sizes[name] for name in names))
    inputs, hidden, count, both = (sizes[name] for name in names)
    dropout = sizes["dropout"]
    return rnn.lstm_ref(x, h_0, c_0, *arrays, seq_lengths, inputs, hidden, count, dropout, both)


@pytest.fixture(scope="module")
def build(backend: Any) -> Build:
    return build_with(reference)


def build_with(kernel: Callable[..., Any]) -> Build:
    import jax

    from backends.jax.fused import fused
    from backends.jax.runner import JaxRunner

    def one(case: Case, mode: Mode) -> JaxRunner:
        return JaxRunner(case, fused(case, kernel), mode, jax.devices("cpu")[0], unstaged)

    return one


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
    ],
)
def test_it_passes(build: Build, check: Check) -> None:
    check(build, CASE)


@pytest.mark.parametrize("check", [padding_is_ignored, two_steps_are_the_oracles])
def test_it_passes_in_both_directions(build: Build, check: Check) -> None:
    check(build, replace(CASE, direction="bidirectional"))


@pytest.mark.parametrize("cell", ["lstm", "basic-lstm"])
@pytest.mark.parametrize("lengths", ["full", "ragged"])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_layers_and_directions_are_the_oracles(
    build: Build, cell: str, lengths: Any, direction: Any
) -> None:
    """In float32, and in the float64 that the kernel has not: there a small slip shows, too."""
    count = 1 if cell == "basic-lstm" else 2
    case = replace(CASE, cell=cell, lengths=lengths, layers=count, direction=direction)
    forward_is_the_oracles(build, case)
    training_is_the_oracles(build, case)
    training_is_the_oracles(build, replace(case, dtype="float64"))


# --- what the kernel may do that its reference does not -------------------------------------------


def careless(*arguments: Any, **sizes: Any) -> tuple[Any, Any, Any]:
    """Behind a sequence's end it has numbers, and a gradient that reaches the weights."""
    import jax.numpy as jnp

    x, _, _, weights, ends = arguments
    y, h, c = reference(*arguments, **sizes)
    over = (jnp.arange(x.shape[1]) >= ends[:, None])[:, :, None]
    return jnp.where(over, jnp.sum(weights), y), h, c


def test_what_lies_behind_an_end_does_not_count(backend: Any) -> None:
    build = build_with(careless)
    padding_is_ignored(build, CASE)
    training_is_the_oracles(build, CASE)


def test_a_kernel_is_given_no_empty_sequence(backend: Any) -> None:
    import jax

    from backends.jax.fused import fused

    seen: list[Any] = []

    def kernel(*arguments: Any, **sizes: Any) -> tuple[Any, Any, Any]:
        jax.debug.callback(lambda ends: seen.append(np.array(ends)), arguments[4])
        return reference(*arguments, **sizes)

    network = fused(replace(CASE, layers=1), kernel)
    state = ({"c": np.ones((3, 4), "f4"), "h": np.ones((3, 4), "f4")},)
    weights = network.pack(make_weights(replace(CASE, layers=1)))
    ends = np.array([0, 3, 1], np.int32)
    outputs, (final,) = network.run(weights, np.ones((3, 3, 5), "f4"), ends, state)
    jax.effects_barrier()
    assert seen[0].tolist() == [1, 3, 1]
    assert not np.asarray(outputs)[0].any()
    for name in ("c", "h"):
        np.testing.assert_array_equal(final[name][0], state[0][name][0])
        assert not np.array_equal(final[name][2], state[0][name][2])


# --- the vector of weights ------------------------------------------------------------------------


@given(
    cases(
        cell=st.just("lstm"),
        seq_len=st.just(2),
        batch=st.just(2),
        inputs=st.integers(1, 4),
        hidden=st.integers(1, 4),
        layers=st.integers(1, 3),
        forget_bias=st.floats(-2, 2, width=32),
        direction=st.sampled_from(["forward", "bidirectional"]),
        seed=st.integers(0, 100),
    )
)
@settings(max_examples=15, deadline=None)
def test_the_vector_is_what_the_module_unpacks(case: Case) -> None:
    from jax.experimental import rnn

    from backends.jax.fused import _is_constant, fused

    network, weights = fused(case), make_weights(case)
    flat = network.pack(weights)
    sizes = (case.inputs, case.hidden, case.layers, case.direction == "bidirectional")
    assert flat.dtype == case.dtype
    assert flat.shape == network.shaped(lambda *shape: shape)
    assert flat.shape == (rnn.get_num_params_in_lstm(*sizes),)
    w_ih, w_hh, b_ih, b_hh = rnn.unpack_lstm_weights(flat, *sizes)
    for k, blocks in enumerate(weights):
        for gate, place in zip("ifgo", range(4), strict=True):
            rows = slice(place * case.hidden, (place + 1) * case.hidden)
            np.testing.assert_array_equal(w_ih[k][rows], blocks[f"W_{gate}"].T)
            np.testing.assert_array_equal(w_hh[k][rows], blocks[f"U_{gate}"].T)
            np.testing.assert_array_equal(b_ih[k][rows], blocks[f"b_{gate}"])
            constant = np.float32(case.forget_bias if gate == "f" else 0)
            np.testing.assert_array_equal(b_hh[k][rows], constant)
    for got, want in zip(network.unpack(flat), weights, strict=True):
        assert set(got) == set(want)
        for name in want:
            np.testing.assert_array_equal(got[name], want[name])
    of_b_hh = rnn.unpack_lstm_weights(np.asarray(_is_constant(layers(case))), *sizes)
    for part, constant in zip(of_b_hh, (False, False, False, True), strict=True):
        assert all((values == constant).all() for values in part.values())


# --- the kernel's own operation, traced where it cannot run ---------------------------------------


@pytest.fixture
def operations(backend: Any) -> Iterator[Callable[[Case, Mode], dict[str, list[Any]]]]:
    """The kernel's operations in a program, by name: their parameters and arguments."""
    import jax
    from jax.experimental import rnn

    from backends.jax.fused import fused
    from backends.jax.runner import _program
    from tests.test_jax import equations

    def of(case: Case, mode: Mode) -> dict[str, list[Any]]:
        program, arguments = _program(case, fused(case), mode, jax.devices("cpu")[0])
        traced = jax.jit(program).trace(*arguments)
        found: dict[str, list[Any]] = {"rnn_fwd": [], "rnn_bwd": []}
        for equation in equations(traced.jaxpr.jaxpr):
            if equation.primitive.name in found:
                found[equation.primitive.name].append(equation)
        return found

    # What it asks cuDNN while it is traced: the sizes of its workspaces.
    asked = {"compute_rnn_workspace_reserve_space_sizes": lambda *_: (8, 16)}
    with patch.multiple(rnn.gpu_rnn, create=True, **asked):
        yield of


class TestTheOperation:
    PARAMETERS: ClassVar[dict[str, Any]] = {
        "input_size": 5,
        "hidden_size": 4,
        "num_layers": 2,
        "dropout": 0.0,
        "bidirectional": True,
        "cudnn_allow_tf32": False,
    }

    @pytest.mark.parametrize("lengths", ["full", "ragged"])
    def test_is_in_the_program_once_each_way(self, operations: Any, lengths: Any) -> None:
        case = replace(CASE, direction="bidirectional", lengths=lengths)
        forward, train = operations(case, "forward"), operations(case, "train")
        assert [len(forward["rnn_fwd"]), len(forward["rnn_bwd"])] == [1, 0]
        assert [len(train["rnn_fwd"]), len(train["rnn_bwd"])] == [1, 1]
        for found in (*forward["rnn_fwd"], *train["rnn_fwd"], *train["rnn_bwd"]):
            assert {name: found.params[name] for name in self.PARAMETERS} == self.PARAMETERS

    @pytest.mark.parametrize("on", [True, False])
    def test_has_tf32_where_the_process_has(self, operations: Any, on: bool) -> None:
        """And so have the products of loops, as XLA reads a precision on a GPU."""
        import jax
        from jax import lax

        from backends.jax.adapter import _tf32
        from backends.jax.network import LOOPS, looped
        from backends.jax.runner import _program
        from tests.test_jax import equations

        try:
            _tf32(on)
            found = [op for ops in operations(CASE, "train").values() for op in ops]
            program, arguments = _program(
                CASE, looped(CASE, LOOPS["dynamic"]), "train", jax.devices("cpu")[0]
            )
            traced = jax.jit(program).trace(*arguments)
        finally:
            _tf32(False)
        assert [op.params["cudnn_allow_tf32"] for op in found] == [on, on]
        given = lax.Precision.HIGH if on else lax.Precision.HIGHEST
        products = [
            op for op in equations(traced.jaxpr.jaxpr) if op.primitive.name == "dot_general"
        ]
        assert {op.params["precision"] for op in products} == {(given, given)}

    def test_is_given_everything_in_the_case_s_shapes(self, operations: Any) -> None:
        ((found,), _) = operations(CASE, "forward").values()
        shapes = [(v.aval.shape, str(v.aval.dtype)) for v in found.invars]
        assert shapes == [
            ((3, 3, 5), "float32"),
            ((2, 3, 4), "float32"),
            ((2, 3, 4), "float32"),
            ((4 * 4 * (5 + 4 + 2) + 4 * 4 * (4 + 4 + 2),), "float32"),
            ((3,), "int32"),
        ]


# --- the registry ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (ON_GPU, None),
        (replace(ON_GPU, direction="bidirectional", lengths="full"), None),
        (replace(ON_GPU, cell="basic-lstm", device="gpu:1"), None),
        (replace(ON_GPU, cell="lstm-shared", layers=1), None),
        (CASE, "device cpu: rnn.lstm is cuDNN's, and has no kernel but a GPU's"),
        (replace(ON_GPU, dtype="float64"), "dtype float64: rnn.lstm computes in float32"),
        (
            replace(ON_GPU, direction="two-stacks"),
            "direction two-stacks: rnn.lstm joins both directions in every layer",
        ),
        (
            replace(ON_GPU, cell="lstm-shared", inputs=4),
            "cell lstm-shared: rnn.lstm has weights of their own for all layers",
        ),
        (replace(CASE, cell="gru"), "cell gru: rnn.lstm computes an LSTM"),
        (
            replace(ON_GPU, cell="lstm-peephole"),
            "cell lstm-peephole: rnn.lstm has no peepholes",
        ),
    ],
)
def test_what_is_refused(case: Case, reason: str | None) -> None:
    for mode in MODES:
        assert backends.refusal("jax/fused", case, mode) == reason


@pytest.mark.parametrize("cell", sorted(set(CELL_NAMES) - {"lstm", "basic-lstm", "lstm-shared"}))
def test_other_cells_are_refused_for_what_they_are(backend: Any, cell: str) -> None:
    case = case_of(CASE, cell)
    reason = backends.refusal("jax/fused", case, "forward")
    assert reason is not None
    assert reason.startswith(f"cell {cell}: rnn.lstm ")
    with pytest.raises(Unsupported, match=f"^{re.escape(reason)}$"):
        backend.build(case, "fused", "forward")


def test_a_gpu_that_is_not_there_is_unavailable(backend: Any) -> None:
    if "gpu" in backend.devices():
        pytest.skip("there is a GPU")
    with pytest.raises(Unavailable, match=r"^device gpu: JAX .* finds no GPU"):
        backend.build(ON_GPU, "fused", "forward")


def test_a_gpu_of_another_kind_is_unavailable(backend: Any) -> None:
    from backends.jax.fused import require_cuda

    require_cuda("gpu", "PJRT C API\ncuda 13000")
    with pytest.raises(Unavailable, match=r"^device gpu:1: .* is cuDNN's, XLA has rocm 60300$"):
        require_cuda("gpu:1", "rocm 60300")
