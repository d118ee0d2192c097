"""Samples, palindromes and turns, with a clock that the test moves."""

from __future__ import annotations

import gc
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.measure import (
    MAX_TURNS,
    PALINDROMES_PER_TURN,
    Arm,
    Stopwatch,
    alone,
    by_device,
    overhead,
    sample,
    turn,
    turns_needed,
    warm_up,
)


@dataclass
class Host:
    """A clock in nanoseconds, and calls that take the time that they are told to."""

    now_ns: int = 0
    calls: list[str] = field(default_factory=list)

    def clock(self) -> int:
        return self.now_ns

    def arm(self, name: str, cost_ns: int, sync_ns: int = 0, inner: int = 1) -> Arm:
        def call() -> str:
            self.calls.append(name)
            self.now_ns += cost_ns
            return name

        def sync(out: object) -> None:
            assert out == name
            self.now_ns += sync_ns

        return Arm(name=name, call=call, sync=sync, inner=inner)


def test_a_sample_is_the_mean_of_its_calls_and_includes_the_sync() -> None:
    host = Host()
    assert sample(host.arm("a", 2_000, sync_ns=500, inner=4), host.clock) == pytest.approx(2.5e-6)
    assert host.calls == ["a"] * 4


def test_what_goes_before_a_call_is_not_timed() -> None:
    host = Host()

    def before() -> None:
        host.calls.append("before")
        host.now_ns += 1_000_000

    arm = replace(host.arm("a", 2_000, sync_ns=500, inner=3), before=before)
    assert sample(arm, host.clock) == pytest.approx(2.5e-6)
    assert host.calls == ["before", "a"] * 3
    assert warm_up(arm, calls=4, seconds=0, now=host.clock) == pytest.approx(2.5e-6)
    assert turn([arm], palindromes=1, now=host.clock) == {"a": pytest.approx([2.5e-6] * 2)}
    assert host.calls == ["before", "a"] * (3 + 4 + 1 + 2 * 3)


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


def test_by_the_device_s_clock_a_call_is_what_lies_between_its_marks() -> None:
    host = Host()
    arm = replace(
        host.arm("a", 2_000, sync_ns=500), before=lambda: host.calls.append("before"), inner=9
    )
    assert by_device(arm, Marks(host), 2) == pytest.approx([2e-6, 2e-6])
    # One call is discarded: something else came before it.
    assert host.calls == ["before", "a"] + ["before", "a", "read"] * 2


def test_the_collector_does_not_run_between_the_device_s_marks() -> None:
    host, enabled = Host(), []
    arm = replace(host.arm("a", 2_000), before=lambda: enabled.append(gc.isenabled()))
    by_device(arm, Marks(host), 3)
    assert enabled == [False] * 4
    assert gc.isenabled()


def test_what_goes_before_a_call_is_no_part_of_its_warm_up() -> None:
    host = Host()

    def before() -> None:
        host.now_ns += 100_000_000

    arm = replace(host.arm("a", 1_000_000), before=before)
    assert warm_up(arm, calls=3, seconds=0.05, now=host.clock) == pytest.approx(1e-3)
    assert len(host.calls) == 50


def test_a_turn_discards_one_pass_and_then_goes_there_and_back() -> None:
    host = Host()
    samples = turn([host.arm("a", 10), host.arm("b", 20)], palindromes=1, now=host.clock)
    assert host.calls == ["a", "b", "a", "b", "b", "a"]
    assert samples == {"a": [1e-8, 1e-8], "b": [2e-8, 2e-8]}


def test_who_watches_a_turn_is_told_which_arm_runs() -> None:
    host, shown = Host(), []

    def show(number: int) -> None:
        shown.append((number, len(host.calls)))

    turn([host.arm("a", 10), host.arm("b", 20)], palindromes=1, now=host.clock, show=show)
    assert shown == [(0, 0), (1, 1), (0, 2), (1, 3), (1, 4), (0, 5)]


def test_alone_each_arm_is_among_its_own_kind() -> None:
    host, shown = Host(), []
    samples = alone(
        [host.arm("a", 10), host.arm("b", 20, inner=2)], 2, now=host.clock, show=shown.append
    )
    # One sample of each stint is discarded, there and back.
    assert host.calls == ["a"] * 3 + ["b"] * 12 + ["a"] * 3
    assert samples == {"a": [1e-8] * 4, "b": [2e-8] * 4}
    assert shown == [0, 1, 1, 0]


def test_the_overhead_is_what_an_idle_arm_takes() -> None:
    """A clock that takes 50 ns to read, and calls that take nothing."""
    now = iter(range(0, 10_000_000, 50))
    call_s, sample_s = overhead(lambda: next(now))
    assert sample_s == pytest.approx(50e-9)
    assert call_s == pytest.approx(50e-12)


def test_a_linear_drift_cancels_within_a_palindrome() -> None:
    host = Host()

    def drifting(name: str) -> Arm:
        def call() -> str:
            host.now_ns += 1000 + host.now_ns // 50
            return name

        return Arm(name=name, call=call, sync=lambda _out: None)

    got = turn([drifting("a"), drifting("b"), drifting("c")], palindromes=1, now=host.clock)
    means = [sum(pair) / 2 for pair in got.values()]
    one_way = [pair[0] for pair in got.values()]
    assert max(means) / min(means) < 1.005
    assert max(one_way) / min(one_way) > 1.03


def test_warm_up_reaches_both_bounds() -> None:
    host = Host()
    assert warm_up(host.arm("a", 1_000_000), calls=5, seconds=0, now=host.clock) == 1e-3
    assert len(host.calls) == 5
    host.calls.clear()
    warm_up(host.arm("a", 1_000_000), calls=5, seconds=0.02, now=host.clock)
    assert len(host.calls) == 20


def test_short_calls_are_looped_until_a_sample_is_a_millisecond() -> None:
    host = Host()
    assert host.arm("a", 1).sized(3e-4).inner == 4
    assert host.arm("a", 1).sized(2e-3).inner == 1


def test_a_phase_that_raises_leaves_no_sample() -> None:
    host = Host()
    stopwatch = Stopwatch(host.clock)
    with pytest.raises(ZeroDivisionError), stopwatch.phase("build"):
        raise ZeroDivisionError
    with stopwatch.stage("trace"):
        host.now_ns += 5_000_000_000
    assert stopwatch.samples == {"stage:trace": [5.0]}


@given(
    st.lists(st.floats(1e-6, 10), min_size=1, max_size=8),
    st.floats(0.01, 5),
)
def test_the_number_of_turns_is_bounded_and_spends_what_it_was_given(
    call_s: list[float], seconds: float
) -> None:
    turns = turns_needed(call_s, seconds=seconds)
    assert 2 <= turns <= MAX_TURNS
    spent = turns * 2 * PALINDROMES_PER_TURN * sum(max(s, 1e-3) for s in call_s)
    assert turns == MAX_TURNS or spent >= seconds * len(call_s) * 0.999
