"""What may be said of a ratio: levels, margins, A/A floors, looks, and how often it is wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from bench import stats
from bench.stats import Floor, Judgement, Ratio

DIFFERENCES = st.lists(st.floats(-1.0, 1.0), min_size=1, max_size=12)
VALUES = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=8)
LEVELS = st.floats(0.5, 0.999)
P_VALUES = st.lists(st.floats(0.0, 1.0), max_size=12)

OPPOSITE = {"faster": "slower", "slower": "faster", "cannot tell": "cannot tell"}


def ratio(value: float, half: float, blocks: int = 10, confidence: float = 0.95) -> Ratio:
    """A ratio whose log interval reaches `half` to either side."""
    low, high = value * math.exp(-half), value * math.exp(half)
    return Ratio(ratio=value, low=low, high=high, blocks=blocks, confidence=confidence)


def judged(value: float, half: float, **options: float | Floor) -> Judgement:
    return Judgement(ratio=ratio(value, half), **options)  # type: ignore[arg-type]


# Levels


@given(DIFFERENCES, LEVELS)
def test_an_interval_at_another_level_is_the_one_that_was_asked_for(
    differences: list[float], level: float
) -> None:
    asked = stats.ratio_of(differences, level)
    converted = stats.ratio_of(differences).at(level)
    assert converted.confidence == asked.confidence == level
    assert converted.ratio == asked.ratio
    assert converted.low == pytest.approx(asked.low, rel=1e-9, nan_ok=True)
    assert converted.high == pytest.approx(asked.high, rel=1e-9, nan_ok=True)


@given(DIFFERENCES.filter(lambda d: len(d) > 1), LEVELS, LEVELS)
def test_a_higher_level_gives_a_wider_interval(d: list[float], one: float, other: float) -> None:
    narrow, wide = (stats.ratio_of(d, level) for level in sorted((one, other)))
    assert wide.low <= narrow.low
    assert narrow.high <= wide.high


def test_the_level_is_passed_on() -> None:
    steady = stats.steady_ratio({0: [1.0, 1.0], 1: [1.1, 1.1]}, {0: [1.0, 1.0], 1: [1.0, 1.0]}, 0.9)
    single = stats.single_ratio({0: 1.0, 1: 1.1}, {0: 1.0, 1: 1.0}, 0.9)
    assert steady == single == stats.ratio_of([0.0, math.log(1.1)], 0.9)


@pytest.mark.parametrize("level", [0.0, 1.0, -0.5, 95.0, math.nan])
def test_a_level_that_is_none_is_named(level: float) -> None:
    for make in (
        lambda: stats.ratio_of([0.1, 0.2], level),
        lambda: stats.unpaired_ratio([1.0, 2.0], [1.0, 2.0], level),
        lambda: ratio(1.0, 0.1).at(level),
    ):
        with pytest.raises(ValueError, match=r"confidence .*: must be above 0 and below 1"):
            make()


def test_two_blocks_at_a_very_high_level_have_bounds_that_fit_no_float() -> None:
    found = stats.ratio_of([-3.0, 3.0], 0.9999)
    assert (found.low, found.high) == (0.0, math.inf)
    assert (found.inverse().low, found.inverse().high) == (0.0, math.inf)
    assert stats.judge(found) == "cannot tell"
    assert found.p_value() == 1.0


# P-values


@given(DIFFERENCES.filter(lambda d: float(np.std(d)) > 1e-6))
def test_the_p_value_is_the_t_tests(d: list[float]) -> None:
    assert stats.p_value(d) == pytest.approx(reference.ttest_1samp(d, 0.0).pvalue, rel=1e-6)


@given(DIFFERENCES.filter(lambda d: float(np.std(d)) > 1e-6), st.floats(0.5, 2.0))
def test_the_p_value_agrees_with_the_interval(d: list[float], against: float) -> None:
    found = stats.ratio_of(d)
    p = found.p_value(against)
    assert (p < 0.05) == (not found.low <= against <= found.high) or p == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("differences", "p"),
    [([0.3], 1.0), ([0.0, 0.0, 0.0], 1.0), ([0.25, 0.25], 0.0), ([-0.25, -0.25], 0.0)],
)
def test_p_values_without_any_spread(differences: list[float], p: float) -> None:
    assert stats.p_value(differences) == p


# Unpaired


@given(VALUES, VALUES, st.floats(1e-3, 1e3))
def test_unpaired_ratios_have_an_inverse_and_no_unit(
    a: list[float], b: list[float], scale: float
) -> None:
    found, back = stats.unpaired_ratio(a, b), stats.unpaired_ratio(b, a).inverse()
    scaled = stats.unpaired_ratio([scale * x for x in a], [scale * x for x in b])
    for other in (back, scaled):
        assert other.ratio == pytest.approx(found.ratio)
        # Two values that differ in the last digit only have no interval to speak of.
        assert other.low == pytest.approx(found.low, rel=1e-6, nan_ok=True)
        assert other.high == pytest.approx(found.high, rel=1e-6, nan_ok=True)


def test_unpaired_is_welch() -> None:
    a, b = [1.0, 1.2, 1.1, 1.3], [1.0, 0.7, 1.4]
    found = stats.unpaired_ratio(a, b, 0.9)
    expected = reference.ttest_ind(np.log(a), np.log(b), equal_var=False)
    low, high = expected.confidence_interval(0.9)
    assert (math.log(found.low), math.log(found.high)) == (pytest.approx(low), pytest.approx(high))
    assert found.p_value() == pytest.approx(expected.pvalue)
    assert found.freedom == pytest.approx(expected.df)
    assert (found.blocks, found.confidence) == (3, 0.9)
    assert found.at(0.95).at(0.9).low == pytest.approx(found.low)


def test_unpaired_from_one_block_on_a_side_has_no_interval() -> None:
    found = stats.unpaired_ratio([9.0], [1.0, 1.0, 1.0])
    assert found.ratio == pytest.approx(9.0)
    assert math.isnan(found.low)
    assert stats.judge(found) == "cannot tell"


def test_unpaired_without_any_spread_is_certain() -> None:
    found = stats.unpaired_ratio([2.0, 2.0], [1.0, 1.0])
    assert (found.low, found.high) == (found.ratio, found.ratio)
    assert found.ratio == pytest.approx(2.0)


# Claims


@pytest.mark.parametrize(
    ("value", "half", "as_fast_as", "equivalent"),
    [
        (1.00, 0.03, "holds", "holds"),
        (0.80, 0.03, "holds", "refuted"),
        (0.95, 0.03, "holds", "inconclusive"),
        (1.04, 0.03, "inconclusive", "inconclusive"),
        (1.20, 0.03, "refuted", "refuted"),
        (1.20, 0.50, "inconclusive", "inconclusive"),
    ],
)
def test_as_fast_as_and_equivalent(
    value: float, half: float, as_fast_as: str, equivalent: str
) -> None:
    found = judged(value, half)
    assert (found.as_fast_as, found.equivalent) == (as_fast_as, equivalent)


def test_the_bounds_that_a_margin_is_held_against_are_those_of_the_90_percent_interval() -> None:
    at_95, at_90 = (float(reference.t.ppf(q, 9)) for q in (0.975, 0.95))
    half = math.log(1.05) / at_90 * at_95
    assert judged(1.0, half * 0.999).equivalent == "holds"
    assert judged(1.0, half * 1.001).equivalent == "inconclusive"
    # The same ratio given at another level is the same evidence.
    again = Judgement(ratio=ratio(1.0, half * 0.999).at(0.5))
    assert (again.as_fast_as, again.equivalent) == ("holds", "holds")


@pytest.mark.parametrize(
    ("value", "half", "faster", "slower"),
    [
        (0.90, 0.05, "holds", "refuted"),
        (1.10, 0.05, "refuted", "holds"),
        (1.10, 0.20, "inconclusive", "inconclusive"),
        (1.009, 0.001, "inconclusive", "inconclusive"),
    ],
)
def test_faster_and_slower(value: float, half: float, faster: str, slower: str) -> None:
    found = judged(value, half)
    assert (found.faster, found.slower) == (faster, slower)


def test_by_at_least_is_shown_by_the_bound_and_not_by_the_ratio() -> None:
    found = judged(0.5, 0.1)  # b takes 2 times as long: 1.81 to 2.21
    assert [found.faster_by(x) for x in (1.0, 1.8, 1.9, 2.2, 2.3)] == [
        *("holds", "holds", "inconclusive", "inconclusive", "refuted")
    ]
    assert found.slower_by(1.0) == "refuted"
    back = Judgement(ratio=found.ratio.inverse() if found.ratio else None)
    assert (back.slower_by(1.8), back.slower_by(2.3)) == ("holds", "refuted")


def test_no_ratio_is_no_data_and_one_block_is_inconclusive() -> None:
    nothing = Judgement(ratio=None)
    single = Judgement(ratio=stats.ratio_of([5.0]))
    for found, answer in ((nothing, "no data"), (single, "inconclusive")):
        assert found.verdict == "cannot tell"
        assert {found.faster, found.slower, found.as_fast_as, found.equivalent} == {answer}
        assert {found.faster_by(1.0), found.slower_by(1.0)} == {answer}


@pytest.mark.parametrize("bad", [0.0, -0.05, math.nan, math.inf])
def test_a_margin_must_be_above_0(bad: float) -> None:
    with pytest.raises(ValueError, match=r"margin .*must be above 0"):
        Judgement(ratio=None, margin=bad)
    with pytest.raises(ValueError, match=r"precision .*must be above 0"):
        stats.settled(None, bad)


@pytest.mark.parametrize("bad", [0.99, 0.0, -2.0, math.nan, math.inf])
def test_at_least_less_than_the_same_is_no_claim(bad: float) -> None:
    with pytest.raises(ValueError, match=r"by at least .*must be 1 or more"):
        judged(0.5, 0.1).faster_by(bad)
    with pytest.raises(ValueError, match=r"by at least .*must be 1 or more"):
        judged(0.5, 0.1).slower_by(bad)


@pytest.mark.parametrize("bad", [0.0, 0.5, -1.0, math.nan])
def test_alpha_must_be_a_small_share(bad: float) -> None:
    with pytest.raises(ValueError, match=r"alpha .*must be above 0 and below 0\.5"):
        Judgement(ratio=None, alpha=bad)


@given(st.floats(0.2, 5.0), st.floats(0.001, 1.0), st.floats(0.01, 0.5))
def test_who_is_a_does_not_matter(value: float, half: float, margin: float) -> None:
    one = Judgement(ratio=ratio(value, half), margin=margin)
    other = Judgement(ratio=ratio(value, half).inverse(), margin=margin)
    assert one.equivalent == other.equivalent
    assert one.faster == other.slower
    assert one.faster_by(1.5) == other.slower_by(1.5)


@given(DIFFERENCES, st.floats(0.01, 0.5), st.floats(0.001, 0.4))
def test_claims_do_not_contradict_each_other(d: list[float], margin: float, alpha: float) -> None:
    found = Judgement(ratio=stats.ratio_of(d), margin=margin, alpha=alpha)
    if found.equivalent == "holds":
        assert found.as_fast_as == "holds"
    if found.as_fast_as == "refuted":
        assert found.equivalent == "refuted"
        assert found.faster != "holds"
    if found.faster == "holds":
        assert found.as_fast_as == "holds"
    if found.faster_by(1.2) == "holds":
        assert found.faster == found.faster_by(1.1) == "holds"


# The A/A floor


@pytest.mark.parametrize("aa", [None, stats.ratio_of([0.2])])
def test_without_an_aa_pair_the_least_floor_holds_and_says_so(aa: Ratio | None) -> None:
    found = stats.floor_of(aa)
    assert found == stats.UNMEASURED == stats.floor_of()
    assert (found.value, found.measured, found.failed, found.wide) == (0.01, False, False, False)


@pytest.mark.parametrize(
    ("value", "half", "floor", "failed", "wide"),
    [
        (1.0, 0.004, 0.01, False, False),
        (1.0, 0.02, math.expm1(0.02), False, False),
        (1.0, 0.03, math.expm1(0.03), False, True),
        (0.99, 0.02, math.exp(0.02) / 0.99 - 1, False, True),
        (1.005, 0.001, 0.01, False, False),
        (1.02, 0.004, 1.02 * math.exp(0.004) - 1, True, False),
        (0.98, 0.004, math.exp(0.004) / 0.98 - 1, True, False),
    ],
)
def test_the_floor_is_the_end_of_the_aa_interval(
    value: float, half: float, floor: float, failed: bool, wide: bool
) -> None:
    found = stats.floor_of(ratio(value, half))
    assert found.measured
    assert found.value == pytest.approx(floor)
    assert (found.failed, found.wide) == (failed, wide)
    inverse = stats.floor_of(ratio(value, half).inverse())
    assert inverse.bound == pytest.approx(found.bound)
    assert inverse.failed == found.failed


def test_of_several_aa_pairs_the_widest_counts_and_chance_is_allowed_for() -> None:
    by_chance, tight = ratio(1.03, 0.025), ratio(1.0, 0.002)
    assert stats.floor_of(by_chance).failed
    among_twenty = stats.floor_of(*[tight] * 19, by_chance)
    assert not among_twenty.failed
    assert among_twenty.value == pytest.approx(1.03 * math.exp(0.025) - 1)
    assert stats.floor_of(*[tight] * 19, ratio(1.03, 0.005)).failed
    assert stats.floor_of(tight, None) == stats.floor_of(tight)


def test_where_aa_failed_nothing_holds() -> None:
    floor = stats.floor_of(ratio(1.03, 0.01))
    found = judged(3.0, 0.01, floor=floor)
    assert found.verdict == stats.judge(found.ratio, floor) == "cannot tell"
    assert {found.slower, found.as_fast_as, found.equivalent, found.slower_by(2.0)} == {
        "inconclusive"
    }


def test_a_wide_floor_shows_no_small_difference_but_a_large_one() -> None:
    floor = stats.floor_of(ratio(1.0, 0.04))
    assert floor.wide
    same = judged(1.0, 0.01, floor=floor)
    assert (same.as_fast_as, same.equivalent) == ("inconclusive", "inconclusive")
    just_beyond_the_margin = judged(1.08, 0.01, floor=floor)
    assert just_beyond_the_margin.as_fast_as == "inconclusive"
    assert just_beyond_the_margin.slower == "inconclusive"
    twice = judged(2.0, 0.01, floor=floor)
    assert (twice.as_fast_as, twice.equivalent, twice.slower) == ("refuted", "refuted", "holds")
    assert judged(1.0, 0.01, floor=floor, margin=0.2).equivalent == "holds"


def test_a_difference_below_the_floor_is_none() -> None:
    floor = stats.floor_of(ratio(1.0, 0.02))
    assert judged(1.018, 0.005).slower == "holds"
    assert judged(1.018, 0.005, floor=floor).slower == "inconclusive"


# Drift


@given(st.lists(st.floats(0.1, 10.0), min_size=2, max_size=9), st.floats(1e-3, 1e3))
def test_drift_has_a_sign_and_no_unit(samples: list[float], scale: float) -> None:
    change = stats.drift(samples)
    assert stats.drift([scale * s for s in samples]) == pytest.approx(change)
    assert (1 + stats.drift(samples[::-1])) * (1 + change) == pytest.approx(1)


@pytest.mark.parametrize(
    ("samples", "change", "flagged"),
    [
        ([1.0, 1.0, 1.03, 1.03], 0.03, True),
        ([1.0, 1.0, 9.0, 0.97, 0.97], -0.03, True),
        ([1.0, 1.0, 1.01, 1.01], 0.01, False),
        ([1.0, 5.0, 1.0, 1.0, 1.0, 7.0], 0.0, False),
    ],
)
def test_drift_is_the_change_between_halves(
    samples: list[float], change: float, flagged: bool
) -> None:
    assert stats.drift(samples) == pytest.approx(change)
    assert stats.drifted(stats.drift(samples)) is flagged


def test_arms_that_drift_together_do_not_drift_apart() -> None:
    speed = np.exp(0.1 * np.arange(8))
    a, b = (2 * speed).tolist(), speed.tolist()
    assert stats.drifted(stats.drift(a))
    assert stats.paired_drift(a, b) == pytest.approx(0.0)
    assert stats.paired_drift([*a[:4], *(1.1 * speed[4:])], b) == pytest.approx(0.55 - 1)


def test_too_few_samples_have_no_drift() -> None:
    assert math.isnan(stats.drift([1.0]))
    assert math.isnan(stats.paired_drift([1.0], [1.0]))
    assert not stats.drifted(math.nan)


# Families and looks


@given(P_VALUES)
def test_holm_is_the_step_down_procedure(p_values: list[float]) -> None:
    adjusted = stats.holm(p_values)
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    alpha, called = 0.05, set()
    for rank, index in enumerate(order):
        if (len(p_values) - rank) * p_values[index] > alpha:
            break
        called.add(index)
    assert {i for i, p in enumerate(adjusted) if p <= alpha} == called
    assert all(
        p <= a <= min(1.0, len(p_values) * p) or a == p
        for p, a in zip(p_values, adjusted, strict=True)
    )
    assert all(adjusted[i] <= adjusted[j] for i, j in pairwise(order))


def test_holm_of_known_values() -> None:
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([]) == []


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan])
def test_holm_names_what_is_no_probability(bad: float) -> None:
    with pytest.raises(ValueError, match=r"p-value .*between 0 and 1"):
        stats.holm([0.5, bad])


def test_looks_share_alpha() -> None:
    assert stats.look_confidence() == pytest.approx(1 - 0.05 / 3)
    assert stats.look_confidence(0.1, 1) == pytest.approx(0.9)
    with pytest.raises(ValueError, match="looks 0: must be 1 or more"):
        stats.look_confidence(looks=0)
    with pytest.raises(ValueError, match="alpha 1: must be above 0"):
        stats.look_confidence(1)


@pytest.mark.parametrize(
    ("value", "half", "done"),
    [
        (1.0, 0.019, True),  # precise
        (1.0, 0.040, True),  # not precise, but equivalent
        (1.0, 0.070, False),
        (1.1, 0.080, True),  # slower
        (0.9, 0.080, True),
        (1.1, 0.110, False),
    ],
)
def test_settled(value: float, half: float, done: bool) -> None:
    assert stats.settled(ratio(value, half, confidence=stats.look_confidence()), 0.02) is done


def test_a_look_is_judged_at_its_own_level() -> None:
    at_95 = ratio(1.1, 0.08)
    assert stats.settled(at_95, 0.02)
    assert not stats.settled(at_95.at(stats.look_confidence()), 0.02)


def test_nothing_is_settled_by_no_ratio_one_block_or_a_failed_floor() -> None:
    assert not stats.settled(None, 0.02)
    assert not stats.settled(stats.ratio_of([3.0]), 0.02)
    assert not stats.settled(ratio(2.0, 0.1), 0.02, Floor(value=0.03, bound=0.03, failed=True))


# How often it is wrong: 4000 experiments each, fixed seed


def wrong(truth: float, blocks: int, said: Callable[[Judgement], bool], runs: int = 4000) -> float:
    """Share of experiments on a true ratio, with a spread of 2 % between blocks, that say so."""
    rng = np.random.default_rng(20260203)
    drawn = rng.normal(math.log(truth), 0.02, (runs, blocks))
    return sum(said(Judgement(ratio=stats.ratio_of(d))) for d in drawn.tolist()) / runs


#: Three standard errors of a share of 5 % of 4000.
ERROR = 3 * math.sqrt(0.05 * 0.95 / 4000)


@pytest.mark.parametrize("blocks", [3, 5, 10])
def test_at_the_margin_as_fast_as_is_wrong_once_in_twenty(blocks: int) -> None:
    share = wrong(1.05, blocks, lambda found: found.as_fast_as == "holds")
    assert 0.05 - ERROR <= share <= 0.05 + ERROR
    assert wrong(1.06, blocks, lambda found: found.as_fast_as == "holds", 1000) < 0.05


@pytest.mark.parametrize("blocks", [3, 5, 10])
def test_at_the_margin_as_fast_as_is_refuted_wrongly_once_in_twenty(blocks: int) -> None:
    share = wrong(1.05, blocks, lambda found: found.as_fast_as == "refuted")
    assert 0.05 - ERROR <= share <= 0.05 + ERROR


@pytest.mark.parametrize("truth", [1.05, 1 / 1.05])
def test_at_the_margin_equivalent_is_wrong_once_in_twenty_at_most(truth: float) -> None:
    assert wrong(truth, 10, lambda found: found.equivalent == "holds") <= 0.05 + ERROR


def test_identical_arms_are_called_different_once_in_twenty_without_a_floor() -> None:
    def different(found: Judgement) -> bool:
        return stats.judge(found.ratio, 0.0) != "cannot tell"

    assert wrong(1.0, 5, different) == pytest.approx(0.05, abs=ERROR)
    assert wrong(1.0, 10, lambda found: found.verdict != "cannot tell") <= 0.05 + ERROR


@pytest.mark.parametrize("spreads", [(0.02, 0.02), (0.01, 0.05)])
def test_unpaired_intervals_cover_as_often_as_they_say(spreads: tuple[float, float]) -> None:
    rng, truth, runs = np.random.default_rng(11), 1.3, 2000
    covered = 0
    for _ in range(runs):
        a = truth * np.exp(rng.normal(0.0, spreads[0], 5))
        b = np.exp(rng.normal(0.0, spreads[1], 6))
        found = stats.unpaired_ratio(a.tolist(), b.tolist())
        covered += found.low <= truth <= found.high
    assert covered / runs == pytest.approx(0.95, abs=3 * math.sqrt(0.05 * 0.95 / runs))


def test_three_looks_together_are_wrong_once_in_twenty_at_most() -> None:
    """Looking after 10, 20 and 40 blocks and stopping at the first difference that shows."""
    rng, level, runs = np.random.default_rng(5), stats.look_confidence(), 1500
    drawn = rng.normal(0.0, 0.05, (runs, 40)).tolist()
    stopped = sum(
        any(stats.ratio_of(d[:n], level).p_value() < 1 - level for n in (10, 20, 40)) for d in drawn
    )
    assert stopped / runs <= 0.05


def test_a_floor_that_is_assumed_is_no_finer_than_it_says() -> None:
    close = ratio(1.0, 0.002)
    for margin, answer in ((0.05, "holds"), (0.015, "inconclusive")):
        found = stats.Judgement(ratio=close, floor=stats.UNMEASURED, margin=margin)
        assert found.equivalent == answer


def test_a_wide_floor_shows_a_difference_beyond_floor_and_margin_only() -> None:
    wide = stats.floor_of(ratio(1.0, 0.04))
    assert wide.wide
    assert stats.judge(ratio(1.06, 0.002), wide) == "cannot tell"
    assert stats.judge(ratio(1.12, 0.002), wide) == "slower"
    assert stats.judge(ratio(1 / 1.12, 0.002), wide) == "faster"
    fine = stats.floor_of(ratio(1.0, 0.015))
    assert stats.judge(ratio(1.03, 0.002), fine) == "slower"
