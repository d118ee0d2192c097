"""Ratios and values of a run, with the floors that go with them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from backends.api import Case
from bench import pairing, stats
from bench.claims.question import Question, planned, tested
from bench.evidence import Evidence, Group, is_misread, is_small
from bench.pairs import Pair, declared
from bench.record import Measure
from bench.stats import Hypothesis, Statement

Groups = Sequence[Group]

#: Static against dynamic: the time loop unrolled, against the loop of the same framework that the
#: tutorial means. (Keras' unrolled layers and block cells are other questions.)
LOOPS: tuple[Pair, ...] = tuple(p for p in declared() if p.strategy.name in ("static", "traced"))


def loops(groups: Groups, measure: Measure) -> Iterator[tuple[Group, Pair]]:
    """Every static and dynamic loop that were planned side by side."""
    for group in groups:
        for pair in LOOPS:
            if planned(group, measure, pair.a, pair.b):
                yield group, pair


def compared(pair: Pair) -> dict[str, str]:
    """Name of the comparison, where a framework unrolls in more than one way."""
    return {"unrolled by": pair.strategy.name}


def quotient(a: str, b: str) -> str:
    """Numerator and denominator in words; a framework common to both is known from the place."""
    (one, short_a), (other, short_b) = a.split("/"), b.split("/")
    return f"{short_a} / {short_b}" if one == other else f"{a} / {b}"


def steady_question(
    group: Group,
    place: Mapping[str, str],
    a: str,
    b: str,
    statement: Statement,
    limit: float = 1.0,
) -> Question:
    """A statement about the steady time of a over that of b in one group."""
    part = Hypothesis(
        label=f"{quotient(a, b)}, a call",
        statement=statement,
        ratio=group.steady_ratio(a, b),
        limit=limit,
        floor=group.steady_floor(a, b),
    )
    jobs = [group.get(name, "steady") for name in (a, b)]
    question = Question(run=group.run, where=place, rows=(a, b))
    return tested(question, [part], jobs)


def peak_question(
    group: Group,
    place: Mapping[str, str],
    a: str,
    b: str,
    statement: Statement,
    limit: float = 1.0,
) -> Question:
    """Ask about peak memory. Peaks too small to be read well get no answer.

    A host that does not tell of the memory of what ran there excuses nothing.
    """
    jobs = [group.get(name, "memory") for name in (a, b)]
    question = Question(run=group.run, where=place, rows=(a, b))
    peaks = [job.values("peak_bytes") for job in jobs]
    if any(map(is_misread, jobs)):
        return replace(question, reason="a known allocation was read more than 5 % off")
    if any(is_small(job.job, peak.values()) for job, peak in zip(jobs, peaks, strict=True)):
        small = "below 8 MB, where the method's constant error of 0.2 to 0.3 MB rules"
        return replace(question, reason=small, excused=True)
    part = Hypothesis(
        label=f"{quotient(a, b)}, peak memory",
        statement=statement,
        ratio=stats.single_ratio(peaks[0], peaks[1], group.confidence),
        limit=limit,
        floor=group.floors.within(jobs[0].job.backend, group.mode, "memory"),
    )
    ran = all(
        group.get(name, "steady").believed or group.get(name, "cold").believed for name in (a, b)
    )
    asked = tested(question, [part], jobs)
    return replace(asked, excused=False) if asked.excused and ran else asked


def across_cases(
    label: str,
    statement: Statement,
    limit: float,
    jobs: Sequence[tuple[Group, Evidence]],
    *phases: str,
) -> Hypothesis:
    """A statement about the first of two cases of a run over the second, not paired in blocks.

    Of cold jobs `phases` says which; of steady ones each block's median counts.
    """
    (group, one), (_, other) = jobs
    long, short = (
        list((job.single(*phases) if phases else pairing.values_of(job)).values())
        for job in (one, other)
    )
    measurable = min([*long, *short], default=0.0) > 0 and long and short
    floors = (
        group.floors.anywhere(job.job.backend, job.job.mode, job.job.measure)
        for job in (one, other)
    )
    return Hypothesis(
        label=label,
        statement=statement,
        ratio=stats.unpaired_ratio(long, short, group.confidence) if measurable else None,
        limit=limit,
        floor=stats.coarsest(*floors),
    )


def calls_question(
    cases: tuple[Group, Group],
    place: Mapping[str, str],
    name: str,
    label: str,
    statement: Statement,
    limit: float,
) -> Question:
    """A statement about a call of one implementation in one case over one in another."""
    jobs = [(group, group.get(name, "steady")) for group in cases]
    part = across_cases(f"{name}, {label}, a call", statement, limit, jobs)
    return _about_one(part, jobs, place)


def double_question(
    cases: tuple[Group, Group, Group, Group],
    place: Mapping[str, str],
    name: str,
    label: str,
    statement: Statement,
    limit: float,
) -> Question:
    """A statement about (a / b) / (c / d), the calls of one implementation in four cases.

    a and b are of one run, c and d of another one: the logarithm of a / b in each block against
    that of c / d, by Welch's interval.
    """
    jobs = [(group, group.get(name, "steady")) for group in cases]
    medians = [pairing.values_of(job) for _, job in jobs]
    floors = [g.floors.anywhere(job.job.backend, job.job.mode, "steady") for g, job in jobs]
    here, there = _by_block(*medians[:2]), _by_block(*medians[2:])
    part = Hypothesis(
        label=f"{name}, {label}, a call",
        statement=statement,
        ratio=(stats.unpaired_ratio(here, there, cases[0].confidence) if here and there else None),
        limit=limit,
        floor=stats.compounded(stats.coarsest(*floors[:2]), stats.coarsest(*floors[2:])),
    )
    return _about_one(part, jobs, place)


def _about_one(
    part: Hypothesis, jobs: Sequence[tuple[Group, Evidence]], place: Mapping[str, str]
) -> Question:
    """The question of one implementation's calls in several cases."""
    (group, first), *_ = jobs
    question = Question(run=group.run, where=place, rows=(first.job.implementation,))
    return tested(question, [part], [job for _, job in jobs])


def _by_block(one: Mapping[int, float], other: Mapping[int, float]) -> list[float]:
    """The ratio in each block that both have."""
    return [one[block] / other[block] for block in one.keys() & other.keys()]


def families(groups: Groups, same: Callable[[Case], Any]) -> list[tuple[Group, ...]]:
    """Groups of one run and mode whose cases agree in what `same` says, in reading order."""
    found: dict[Any, list[Group]] = defaultdict(list)
    for group in groups:
        found[group.run, group.mode, same(group.case)].append(group)
    return [tuple(members) for members in found.values()]


def over_lengths(groups: Groups) -> list[tuple[Group, ...]]:
    """Groups of one run that differ in T alone, the shortest first."""
    found = families(groups, lambda case: replace(case, seq_len=1))
    return [tuple(sorted(members, key=lambda g: g.case.seq_len)) for members in found]


def slopes(members: Sequence[Group], implementation: str, *phases: str) -> dict[int, float]:
    """Seconds a step by block: the least-squares line of a cold phase over T."""
    points: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for group in members:
        for block, seconds in group.get(implementation, "cold").single(*phases).items():
            points[block].append((group.case.seq_len, seconds))
    return {
        block: float(np.polyfit([t for t, _ in found], [s for _, s in found], 1)[0])
        for block, found in points.items()
        if len(found) == len(members) > 1
    }


def value(group: Group, implementation: str, name: str) -> float | None:
    """A value that a behaviour left, the largest over blocks; None where there is none."""
    return max(group.get(implementation, "behaviour").values(name).values(), default=None)
