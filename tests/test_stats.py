"""Estimates, ratios and verdicts: properties, coverage, and what must not be believed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats as reference

from bench import stats
from bench.stats import Estimate, Ratio

TIMES = st.floats(1e-6, 1e3)
SAMPLES = st.lists(TIMES, min_size=2, max_size=12)


@st.composite
def two_arms(draw: st.DrawFn) -> tuple[dict[int, list[float]], dict[int, list[float]]]:
    """Blocks of two arms, of different lengths, and not all of them shared."""
    blocks = st.dictionaries(st.integers(0, 5), SAMPLES, min_size=1)
    a, b = draw(blocks), draw(blocks)
    assume(a.keys() & b.keys())
    return a, b


def _exactly(value: float) -> Estimate:
    return Estimate(value=value, low=value, high=value, n=5)


def _ratio(low: float, ratio: float, high: float) -> Ratio:
    return Ratio(ratio=ratio, low=low, high=high, blocks=5)


@pytest.mark.parametrize("bad", [0.0, -1e-9, math.nan, math.inf, -math.inf])
def test_a_sample_that_no_clock_reads_is_named(bad: float) -> None:
    with pytest.raises(ValueError, match=r"block 3: sample 1 is .*must be finite and above 0"):
        stats.checked([1.0, bad, 2.0], "block 3")
    with pytest.raises(ValueError, match="block 7: sample 0"):
        stats.steady_estimate({0: [1.0], 7: [bad]})
    with pytest.raises(ValueError, match="sample 1"):
        stats.steady_ratio({0: [1.0, bad]}, {0: [1.0, 1.0]})
    with pytest.raises(ValueError, match="b: sample 0"):
        stats.single_ratio({0: 1.0}, {0: bad})


def test_no_sample_at_all_is_an_error() -> None:
    with pytest.raises(ValueError, match="has no samples"):
        stats.checked([])
    with pytest.raises(ValueError, match="one or more"):
        stats.estimate([])
    with pytest.raises(ValueError, match="one or more"):
        stats.ratio_of([])


def test_workers_are_not_pooled() -> None:
    """One slow worker with many samples moves the range, not the median."""
    found = stats.steady_estimate({0: [1.0] * 3, 1: [2.0] * 3, 2: [9.0] * 1000})
    assert (found.low, found.value, found.high, found.n) == (1.0, 2.0, 9.0, 3)


def test_the_median_over_rounds_of_the_paired_difference() -> None:
    a = [2.0, 3.0, 80.0]
    assert stats.steady_difference(a, [1.0, 1.0, 1.0]) == pytest.approx(math.log(3.0))


def test_what_moves_both_arms_of_a_round_falls_out() -> None:
    speed = np.exp(0.1 * np.arange(6))
    assert stats.steady_difference(2 * speed, speed) == pytest.approx(math.log(2.0))


def test_rounds_that_both_have_count() -> None:
    a = [2.0, 2.0, 2.0, 90.0, 90.0]
    assert stats.steady_difference(a, [1.0, 1.0, 1.0]) == pytest.approx(math.log(2.0))


def test_a_spread_between_processes_is_told_from_that_of_rounds() -> None:
    one = {block: [1.0 + 0.01 * (n % 2) for n in range(10)] for block in range(6)}
    modes = {block: [2.0 * (1.2 if block % 2 else 1.0)] * 10 for block in range(6)}
    found = stats.between_processes(modes, one)
    assert found is not None
    assert found.between == pytest.approx(math.log(1.2) * math.sqrt(0.3), rel=1e-3)
    assert found.within < 0.01 < found.between
    assert (found.low, found.high) == (pytest.approx(1.99, rel=0.01), pytest.approx(2.39, rel=0.01))
    assert stats.between_processes({0: [1.0, 1.0]}, one) is None


def test_only_shared_blocks_count() -> None:
    found = stats.steady_ratio({0: [2.0, 2.0], 1: [4.0, 4.0]}, {1: [1.0, 1.0], 2: [9.0, 9.0]})
    assert found is not None
    assert (found.ratio, found.blocks) == (pytest.approx(4.0), 1)
    assert stats.single_ratio({0: 1.0}, {1: 1.0}) is None


def test_one_block_is_never_certain() -> None:
    found = stats.single_ratio({0: 5.0}, {0: 1.0})
    assert found is not None
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert stats.judge(found) == "cannot tell"
    assert stats.judge(found.inverse()) == "cannot tell"


def test_the_interval_is_the_t_interval_of_the_mean_log_ratio() -> None:
    d = [0.1, 0.2, 0.15, 0.3]
    found = stats.ratio_of(d)
    low, high = reference.t.interval(0.95, 3, np.mean(d), reference.sem(d))
    assert math.log(found.ratio) == pytest.approx(np.mean(d))
    assert (math.log(found.low), math.log(found.high)) == (pytest.approx(low), pytest.approx(high))
    assert (found.blocks, found.confidence) == (4, 0.95)


@given(two_arms())
def test_antisymmetry(arms: tuple[dict[int, list[float]], dict[int, list[float]]]) -> None:
    a, b = arms
    forward, back = stats.steady_ratio(a, b), stats.steady_ratio(b, a)
    assert forward is not None
    assert back is not None
    inverse = back.inverse()
    assert forward.ratio == pytest.approx(inverse.ratio)
    assert forward.low == pytest.approx(inverse.low, nan_ok=True)
    assert forward.high == pytest.approx(inverse.high, nan_ok=True)
    opposite = {"faster": "slower", "slower": "faster", "cannot tell": "cannot tell"}
    assert stats.judge(back) == opposite[stats.judge(forward)] or math.isclose(
        max(forward.ratio, back.ratio), 1 + stats.FLOOR
    )


@given(two_arms(), st.floats(1e-3, 1e3))
def test_the_unit_of_time_does_not_matter(
    arms: tuple[dict[int, list[float]], dict[int, list[float]]], scale: float
) -> None:
    a, b = arms
    scaled = [{k: [scale * s for s in v] for k, v in arm.items()} for arm in arms]
    one, other = stats.steady_ratio(a, b), stats.steady_ratio(*scaled)
    assert one is not None
    assert other is not None
    assert one.ratio == pytest.approx(other.ratio, rel=1e-9)
    estimate, larger = stats.steady_estimate(a), stats.steady_estimate(scaled[0])
    assert larger.value == pytest.approx(scale * estimate.value)


@given(two_arms())
def test_an_interval_holds_its_ratio(
    arms: tuple[dict[int, list[float]], dict[int, list[float]]],
) -> None:
    found = stats.steady_ratio(*arms)
    assert found is not None
    if found.blocks > 1:
        assert found.low <= found.ratio * (1 + 1e-12)
        assert found.ratio <= found.high * (1 + 1e-12)


@pytest.mark.parametrize("blocks", [3, 5, 10])
def test_the_interval_covers_as_often_as_it_says(blocks: int) -> None:
    """Whole pipeline: drift between workers, bursts within them, 40 samples an arm."""
    rng, truth, runs = np.random.default_rng(20260102), 1.07, 400
    covered = 0
    for _ in range(runs):
        drift = rng.normal(0.0, 0.1, (blocks, 1))
        effect = rng.normal(0.0, 0.01, (blocks, 1))
        noise = rng.normal(0.0, 0.02, (2, blocks, 40))
        burst = np.where(rng.random((2, blocks, 40)) < 0.02, 1.0, 0.0)
        b = np.exp(drift + noise[0] + burst[0])
        a = truth * np.exp(drift + effect + noise[1] + burst[1])
        found = stats.steady_ratio(dict(enumerate(a.tolist())), dict(enumerate(b.tolist())))
        assert found is not None
        covered += found.low <= truth <= found.high
    # 95 % of 400 is 380; three standard errors are 13.
    assert 366 <= covered <= 394


def test_identical_arms_are_seldom_called_different() -> None:
    rng = np.random.default_rng(7)
    called = 0
    for _ in range(200):
        arms = np.exp(rng.normal(0.0, 0.01, (2, 10, 20)) + rng.normal(0.0, 0.1, (10, 1)))
        a, b = (dict(enumerate(arm.tolist())) for arm in arms)
        called += stats.judge(stats.steady_ratio(a, b)) != "cannot tell"
    assert called <= 2  # the floor of 1 % leaves hardly any of the nominal 10


@pytest.mark.parametrize(
    ("low", "ratio", "high", "verdict"),
    [
        (0.80, 0.90, 0.98, "faster"),
        (1.02, 1.10, 1.20, "slower"),
        (0.95, 1.02, 1.10, "cannot tell"),
        (1.00, 1.05, 1.10, "cannot tell"),
        (1.001, 1.005, 1.009, "cannot tell"),
        (0.992, 0.995, 0.998, "cannot tell"),
        (math.nan, 3.0, math.nan, "cannot tell"),
    ],
)
def test_verdicts(low: float, ratio: float, high: float, verdict: str) -> None:
    assert stats.judge(_ratio(low, ratio, high)) == verdict


def test_no_ratio_no_verdict() -> None:
    assert stats.judge(None) == "cannot tell"


def test_break_even_is_where_the_sums_meet() -> None:
    """A: 10 s, then 1 ms a call; b: 2 s, then 3 ms. They meet after 4000 calls."""
    found = stats.break_even(
        _ratio(4.9, 5.0, 5.1),
        _ratio(0.32, 1 / 3, 0.35),
        start_b=_exactly(2.0),
        steady_b=_exactly(3e-3),
    )
    assert found is not None
    assert (found.leader, found.calls) == ("b", pytest.approx(4000))
    assert found.low < found.calls < found.high
    assert 10 + found.calls * 1e-3 == pytest.approx(2 + found.calls * 3e-3)


def test_break_even_does_not_depend_on_the_order() -> None:
    start, steady = _ratio(4.9, 5.0, 5.1), _ratio(0.32, 1 / 3, 0.35)
    one = stats.break_even(start, steady, start_b=_exactly(2.0), steady_b=_exactly(3e-3))
    other = stats.break_even(
        start.inverse(), steady.inverse(), start_b=_exactly(10.0), steady_b=_exactly(1e-3)
    )
    assert one is not None
    assert other is not None
    assert (one.leader, other.leader) == ("b", "a")
    assert one.calls == pytest.approx(other.calls)
    assert other.low < other.calls < other.high


def test_break_even_is_as_wide_as_the_times_range() -> None:
    wide = Estimate(value=2.0, low=1.0, high=4.0, n=5)
    start, steady = _ratio(5.0, 5.0, 5.0), _ratio(0.5, 0.5, 0.5)
    found = stats.break_even(start, steady, start_b=wide, steady_b=_exactly(1e-3))
    assert found is not None
    assert (found.low, found.calls, found.high) == pytest.approx((8000, 16000, 32000))


@pytest.mark.parametrize("leader", ["a", "b"])
def test_who_leads_in_both_never_loses_its_lead(leader: str) -> None:
    ratio = _ratio(0.4, 0.5, 0.6)
    ratio = ratio if leader == "a" else ratio.inverse()
    found = stats.break_even(ratio, ratio, start_b=_exactly(1.0), steady_b=_exactly(1e-3))
    assert found is not None
    assert (found.leader, found.calls) == (leader, math.inf)


@pytest.mark.parametrize(
    ("start", "steady"),
    [
        (_ratio(4.9, 5.0, 5.1), _ratio(0.9, 0.97, 1.05)),
        (_ratio(0.8, 1.1, 1.5), _ratio(0.4, 0.5, 0.6)),
        (_ratio(math.nan, 5.0, math.nan), _ratio(0.4, 0.5, 0.6)),
        (None, _ratio(0.4, 0.5, 0.6)),
        (_ratio(4.9, 5.0, 5.1), None),
    ],
)
def test_break_even_cannot_be_told_from_an_open_ratio(
    start: Ratio | None, steady: Ratio | None
) -> None:
    assert stats.break_even(start, steady, start_b=_exactly(1.0), steady_b=_exactly(1e-3)) is None
