"""bfloat16, float16 and TF32: what there is of them, what is refused, and what is let through."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backends import IMPLEMENTATIONS, refusal
from backends.api import Case
from backends.data import make_batch, make_weights
from backends.halves import half_refusal
from backends.tf32 import Switch
from bench import support
from bench.axes import Axes
from bench.errors import UsageError
from bench.naming import case_name
from bench.outputs import tolerance
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


def test_it_may_be_off_by_what_float16_is() -> None:
    on = tolerance(replace(ON_GPU, tf32="on"))
    assert on == tolerance(replace(ON_GPU, dtype="float16"))
    assert on.forward > tolerance(ON_GPU).forward
