"""What rides along on a GPU: the products and the launches that are asked for are really done.

There need be no GPU here: what a refusal keeps from a CPU is built past it.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

import backends
from backends.api import (
    CELL_NAMES,
    MODES,
    Case,
    Direction,
    Lengths,
    Mode,
    Unavailable,
    Unsupported,
    unstaged,
)
from backends.bare import launches
from backends.jax import hlo
from backends.products import products
from backends.stack import layers
from bench import selection
from bench.axes import RIDING
from bench.conftest import narrowed
from bench.estimate import job_seconds
from bench.record import Job
from tests.support import cases

CASE = Case(cell="lstm", seq_len=5, batch=4, inputs=3, hidden=6, layers=2)
#: Kinds of products: both ways, vectors for factors, none but one step, a cell of many windows.
CASES = {
    "layers": CASE,
    "both-ways": replace(CASE, direction="bidirectional"),
    "one-sequence": replace(CASE, batch=1),
    "one-step": replace(CASE, seq_len=1),
    "float64": replace(CASE, dtype="float64"),
    "grid": Case(cell="grid", seq_len=3, batch=2, inputs=4, hidden=4),
}
EVERY = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
FRAMEWORKS = ("torch", "jax", "tensorflow")


def needed(case: Case, mode: Mode) -> int:
    return sum(product.count for product in products(case, mode))


# --- what is asked for ----------------------------------------------------------------------------


@given(
    cases(
        cell=st.sampled_from(CELL_NAMES),
        seq_len=st.integers(1, 20),
        batch=st.just(2),
        inputs=st.just(4),
        hidden=st.just(4),
        layers=st.integers(1, 3),
        direction=st.sampled_from(get_args(Direction)),
        lengths=st.sampled_from(get_args(Lengths)),
    )
)
def test_a_loop_has_a_launch_for_each_step_layer_and_direction_and_one_on_the_way_back(
    case: Case,
) -> None:
    ways = {"forward": 1, "bidirectional": 2, "two-stacks": 2}[case.direction]
    assert len(layers(case)) == case.layers * ways
    assert launches(case, "forward") == case.seq_len * case.layers * ways
    assert launches(case, "train") == 2 * launches(case, "forward")
    # None can do with fewer: each of these has a product of its own.
    assert all(launches(case, mode) <= needed(case, mode) for mode in MODES)


@pytest.mark.parametrize("backend", FRAMEWORKS)
@pytest.mark.parametrize("mode", MODES)
def test_on_a_cpu_they_are_refused_in_one_line(backend: str, mode: Mode) -> None:
    said = backends.refusal(f"{backend}/launches", CASE, mode)
    assert said == "device cpu: launches are a floor on GPUs only; on a CPU a call is no launch"
    said = backends.refusal(f"{backend}/products", CASE, mode)
    expected = None if backend == "torch" else "device cpu: the products there are"
    assert said is expected or (said or "").startswith(str(expected))
    for strategy in ("products", "launches"):
        on_gpu = replace(CASE, device="gpu:1")
        assert backends.refusal(f"{backend}/{strategy}", on_gpu, mode) is None


def test_what_rides_along_is_in_no_job_of_a_cpu_and_in_every_block_of_a_gpu() -> None:
    chosen = {"backend": ("jax", "torch"), "device": ("cpu", "gpu"), "strategy": ("dynamic",)}
    sweep = selection.select("smoke", chosen)
    jobs = sweep.jobs("steady")
    found = {
        device: {
            job.implementation
            for job in jobs
            if job.case.device == device and not job.implementation.endswith("/dynamic")
        }
        for device in ("cpu", "gpu")
    }
    assert found["cpu"] == {"reference/products", "torch/products"}
    assert found["gpu"] == found["cpu"] | {"torch/launches", "jax/products", "jax/launches"}
    once = Counter(job for job in jobs if not job.replica)
    assert set(once.values()) == {1}
    blocks = Counter((job.case, job.mode) for job in once if job.case.device == "gpu")
    assert set(blocks.values()) == {2 + 5}
    for measure in ("cold", "memory"):
        ridden = {job.implementation for job in sweep.jobs(measure)}
        assert ridden == {"jax/dynamic", "torch/dynamic"}
    # Whoever wants the floor of a framework wants that framework.
    floor = [job for job in once if job.implementation in ("jax/launches", "torch/dynamic")]
    assert set(narrowed(sweep, floor).axes.backend) == {"jax", "torch"}


def test_a_launch_takes_as_long_whatever_the_case_is_but_for_its_steps() -> None:
    sampling = selection.select("smoke", {}).sampling

    def estimated(**change: Any) -> float:
        case = replace(CASE, device="gpu", **change)
        job = Job(implementation="jax/launches", case=case, mode="train", measure="steady")
        return job_seconds(job, sampling)

    assert estimated(hidden=4096, batch=64) == estimated()
    assert estimated(seq_len=5000) > estimated()


def test_what_rides_along_is_no_backend_s_choice() -> None:
    riding = {entry.strategy.name for entry in backends.of_kind(RIDING)}
    assert riding == {"products", "launches"}
    assert {entry.backend for entry in backends.of_kind(("launches",))} == set(FRAMEWORKS)


# --- PyTorch --------------------------------------------------------------------------------------


def torch_calls(runner: Any) -> Counter[str]:
    """Operations of a call by name, each as often as it was called from Python."""
    torch = pytest.importorskip("torch")
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, acc_events=True) as profiler:
        runner.sync(runner.forward())
    return Counter({event.key: event.count for event in profiler.key_averages()})


@EVERY
@pytest.mark.parametrize("mode", MODES)
def test_torch_does_every_product_and_every_launch(case: Case, mode: Mode) -> None:
    torch = pytest.importorskip("torch")
    from backends.torch.limit import build_launches, build_products

    cpu = torch.device("cpu")
    assert torch_calls(build_products(case, mode, cpu, unstaged))["aten::mm"] == needed(case, mode)
    runner = build_launches(case, mode, cpu, unstaged)
    count = launches(case, mode)
    assert torch_calls(runner)["aten::add_"] == count
    assert runner._element.tolist() == [count]
    assert not runner._element.requires_grad


# --- JAX ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def jax_cpu() -> Any:
    jax = pytest.importorskip("jax")
    backends.create("jax")
    return jax.devices("cpu")[0]


@EVERY
@pytest.mark.parametrize("mode", MODES)
def test_jax_does_every_product(jax_cpu: Any, case: Case, mode: Mode) -> None:
    from backends.jax.limit import PRODUCT, build_products

    runner = build_products(case, mode, jax_cpu, unstaged)
    program = runner._compiled.as_text()
    # A column times a row is the multiplication of elements; the grid has such.
    dots = sum(product.count for product in products(case, mode) if product.k > 1)
    assert hlo.executed(program, PRODUCT) == needed(case, mode)
    assert sorted(hlo.loops(program)) == sorted(
        product.count for product in products(case, mode) if product.count > 1
    )
    # Each is of the case's dtype, and nothing is copied but the counters of loops.
    short = {"float32": "f32", "float64": "f64"}[case.dtype]
    assert hlo.executed(program, rf" = {short}\S* dot\(") == dots
    assert hlo.executed(program, rf" = {short}\S* copy\(") == 0
    assert runner.program_size()["products"] == needed(case, mode)
    before = [tuple(b.shape for b in pair) for pair in runner._carried]
    for _ in range(2):
        runner.sync(runner.train() if mode == "train" else runner.forward())
    assert [tuple(b.shape for b in pair) for pair in runner._carried] == before


def test_the_results_of_jax_s_products_are_products(jax_cpu: Any) -> None:
    import numpy as np

    from backends.jax.limit import build_products

    runner = build_products(CASE, "train", jax_cpu, unstaged)
    given = [np.asarray(a) for a, _ in runner._carried]
    runner.sync(runner.forward())
    for a, (same, out), b in zip(given, runner._carried, runner._fixed, strict=True):
        np.testing.assert_array_equal(a, same)
        np.testing.assert_allclose(out, a @ np.asarray(b), rtol=1e-4, atol=1e-5)


def test_a_program_whose_products_xla_does_once_is_no_limit(jax_cpu: Any) -> None:
    """Without the barrier XLA takes the product out of the loop: the check must see it."""
    import numpy as np
    from jax import lax

    from backends.jax.limit import PRODUCT, BareProgram

    def program(carried: Any, b: Any) -> Any:
        return lax.fori_loop(0, 9, lambda _, s: (s[0], lax.dot(s[0], b)), carried)

    def fault(text: str) -> str | None:
        done = hlo.executed(text, PRODUCT)
        return None if done >= 9 else f"XLA left {done}"

    ones = np.ones((8, 8), np.float32)
    with pytest.raises(Unavailable, match="products: the limit cannot be measured: XLA left 1"):
        BareProgram("products: the limit", program, ((ones, ones), ones), fault, jax_cpu, unstaged)


@EVERY
@pytest.mark.parametrize("mode", MODES)
def test_jax_launches_a_kernel_a_step_in_a_loop_that_stays(
    jax_cpu: Any, case: Case, mode: Mode
) -> None:
    from backends.jax.limit import build_launches

    runner = build_launches(case, mode, jax_cpu, unstaged)
    program, count = runner._compiled.as_text(), launches(case, mode)
    assert hlo.loops(program) == ([count] if count > 1 else [])
    # Once in the text, and so often when it runs: it is neither unrolled nor merged.
    addition = r" = f32\[1\]\S* add\("
    assert program.count("f32[1]{0} add(") == 1
    assert hlo.executed(program, addition) == count
    runner.sync(runner.forward())
    assert runner._carried.tolist() == [count]
    runner.sync(runner.forward())
    assert runner._carried.tolist() == [2 * count]


def test_a_loop_that_xla_unrolls_is_no_floor(jax_cpu: Any, monkeypatch: Any) -> None:
    from jax import lax

    from backends.jax import limit

    def unrolled(count: int) -> Any:
        def program(element: Any, _fixed: None) -> Any:
            return lax.fori_loop(0, count, lambda _, x: x + 1, element, unroll=5)

        return program

    monkeypatch.setattr(limit, "add", unrolled)
    with pytest.raises(Unavailable, match=r"launches: the floor .*: of 10 steps XLA left \[2\]"):
        limit.build_launches(CASE, "forward", jax_cpu, unstaged)


def test_a_program_is_read_as_often_as_its_loops_go_round() -> None:
    program = """HloModule m

%double (a: f32[2]) -> f32[2] {
  %a = f32[2]{0} parameter(0)
  ROOT %m = f32[2]{0} multiply(%a, %a)
}

%inner (t: (s32[], f32[2])) -> (s32[], f32[2]) {
  %x = f32[2]{0} multiply(%t, %t)
  ROOT %f = f32[2]{0} fusion(%x), kind=kLoop, calls=%double
}

%outer (t: (s32[], f32[2])) -> (s32[], f32[2]) {
  %w = (s32[], f32[2]) while(%t), condition=%c, body=%inner, c={"known_trip_count":{"n":"3"}}
}

%c (t: (s32[], f32[2])) -> pred[] {
  ROOT %l = pred[] compare(%t, %t), direction=LT
}

ENTRY %main (x: f32[2]) -> f32[2] {
  %w = (s32[], f32[2]) while(%x), condition=%c, body=%outer, c={"known_trip_count":{"n":"5"}}
  %v = (s32[], f32[2]) while(%x), condition=%c, body=%inner
  ROOT %y = f32[2]{0} fusion(%x), kind=kLoop, calls=%double
}
""".replace("c={", "backend_config={")
    assert hlo.executed(program, r" multiply\(") == 5 * 3 * 2 + 2 + 1
    assert hlo.executed(program, r" compare\(") == 5 + 5 * 3 + 1
    assert hlo.loops(program) == [3, 5]


# --- TensorFlow -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tf_config() -> Any:
    pytest.importorskip("tensorflow")
    return backends.create("tensorflow")._config


@pytest.fixture
def tf_built(tf_config: Any) -> Iterator[Any]:
    runners = []

    def build(make: Any, case: Case, mode: Mode) -> Any:
        runners.append(make(case, mode, unstaged, device="/cpu:0", config=tf_config))
        return runners[-1]

    yield build
    for runner in runners:
        runner.close()


def tf_kernels(runner: Any, config: Any = None) -> Counter[str]:
    """Kernels that a call of a graph runs, by operation: what the executor says that it did.

    `config` is that of another session than the runner's own.
    """
    import tensorflow as tf

    v1 = tf.compat.v1
    session = runner._session
    if config is not None:
        session = v1.Session(graph=runner._graph, config=config)
        session.run(runner._graph.get_operation_by_name("init"))
    told = v1.RunMetadata()
    options = v1.RunOptions(trace_level=v1.RunOptions.FULL_TRACE)
    session.run(runner._graph.get_operation_by_name("step"), options=options, run_metadata=told)
    return Counter(
        node.timeline_label.partition(" = ")[2].partition("(")[0].removeprefix("_Mkl")
        for device in told.step_stats.dev_stats
        for node in device.node_stats
    )


def tf_element(runner: Any) -> list[float]:
    return list(
        runner._session.run(runner._graph.get_tensor_by_name("element/Read/ReadVariableOp:0"))
    )


@EVERY
@pytest.mark.parametrize("mode", MODES)
def test_tensorflow_does_every_product(tf_built: Any, case: Case, mode: Mode) -> None:
    from backends.tensorflow.limit import build_products

    runner = tf_built(build_products, case, mode)
    assert tf_kernels(runner)["MatMul"] == needed(case, mode)
    made = [op for op in runner._graph.get_operations() if op.type == "MatMul"]
    assert {op.outputs[0].dtype.name for op in made} == {case.dtype}
    # Each waits for the one before.
    for before, after in itertools.pairwise(made):
        assert before in after.control_inputs
    runner.sync(runner.train() if mode == "train" else runner.forward())


def test_with_its_optimisers_tensorflow_would_do_no_product(tf_built: Any, tf_config: Any) -> None:
    """Why they are off: what is counted above is not there by itself."""
    from backends.tensorflow.limit import build_products

    runner = tf_built(build_products, CASE, "forward")
    assert tf_kernels(runner, tf_config)["MatMul"] == 0


@EVERY
@pytest.mark.parametrize("mode", MODES)
def test_tensorflow_launches_a_kernel_a_step(tf_built: Any, case: Case, mode: Mode) -> None:
    from backends.tensorflow.limit import build_launches

    runner, count = tf_built(build_launches, case, mode), launches(case, mode)
    found = tf_kernels(runner)
    # The element's, and those that the loop counts its steps by, on the host.
    assert found["AddV2"] == 2 * count
    assert found["LoopCond"] == count + 1
    assert tf_element(runner) == [count]
    runner.sync(runner.forward())
    assert tf_element(runner) == [2 * count]
    types = Counter(op.type for op in runner._graph.get_operations())
    assert types["LoopCond"] == 1
    assert not {"While", "StatelessWhile"} & set(types)


# --- all ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["products", "launches"])
@pytest.mark.parametrize("backend", FRAMEWORKS)
def test_there_is_nothing_to_fetch(backend: str, strategy: str) -> None:
    from importlib import import_module

    if backends.missing(backend):
        pytest.skip(backends.missing(backend) or "")
    created: Any = backends.create(backend)
    build = getattr(import_module(f"backends.{backend}.limit"), f"build_{strategy}")
    if backend == "tensorflow":
        runner = build(CASE, "forward", unstaged, device="/cpu:0", config=created._config)
    elif backend == "jax":
        runner = build(CASE, "forward", created._devices["cpu"], unstaged)
    else:
        import torch

        runner = build(CASE, "forward", torch.device("cpu"), unstaged)
    for ask in (lambda: runner.fetch(None), lambda: runner.fetch_loss(None), runner.weights):
        with pytest.raises(Unsupported, match=f"{strategy}: the (limit|floor) has no"):
            ask()
    runner.close()


@pytest.mark.parametrize("backend", FRAMEWORKS)
def test_the_adapter_knows_what_rides_along(backend: str) -> None:
    """Past the refusal a GPU is asked for, which is not here; a strategy is known."""
    if backends.missing(backend):
        pytest.skip(backends.missing(backend) or "")
    created = backends.create(backend)
    if created.lacking("gpu") is None:
        pytest.skip("there is a GPU")
    for strategy in ("products", "launches"):
        with pytest.raises(Unavailable, match="device gpu"):
            created.build(replace(CASE, device="gpu"), strategy, "forward")
