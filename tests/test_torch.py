"""What is particular to the PyTorch adapter; the contract is tested for all backends together."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import backends
from backends import BACKENDS, Backend, Batch, Unavailable, Unsupported, Weights
from backends.api import CELL_NAMES, Case, Direction, Lengths, Mode, Runner, unstaged
from backends.data import make_batch, make_weights
from backends.kernels import counted
from backends.reference.network import expected
from backends.stack import layers, masks_of
from bench.kernels import Ran, kept, read
from bench.outputs import check_forward, check_train, probe_gradients

torch = pytest.importorskip("torch")

CASE = Case(cell="lstm", seq_len=5, batch=4, inputs=3, hidden=6, layers=2)
RAGGED = replace(CASE, lengths="ragged", initial_state="random")
TINY = replace(RAGGED, seq_len=2, layers=1)

#: Nodes of a traced step. Figures of these cells are published: what cells have in options, those
#: without any must not pay for.
NODES_OF_A_STEP = {"rnn": 7, "basic-lstm": 20, "lstm": 20, "gru": 20, "gru-reset-after": 25}


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

    def test_on_a_gpu_triton_s_compiler_is_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import torch

        from backends.torch import compiled

        gpu = torch.device("cuda", 0)
        monkeypatch.setenv("CXX", "no-such-compiler")
        monkeypatch.setenv("CC", sys.executable)
        compiled._check_compiler(gpu)
        monkeypatch.delenv("CC")
        monkeypatch.setenv("PATH", "")
        with pytest.raises(Unavailable, match=r"C compiler: gcc or clang or cc \(CC\) is not"):
            compiled._check_compiler(gpu)

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


@pytest.mark.parametrize("strategy", ["dynamic", "scripted", "fused", "packed"])
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
    @pytest.mark.parametrize(
        ("cell", "reason"),
        [
            ("gru", "nn.GRU applies the reset gate after the product"),
            ("lstm-peephole", "nn.LSTM has no peepholes"),
            ("lstm-clip", "nn.LSTM does not clip its cell, cell_clip=0.25"),
            ("lstm-projection-clip", "does not clip its projection, projection_clip=0.1"),
            ("lstm-relu", "nn.LSTM has tanh for its activation, not relu"),
            ("residual-gru", "nn.GRU applies the reset gate after the product"),
            ("mixed", "nn.GRU applies the reset gate after the product"),
            ("dropout-lstm", "nn.LSTM takes no masks"),
        ],
    )
    def test_another_function_is_refused(
        self, torch_backend: Backend, cell: str, reason: str
    ) -> None:
        case = replace(CASE, cell=cell, inputs=CASE.hidden)
        with pytest.raises(Unsupported, match=f"^cell {cell}: .*{reason}"):
            torch_backend.build(case, "fused", "forward")

    def test_a_projection_must_be_one(self, torch_backend: Backend) -> None:
        case = replace(CASE, cell="lstm-projection", hidden=1)
        with pytest.raises(Unsupported, match="less than its hidden units, 1, and not to 1"):
            torch_backend.build(case, "fused", "forward")

    def test_only_what_it_has_no_module_for_is_refused(self) -> None:
        def taken(layers: int) -> set[str]:
            cases = [replace(CASE, cell=c, inputs=CASE.hidden, layers=layers) for c in CELL_NAMES]
            refusal = BACKENDS["torch"].refusal
            return {case.cell for case in cases if refusal("fused", case, "train") is None}

        modules = {"rnn", "rnn-relu", "basic-lstm", "lstm", "lstm-projection", "gru-reset-after"}
        modules |= {"lstm-shared", "residual-lstm"}
        assert taken(layers=2) == modules
        # The second layer is what there is no module of.
        assert taken(layers=1) == modules | {"mixed"}

    @pytest.mark.parametrize(
        ("cell", "direction", "count"),
        [
            ("lstm", "forward", 1),
            ("lstm", "bidirectional", 1),
            ("lstm", "two-stacks", 2),
            ("lstm-shared", "forward", 1),
            ("residual-lstm", "forward", 3),
            ("residual-lstm", "two-stacks", 6),
        ],
    )
    def test_layers_that_are_alike_are_one_module(
        self, torch_backend: Backend, cell: str, direction: Direction, count: int
    ) -> None:
        case = replace(CASE, cell=cell, inputs=CASE.hidden, layers=3, direction=direction)
        built = runner(torch_backend, "fused", case, "train")
        modules = [module for way in built._modules for module in way]
        assert len({id(module) for module in modules}) == count
        assert len(built._parameters) == len(make_weights(case))

    def test_sequences_are_packed_once_for_all_modules(
        self, torch_backend: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from torch.nn.utils.rnn import pack_padded_sequence

        from backends.torch import fused

        packed = []

        def pack(*arguments: Any, **options: Any) -> Any:
            packed.append(arguments)
            return pack_padded_sequence(*arguments, **options)

        monkeypatch.setattr(fused, "pack_padded_sequence", pack)
        case = replace(CASE, cell="residual-lstm", inputs=CASE.hidden, layers=3, lengths="ragged")
        runner(torch_backend, "fused", case, "forward").forward()
        assert len(packed) == 1

    @pytest.mark.parametrize("cell", ["rnn", "lstm", "lstm-projection", "gru-reset-after"])
    def test_the_second_bias_is_not_trained_as_well(
        self, torch_backend: Backend, cell: str
    ) -> None:
        case = replace(CASE, cell=cell, dtype="float64", forget_bias=0.7, direction="bidirectional")
        batch = replace(make_batch(case), learning_rate=0.5)
        built = runner(torch_backend, "fused", case, "train")
        built.bind(batch)
        built.train()
        built.train()
        assert_weights(built.weights(), oracle_steps(case, batch, 2), atol=1e-12)
        forget = [0.0, 0.7, 0.0, 0.0]
        constant = {"rnn": [0.0], "gru-reset-after": [0.0, 0.0]}.get(cell, forget)
        for parameters in built._parameters:
            got = parameters["bias_hh"].detach().numpy()[: len(constant) * case.hidden]
            np.testing.assert_array_equal(got, np.repeat(constant, case.hidden))

    @pytest.mark.parametrize("cell", ["rnn", "lstm", "lstm-projection", "gru-reset-after"])
    @pytest.mark.parametrize("direction", ["forward", "bidirectional", "two-stacks"])
    def test_an_empty_sequence_keeps_its_state(
        self, torch_backend: Backend, cell: str, direction: Direction
    ) -> None:
        # pack_padded_sequence refuses a length of 0.
        case = replace(RAGGED, cell=cell, direction=direction)
        batch = replace(make_batch(case), lengths=np.array([3, 0, 2, 0], np.int32))
        assert_forward(runner(torch_backend, "fused", case), case, batch)
        trained = runner(torch_backend, "fused", case, "train")
        weights = make_weights(case)
        loss, gradients = probe_gradients(trained, weights, batch)
        assert check_train(case, loss, gradients, expected(case, weights, batch)).fault is None


class TestPacked:
    """`fused` with sequences that are packed whatever their lengths."""

    @pytest.mark.parametrize(
        ("strategy", "lengths", "packs"),
        [
            ("packed", "full", True),
            ("packed", "ragged", True),
            ("fused", "full", False),
            ("fused", "ragged", True),
        ],
    )
    def test_packs_full_lengths_too(
        self,
        torch_backend: Backend,
        monkeypatch: pytest.MonkeyPatch,
        strategy: str,
        lengths: Lengths,
        packs: bool,
    ) -> None:
        from backends.torch import fused

        packed: list[list[int]] = []

        def pack(x, lengths, **options):
            packed.append(lengths.tolist())
            return torch.nn.utils.rnn.pack_padded_sequence(x, lengths, **options)

        monkeypatch.setattr(fused, "pack_padded_sequence", pack)
        case = replace(CASE, lengths=lengths)
        batch = make_batch(case)
        built = runner(torch_backend, strategy, case)
        assert_forward(built, case, batch)
        full = [case.seq_len] * case.batch
        wanted = full if batch.lengths is None else batch.lengths.tolist()
        assert packed == ([wanted] if packs else [])

    def test_refuses_what_fused_refuses(self) -> None:
        case = replace(CASE, cell="lstm-peephole")
        of = BACKENDS["torch"].refusal
        assert of("packed", case, "forward") == of("fused", case, "forward") is not None
        assert of("dynamic", case, "forward") is None


class TestSteps:
    """What TorchScript and a trace make of a step."""

    @pytest.mark.parametrize("cell", list(NODES_OF_A_STEP))
    def test_options_that_a_cell_has_not_cost_nothing(
        self, torch_backend: Backend, cell: str
    ) -> None:
        case = replace(CASE, cell=cell, layers=1)
        shorter, longer = (
            torch_backend.build(replace(case, seq_len=t), "traced", "forward").program_size()
            for t in (2, 3)
        )
        nodes = longer["nodes"] - shorter["nodes"]
        assert nodes == NODES_OF_A_STEP[cell]

    def test_a_scripted_step_decides_nothing(self, torch_backend: Backend) -> None:
        """Every `if` on an option is resolved where the step is compiled."""
        from backends.torch.torchscript import deprecated_jit
        from backends.torch.wrappers import make_step

        for cell in CELL_NAMES:
            case = replace(CASE, cell=cell, inputs=CASE.hidden, layers=1)
            with deprecated_jit("script"):
                graph = torch.jit.script(make_step(layers(case)[0])).inlined_graph
            assert not graph.findAllNodes("prim::If"), cell
            assert not graph.findAllNodes("prim::Loop"), cell


class TestDropout:
    """torch's own dropout has the distribution of the specification, which is given its masks.

    That is: every entry is kept with probability `keep`, independently of all others and of those
    of other steps, and what is kept is divided by `keep`.
    """

    KEEP = 0.7
    B, T, H = 16, 50, 25

    @pytest.fixture(params=["functional", "between-layers"])
    def masks(self, request: pytest.FixtureRequest) -> np.ndarray:
        """Masks [B, T, H] that torch has drawn."""
        torch.manual_seed(0)
        x = torch.ones(self.B, self.T, self.H)
        if request.param == "functional":
            return torch.nn.functional.dropout(x, 1 - self.KEEP, training=True).numpy()
        return self.through_layers(x, dropout=1 - self.KEEP)

    def through_layers(self, x: torch.Tensor, dropout: float) -> np.ndarray:
        """Outputs of a module of two layers that hand on what they are given."""
        module = torch.nn.RNN(
            self.H,
            self.H,
            num_layers=2,
            nonlinearity="relu",
            bias=False,
            batch_first=True,
            dropout=dropout,
        )
        with torch.no_grad():
            for layer in range(2):
                getattr(module, f"weight_ih_l{layer}").copy_(torch.eye(self.H))
                getattr(module, f"weight_hh_l{layer}").zero_()
            return module(x)[0].numpy()

    def assert_binomial(self, seen: np.ndarray, probability: float) -> None:
        """The fraction that is true is within five standard deviations of its expectation."""
        bound = 5 * np.sqrt(probability * (1 - probability) / seen.size)
        assert abs(seen.mean() - probability) < bound

    def given(self) -> np.ndarray:
        """Masks [B, T, H] as this project draws them: the last part of a dropout cell's columns."""
        case = Case(cell="dropout-lstm", seq_len=self.T, batch=self.B, inputs=self.H, hidden=self.H)
        masks = make_batch(case).x[:, :, case.inputs :]
        assert [keep for _, keep in masks_of(layers(case)[0]).values()] == [0.8, 0.9, self.KEEP]
        return masks[:, :, -self.H :]

    def test_what_is_kept_is_divided_by_the_probability(self, masks: np.ndarray) -> None:
        for drawn in (masks, self.given()):
            kept = drawn[drawn != 0]
            np.testing.assert_allclose(kept, 1 / self.KEEP, rtol=1e-6)
            self.assert_binomial(drawn != 0, self.KEEP)

    def test_each_step_and_each_sequence_has_its_own(self, masks: np.ndarray) -> None:
        same = self.KEEP**2 + (1 - self.KEEP) ** 2
        for drawn in (masks, self.given()):
            kept = drawn != 0
            # Pairs that share no entry, so that they are independent.
            self.assert_binomial(kept[:, 0::2] == kept[:, 1::2], same)
            self.assert_binomial(kept[0::2] == kept[1::2], same)
            self.assert_binomial(kept[:, :, 0:-1:2] == kept[:, :, 1::2], same)

    def test_each_call_has_its_own(self) -> None:
        torch.manual_seed(0)
        x = torch.ones(self.B, self.T, self.H)
        first, second = (
            torch.nn.functional.dropout(x, 1 - self.KEEP).numpy() != 0 for _ in range(2)
        )
        self.assert_binomial(first == second, self.KEEP**2 + (1 - self.KEEP) ** 2)

    def test_a_module_drops_between_its_layers_alone(self) -> None:
        """With the last layer's outputs nothing is done: one layer drops nothing, torch warns."""
        with pytest.warns(UserWarning, match="dropout option adds dropout after all but last"):
            module = torch.nn.LSTM(self.H, self.H, dropout=1 - self.KEEP, batch_first=True)
        x = torch.ones(2, 3, self.H)
        first, second = (module(x)[0] for _ in range(2))
        assert torch.equal(first, second)
        assert first.ne(0).all()
        # The second of two layers hands all of its ones on: what is dropped is between them.
        np.testing.assert_array_equal(self.through_layers(x, dropout=0.0), x.numpy())


@pytest.mark.parametrize("strategy", ["dynamic", "traced", "scripted", "fused", "packed"])
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
    with pytest.raises(Unavailable, match=r"finds no GPU; it needs one .*\[gpu-torch\]"):
        torch_backend.build(replace(CASE, device="gpu"), "dynamic", "forward")


@pytest.mark.parametrize(("limit_bytes", "share"), [(2 * 2**30, 0.25), (9 * 2**30, 1.0)])
def test_a_limit_is_a_share_of_the_gpu_that_it_names(
    torch_backend: Backend, monkeypatch: pytest.MonkeyPatch, limit_bytes: int, share: float
) -> None:
    """As torch is asked for it; there is no GPU here."""
    with pytest.raises(Unavailable, match=r"device gpu:\d\d: "):
        torch_backend.limit("gpu:99", limit_bytes)
    asked: list[tuple[float, torch.device]] = []
    cuda = torch.cuda
    sizes = {torch.device("cuda", n): SimpleNamespace(total_memory=8 * 2**30 << n) for n in (0, 1)}
    monkeypatch.setattr(cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda, "device_count", lambda: 2)
    monkeypatch.setattr(cuda, "get_device_properties", sizes.__getitem__)
    monkeypatch.setattr(cuda, "set_per_process_memory_fraction", lambda *what: asked.append(what))
    torch_backend.limit("gpu", limit_bytes)
    torch_backend.limit("gpu:1", 4 * 2**30)
    assert asked == [(share, torch.device("cuda:0")), (0.25, torch.device("cuda:1"))]


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


class TestKernels:
    """What the profiler sees of a call, and so whose kernels it is."""

    @staticmethod
    def seen(backend: Backend, strategy: str, mode: Mode = "forward", **fields: Any) -> Any:
        case = replace(CASE, layers=1, **fields)
        built = runner(backend, strategy, case, mode)
        call = built.forward if mode == "forward" else built.train
        built.sync(call())
        return backend.kernels(built, "cpu", lambda: built.sync(call()))

    def test_a_module_is_one_kernel_of_onednn_a_layer(self, torch_backend: Backend) -> None:
        if not torch.backends.mkldnn.is_available():
            pytest.skip("this build has no oneDNN")
        seen = self.seen(torch_backend, "fused")
        assert seen["aten::mkldnn_rnn_layer"] == 1
        assert "aten::addmm" not in seen
        assert "oneDNN RNN" in kept_libraries(seen)
        assert self.seen(torch_backend, "fused", "train")["aten::mkldnn_rnn_layer_backward"] == 1

    def test_in_float64_it_is_the_frameworks_own_loop(self, torch_backend: Backend) -> None:
        seen = self.seen(torch_backend, "fused", dtype="float64")
        assert "aten::mkldnn_rnn_layer" not in seen
        assert seen["aten::addmm"] >= CASE.seq_len
        assert kept_libraries(seen) == ["matrix product"]

    def test_a_loop_by_hand_has_its_products_at_each_step(self, torch_backend: Backend) -> None:
        seen = self.seen(torch_backend, "dynamic")
        assert seen["aten::addmm"] == 2 * CASE.seq_len
        assert seen["aten::tanh"] == 2 * CASE.seq_len
        assert seen["aten::sigmoid"] == 3 * CASE.seq_len
        assert not {"aten::as_strided", "aten::empty", "aten::view", "aten::slice"} & set(seen)

    def test_on_a_gpu_kernels_count_and_not_the_shadows_of_regions(self) -> None:
        """With events as `torch.profiler` has them; no GPU is there."""
        from torch.autograd import DeviceType

        from backends.torch.kernels import _device_events

        def event(name: str, *, region: bool = False, host: bool = False) -> Any:
            return SimpleNamespace(
                name=name,
                device_type=DeviceType.CPU if host else DeviceType.CUDA,
                is_user_annotation=region,
                time_range=SimpleNamespace(elapsed_us=lambda: len(name)),
            )

        events = [
            event("cudaLaunchKernel", host=True),
            event("## Call CompiledFxGraph f27y5k ##", region=True),
            event("triton_poi_fused_add_0"),
            event("ampere_sgemm_128x32_tn"),
            event("triton_poi_fused_add_0"),
        ]
        seen = counted(_device_events(events), "gpu")
        assert list(seen.items()) == [("triton_poi_fused_add_0", 2), ("ampere_sgemm_128x32_tn", 1)]
        with pytest.raises(RuntimeError, match="CUPTI"):
            counted(_device_events(events[:2]), "gpu")

    @pytest.mark.filterwarnings("ignore:CUDA is not available")
    def test_a_profiler_without_cupti_refuses(self, torch_backend: Backend) -> None:
        """It does not fall back to the host's events, which would be taken for kernels."""
        if torch.profiler.ProfilerActivity.CUDA in torch.profiler.supported_activities():
            pytest.skip("this build has it")
        built = runner(torch_backend, "dynamic", CASE)
        with pytest.raises((AssertionError, RuntimeError)):
            torch_backend.kernels(built, "gpu", lambda: built.sync(built.forward()))


def kept_libraries(seen: Any) -> list[str]:
    found = read(kept(seen))
    assert isinstance(found, Ran)
    return found.libraries


# --- what a GPU is told, where there is none ------------------------------------------------------


@pytest.mark.parametrize("on", [True, False])
def test_one_switch_turns_tf32_of_products_and_of_cudnn(on: bool) -> None:
    """By torch's newer names too, of which cuDNN has one for its recurrent networks."""
    from backends.torch.adapter import _tf32

    try:
        _tf32(on)
        assert torch.backends.cuda.matmul.allow_tf32 is on
        assert torch.backends.cudnn.allow_tf32 is on
        if hasattr(torch.backends.cudnn, "rnn"):
            assert (torch.backends.cuda.matmul.fp32_precision == "tf32") is on
            assert (torch.backends.cudnn.rnn.fp32_precision == "tf32") is on
    finally:
        _tf32(False)


def test_events_are_marks_in_the_stream_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    from backends.torch.timer import EventTimer

    marks: list[tuple[str, Any]] = []

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing

        def record(self, stream: str) -> None:
            marks.append((stream, self))

        def elapsed_time(self, end: Any) -> float:
            assert [mark for _, mark in marks] == [self, end]
            return 2.5  # ms

    cuda = SimpleNamespace(current_stream=lambda device: f"stream of {device}", Event=Event)
    monkeypatch.setattr(torch, "cuda", cuda)
    timer = EventTimer(torch.device("cuda", 1))
    for _ in range(2):
        marks.clear()
        timer.start()
        assert len(marks) == 1
        timer.stop()
        assert {stream for stream, _ in marks} == {"stream of cuda:1"}
        assert timer.seconds() == 2.5e-3
