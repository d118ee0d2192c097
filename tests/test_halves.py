"""bfloat16, float16 and TF32: what there is of them, what is refused, and what is let through."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import backends
from backends import IMPLEMENTATIONS, refusal
from backends.api import MODES, Case
from backends.data import make_batch, make_weights
from backends.halves import half_refusal
from backends.tf32 import Switch
from bench import support
from bench.axes import Axes
from bench.errors import UsageError
from bench.expectation import compute_expected
from bench.naming import case_name
from bench.outputs import check_forward, check_train, probe_gradients, tolerance
from bench.record import Job

CASE = Case(cell="lstm", seq_len=2, batch=2, inputs=8, hidden=8)
ON_GPU = replace(CASE, device="gpu")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_and_batches_are_in_it(dtype: str) -> None:
    case = replace(CASE, dtype=dtype, initial_state="random")
    batch = make_batch(case)
    assert batch.initial_state is not None
    arrays = [batch.x, batch.targets, *batch.initial_state[0].values()]
    arrays += list(make_weights(case)[0].values())
    assert {array.dtype for array in arrays} == {np.dtype(dtype)}
    wide = make_batch(replace(case, dtype="float64")).x
    np.testing.assert_array_equal(batch.x, wide.astype(dtype))


@pytest.mark.parametrize("implementation", list(IMPLEMENTATIONS))
def test_nobody_trains_in_float16(implementation: str) -> None:
    entry = IMPLEMENTATIONS[implementation]
    case = replace(CASE, dtype="float16", device="gpu" if entry.backend != "reference" else "cpu")
    assert refusal(implementation, case, "train") is not None


@pytest.mark.parametrize(
    ("cell", "refused"),
    [
        *(("lstm-clip", True), ("lstm-projection-clip", True), ("coupled-full", True)),
        *(("grid-peephole", True), ("time-freq-peephole", True)),
        *(("lstm", False), ("grid", False), ("residual-lstm", False), ("attention-lstm", False)),
    ],
)
def test_a_clip_is_not_trained_through_in_bfloat16(cell: str, refused: bool) -> None:
    case = replace(CASE, cell=cell, dtype="bfloat16")
    reason = half_refusal(case, "train")
    assert (reason is not None) is refused
    assert reason is None or reason.startswith(f"dtype bfloat16, mode train, cell {cell}: ")
    assert half_refusal(case, "forward") is None
    assert half_refusal(replace(case, dtype="float32"), "train") is None


def test_all_that_compute_in_float32_do_in_half_types_unless_the_page_says() -> None:
    """Of the matrix's cells, on a CPU."""
    page = support.page().partition("## bfloat16")[2]
    for name, entry in IMPLEMENTATIONS.items():
        if entry.kind not in ("static", "dynamic", "fused"):
            continue
        for case in support.rows().values():
            half = replace(case, dtype="bfloat16")
            if refusal(name, case, "forward") is None and refusal(name, half, "forward"):
                assert name in page


# --- TF32 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"device": "cpu"}, "tf32 on: is of float32 on a GPU, not of float32 on cpu"),
        ({"dtype": "bfloat16"}, "tf32 on: is of float32 on a GPU, not of bfloat16 on gpu"),
    ],
)
def test_it_is_of_float32_on_a_gpu(change: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}$"):
        replace(ON_GPU, tf32="on", **change)


def axes(**changes: tuple[str, ...]) -> Axes:
    usual: dict[str, tuple[str, ...]] = {
        "lengths": ("full",),
        "dtype": ("float32",),
        "device": ("gpu",),
        "mode": ("forward",),
        **changes,
    }
    return Axes(
        cell=("lstm",), seq_len=(2,), batch=(2,), layers=(1,), hidden=(8,), inputs=(8,), **usual
    )


def test_it_is_an_axis_where_there_is_any() -> None:
    both = axes(device=("cpu", "gpu"), dtype=("float32", "bfloat16"), tf32=("off", "on"))
    found = [(case.device, case.dtype, case.tf32) for case in both.cases()]
    assert found == [
        ("cpu", "float32", "off"),
        ("cpu", "bfloat16", "off"),
        ("gpu", "float32", "off"),
        ("gpu", "float32", "on"),
        ("gpu", "bfloat16", "off"),
    ]


def test_where_there_is_none_it_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^tf32 on: is of float32 on a GPU"):
        axes(device=("cpu",), tf32=("on",))
    with pytest.raises(UsageError, match=r"^tf32 on: .* not of float32 on cpu"):
        axes(device=("cpu", "gpu"), tf32=("on",))
    with pytest.raises(UsageError, match=r"^unknown tf32 'maybe'; allowed: off, on$"):
        axes(tf32=("maybe",))


def test_a_process_has_it_or_not() -> None:
    turned: list[bool] = []
    switch = Switch(turned.append)
    switch.require(CASE)  # on a CPU there is none: nothing is said about the GPU
    switch.require(replace(ON_GPU, tf32="on"))
    switch.require(replace(ON_GPU, tf32="on", seq_len=3))
    assert turned == [False, True]
    with pytest.raises(RuntimeError, match=r"^tf32 off: this process computes the other way$"):
        switch.require(ON_GPU)
    assert turned == [False, True]


def test_records_without_it_keep_their_keys() -> None:
    job = Job(implementation="torch/fused", case=ON_GPU, mode="forward", measure="steady")
    on = replace(job, case=replace(ON_GPU, tf32="on"))
    assert job.key == "dae56f9ca3f83d6b"
    assert on.key != job.key
    assert case_name(on.case) == "lstm-T2-B2-L1-H8-D8-gpu-tf32=on"


def test_it_may_be_off_by_what_float16_is_and_its_gradient_by_what_bfloat16_s_is() -> None:
    on, half = tolerance(replace(ON_GPU, tf32="on")), tolerance(replace(ON_GPU, dtype="float16"))
    assert (on.forward, on.loss) == (half.forward, half.loss)
    assert on.forward > tolerance(ON_GPU).forward
    assert on.gradient == tolerance(replace(ON_GPU, dtype="bfloat16")).gradient


def test_a_clip_is_not_trained_through_in_it() -> None:
    case = replace(ON_GPU, cell="lstm-clip", tf32="on")
    reason = half_refusal(case, "train")
    assert reason is not None
    assert reason.startswith("tf32 on, mode train, cell lstm-clip: ")
    assert half_refusal(case, "forward") is None
    assert half_refusal(replace(case, cell="lstm"), "train") is None


def _simulated(monkeypatch: pytest.MonkeyPatch, *, rounds: bool) -> None:
    """Let torch's products have factors of TF32, those of the way back too."""
    torch = pytest.importorskip("torch")
    mm = torch.mm

    def tf32(factor: Any) -> Any:
        bits = factor.float().view(torch.int32) + (0x1000 if rounds else 0)
        return (bits & ~0x1FFF).view(torch.float32).to(factor.dtype)

    class Product(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, a: Any, b: Any) -> Any:
            ctx.save_for_backward(a, b)
            return mm(tf32(a), tf32(b))

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            a, b = ctx.saved_tensors
            gradient = tf32(gradient)
            return mm(gradient, tf32(b).T), mm(tf32(a).T, gradient)

    monkeypatch.setattr(torch, "mm", Product.apply)
    monkeypatch.setattr(torch, "addmm", lambda c, a, b: c + Product.apply(a, b))


@pytest.mark.xdist_group("torch")
@pytest.mark.parametrize("rounds", [True, False], ids=["rounded", "cut"])
@pytest.mark.parametrize(
    ("cell", "hidden"),
    [("lstm", 64), ("gru-reset-after", 64), ("rnn-relu", 512), ("gru-relu", 512)],
)
def test_what_is_right_is_within_it(
    monkeypatch: pytest.MonkeyPatch, cell: str, hidden: int, rounds: bool
) -> None:
    """A relu whose argument comes to the other side of 0 has another gradient."""
    backend = backends.create("torch")
    on_cpu = Case(cell=cell, seq_len=20, batch=1, inputs=hidden, hidden=hidden, dtype="float64")
    case = replace(on_cpu, dtype="float32", device="gpu", tf32="on")
    weights, batch = make_weights(on_cpu), make_batch(on_cpu)
    truth = compute_expected(on_cpu, weights, batch)
    _simulated(monkeypatch, rounds=rounds)
    forward, train = (backend.build(on_cpu, "dynamic", mode) for mode in MODES)
    forward.load(weights)
    forward.bind(batch)
    checked = check_forward(case, forward.fetch(forward.forward()), truth)
    assert checked.fault is None
    assert checked.differences["outputs"].absolute > tolerance(replace(case, tf32="off")).forward
    loss, gradients = probe_gradients(train, weights, batch)
    assert check_train(case, loss, gradients, truth).fault is None
