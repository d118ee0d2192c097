"""Peaks of a host: what is measured of a backend, what is read from a manifest, and what is not."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

import backends
from backends.api import Case, Dtype, Implementation, Runner, Strategy, Unavailable
from backends.bare import BareRunner
from backends.products import flops
from bench import peaks, strict
from bench.peaks import Peaks, best, fastest, measure_peaks

RATES = st.floats(1e-3, 1e24)
PEAKS = st.builds(
    Peaks,
    flops_per_s=st.none() | RATES,
    bandwidth=st.dictionaries(st.integers(1, 1 << 40), RATES, max_size=8).map(
        lambda found: tuple(sorted(found.items()))
    ),
)
ALL_WORKING_SETS = peaks.WORKING_SETS
SMALL = (1 << 14, 1 << 16)


class Clock:
    """Time [ns] that passes in what is called, and by 1 us a reading."""

    def __init__(self) -> None:
        self.ns = 0

    def __call__(self) -> int:
        self.ns += 1000
        return self.ns


class Products(BareRunner):
    """Does a case's FLOPs at a rate that the backend says."""

    def __init__(self, clock: Clock, call_s: float, closed: list[Products]) -> None:
        self._clock, self._call_ns, self._closed = clock, round(1e9 * call_s), closed

    def forward(self) -> None:
        self._clock.ns += self._call_ns

    def sync(self, out: object) -> None:
        pass

    def close(self) -> None:
        self._closed.append(self)


class Fake:
    """A backend of bare products, with FLOPs a second by dtype; of other dtypes it has none."""

    name = "fake"

    def __init__(self, rates: dict[str, float]) -> None:
        self.clock = Clock()
        self.built: list[Case] = []
        self.closed: list[Products] = []
        self._rates = rates

    def build(self, case: Case, strategy: str, mode: str) -> Runner:
        assert (strategy, mode) == ("bare", "forward")
        if case.dtype not in self._rates:
            raise Unavailable(f"dtype {case.dtype}: none")
        self.built.append(case)
        call_s = flops(case, "forward") / self._rates[case.dtype]
        return Products(self.clock, call_s, self.closed)

    def peaks(self, dtype: Dtype = "float32", device: str = "cpu", **more: Any) -> Peaks:
        backend: Any = self
        given = {"dtype": dtype, "device": device, "tf32": "off", **more}
        return measure_peaks(backend, now=self.clock, **given)


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    """Two small working sets, one CPU, and a registry in which the fake backend has a limit."""
    strategies = {"bare": "limit", "other": "dynamic", "least": "launches"}
    fake = {
        f"fake/{name}": Implementation(
            backend="fake", strategy=Strategy(name=name, kind=kind, title=name)
        )
        for name, kind in strategies.items()
    }
    everything = {**backends.IMPLEMENTATIONS, **fake}
    with (
        patch.object(peaks, "WORKING_SETS", SMALL),
        patch.object(peaks, "IMPLEMENTATIONS", everything),
        patch.object(peaks, "refusal", lambda name, case, _mode: _refused(name, case)),
        patch("os.sched_getaffinity", lambda _pid: {0}),
    ):
        yield


def _refused(name: str, case: Case) -> str | None:
    if not name.startswith("fake/"):
        return backends.refusal(name, case, "forward")
    return f"device {case.device}: refused" if case.device == "gpu:7" else None


# --- products -------------------------------------------------------------------------------------


def test_the_peak_is_the_rate_of_the_fastest_product() -> None:
    fake = Fake({"float32": 100e9})
    found = fake.peaks().flops_per_s
    assert found == pytest.approx(100e9, rel=1e-3)  # the clock's own time is in it
    assert [case.hidden for case in fake.built] == list(peaks.SIDES)
    assert len(fake.closed) == len(fake.built)


def test_who_takes_long_is_not_asked_for_larger_products() -> None:
    fake = Fake({"float32": 1e9})
    assert fake.peaks().flops_per_s == pytest.approx(1e9, rel=1e-3)
    assert [case.hidden for case in fake.built] == [128, 192]


def test_what_is_of_a_half_type_may_be_computed_in_float32() -> None:
    assert Fake({"float16": 4e9, "float32": 100e9}).peaks("float16").flops_per_s == pytest.approx(
        100e9, rel=1e-3
    )
    assert Fake({"bfloat16": 2e11, "float32": 1e11}).peaks("bfloat16").flops_per_s == pytest.approx(
        2e11, rel=1e-2
    )
    # Where it has no products of the half type, others may have faster ones than float32's.
    assert Fake({"float32": 1e11}).peaks("bfloat16").flops_per_s is None
    # Nobody computes float64 in float32.
    assert Fake({"float32": 1e11}).peaks("float64").flops_per_s is None


def test_a_gpu_is_given_large_products_and_has_no_bandwidth() -> None:
    fake = Fake({"float32": 6e13})
    found = fake.peaks(device="gpu", tf32="on")
    assert found == Peaks(flops_per_s=found.flops_per_s)
    assert found.flops_per_s == pytest.approx(6e13, rel=1e-2)
    assert [case.hidden for case in fake.built] == list(peaks.SIDES_ON_GPU)
    assert {(case.device, case.tf32) for case in fake.built} == {("gpu", "on")}


def test_what_a_backend_refuses_has_no_peak() -> None:
    fake = Fake({"float32": 1e11})
    assert fake.peaks(device="gpu:7") == Peaks(flops_per_s=None)
    assert fake.built == []


def test_a_backend_without_products_tells_of_memory_alone() -> None:
    fake = Fake({"float32": 1e11})
    fake.name = "scripted"
    found = fake.peaks()
    assert found.flops_per_s is None
    assert [size for size, _ in found.bandwidth] == list(SMALL)
    assert fake.built == []


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_a_backend_s_bare_products_are_measured(backend: str) -> None:
    if backends.missing(backend) is not None:
        pytest.skip(backend)
    with patch.object(peaks, "SIDES", (16, 32)):
        created = backends.create(backend)
        found = measure_peaks(created, device="cpu", dtype="float64", tf32="off")
    assert found.flops_per_s is not None
    assert 1e6 < found.flops_per_s < 1e15
    assert all(1e6 < rate < 1e15 for _, rate in found.bandwidth)
    assert Peaks.from_json(json.loads(strict.dumps(found.to_json()))) == found


# --- memory ---------------------------------------------------------------------------------------


def test_every_way_to_read_moves_all_of_a_working_set() -> None:
    for size in SMALL:
        memory = np.arange(size, dtype=np.uint8).view(np.int8) % 3
        ways = peaks._ways(memory)
        largest, dot, copy = (call() for call, _ in ways)
        assert [moved for _, moved in ways] == [peaks.MOVED_BYTES, size, size]
        assert len(largest) == peaks.MOVED_BYTES // size
        assert set(largest.tolist()) == {memory.max()}
        assert copy is None
        assert np.array_equal(memory[: size // 2], memory[size // 2 :])
        assert isinstance(float(dot), float)


def test_working_sets_go_from_a_cache_to_memory() -> None:
    assert (ALL_WORKING_SETS[0], ALL_WORKING_SETS[-1]) == (16 * 1024, 256 * 1024 * 1024)
    assert {b / a for a, b in itertools.pairwise(ALL_WORKING_SETS)} == {4}


def test_several_cpus_are_as_many_times_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what several reach, nothing may be understated, whatever else has one of the CPUs."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0, 1, 2})
    fake = Fake({"float32": 1e11})
    found = fake.peaks()
    assert [size for size, _ in found.bandwidth] == [3 * size for size in SMALL]
    assert found.flops_per_s == pytest.approx(3e11, rel=1e-3)
    assert fake.peaks(device="gpu").flops_per_s == pytest.approx(1e11, rel=1e-3)


def test_products_of_several_cpus_are_of_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    class Looks(Fake):
        def build(self, case: Case, strategy: str, mode: str) -> Runner:
            seen.extend(pool["num_threads"] for pool in threadpool_info())
            return super().build(case, strategy, mode)

    with threadpool_limits(limits=2):
        before = threadpool_info()
        monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0, 1})
        Looks({"float32": 1e11}).peaks()
        assert threadpool_info() == before
    assert seen
    assert set(seen) == {1}


def test_the_fastest_try_counts_and_takes_some_time() -> None:
    clock = Clock()
    took = iter([5000, 2000, 9000, 3000])

    def call() -> None:
        clock.ns += next(took)

    assert fastest(call, seconds=1e-5, now=clock) == pytest.approx(3e-6)
    assert list(took) == [9000, 3000]  # two tries were enough
    assert fastest(lambda: None, seconds=0, now=lambda: 0) == 1e-9


# --- the larger of each ---------------------------------------------------------------------------


def test_the_larger_of_each_is_taken_over_backends() -> None:
    one = Peaks(flops_per_s=1e11, bandwidth=((1, 5.0), (4, 2.0)))
    other = Peaks(flops_per_s=2e11, bandwidth=((1, 4.0), (2, 9.0)))
    neither = Peaks(flops_per_s=None)
    together = Peaks(flops_per_s=2e11, bandwidth=((1, 5.0), (2, 9.0), (4, 2.0)))
    for order in itertools.permutations([one, other, neither]):
        assert best(*order) == together
    assert best() == best(neither) == neither


@given(st.lists(PEAKS, max_size=4))
def test_no_rate_is_below_one_that_was_measured(found: list[Peaks]) -> None:
    top = best(*found)
    for each in found:
        assert each.flops_per_s is None or (top.flops_per_s or 0) >= each.flops_per_s
        assert all(dict(top.bandwidth)[size] >= rate for size, rate in each.bandwidth)
    assert best(top, *found) == top == best(*reversed(found))
    assert Peaks.from_json(top.to_json()) == top


@given(PEAKS, st.integers(1, 64))
def test_so_many_threads_do_so_many_times_as_much(found: Peaks, threads: int) -> None:
    scaled = found.scaled(threads)
    assert found.scaled(1) == found
    assert len(scaled.bandwidth) == len(found.bandwidth)
    assert (scaled.flops_per_s is None) == (found.flops_per_s is None)


# --- JSON -----------------------------------------------------------------------------------------


@given(PEAKS)
def test_peaks_come_back_from_json(found: Peaks) -> None:
    text = strict.dumps(found.to_json())
    assert Peaks.from_json(strict.loads(text.encode())) == found


FINE: dict[str, Any] = {"flops_per_s": 1e11, "bandwidth": [[16384, 1e11], [65536, 5e10]]}


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "peaks",
        {},
        {"flops_per_s": 1e11},
        {**FINE, "more": 1},
        *({**FINE, "flops_per_s": rate} for rate in (0, -1.0, "NaN", "Infinity", True, "1", [])),
        *({**FINE, "flops_per_s": rate} for rate in (math.nan, math.inf, 2**70, 1e25)),
        *({**FINE, "bandwidth": found} for found in (None, {}, "ab", 3, [1], [[1]], [[1, 2, 3]])),
        *({**FINE, "bandwidth": [[size, 1e9]]} for size in (0, -1, 1.0, True, "1", 2**63)),
        *({**FINE, "bandwidth": [[1, rate]]} for rate in (0, -1, math.nan, "NaN", None, "x", 1e25)),
        {**FINE, "bandwidth": [[2, 1e9], [1, 1e9]]},
        {**FINE, "bandwidth": [[1, 1e9], [1, 1e9]]},
        {**FINE, "bandwidth": [[n + 1, 1e9] for n in range(65)]},
    ],
    ids=lambda data: str(data)[:60],
)
def test_other_content_is_refused_by_name(data: Any) -> None:
    with pytest.raises(ValueError, match="peaks") as refused:
        Peaks.from_json(data)
    assert "\n" not in str(refused.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


@given(st.fixed_dictionaries({"flops_per_s": JSON, "bandwidth": JSON | st.lists(st.lists(JSON))}))
def test_no_content_ends_in_a_traceback(data: Any) -> None:
    try:
        found = Peaks.from_json(data)
    except ValueError:
        return
    assert Peaks.from_json(found.to_json()) == found
