"""The tests of the tutorial's claims T1 to T13, those that are decided by time and memory."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from backends.api import Case, Mode
from backends.products import flops
from backends.stack import weight_layers
from bench import stats
from bench.claims.question import Fact, Question, lacking, planned, tested, where
from bench.claims.reading import (
    Groups,
    across_cases,
    calls_question,
    compared,
    double_question,
    families,
    loops,
    over_lengths,
    peak_question,
    quotient,
    slopes,
    steady_question,
)
from bench.evidence import Group, rides_along
from bench.record import TO_FIRST
from bench.stats import Hypothesis

#: "As fast": at most this many times as long.
AS_FAST = 1 + stats.MARGIN

#: A start that grows with T: by this factor at least from the shortest sequence to the longest;
#: one that does not: by this factor at most. The longest is `SPAN` times the shortest, or more.
GROWS, STAYS, SPAN = 2.0, 1.5, 4

#: "Slow to build": at least this many times as long as the dynamic one takes, at the longest T.
SLOW = 2.0

#: "Far less computation": the LSTM takes at least this many times as much.
FAR_LESS = 1.25

#: More threads make many short sequences faster than few long ones, by this factor at least.
SEQUENTIAL = 1.1


def t1(groups: Groups) -> Iterator[Question]:
    """Building: the static one's time grows with T and is long, the dynamic one's does neither."""
    for members in over_lengths(groups):
        longest = members[-1]
        for _, pair in loops([longest], "cold"):
            there = [g for g in members if planned(g, "cold", pair.a, pair.b)]
            runs = [g for g in there if _believed(g, pair.a) and _believed(g, pair.b)] or there
            shortest, longest = runs[0], runs[-1]
            place = where(longest, pair.backend, **compared(pair))
            place["T"] = f"{shortest.case.seq_len} to {longest.case.seq_len}"
            question = Question(run=longest.run, where=place, rows=(pair.a, pair.b))
            jobs = [g.get(name, "cold") for g in (shortest, longest) for name in (pair.a, pair.b)]
            if longest.case.seq_len < SPAN * shortest.case.seq_len:
                said = f"its longest T is less than {SPAN} times its shortest"
                yield lacking(question, jobs, said)
                continue
            growth = {
                name: (
                    (longest, longest.get(name, "cold")),
                    (shortest, shortest.get(name, "cold")),
                )
                for name in (pair.a, pair.b)
            }
            span = f"build at T={longest.case.seq_len} / T={shortest.case.seq_len}"
            parts = [
                across_cases(f"{pair.a}, {span}", "at least", GROWS, growth[pair.a], "build"),
                across_cases(f"{pair.b}, {span}", "at most", STAYS, growth[pair.b], "build"),
                _build(longest, pair.a, pair.b),
            ]
            yield replace(
                tested(question, parts, jobs),
                notes=[
                    _slope(runs, name, said, *phases)
                    for said, phases in (("build", ("build",)), ("first result", TO_FIRST))
                    for name in (pair.a, pair.b)
                ],
            )


def _believed(group: Group, implementation: str) -> bool:
    return bool(group.get(implementation, "cold").believed)


def _build(group: Group, a: str, b: str) -> Hypothesis:
    one, other = (group.get(name, "cold").single("build") for name in (a, b))
    return Hypothesis(
        label=f"{quotient(a, b)}, build at T={group.case.seq_len}",
        statement="at least",
        ratio=stats.single_ratio(one, other, group.confidence),
        limit=SLOW,
        floor=group.floors.within(a.split("/", maxsplit=1)[0], group.mode, "cold"),
    )


def _slope(members: Sequence[Group], name: str, said: str, *phases: str) -> str:
    """The slope of a cold phase over T, with its interval, in words."""
    found = [1e3 * slope for slope in slopes(members, name, *phases).values()]
    if not found:
        return f"{name}, {said}: no block has every T"
    mean, low, high = stats.t_interval(found)
    lengths = ", ".join(str(group.case.seq_len) for group in members)
    return (
        f"{name}, {said}: {mean:.3g} [{low:.3g}, {high:.3g}] ms a step, "
        f"least squares over T = {lengths}, {len(found)} blocks"
    )


def t4(groups: Groups) -> Iterator[Question]:
    """A call of the dynamic one takes at most the margin more than one of the static one."""
    for group, pair in loops(groups, "steady"):
        place = where(group, pair.backend, **compared(pair))
        yield steady_question(group, place, pair.b, pair.a, "at most", AS_FAST)


def t5(groups: Groups) -> Iterator[Question]:
    """Neither a call nor the peak memory of the dynamic one is more than the margin above."""
    for group, pair in loops(groups, "steady"):
        place = where(group, pair.backend, quantity="time a call", **compared(pair))
        yield steady_question(group, place, pair.b, pair.a, "at most", AS_FAST)
    for group, pair in loops(groups, "memory"):
        place = where(group, pair.backend, quantity="peak memory", **compared(pair))
        yield peak_question(group, place, pair.b, pair.a, "at most", AS_FAST)


def t7(groups: Groups) -> Iterator[Question]:
    """An LSTM takes at least `FAR_LESS` times what a GRU takes: FLOPs, parameters, time a call."""
    for members in families(groups, lambda case: replace(case, cell="gru")):
        by_cell = {group.case.cell: group for group in members}
        lstm = by_cell.get("lstm")
        grus = [by_cell[name] for name in ("gru", "gru-reset-after") if name in by_cell]
        if lstm is None:
            continue
        for gru in grus:
            if gru.implementations("steady"):  # a shape that somebody wanted to time
                yield from _computation(lstm, gru)
            for name in gru.implementations("steady"):
                if rides_along(name) or not planned(lstm, "steady", name):
                    continue
                backend, strategy = name.split("/")
                place = where(gru, backend, strategy=strategy, quantity="time a call")
                said = f"lstm / {gru.case.cell}"
                yield calls_question((lstm, gru), place, name, said, "at least", FAR_LESS)


def _computation(lstm: Group, gru: Group) -> Iterator[Question]:
    """Countable cost: FLOPs of the products, and parameters."""
    counts: Mapping[str, tuple[int, int]] = {
        "FLOPs": (flops(lstm.case, lstm.mode), flops(gru.case, gru.mode)),
        "parameters": (_parameters(lstm), _parameters(gru)),
    }
    for quantity, (more, less) in counts.items():
        place = where(gru, "any", quantity=quantity)
        yield Question(
            run=gru.run,
            where=place,
            rows=(),
            fact=Fact(
                holds=more >= FAR_LESS * less,
                statement=f"{quantity} of lstm / {gru.case.cell}: {more:,} / {less:,}, "
                f"at least {FAR_LESS}",
                effect=more / less,
                unit="x",
                limit=FAR_LESS,
            ),
        )


def _parameters(group: Group) -> int:
    return sum(
        math.prod(shape) for layer in weight_layers(group.case) for shape in layer.blocks.values()
    )


def t8(groups: Groups) -> Iterator[Question]:
    """`LSTMBlockCell` is faster, under either runner."""
    for group in groups:
        if group.case.cell != "basic-lstm":
            continue
        for runner in ("dynamic", "static"):
            a, b = f"tensorflow/{runner}-block", f"tensorflow/{runner}"
            if planned(group, "steady", a, b):
                place = where(group, "tensorflow", runner=runner)
                yield steady_question(group, place, a, b, "faster")


def t13(groups: Groups) -> Iterator[Question]:
    """More threads do less for few long sequences than for many short ones of as many steps.

    That shows it: a batch is done on all of them, time is not. (That long sequences alone take
    longer shows nothing: each step has its overhead, on one thread, too.) The contrary does not
    refute it: where threads gain nothing, or within a step, nothing was done at the same time.
    """
    on_one: dict[str, dict[tuple[Case, Mode], Group]] = defaultdict(dict)
    for group in groups:
        if group.case.threads == 1:
            on_one[group.run][group.setting] = group
    alike = families(groups, lambda c: (c.seq_len * c.batch, replace(c, seq_len=1, batch=1)))
    for members in alike:
        ordered = sorted(members, key=lambda group: group.case.seq_len)
        short, long = ordered[0], ordered[-1]
        if long.case.seq_len < SPAN * short.case.seq_len:
            continue
        cases = [group.setting for group in (long, short)]
        # Both of one run: its blocks are what pairs them.
        single = [
            [found[c] for c in cases] for found in on_one.values() if found.keys() >= {*cases}
        ]
        for name in long.implementations("steady"):
            if rides_along(name) or not planned(short, "steady", name):
                continue
            yield from _on_more_threads(long, short, single, name)


def _on_more_threads(
    long: Group, short: Group, single: Sequence[Sequence[Group]], name: str
) -> Iterator[Question]:
    """One implementation's questions of T13; `single` has both cases on one thread, by run."""
    backend, strategy = name.split("/")
    place = where(long, backend, strategy=strategy)
    place["T"] = f"{long.case.seq_len} against {short.case.seq_len}"
    place["B"] = f"{long.case.batch} against {short.case.batch}"
    empty = Question(run=long.run, where=place, rows=(name,))
    if long.case.threads == 1:
        yield replace(empty, reason="one thread decides nothing: nothing could be parallel")
        return
    if not single:
        yield replace(empty, reason="nothing to compare with: the same on one thread is missing")
    said = f"T={long.case.seq_len} B={long.case.batch} / T={short.case.seq_len} "
    said += f"B={short.case.batch}, on {long.case.threads} threads / on one"
    for one_long, one_short in single:
        four = (long, short, one_long, one_short)
        question = double_question(four, place, name, said, "at least", SEQUENTIAL)
        if question.test is not None and question.test.p_refuted < question.test.p_holds:
            equal = "equal gains do not show that steps were done at the same time"
            question = replace(question, withheld=equal)
        yield question
