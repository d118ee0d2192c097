"""Statements declared before a run: p-values that agree with the verdicts, and Holm over them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bench import stats
from bench.stats import Conjunction, Floor, Hypothesis, Judgement, Statement

DIFFERENCES = st.lists(st.floats(-0.7, 0.7), min_size=2, max_size=12)
FLOORS = st.builds(
    lambda bound, failed: Floor(value=max(0.01, bound), bound=bound, failed=failed),
    st.floats(0.0, 0.3),
    st.booleans(),
)
LIMITS = st.floats(1.01, 3.0)
LEVELS = st.floats(0.001, 0.4)


def answer(hypothesis: Hypothesis, alpha: float) -> stats.Answer:
    """What is said at one level without any correction."""
    one = Conjunction(parts=[hypothesis])
    return one.answer(one.p, alpha)


def hypothesis_of(
    statement: Statement, ratio: stats.Ratio | None, limit: float = 1.0, floor: Floor | None = None
) -> Hypothesis:
    return Hypothesis(
        label="a / b",
        statement=statement,
        ratio=ratio,
        limit=limit,
        floor=floor or stats.UNMEASURED,
    )


@given(DIFFERENCES, FLOORS, LIMITS, LEVELS)
def test_the_answer_is_that_of_the_interval_at_the_level(
    differences: list[float], floor: Floor, limit: float, alpha: float
) -> None:
    ratio = stats.ratio_of(differences)
    assume(0 < ratio.low < ratio.high < math.inf)
    judged = Judgement(ratio=ratio, floor=floor, margin=limit - 1, alpha=alpha)
    expected = {
        "at most": judged.as_fast_as,
        "equivalent": judged.equivalent,
        "faster": judged.faster,
        "slower": judged.slower,
        "at least": judged.slower_by(limit),
    }
    statements: tuple[Statement, ...] = ("at most", "equivalent", "faster", "slower", "at least")
    for statement in statements:
        asked = limit if statement not in ("faster", "slower") else 1.0
        found = hypothesis_of(statement, ratio, asked, floor)
        # At the very level of a p-value either side is right: rounding decides.
        near = [p for p in (found.p_holds, found.p_refuted) if math.isclose(p, alpha, rel_tol=1e-6)]
        if not near:
            assert answer(found, alpha) == expected[statement], statement


@given(DIFFERENCES, FLOORS, LIMITS)
def test_never_sure_of_both_answers(differences: list[float], floor: Floor, limit: float) -> None:
    ratio = stats.ratio_of(differences)
    for statement in ("at most", "at least", "equivalent"):
        found = hypothesis_of(statement, ratio, limit, floor)
        assert max(found.p_holds, found.p_refuted) >= 0.5


def ratio(value: float, spread: float = 0.01, blocks: int = 10) -> stats.Ratio:
    return stats.unpaired_ratio(
        [value * math.exp(spread * (-1) ** i) for i in range(blocks)],
        [math.exp(spread * (-1) ** (i // 2)) for i in range(blocks)],
    )


@pytest.mark.parametrize(
    ("statement", "value", "limit", "expected"),
    [
        ("at most", 1.02, 1.05, "holds"),
        ("at most", 1.2, 1.05, "refuted"),
        ("at most", 1.05, 1.05, "inconclusive"),
        ("at least", 2.5, 2.0, "holds"),
        ("at least", 1.5, 2.0, "refuted"),
        ("at least", 0.4, 2.0, "refuted"),
        ("at least", 2.0, 2.0, "inconclusive"),
        ("faster", 0.9, 1.0, "holds"),
        ("faster", 1.1, 1.0, "refuted"),
        ("slower", 1.1, 1.0, "holds"),
        ("slower", 0.9, 1.0, "refuted"),
        ("equivalent", 1.01, 1.05, "holds"),
        ("equivalent", 0.9, 1.05, "refuted"),
    ],
)
def test_answers(statement: Statement, value: float, limit: float, expected: stats.Answer) -> None:
    assert answer(hypothesis_of(statement, ratio(value), limit), 0.05) == expected


def test_one_block_and_a_failed_pair_say_nothing_and_no_ratio_is_no_data() -> None:
    failed = Floor(value=0.2, bound=0.2, failed=True)
    assert answer(hypothesis_of("at most", ratio(3.0), 1.05, failed), 0.05) == "inconclusive"
    single = stats.ratio_of([1.0])
    assert answer(hypothesis_of("at most", single, 1.05), 0.05) == "inconclusive"
    assert answer(hypothesis_of("at most", None, 1.05), 0.05) == "no data"


def test_a_coarse_instrument_shows_no_closeness_but_a_lead_beyond_its_floor() -> None:
    coarse = Floor(value=0.2, bound=0.2)
    answers = {
        value: answer(hypothesis_of("at most", ratio(value), 1.05, coarse), 0.05)
        for value in (0.5, 0.9, 1.0, 1.1, 1.5)
    }
    assert answers == {
        0.5: "holds",
        0.9: "inconclusive",
        1.0: "inconclusive",
        1.1: "inconclusive",
        1.5: "refuted",
    }
    assert answer(hypothesis_of("equivalent", ratio(0.99), 1.05, coarse), 0.05) == "inconclusive"


def test_a_conjunction_holds_where_all_parts_do_and_is_refuted_by_one() -> None:
    good, bad = (
        hypothesis_of("at most", ratio(1.0), 1.05),
        hypothesis_of("at most", ratio(2.0), 1.05),
    )
    unsure = hypothesis_of("at most", ratio(1.05), 1.05)

    def said(*parts: Hypothesis) -> stats.Answer:
        both = Conjunction(parts=parts)
        return both.answer(both.p)

    assert said(good, good) == "holds"
    assert said(good, bad) == "refuted"
    assert said(good, unsure) == "inconclusive"
    assert said(unsure, bad) == "refuted"
    absent = hypothesis_of("at most", None, 1.05)
    assert said(absent) == "no data"
    assert said(good, absent) == "inconclusive"
    assert said(bad, absent) == "refuted"
    assert Conjunction(parts=[absent, bad]).deciding is bad
    assert Conjunction(parts=[good, bad]).deciding is bad
    assert Conjunction(parts=[good, hypothesis_of("at most", ratio(1.03), 1.05)]).deciding != good


def test_refuting_by_one_of_several_parts_pays_for_their_number() -> None:
    bad = hypothesis_of("at most", ratio(1.06, spread=0.008), 1.05)
    good = hypothesis_of("at most", ratio(1.0), 1.05)
    assert Conjunction(parts=[bad, good]).p_refuted == pytest.approx(2 * bad.p_refuted)


def test_holm_counts_what_was_measured_and_passes_the_rest_over() -> None:
    clear = Conjunction(parts=[hypothesis_of("at most", ratio(1.0), 1.05)])
    absent = Conjunction(parts=[hypothesis_of("at most", None, 1.05)])
    close = Conjunction(parts=[hypothesis_of("at most", ratio(1.045, spread=0.004), 1.05)])
    assert close.answer(close.p) == "holds"
    one, lacking, other = stats.adjusted([close, absent, clear])
    assert math.isnan(lacking)
    assert one == pytest.approx(close.p)  # the least sure comes last, and counts once
    assert other == pytest.approx(min(2 * clear.p, one))
    others = [
        Conjunction(parts=[hypothesis_of("at most", ratio(1.05, spread=0.01 + i / 1000), 1.05)])
        for i in range(40)
    ]
    many = stats.adjusted([close, *others])
    assert close.answer(many[0]) == "inconclusive"


def test_one_question_that_is_asked_twice_counts_once() -> None:
    close = Conjunction(parts=[hypothesis_of("at most", ratio(1.045, spread=0.004), 1.05)])
    again = Conjunction(parts=[hypothesis_of("at most", ratio(1.045, spread=0.004), 1.05)])
    assert stats.adjusted([close, again]) == [pytest.approx(close.p)] * 2
    other = Conjunction(parts=[hypothesis_of("at least", ratio(1.045, spread=0.004), 1.05)])
    assert stats.adjusted([close, other])[0] == pytest.approx(2 * close.p)


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"limit 0.9 of 'at most': must be above 1"):
        hypothesis_of("at most", ratio(1.0), 0.9)


def test_a_ratio_of_ratios_can_be_off_by_what_both_are() -> None:
    one, other = stats.Floor(value=0.08, bound=0.08), stats.Floor(value=0.02, bound=0.02)
    found = stats.compounded(one, other)
    assert found.value == found.bound == pytest.approx(1.08 * 1.02 - 1)
    assert stats.compounded(one, replace(other, failed=True)).withholds
    bare = stats.compounded(stats.UNMEASURED, stats.UNMEASURED)
    assert not bare.measured
    assert bare.value == pytest.approx((1 + stats.FLOOR) ** 2 - 1)
