"""What only JAX's adapter has: traced and compiled programs, donated weights, XLA's threads."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import backends
from backends.api import CELL_NAMES, MODES, Case, Mode, Unavailable, Unsupported
from backends.cells import CELLS, Entry
from backends.jax.support import UNROLL_FACTORS
from backends.kernels import of_spans
from backends.products import flops
from backends.reference.network import expected
from backends.spec import (
    Attention,
    BidirectionalGrid,
    Cell,
    Dropout,
    Grid,
    Lstm,
    TimeFreq,
    Wrapper,
)
from backends.stack import layers
from bench.kernels import library
from bench.outputs import check_forward
from tests.checks import forward_is_the_oracles, training_is_the_oracles
from tests.support import SIZES, data

if backends.missing("jax"):
    pytest.skip(backends.missing("jax") or "", allow_module_level=True)

CASE = Case(cell="lstm", seq_len=3, batch=4, inputs=3, hidden=5, forget_bias=0.7)
RAGGED = replace(CASE, lengths="ragged", initial_state="random", layers=2)
#: Fits every cell: inputs as wide as the state.
EVERY = replace(RAGGED, **SIZES)
STRATEGIES = ("static", "dynamic", "scan-unroll-2", "scan-unroll-8", "fori")


@pytest.fixture(scope="module")
def backend() -> Any:
    return backends.create("jax")


@pytest.fixture
def build(backend: Any) -> Iterator[Any]:
    """Build runners, loaded and bound with a case's own data; they are closed after the test."""
    runners = []

    def one(case: Case, strategy: str, mode: Mode = "forward") -> Any:
        runner = backend.build(case, strategy, mode)
        runners.append(runner)
        weights, batch = data(case)
        runner.load(weights)
        runner.bind(batch)
        return runner

    yield one
    for runner in runners:
        runner.close()


@pytest.fixture
def trace(backend: Any) -> Any:
    """The jaxpr of a case's program, not compiled."""
    import jax

    from backends.jax.network import LOOPS, looped
    from backends.jax.runner import _program

    def of(case: Case, strategy: str, mode: Mode) -> Any:
        network = looped(case, LOOPS[strategy])
        program, arguments = _program(case, network, mode, jax.devices("cpu")[0])
        return jax.jit(program).trace(*arguments).jaxpr

    return of


def equations(jaxpr: Any) -> Iterator[Any]:
    """Every equation of a jaxpr, those of the jaxprs in its parameters too."""
    from jax.extend.core import ClosedJaxpr, Jaxpr

    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            if isinstance(value, ClosedJaxpr):
                yield from equations(value.jaxpr)
            elif isinstance(value, Jaxpr):
                yield from equations(value)


# --- programs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_static_has_a_copy_of_the_step_for_every_step(trace: Any, mode: Mode) -> None:
    names = [
        Counter(
            e.primitive.name for e in equations(trace(replace(RAGGED, seq_len=t), "static", mode))
        )
        for t in (4, 8)
    ]
    assert all("scan" not in counts for counts in names)
    assert names[1]["tanh"] == 2 * names[0]["tanh"] == 8 * 2 * 2  # g and c', two layers


@pytest.mark.parametrize(
    ("strategy", "unroll"),
    [("dynamic", 1), ("fori", 1), *((f"scan-unroll-{n}", n) for n in UNROLL_FACTORS)],
)
@pytest.mark.parametrize(("mode", "loops"), [("forward", 1), ("train", 2)])
def test_dynamic_is_one_loop_each_way(
    trace: Any, strategy: str, unroll: int, mode: Mode, loops: int
) -> None:
    case = replace(RAGGED, seq_len=20)
    scans = [e for e in equations(trace(case, strategy, mode)) if e.primitive.name == "scan"]
    assert [e.params["unroll"] for e in scans] == [unroll] * loops
    assert [e.params["length"] for e in scans] == [20] * loops


@pytest.mark.parametrize("cell", CELL_NAMES)
@pytest.mark.parametrize("mode", MODES)
def test_the_products_of_a_program_are_those_of_the_formula(
    trace: Any, cell: str, mode: Mode
) -> None:
    """But for what `beside_the_formula` says."""
    case = replace(EVERY, cell=cell)
    done = 0
    for equation in equations(trace(case, "static", mode)):
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left, right = (value.aval.shape for value in equation.invars)
            shared = np.prod([left[axis] for axis in contracted])
            done += 2 * int(np.prod(left) * np.prod(right) // shared)
    assert done == flops(case, mode) + beside_the_formula(case, mode)


def beside_the_formula(case: Case, mode: Mode) -> int:
    """FLOPs that a program does and the formula has not, less those that nobody asks for."""
    found = 0
    for layer in layers(case):
        cell = layer.cell
        if isinstance(cell, Attention):
            # All rows of the window are multiplied, of which the formula has the newest one; and
            # in training nobody asks for the gradient of the first window, nor of what is attended.
            a = cell.cell.outputs(layer.inputs, layer.hidden)
            older = case.seq_len * (cell.window - 1) * a * a
            found += older if mode == "forward" else 3 * older - cell.window * a * a
            found -= 0 if mode == "forward" else a * layer.inputs
        while isinstance(cell, Wrapper):
            cell = cell.cell
        if mode == "train":
            found -= unasked(cell, layer.inputs, layer.hidden, case.seq_len)
    return 2 * case.batch * found


def unasked(cell: Cell, inputs: int, hidden: int, steps: int) -> int:
    """Multiplications a sequence for the gradient of the first state, which nobody asks for.

    (In the GRU without the candidate's, which goes on to the reset gate's weights.) Nor does anyone
    for that of the zeros before a cell's first window.
    """
    if isinstance(cell, BidirectionalGrid):
        return 2 * unasked(cell.grid, inputs, hidden, steps)
    if isinstance(cell, Grid):
        parts = cell.windows(inputs)
        wide = len(cell.matrices) * len(cell.gates) * hidden
        return hidden * wide * (sum(len(windows) for windows in parts) + steps * len(parts))
    if isinstance(cell, TimeFreq):
        return hidden * 4 * hidden * (len(cell.windows(inputs)) + steps)
    # What comes after the first recurrent product (a candidate, a projection) depends on weights.
    first = next(p for p in cell.products(inputs, hidden) if not p.hoisted)
    return first.k * first.n


@pytest.mark.parametrize("cell", CELL_NAMES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_product_is_in_full_precision(trace: Any, cell: str, strategy: str) -> None:
    from jax.lax import Precision

    case = replace(EVERY, cell=cell)
    dots = [
        e for e in equations(trace(case, strategy, "train")) if e.primitive.name == "dot_general"
    ]
    assert {e.params["precision"] for e in dots} == {(Precision.HIGHEST, Precision.HIGHEST)}


@pytest.mark.parametrize(("dtype", "other"), [("float32", "f64"), ("float64", "f32")])
@pytest.mark.parametrize("cell", CELL_NAMES)
def test_a_trace_has_one_dtype(trace: Any, cell: str, dtype: Any, other: str) -> None:
    case = replace(EVERY, cell=cell, dtype=dtype)
    for strategy in ("static", "dynamic", "fori"):
        for mode in MODES:
            assert f"{other}[" not in str(trace(case, strategy, mode))


@pytest.mark.parametrize(("dtype", "other"), [("float32", "f64"), ("float64", "f32")])
@pytest.mark.parametrize("strategy", ["static", "dynamic"])
def test_a_compiled_program_has_one_dtype(
    build: Any, strategy: str, dtype: Any, other: str
) -> None:
    runner = build(replace(RAGGED, dtype=dtype), strategy, "train")
    assert f"{other}[" not in runner._compiled.as_text()
    loss, weights = runner.train()
    assert {str(array.dtype) for layer in weights for array in layer.values()} == {dtype}
    assert str(loss.dtype) == dtype


@pytest.mark.parametrize("factor", UNROLL_FACTORS)
@pytest.mark.parametrize("more", [0, 1])
def test_a_scan_of_several_steps_an_iteration_has_no_step_too_many(
    backend: Any, factor: int, more: int
) -> None:
    """Lengths at and beside a multiple of the factor: whole, and with a step left over."""
    case = replace(CASE, cell="rnn", seq_len=2 * factor + more, lengths="ragged")

    def scan_unroll(case: Case, mode: Mode) -> Any:
        return backend.build(case, f"scan-unroll-{factor}", mode)

    forward_is_the_oracles(scan_unroll, case)
    training_is_the_oracles(scan_unroll, case)


def test_a_while_loop_ends_with_the_longest_sequence(trace: Any, build: Any) -> None:
    """Of a batch that is all shorter than T: what is right whichever step it ends at is not seen
    in outputs, so the loop's condition is looked at as well."""
    case = replace(EVERY, seq_len=6)
    (loop,) = (e for e in equations(trace(case, "while", "forward")) if e.primitive.name == "while")
    assert loop.params["cond_nconsts"] == 1  # the bound is a value of the batch
    full = replace(case, lengths="full")
    (loop,) = (e for e in equations(trace(full, "while", "forward")) if e.primitive.name == "while")
    assert loop.params["cond_nconsts"] == 0
    weights, batch = data(case)
    runner = build(case, "while")
    for lengths in ([2, 0, 3, 1], [0, 0, 0, 0]):
        shorter = replace(batch, lengths=np.array(lengths, np.int32))
        runner.bind(shorter)
        output = runner.fetch(runner.forward())
        assert check_forward(case, output, expected(case, weights, shorter)).fault is None


def test_the_size_grows_with_time_only_where_time_is_unrolled(build: Any) -> None:
    for strategy in ("static", "dynamic"):
        short, long = (
            build(replace(CASE, cell="rnn", seq_len=t), strategy).program_size() for t in (3, 6)
        )
        assert set(long) == {"equations", "instructions", "temp_bytes"}
        grows = strategy == "static"
        assert (long["equations"] > short["equations"]) is grows
        assert (long["instructions"] > short["instructions"]) is grows


def test_the_size_counts_inner_programs(build: Any) -> None:
    runner = build(RAGGED, "dynamic", "train")
    jaxpr = runner._traced.jaxpr.jaxpr
    size = runner.program_size()
    assert size["equations"] == len(list(equations(jaxpr))) > len(jaxpr.eqns)
    modules = runner._compiled.runtime_executable().hlo_modules()
    counts = [len(c.instructions()) for module in modules for c in module.computations()]
    assert size["instructions"] == sum(counts)


# --- building -------------------------------------------------------------------------------------


def test_a_build_names_its_stages(backend: Any) -> None:
    seen: list[str] = []

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        seen.append(f"{name}:")
        yield
        seen.append(name)

    backend.build(CASE, "dynamic", "train", stage).close()
    assert seen == ["trace:", "trace", "lower:", "lower", "compile:", "compile"]


@pytest.mark.parametrize(
    ("case", "strategy", "error", "message"),
    [
        (CASE, "eager", Unsupported, "strategy eager: jax has static, dynamic, scan-unroll-2"),
        (replace(CASE, device="gpu:9"), "dynamic", Unavailable, "device gpu:9: JAX .* finds "),
    ],
)
def test_refusals_come_before_any_work(
    backend: Any, case: Case, strategy: str, error: type[Exception], message: str
) -> None:
    def no_stage(name: str) -> Any:
        raise AssertionError(name)

    with pytest.raises(error, match=message):
        backend.build(case, strategy, "forward", no_stage)


def test_a_while_loop_has_no_gradient(backend: Any) -> None:
    with pytest.raises(Unsupported, match=r"reverse-mode differentiation through lax\.while_loop"):
        backend.build(CASE, "while", "train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seq_len": 4}, "program is compiled for T=3, got T=4"),
        ({"batch": 2}, "program is compiled for B=4, got B=2"),
    ],
)
def test_other_shapes_are_refused(build: Any, change: dict[str, Any], message: str) -> None:
    runner = build(CASE, "dynamic")
    with pytest.raises(Unsupported, match=f"^{message}$"):
        runner.bind(data(replace(CASE, **change))[1])


def test_a_runner_serves_one_mode(build: Any) -> None:
    with pytest.raises(ValueError, match="built for mode 'train', not for 'forward'"):
        build(CASE, "dynamic", "train").forward()
    with pytest.raises(ValueError, match="built for mode 'forward', not for 'train'"):
        build(CASE, "dynamic").train()


def test_the_strategies_are_those_of_the_manifest() -> None:
    from backends.jax.limit import BARE
    from backends.jax.network import LOOPS

    names = [strategy.name for strategy in backends.BACKENDS["jax"].strategies]
    assert names == [*LOOPS, "fused", *BARE]


# --- dropout --------------------------------------------------------------------------------------


KEEP = 0.7
DROPPED = replace(CASE, seq_len=20, batch=30, hidden=50, dtype="float64")


@pytest.fixture(params=[False, True], ids=["fresh", "variational"])
def dropping(request: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Case, bool]:
    """A case whose LSTM drops its outputs alone, and whether that is variational."""
    name = f"output-dropout-{request.param}"
    cell = Dropout(cell=Lstm(), output_keep=KEEP, variational=request.param)
    monkeypatch.setitem(CELLS, name, Entry(title="drops outputs", cells=(cell,)))
    return replace(DROPPED, cell=name), request.param


def drawn(case: Case, variational: bool, seed: int) -> Any:
    """A mask [B, T, H] of the outputs that JAX draws, as `Dropout` says."""
    import jax

    b, t, h = case.batch, case.seq_len, case.hidden
    shape = (1, 1, h) if variational else (b, t, h)
    kept = np.asarray(jax.random.bernoulli(jax.random.key(seed), KEEP, shape))
    return np.broadcast_to(kept / KEEP, (b, t, h))


def test_dropout_of_jaxs_masks_is_as_defined(dropping: tuple[Case, bool], build: Any) -> None:
    """Outputs are 0, or 1 / keep times those of the LSTM; as many as the binomial lets, 5 sigma."""
    case, variational = dropping
    runner = build(case, "dynamic")
    _, batch = data(case)
    plain = replace(case, cell="lstm")
    other = build(plain, "dynamic")
    other.load(data(case)[0])
    other.bind(replace(batch, x=batch.x[:, :, : case.inputs]))
    whole = other.fetch(other.forward()).outputs

    def dropped(seed: int) -> Any:
        x = np.concatenate([batch.x[:, :, : case.inputs], drawn(case, variational, seed)], axis=2)
        runner.bind(replace(batch, x=x))
        return runner.fetch(runner.forward()).outputs

    # Of a variational mask there are H draws a seed: many seeds make as many draws as are judged.
    outputs = [dropped(seed) for seed in range(20 if variational else 1)]
    draws = np.stack([y[0, 0] if variational else y for y in outputs]) != 0
    sigma = (KEEP * (1 - KEEP) / draws.size) ** 0.5
    assert abs(draws.mean() - KEEP) < 5 * sigma
    kept = outputs[0] != 0
    np.testing.assert_allclose(outputs[0][kept], whole[kept] / KEEP, rtol=1e-12)
    pairs = kept[:, 1:] == kept[:, :-1]
    if variational:
        assert (kept == kept[0, 0]).all()
    else:
        # Independent steps agree with probability keep^2 + (1 - keep)^2. Neighbouring pairs share
        # a draw, which at most doubles the variance.
        agree = KEEP**2 + (1 - KEEP) ** 2
        sigma = (2 * agree * (1 - agree) / pairs.size) ** 0.5
        assert abs(pairs.mean() - agree) < 5 * sigma
    np.testing.assert_array_equal(dropped(0), outputs[0])
    assert not np.array_equal(dropped(1000) != 0, kept)


# --- arguments ------------------------------------------------------------------------------------


def aligned(array: Any) -> Any:
    """A copy that begins at a multiple of 64 bytes, as XLA's own arrays do."""
    room = np.empty(array.nbytes + 64, np.uint8)
    start = -room.ctypes.data % 64
    copy = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def test_what_was_taken_does_not_change_with_the_callers_arrays(build: Any) -> None:
    case = replace(RAGGED, cell="gru-reset-after")
    runner, (weights, batch) = build(case, "dynamic"), data(case)
    state = batch.initial_state
    assert state is not None
    weights, state = (
        tuple({name: aligned(array) for name, array in layer.items()} for layer in layers)
        for layers in (weights, state)
    )
    x, lengths = aligned(batch.x), aligned(batch.lengths)
    runner.load(weights)
    runner.bind(replace(batch, x=x, lengths=lengths, initial_state=state))
    for array in [x, lengths, *(array for layer in (*weights, *state) for array in layer.values())]:
        array[...] = 1
    truth = expected(case, *data(case))
    assert check_forward(case, runner.fetch(runner.forward()), truth).fault is None


def test_a_step_writes_over_the_weights_that_it_was_given(build: Any) -> None:
    runner = build(RAGGED, "dynamic", "train")
    given = runner._weights
    runner.sync(runner.train())
    assert all(array.is_deleted() for layer in given for array in layer.values())


def test_weights_that_were_read_stay_when_more_steps_are_taken(build: Any) -> None:
    runner = build(RAGGED, "dynamic", "train")
    runner.sync(runner.train())
    read = runner.weights()
    before = [array.copy() for layer in read for array in layer.values()]
    runner.sync(runner.train())
    after = [array for layer in read for array in layer.values()]
    for array, copy in zip(after, before, strict=True):
        np.testing.assert_array_equal(array, copy)
    assert not np.array_equal(runner.weights()[0]["W_i"], read[0]["W_i"])


def test_a_loss_stays_when_more_steps_are_taken(build: Any) -> None:
    runner = build(CASE, "dynamic", "train")
    first = runner.train()
    later = runner.train()
    runner.sync(first)
    assert runner.fetch_loss(later) < runner.fetch_loss(first)


# --- the process ----------------------------------------------------------------------------------


def python(script: str, **variables: str) -> str:
    """What a fresh interpreter prints, in which jax is not imported yet."""
    clean = {
        k: v for k, v in os.environ.items() if k not in backends.BACKENDS["jax"].environment(1)
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env=clean | variables,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def test_import_starts_nothing() -> None:
    """A process may still be forked after it."""
    script = "import os, backends.jax.adapter; print(len(os.listdir('/proc/self/task')))"
    assert python(script, OPENBLAS_NUM_THREADS="1") == "1"


POOL = """
import os
from pathlib import Path
from backends.jax.adapter import JaxBackend
backend = JaxBackend()
names = []
for task in Path("/proc/self/task").iterdir():
    try:
        names.append((task / "comm").read_text().strip())
    except (FileNotFoundError, ProcessLookupError):
        pass  # a thread that ended while it was listed; those of the pool stay
print(backend.threads()["xla_pool"], names.count("tf_XLAEigen"))
"""


@pytest.mark.parametrize(
    "variables", [{"PJRT_NPROC": "3"}, {"NPROC": "5"}, {"PJRT_NPROC": "1", "NPROC": "4"}]
)
def test_the_pool_has_the_size_that_xla_was_told(variables: dict[str, str]) -> None:
    reported, running = python(POOL, **variables).split()
    assert reported == running == variables.get("PJRT_NPROC", variables.get("NPROC"))


def test_the_pool_has_the_size_of_the_affinity_mask_if_xla_was_told_nothing() -> None:
    pinned = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})" + POOL
    assert python(pinned) == "1 1"


def test_another_number_of_threads_needs_another_process(backend: Any) -> None:
    assert backend.threads()["xla_pool"] == 1
    with pytest.raises(RuntimeError, match="pool has 1 threads, asked for 2"):
        backends.create("jax", threads=2)


def test_nothing_is_kept_between_processes_and_no_platform_is_chosen() -> None:
    script = """
import backends
backend = backends.create("jax")
import jax
assert jax.config.jax_enable_compilation_cache is False
assert jax.config.jax_platforms is None
print(*backend.devices())
"""
    assert "cpu" in python(script).split()


# --- a limit on a GPU, as XLA is asked for it -----------------------------------------------------


class XlaGpu:
    """A GPU of 8 GiB, of a client that was made with so much of it as the options say then."""

    def __init__(self, told: Callable[[int], int | None] = lambda size: size) -> None:
        import jax

        options = jax.config.jax_pjrt_client_create_options or {}
        self._told = told(int(options.get("memory_fraction", 0.75) * 8 * 2**30))

    def memory_stats(self) -> dict[str, int | None]:
        return {"bytes_limit": self._told}


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Clients with a GPU that are made anew; what was done to them, in its order."""
    import jax

    from backends.jax import adapter

    done: list[str] = []

    def found() -> dict[str, Any]:
        done.append("made")
        return {"cpu": jax.devices("cpu")[0], "gpu": XlaGpu()}

    before = jax.config.jax_pjrt_client_create_options
    monkeypatch.setattr(adapter, "_found", found)
    monkeypatch.setattr(adapter, "clear_backends", lambda: done.append("cleared"))
    yield done
    jax.config.update("jax_pjrt_client_create_options", before)


@pytest.mark.parametrize("limit_bytes", [300_000_000, 2**30, 8 * 2**30])
def test_xla_s_clients_are_made_again_for_a_limit(clients: list[str], limit_bytes: int) -> None:
    """One with everything tells how much there is; the last one has the share."""
    import jax

    from backends.jax.adapter import JaxBackend

    limited = JaxBackend()
    with pytest.raises(Unavailable, match=r"device gpu:1: JAX .* finds gpu"):
        limited.limit("gpu:1", limit_bytes)
    limited.limit("gpu", limit_bytes)
    assert clients == ["made", "cleared", "made", "cleared", "made"]
    options = jax.config.jax_pjrt_client_create_options
    assert options == {"memory_fraction": limit_bytes / (8 * 2**30)}
    device: Any = limited._devices["gpu"]
    assert device.memory_stats()["bytes_limit"] == pytest.approx(limit_bytes, rel=1e-6)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (lambda _: 6 * 2**30, "limited to 6,442,450,944, not 1,073,741,824 bytes"),
        (lambda _: None, "does not tell its limit"),
    ],
    ids=["as before", "not told"],
)
@pytest.mark.usefixtures("clients")
def test_a_limit_that_xla_did_not_take_is_an_error(
    monkeypatch: pytest.MonkeyPatch, told: Callable[[int], int | None], said: str
) -> None:
    from backends.jax import adapter

    monkeypatch.setattr(adapter, "_found", lambda: {"cpu": None, "gpu": XlaGpu(told)})
    with pytest.raises(RuntimeError, match=said):
        adapter.JaxBackend().limit("gpu", 2**30)


def test_the_option_overrides_what_the_plugin_read_from_the_environment() -> None:
    """Which it reads once, when it is registered: of a later client the option alone can say."""
    code = """
import os
os.environ["XLA_CLIENT_MEM_FRACTION"] = "0.5"
os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
import jax
from jax._src import xla_bridge
from jax._src.lib import xla_client
read = xla_client.generate_pjrt_gpu_plugin_options()
assert (read["memory_fraction"], read["preallocate"]) == (0.5, False)
xla_client.pjrt_plugin_initialized = lambda name: True
xla_client.make_c_api_client = lambda name, options, *_: options
jax.config.update("jax_pjrt_client_create_options", {"memory_fraction": 0.25})
made = xla_bridge.make_pjrt_c_api_client("cuda", options=read)
assert (made["memory_fraction"], made["preallocate"]) == (0.25, False)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def profiled(backend: Any, runner: Any, call: Any) -> Any:
    runner.sync(call())
    return backend.kernels(runner, "cpu", lambda: runner.sync(call()))


def products(seen: Any) -> int:
    """How many of what ran are matrix products, by whichever library."""
    return sum(n for name, n in seen.items() if library(name) in ("YNNPACK", "matrix product"))


@pytest.mark.parametrize("strategy", ["static", "dynamic"])
def test_the_profiler_sees_two_products_a_step(backend: Any, build: Any, strategy: str) -> None:
    runner = build(CASE, strategy)
    seen = profiled(backend, runner, runner.forward)
    assert products(seen) == 2 * CASE.seq_len
    assert "while" not in seen
    assert not [name for name in seen if name[-1].isdigit()]


def test_the_profiler_sees_a_training_steps_products(backend: Any, build: Any) -> None:
    runner = build(CASE, "dynamic", "train")
    seen = profiled(backend, runner, runner.train)
    # Backward two for the inputs and weights of each product, but the inputs' own gradient.
    assert products(seen) >= 4 * CASE.seq_len


XSPACE = """
planes {
  name: "/device:GPU:0"
  event_metadata { key: 1 value { id: 1 name: "loop_add_fusion_2" } }
  event_metadata { key: 2 value { id: 2 name: "ampere_sgemm_128x32_tn" } }
  event_metadata { key: 3 value { id: 3 name: "jit_run" } }
  lines {
    name: "Stream #7(Kernel)"
    events { metadata_id: 1 duration_ps: 5000 }
    events { metadata_id: 2 duration_ps: 30000 }
    events { metadata_id: 1 duration_ps: 5000 }
  }
  lines { name: "XLA Modules" events { metadata_id: 3 duration_ps: 90000 } }
}
"""


def test_on_a_gpu_the_streams_of_an_xspace_are_read() -> None:
    """By JAX's own reader, from what XLA's collector writes: no GPU is there."""
    import jax

    from backends.jax.kernels import _spans

    read = jax.profiler.ProfileData.from_text_proto
    assert list(of_spans(_spans(read(XSPACE)), "gpu").items()) == [
        ("ampere_sgemm_128x32_tn", 1),
        ("loop_add_fusion", 2),
    ]
    with pytest.raises(RuntimeError, match="CUPTI"):
        of_spans(_spans(read("")), "gpu")
