"""What is particular to the PyTorch adapter; the contract is tested for all backends together."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace

import numpy as np
import pytest

import backends
from backends import BACKENDS, Backend, Batch, Unavailable, Unsupported, Weights
from backends.api import Case, CellName, Mode, Runner, unstaged
from backends.data import make_batch, make_weights
from backends.reference.network import expected
from bench.outputs import check_forward, check_train, probe_gradients

torch = pytest.importorskip("torch")

CASE = Case(cell="lstm", seq_len=5, batch=4, inputs=3, hidden=6, layers=2)
RAGGED = replace(CASE, lengths="ragged", initial_state="random")
TINY = replace(RAGGED, seq_len=2, layers=1)


@pytest.fixture(scope="module")
def torch_backend() -> Backend:
    return backends.create("torch", threads=1)


def runner(backend: Backend, strategy: str, case: Case, mode: Mode = "forward") -> Runner:
    built = backend.build(case, strategy, mode)
    built.load(make_weights(case))
    built.bind(make_batch(case))
    return built


@pytest.fixture(scope="module")
def compiled(torch_backend: Backend) -> Iterator[Runner]:
    built = runner(torch_backend, "static", TINY)
    yield built
    built.close()


def assert_forward(built: Runner, case: Case, batch: Batch) -> None:
    built.bind(batch)
    output = built.fetch(built.forward())
    assert check_forward(case, output, expected(case, make_weights(case), batch)).fault is None


def oracle_steps(case: Case, batch: Batch, steps: int) -> Weights:
    weights = make_weights(case)
    for _ in range(steps):
        gradients = expected(case, weights, batch).gradients
        weights = tuple(
            {name: layer[name] - batch.learning_rate * gradient[name] for name in layer}
            for layer, gradient in zip(weights, gradients, strict=True)
        )
    return weights


def assert_weights(actual: Weights, wanted: Weights, atol: float) -> None:
    for got, want in zip(actual, wanted, strict=True):
        assert set(got) == set(want)
        for name in want:
            np.testing.assert_allclose(got[name], want[name], rtol=0, atol=atol, err_msg=name)


class TestStatic:
    """torch.compile: seconds for each program, so few and small ones."""

    @pytest.mark.slow
    def test_is_one_graph_that_rebinding_does_not_compile_again(self, compiled: Runner) -> None:
        assert compiled.program_size() == {}  # lazy: nothing is compiled before the first call
        first = make_batch(TINY)
        assert_forward(compiled, TINY, first)
        size = compiled.program_size()
        assert size["nodes"] > 0
        # The backend raises at a second graph, so that these calls run the first one's.
        compiled.load(make_weights(TINY))
        for lengths in ([0, 2, 1, 0], [2, 2, 2, 2]):
            batch = replace(make_batch(replace(TINY, seed=1)), lengths=np.array(lengths, np.int32))
            assert_forward(compiled, TINY, batch)
        assert compiled.program_size() == size

    @pytest.mark.slow
    def test_a_handle_outlives_a_rebind(self, compiled: Runner) -> None:
        batch = make_batch(TINY)
        compiled.bind(batch)
        out = compiled.forward()
        compiled.bind(make_batch(replace(TINY, seed=1)))
        want = expected(TINY, make_weights(TINY), batch)
        assert check_forward(TINY, compiled.fetch(out), want).fault is None

    @pytest.mark.slow
    def test_training_compiles_once_for_all_learning_rates(self, torch_backend: Backend) -> None:
        case = replace(TINY, cell="rnn", lengths="full", dtype="float64")
        weights, batch = make_weights(case), replace(make_batch(case), learning_rate=0.5)
        built = runner(torch_backend, "static", case, "train")
        loss, gradients = probe_gradients(built, weights, batch)
        want = expected(case, weights, batch)
        assert check_train(case, loss, gradients, want).fault is None
        built.train()
        built.train()
        assert_weights(built.weights(), oracle_steps(case, batch, 2), atol=1e-12)
        built.close()

    def test_a_graph_after_the_first_is_an_error(self) -> None:
        from backends.torch.compiled import _OneGraph

        def negate(x):
            return -x

        graph = torch.fx.symbolic_trace(negate)
        backend = _OneGraph(lambda graph, inputs: graph)
        assert backend(graph, []) is graph
        assert backend.size() == {"nodes": 3}
        with pytest.raises(RuntimeError, match="second graph"):
            backend(graph, [])

    def test_each_runner_compiles_code_of_its_own(self) -> None:
        from backends.torch.compiled import _with_own_code
        from backends.torch.loop import network_function

        first, second = (_with_own_code(network_function(CASE, "forward")) for _ in range(2))
        assert first.__code__ is not second.__code__

    def test_is_unavailable_without_a_compiler(
        self, torch_backend: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CXX", "no-such-compiler")
        with pytest.raises(Unavailable, match="no-such-compiler"):
            torch_backend.build(TINY, "static", "forward")

    def test_inductor_keeps_to_the_process(self) -> None:
        assert BACKENDS["torch"].environment(2)["TORCHINDUCTOR_COMPILE_THREADS"] == "1"


@pytest.mark.parametrize("strategy", ["static", "traced"])
class TestFixedShape:
    def test_refuses_another_length(self, torch_backend: Backend, strategy: str) -> None:
        built = runner(torch_backend, strategy, CASE)
        with pytest.raises(Unsupported, match="graph is built for T=5, got T=7"):
            built.bind(make_batch(replace(CASE, seq_len=7)))

    def test_refuses_another_batch(self, torch_backend: Backend, strategy: str) -> None:
        built = runner(torch_backend, strategy, CASE)
        with pytest.raises(Unsupported, match="graph is built for B=4, got B=2"):
            built.bind(make_batch(replace(CASE, batch=2)))


@pytest.mark.parametrize("strategy", ["dynamic", "scripted", "fused"])
def test_takes_any_length_and_batch(torch_backend: Backend, strategy: str) -> None:
    built = runner(torch_backend, strategy, RAGGED)
    for other in (replace(RAGGED, seq_len=9), replace(RAGGED, seq_len=1, batch=1)):
        assert_forward(built, other, make_batch(other))


class TestTorchScript:
    def test_a_trace_grows_with_time_and_a_script_does_not(self, torch_backend: Backend) -> None:
        def nodes(strategy: str, seq_len: int) -> int:
            case = replace(CASE, seq_len=seq_len)
            return torch_backend.build(case, strategy, "forward").program_size()["nodes"]

        assert nodes("traced", 8) > 1.8 * nodes("traced", 4)
        assert nodes("scripted", 8) == nodes("scripted", 4)

    @pytest.mark.parametrize("strategy", ["traced", "scripted"])
    def test_lengths_are_data(self, torch_backend: Backend, strategy: str) -> None:
        built = runner(torch_backend, strategy, RAGGED)
        for lengths in ([1, 2, 3, 4], [5, 5, 0, 5], [0, 0, 0, 0]):
            batch = replace(make_batch(RAGGED), lengths=np.array(lengths, np.int32))
            assert_forward(built, RAGGED, batch)

    @pytest.mark.parametrize(("strategy", "name"), [("traced", "trace"), ("scripted", "script")])
    def test_building_names_its_stage(
        self, torch_backend: Backend, strategy: str, name: str
    ) -> None:
        stages: list[str] = []

        def stage(stage_name: str) -> AbstractContextManager[None]:
            stages.append(stage_name)
            return unstaged(stage_name)

        torch_backend.build(CASE, strategy, "forward", stage)
        assert stages == [name]


class TestFused:
    def test_reset_before_gru_is_refused(self, torch_backend: Backend) -> None:
        with pytest.raises(Unsupported, match="after the product"):
            torch_backend.build(replace(CASE, cell="gru"), "fused", "forward")

    @pytest.mark.parametrize("cell", ["rnn", "lstm", "gru-reset-after"])
    def test_the_second_bias_is_not_trained_as_well(
        self, torch_backend: Backend, cell: CellName
    ) -> None:
        case = replace(CASE, cell=cell, dtype="float64", forget_bias=0.7)
        batch = replace(make_batch(case), learning_rate=0.5)
        built = runner(torch_backend, "fused", case, "train")
        built.bind(batch)
        built.train()
        built.train()
        assert_weights(built.weights(), oracle_steps(case, batch, 2), atol=1e-12)
        constant = {"rnn": [0.0], "lstm": [0.0, 0.7, 0.0, 0.0], "gru-reset-after": [0.0, 0.0]}[cell]
        for layer in range(case.layers):
            bias_hh = built._parameter("bias_hh", layer).detach().numpy()
            got = bias_hh[: len(constant) * case.hidden]
            np.testing.assert_array_equal(got, np.repeat(constant, case.hidden))

    @pytest.mark.parametrize("cell", ["rnn", "lstm", "gru-reset-after"])
    def test_an_empty_sequence_keeps_its_state(
        self, torch_backend: Backend, cell: CellName
    ) -> None:
        # pack_padded_sequence refuses a length of 0.
        case = replace(RAGGED, cell=cell)
        batch = replace(make_batch(case), lengths=np.array([3, 0, 2, 0], np.int32))
        assert_forward(runner(torch_backend, "fused", case), case, batch)
        trained = runner(torch_backend, "fused", case, "train")
        weights = make_weights(case)
        loss, gradients = probe_gradients(trained, weights, batch)
        assert check_train(case, loss, gradients, expected(case, weights, batch)).fault is None


@pytest.mark.parametrize("strategy", ["dynamic", "traced", "scripted", "fused"])
class TestEveryStrategy:
    def test_weights_come_back_bit_for_bit(self, torch_backend: Backend, strategy: str) -> None:
        # A forget bias folded into b and taken out again would be off by a rounding.
        case = replace(CASE, forget_bias=1000.0)
        built = runner(torch_backend, strategy, case)
        built.forward()
        assert_weights(built.weights(), make_weights(case), atol=0.0)

    def test_forward_records_no_gradient(self, torch_backend: Backend, strategy: str) -> None:
        outputs, _ = runner(torch_backend, strategy, CASE).forward()
        assert outputs.is_inference()

    def test_the_callers_arrays_are_copied(self, torch_backend: Backend, strategy: str) -> None:
        built, batch = torch_backend.build(CASE, strategy, "forward"), make_batch(CASE)
        built.load(make_weights(CASE))
        built.bind(batch)
        batch.x[:] = np.nan
        output = built.fetch(built.forward())
        want = expected(CASE, make_weights(CASE), make_batch(CASE))
        assert check_forward(CASE, output, want).fault is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpu_is_unavailable_without_one(torch_backend: Backend) -> None:
    assert set(torch_backend.devices()) == {"cpu"}
    with pytest.raises(Unavailable, match="no CUDA device"):
        torch_backend.build(replace(CASE, device="gpu"), "dynamic", "forward")


def test_threads_are_what_was_asked_for(torch_backend: Backend) -> None:
    assert dict(torch_backend.threads()) == {"intra_op": 1, "inter_op": 1}


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_importing_the_adapter_starts_no_thread() -> None:
    # A fork server imports it; children of a process with more threads may hang.
    code = "import os, backends.torch.adapter; print(len(os.listdir('/proc/self/task')))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "1"
