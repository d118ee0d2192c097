"""Figures that cannot be of the work are found, and no honest one is called so."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import backends
from backends.api import CELL_NAMES, MODES, Case, Direction, Dtype, Lengths, Mode
from backends.data import initial_state, make_batch, make_weights
from backends.products import flops
from backends.reference.cells import make_step, sigmoid
from backends.reference.network import expected
from backends.spec import Dropout, Wrapper
from backends.stack import layers, output_width, parameters
from bench import plausible
from bench.peaks import Peaks
from bench.plausible import MARGIN, check, least_bytes, least_seconds, true_flops
from bench.record import Job
from benchmarks import plausible as script
from tests.support import cases

#: A host of round numbers: 100 GFLOP/s, and caches of 64 KB and of 16 MB.
PEAKS = Peaks(
    flops_per_s=100e9,
    bandwidth=(
        (1 << 14, 200e9),
        (1 << 16, 200e9),
        (1 << 20, 80e9),
        (1 << 24, 80e9),
        (1 << 28, 2e10),
    ),
)
WITHOUT_PRODUCTS = replace(PEAKS, flops_per_s=None)
CASE = Case(cell="lstm", seq_len=50, batch=64, inputs=256, hidden=256)

#: Cells of which the first window of a chain is left out.
FREQUENCY = {name for name in CELL_NAMES if "grid" in name or "time-freq" in name}

#: Cases of all kinds, with sizes that are small or large.
EVERY = cases(
    cell=st.sampled_from(CELL_NAMES),
    seq_len=st.integers(1, 12),
    batch=st.integers(1, 9),
    inputs=st.sampled_from([1, 4, 5, 16]),
    hidden=st.sampled_from([1, 4, 16]),
    layers=st.integers(1, 3),
    lengths=st.sampled_from(get_args(Lengths)),
    dtype=st.sampled_from(get_args(Dtype)),
    initial_state=st.sampled_from(["zeros", "random"]),
    direction=st.sampled_from(get_args(Direction)),
)
MODE = st.sampled_from(MODES)


# --- what is found --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", get_args(Dtype))
@pytest.mark.parametrize("mode", MODES)
def test_a_forward_pass_that_keeps_its_result_is_found_in_each_dtype(
    dtype: Dtype, mode: Mode
) -> None:
    case = replace(CASE, dtype=dtype)
    reason = check(case, mode, 7.4e-6, PEAKS)
    assert reason is not None
    assert reason.startswith("0.00740 ms a call: ")
    assert reason.endswith(f"GFLOP/s, where this host reaches 100 in {dtype} (margin {MARGIN:g})")
    assert "\n" not in reason


def test_the_reason_has_both_figures() -> None:
    case = replace(CASE, initial_state="random")  # of which all FLOPs are needed
    assert flops(case, "forward") == 3_355_443_200
    said = check(case, "forward", 7.44e-6, PEAKS)
    assert said == (
        "0.00744 ms a call: 451,000 GFLOP/s, where this host reaches 100 in float32 (margin 2)"
    )
    on_gpu = replace(case, device="gpu", tf32="on")
    said = check(on_gpu, "forward", 7.44e-6, PEAKS)
    assert said is not None
    assert said.endswith("100 in float32 with TF32 (margin 2)")


def test_what_reads_its_weights_faster_than_memory_is_found() -> None:
    """Products of one sequence and one step are few: their weights take longer to be read."""
    case = Case(cell="lstm", seq_len=1, batch=1, inputs=1024, hidden=1024, initial_state="random")
    size = 4 * (8 * 1024 * 1024 + 2 * 1024)
    assert least_bytes(case, "forward") == plausible.working_set(case) == size
    at_80_s = size / 80e9
    said = check(case, "forward", at_80_s / 2.5, PEAKS)
    assert said == ("0.168 ms a call: 200 GB/s, where this host reaches 80.0 at 33.6 MB (margin 2)")
    assert check(case, "forward", at_80_s, PEAKS) is None
    assert check(case, "forward", at_80_s / 1.9, PEAKS) is None


def test_without_products_the_bytes_alone_count() -> None:
    needed = least_bytes(CASE, "forward")
    assert needed == 4 * (8 * 256 * 256 + 50 * 64 * (256 + 256))
    assert check(CASE, "forward", 7.4e-6, WITHOUT_PRODUCTS) == (
        "0.00740 ms a call: 1,170 GB/s, where this host reaches 80.0 "
        f"at {needed / 1e6:.2f} MB (margin 2)"
    )
    assert check(CASE, "forward", 1e-15, Peaks(flops_per_s=None)) is None
    without_memory = replace(PEAKS, bandwidth=())
    assert check(CASE, "forward", 1e-15, without_memory) is not None


@pytest.mark.parametrize("call_s", [0.0, -0.0, -1.0, -math.inf])
def test_no_call_takes_no_time(call_s: float) -> None:
    assert check(CASE, "forward", call_s, PEAKS) == f"{call_s:g} s a call: nothing takes no time"


@pytest.mark.parametrize("call_s", [math.nan, math.inf, 1e300])
def test_what_is_not_fast_is_not_too_fast(call_s: float) -> None:
    assert check(CASE, "forward", call_s, PEAKS) is None


@pytest.mark.parametrize("call_s", [5e-324, 1e-300])
def test_the_fastest_figure_that_there_is_has_words(call_s: float) -> None:
    said = check(CASE, "forward", call_s, PEAKS)
    assert said is not None
    assert "s a call: " in said


# --- properties of all cases ----------------------------------------------------------------------


@given(EVERY, MODE)
def test_the_bounds_are_below_what_the_formulas_count(case: Case, mode: Mode) -> None:
    needed = true_flops(case, mode)
    assert 0 <= needed <= flops(case, mode)
    item = np.dtype(case.dtype).itemsize
    numbers = case.batch * case.seq_len * (case.inputs + output_width(case))
    weights = parameters(case) * (2 if mode == "train" else 1)
    assert 0 < least_bytes(case, mode) <= item * (numbers + weights)
    assert plausible.working_set(case) == least_bytes(case, "forward")
    assert least_bytes(case, "forward") <= least_bytes(case, "train")


@given(EVERY)
def test_training_needs_more_than_a_forward_pass(case: Case) -> None:
    forward, train = (true_flops(case, mode) for mode in MODES)
    assert 2 * forward - 1e-6 <= train <= 3 * forward + 1e-6


@given(EVERY, MODE)
def test_all_is_counted_of_cases_in_which_nothing_can_be_left_out(case: Case, mode: Mode) -> None:
    case = replace(case, lengths="full", initial_state="random")
    whole = case.cell not in FREQUENCY and "attention" not in case.cell
    if mode == "train":
        # Nobody asks for the gradient of the state that a case begins at.
        recurrent = sum(
            2 * case.batch * p.k * p.n * p.times
            for layer in layers(case)
            for p in layer.cell.products(layer.inputs, layer.hidden)
            if not p.hoisted
        )
        assume(whole)
        assert true_flops(case, mode) == flops(case, mode) - recurrent
    elif whole:
        assert true_flops(case, mode) == flops(case, mode)
    else:
        assert true_flops(case, mode) < flops(case, mode)


@given(EVERY, MODE)
def test_padding_counts_for_nothing(case: Case, mode: Mode) -> None:
    """A batch counts as its sequences do, each without padding."""
    lengths = make_batch(case).lengths
    known = [case.seq_len] * case.batch if lengths is None else lengths.tolist()
    alone = [replace(case, batch=1, lengths="full", seq_len=n) for n in known]
    assert true_flops(case, mode) == pytest.approx(sum(true_flops(one, mode) for one in alone))
    size = np.dtype(case.dtype).itemsize
    moved = size * sum(known) * (case.inputs + output_width(case))
    if case.cell not in FREQUENCY:
        longest = replace(case, batch=1, lengths="full", seq_len=max(known))
        weights = least_bytes(longest, mode) - moved / sum(known) * max(known)
        # A batch of one step each needs no more weights than one of them.
        assert least_bytes(case, mode) == pytest.approx(moved + weights)


@given(EVERY, MODE, st.floats(1e-12, 1e6), st.sampled_from([PEAKS, WITHOUT_PRODUCTS]))
def test_a_figure_is_implausible_by_the_margin_and_no_less(
    case: Case, mode: Mode, factor: float, peaks: Peaks
) -> None:
    least_s = least_seconds(case, mode, peaks)
    assume(least_s > 0)
    found = check(case, mode, least_s / factor, peaks)
    if factor > MARGIN * (1 + 1e-9):
        assert found is not None
    elif factor < MARGIN * (1 - 1e-9):
        assert found is None


@given(EVERY, MODE)
def test_of_a_case_that_needs_next_to_nothing_little_is_said(case: Case, mode: Mode) -> None:
    """No call takes less than 50 ns; the weights of these stay in registers, or nearly."""
    if case.hidden == 1 and case.inputs == 1:
        assert check(case, mode, 5e-8, PEAKS) is None


@given(EVERY, MODE, st.floats(0.01, 1.0))
def test_larger_peaks_make_nothing_implausible(case: Case, mode: Mode, share: float) -> None:
    call_s = share * max(least_seconds(case, mode, PEAKS), 1e-12)
    larger = PEAKS.scaled(3)
    if check(case, mode, call_s, PEAKS) is None:
        assert check(case, mode, call_s, replace(larger, bandwidth=PEAKS.bandwidth)) is None


# --- bandwidth at a working set -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "rate"),
    [
        (1, None),
        ((1 << 14) - 1, None),
        (1 << 14, 200e9),
        (1 << 18, 200e9),
        ((1 << 18) + 1, 80e9),
        (1 << 26, 80e9),
        ((1 << 26) + 1, 2e10),
        (1 << 40, 2e10),
    ],
)
def test_a_working_set_may_lie_partly_in_a_faster_cache(size: int, rate: float | None) -> None:
    assert plausible.reached(PEAKS, size) == rate


def test_a_larger_working_set_that_was_read_faster_counts_for_smaller_ones() -> None:
    """Reading was disturbed at the smaller one: a cache that is nearer is no slower."""
    odd = Peaks(flops_per_s=None, bandwidth=((1 << 14, 10e9), (1 << 20, 50e9), (1 << 24, 5e9)))
    assert plausible.reached(odd, 1 << 14) == 50e9


# --- an implementation that leaves out all that it can --------------------------------------------


class Counted:
    """Products, and their FLOPs."""

    def __init__(self) -> None:
        self.flops = 0

    def __call__(self, a: Any, b: Any) -> Any:
        self.flops += 2 * a.shape[0] * a.shape[1] * b.shape[1]
        return a @ b


def least_lstm(case: Case, mul: Counted) -> dict[str, Any]:
    """Gradients of an LSTM; of a state that is 0 nothing is multiplied."""
    (w,), batch = make_weights(case), make_batch(case)
    (start,) = initial_state(case, batch)
    c, h, given = start["c"], start["h"], batch.initial_state is not None
    saved, tape = [], {}
    for t in range(case.seq_len):
        gates = "igfo" if t or given else "igo"
        x, before = batch.x[:, t], h
        z = {g: mul(x, w[f"W_{g}"]) + w[f"b_{g}"] for g in gates}
        if t or given:
            z = {g: z[g] + mul(h, w[f"U_{g}"]) for g in gates}
        i, o, g = sigmoid(z["i"]), sigmoid(z["o"]), np.tanh(z["g"])
        f = sigmoid(z["f"] + case.forget_bias) if "f" in z else None
        new = i * g + (f * c if f is not None else 0)
        saved.append((x, before, c, i, g, f, o, new, gates))
        c, h = new, o * np.tanh(new)
        tape[t] = (h - batch.targets[:, t]) / (case.batch * case.seq_len)
    grads = {name: np.zeros(a.shape) for name, a in w.items()}
    dh, dc = np.zeros_like(h), np.zeros_like(c)
    for t in reversed(range(case.seq_len)):
        x, before, c_before, i, g, f, o, c, gates = saved[t]
        dh = dh + tape[t]
        dc = dc + dh * o * (1 - np.tanh(c) ** 2)
        dz = {
            "i": dc * g * i * (1 - i),
            "g": dc * i * (1 - g**2),
            "o": dh * np.tanh(c) * o * (1 - o),
        }
        if f is not None:
            dz["f"] = dc * c_before * f * (1 - f)
        for gate in gates:
            grads[f"W_{gate}"] += mul(x.T, dz[gate])
            grads[f"b_{gate}"] += dz[gate].sum(0)
            if t or given:
                grads[f"U_{gate}"] += mul(before.T, dz[gate])
        if t:
            dh, dc = sum(mul(dz[gate], w[f"U_{gate}"].T) for gate in gates), dc * f
    return grads


def least_gru(case: Case, mul: Counted) -> dict[str, Any]:
    """Gradients of a GRU that resets before the product; of a state that is 0 as above."""
    (w,), batch = make_weights(case), make_batch(case)
    (start,) = initial_state(case, batch)
    h, given = start["h"], batch.initial_state is not None
    saved, errors = [], []
    for t in range(case.seq_len):
        x, before, recurrent = batch.x[:, t], h, bool(t) or given
        z = {g: mul(x, w[f"W_{g}"]) + w[f"b_{g}"] for g in ("ruc" if recurrent else "uc")}
        r = None
        if recurrent:
            r = sigmoid(z["r"] + mul(h, w["U_r"]))
            z["u"] = z["u"] + mul(h, w["U_u"])
            z["c"] = z["c"] + mul(r * h, w["U_c"])
        u, c = sigmoid(z["u"]), np.tanh(z["c"])
        h = u * h + (1 - u) * c
        saved.append((x, before, r, u, c))
        errors.append((h - batch.targets[:, t]) / (case.batch * case.seq_len))
    grads = {name: np.zeros(a.shape) for name, a in w.items()}
    dh = np.zeros_like(h)
    for t in reversed(range(case.seq_len)):
        x, before, r, u, c = saved[t]
        dh = dh + errors[t]
        dz = {"c": dh * (1 - u) * (1 - c**2), "u": dh * (before - c) * u * (1 - u)}
        if r is not None:
            through = mul(dz["c"], w["U_c"].T)
            dz["r"] = through * before * r * (1 - r)
            grads["U_c"] += mul((r * before).T, dz["c"])
            for gate in "ru":
                grads[f"U_{gate}"] += mul(before.T, dz[gate])
        for gate, of_gate in dz.items():
            grads[f"W_{gate}"] += mul(x.T, of_gate)
            grads[f"b_{gate}"] += of_gate.sum(0)
        if t:
            back = sum(mul(dz[gate], w[f"U_{gate}"].T) for gate in "ru")
            dh = dh * u + through * r + back
    return grads


@pytest.mark.parametrize("seq_len", [1, 2, 7])
@pytest.mark.parametrize("state", ["zeros", "random"])
@pytest.mark.parametrize(("cell", "least"), [("lstm", least_lstm), ("gru", least_gru)])
def test_who_leaves_out_all_that_can_be_is_not_below_the_bound(
    cell: str, least: Any, state: Any, seq_len: int
) -> None:
    shape = replace(CASE, seq_len=seq_len, batch=3, inputs=5, hidden=4)
    case = replace(shape, cell=cell, dtype="float64", initial_state=state)
    mul = Counted()
    grads = least(case, mul)
    truth = expected(case, make_weights(case), make_batch(case)).gradients[0]
    for name, gradient in truth.items():
        np.testing.assert_allclose(grads[name], gradient, rtol=1e-9, atol=1e-12)
    bound = true_flops(case, "train")
    assert bound <= mul.flops < flops(case, "train")
    # And the bound is close to it: of an LSTM three gates are needed, where two are counted on.
    assert bound >= 0.85 * mul.flops


class NonZero(np.ndarray[Any, Any]):
    """Weights that count the FLOPs of what is multiplied by them and is not 0."""

    flops = 0

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        plain = [np.asarray(each) for each in inputs]
        if ufunc is np.matmul:
            NonZero.flops += 2 * int(np.count_nonzero(plain[0])) * plain[1].shape[1]
        return getattr(ufunc, method)(*plain, **options)


def dense() -> Iterator[str]:
    """Cells whose values are 0 only where their equations have zeros."""
    for name in CELL_NAMES:
        cell = layers(Case(cell=name, seq_len=1, batch=1, inputs=4, hidden=4))[0].cell
        while isinstance(cell, Wrapper) and not isinstance(cell, Dropout):
            cell = cell.cell
        if not isinstance(cell, Dropout) and "relu" not in name:
            yield name


@given(
    st.sampled_from(sorted(dense())),
    st.integers(1, 3),
    st.sampled_from([1, 4, 5, 12]),
    st.sampled_from([1, 4, 12]),
    st.sampled_from(["zeros", "random"]),
)
def test_the_oracle_multiplies_no_less_that_is_not_zero(
    cell: str, seq_len: int, inputs: int, hidden: int, state: Any
) -> None:
    try:
        case = Case(
            cell=cell,
            seq_len=seq_len,
            batch=2,
            inputs=inputs,
            hidden=hidden,
            dtype="float64",
            initial_state=state,
        )
    except ValueError:
        assume(False)
    (layer,) = layers(case)
    batch = make_batch(case)
    w = {name: array.view(NonZero) for name, array in make_weights(case)[0].items()}
    (now,) = initial_state(case, batch)
    NonZero.flops = 0
    for t in range(seq_len):
        _, now = make_step(layer)(w, batch.x[:, t], now)
    assert NonZero.flops >= true_flops(case, "forward")


# --- the script that the margin comes from --------------------------------------------------------


def test_shares_are_of_the_best_peaks_and_of_the_lowest() -> None:
    network, limit, lost = (
        {"failure": None, "implementation": name, "mode": "forward", "case": asdict(CASE)}
        for name in ("torch/fused", "torch/products", "torch/dynamic")
    )
    network["call_s"], limit["call_s"] = 1.0, flops(CASE, "forward") / 100e9
    lost["failure"] = "RuntimeError"
    read = [
        {"dtype": "float32", "peaks": replace(PEAKS, flops_per_s=rate).to_json()}
        for rate in (100e9, 50e9)
    ]
    found = script.with_shares([network, limit, lost], read)
    assert found[0]["share"] == pytest.approx(true_flops(CASE, "forward") / 100e9)
    assert found[0]["by"] == "FLOPs"
    assert (found[1]["share"], found[1]["share_by_lowest"]) == pytest.approx((1.0, 2.0))
    assert found[2] == lost
    lines = script.largest(found, 5)
    assert [line["implementation"] for line in lines] == ["torch/products", "torch/fused"]


def test_what_is_timed_is_of_every_dtype_and_of_both_bounds() -> None:
    chosen = script.cases()
    assert {case.dtype for case in chosen} == set(get_args(Dtype))
    bounds = {
        least_bytes(case, "forward") / 80e9 > true_flops(case, "forward") / 100e9 for case in chosen
    }
    assert bounds == {True, False}
    refused = {job.case.dtype for job in script.jobs_of("reference/products")}
    assert refused == {"float32", "float64"}


def test_the_fastest_call_is_timed() -> None:
    job = Job(
        implementation="reference/products",
        case=replace(CASE, seq_len=2, batch=2, inputs=3, hidden=3),
        mode="train",
        measure="steady",
    )
    assert 0 < script.fastest_call(backends.create("reference"), job, 1e-3) < 1
