"""Bursts and warm-up, with a clock that the test moves."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.measure import (
    BURST_S,
    DISCARDED_CALLS,
    DISCARDED_S,
    FEWEST_CALLS,
    LONG_S,
    WARM_LIMIT,
    Arm,
    Stopwatch,
    burst,
    by_device,
    calls_needed,
    discarded_needed,
    overhead,
    warm_up,
)


@dataclass
class Host:
    """A clock in nanoseconds, and calls that take the time that they are told to."""

    now_ns: int = 0
    calls: list[str] = field(default_factory=list)

    def clock(self) -> int:
        return self.now_ns

    number = 0

    def arm(self, cost_ns: Callable[[int], int] | int, sync_ns: int = 0) -> Arm:
        """An arm whose n-th call takes `cost_ns` of n; going to the next batch takes a second."""
        cost = cost_ns if callable(cost_ns) else lambda _n: cost_ns

        def call() -> str:
            self.now_ns += cost(self.number)
            self.number += 1
            self.calls.append("call")
            return "out"

        def sync(out: object) -> None:
            assert out == "out"
            self.now_ns += sync_ns

        def advance() -> None:
            self.calls.append("advance")
            self.now_ns += 1_000_000_000

        return Arm(call=call, sync=sync, advance=advance)


def test_a_burst_is_the_mean_of_its_timed_calls_and_includes_the_sync() -> None:
    host = Host()
    arm = host.arm(lambda n: 9_999_999 if n < 3 else 2_000 * (n - 2), sync_ns=500)
    assert burst(arm, calls=4, discarded=3, now=host.clock) == pytest.approx(5.5e-6)


def test_every_call_of_a_burst_has_a_batch_of_its_own_and_going_there_is_not_timed() -> None:
    host = Host()
    assert burst(host.arm(10), calls=3, discarded=2, now=host.clock) == pytest.approx(1e-8)
    assert host.calls == ["advance", "call"] * 5


def test_the_collector_does_not_run_in_a_burst() -> None:
    enabled: list[bool] = []
    arm = replace(Host().arm(1), advance=lambda: enabled.append(gc.isenabled()))
    burst(arm, calls=2, discarded=1)
    assert enabled == [False] * 3
    assert gc.isenabled()


@given(st.floats(1e-7, 10))
def test_a_burst_is_long_enough_and_discards_enough(call_s: float) -> None:
    calls, discarded = calls_needed(call_s), discarded_needed(call_s)
    if call_s >= LONG_S:
        assert (calls, discarded) == (1, 1)
        return
    assert calls * call_s >= BURST_S * 0.999
    assert (calls - 1) * call_s <= BURST_S
    assert discarded >= DISCARDED_CALLS
    assert discarded * call_s >= DISCARDED_S * 0.999


@dataclass
class Marks:
    """A device's clock that follows the host's."""

    host: Host
    at: list[int] = field(default_factory=list)

    def start(self) -> None:
        self.at = [self.host.now_ns]

    def stop(self) -> None:
        self.at.append(self.host.now_ns)

    def seconds(self) -> float:
        self.host.calls.append("read")
        return (self.at[1] - self.at[0]) / 1e9


def test_by_the_device_s_clock_a_call_is_the_time_between_its_marks() -> None:
    host = Host()
    assert by_device(host.arm(2_000, sync_ns=500), Marks(host), 2) == pytest.approx([2e-6, 2e-6])
    # One call is discarded: something else came before it.
    assert host.calls == ["advance", "call"] + ["advance", "call", "read"] * 2


def test_the_collector_does_not_run_between_the_device_s_marks() -> None:
    host, enabled = Host(), []
    arm = replace(host.arm(2_000), advance=lambda: enabled.append(gc.isenabled()))
    by_device(arm, Marks(host), 3)
    assert enabled == [False] * 4
    assert gc.isenabled()


def test_warm_up_reaches_both_bounds_and_leaves_the_way_to_a_batch_out() -> None:
    host = Host()
    assert warm_up(host.arm(1_000_000), calls=8, seconds=1e-3, now=host.clock) == 1e-3
    assert host.calls.count("call") == 8
    host = Host()
    warm_up(host.arm(1_000_000), calls=5, seconds=0.02, now=host.clock)
    assert host.calls.count("call") == 20


def test_warm_up_outlasts_a_late_compilation() -> None:
    """A program that is compiled anew at its fourth call, for a second, and is faster after it."""
    host = Host()
    arm = host.arm(lambda n: 1_000_000_000 if n == 3 else 10_000_000 if n < 3 else 4_000_000)
    assert warm_up(arm, calls=20, seconds=0.3, now=host.clock) == pytest.approx(4e-3)


def test_warm_up_goes_on_while_calls_become_faster() -> None:
    host = Host()
    arm = host.arm(lambda n: int(5_000_000 + 20_000_000 * 0.97**n))
    warm = warm_up(arm, calls=20, seconds=0.3, now=host.clock)
    assert warm < 6e-3
    assert host.calls.count("call") > 60


@given(st.floats(1e-3, 20), st.integers(1, 50), st.floats(0.01, 1))
def test_warm_up_is_bounded_in_time_however_an_arm_behaves(
    first_s: float, calls: int, seconds: float
) -> None:
    """Calls that become faster for ever."""
    host = Host()
    arm = host.arm(lambda n: int(1e9 * first_s * 0.8**n) + 1_000_000)
    warm_up(arm, calls=calls, seconds=seconds, now=host.clock)
    spent = sum(first_s * 0.8**n + 1e-3 for n in range(host.number - 1))
    assert spent <= WARM_LIMIT * seconds or host.number <= FEWEST_CALLS


def test_the_overhead_is_the_time_of_a_call_that_does_nothing() -> None:
    """A clock that takes 50 ns to read."""
    now = iter(range(0, 10_000_000_000, 50))
    assert overhead(lambda: next(now)) == pytest.approx(50e-9)


def test_a_phase_that_raises_leaves_no_sample() -> None:
    host = Host()
    stopwatch = Stopwatch(host.clock)
    with pytest.raises(ZeroDivisionError), stopwatch.phase("build"):
        raise ZeroDivisionError
    with stopwatch.stage("trace"):
        host.now_ns += 5_000_000_000
    assert stopwatch.samples == {"stage:trace": [5.0]}
