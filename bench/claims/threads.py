"""The tests of claims from issue threads that are decided by time and memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

from backends.api import Case
from bench import stats
from bench.claims.question import Fact, Question, lacking, planned, tested, where
from bench.claims.reading import (
    Groups,
    across_cases,
    calls_question,
    families,
    over_lengths,
    peak_question,
    steady_question,
)
from bench.claims.tutorial import GROWS, SPAN, STAYS
from bench.evidence import Evidence, Group
from bench.record import TO_FIRST
from bench.stats import Hypothesis, Statement

#: "About as fast" and "saves no computation": at most this many times as long.
ABOUT = 1.1

#: "About x times slower": at least x over this.
ROUGHLY = 1.5

#: "Takes minutes", seconds.
MINUTES_S = 120.0

#: What building took the reporter of I4, seconds: the encoder, and gradients with the optimiser.
ENCODER_S, GRADIENTS_S = 77.4, 349.0

#: A batch whose longest sequence has half the steps takes at most 1 / this of the time, where what
#: is behind it is not computed.
HALF = 1.5

#: "Linearly or worse": each of the later steps costs at least 1 / this of what an earlier one does.
LINEARLY = 1.25

#: "Over 15 min", seconds.
QUARTER_HOUR_S = 900.0

Wanted = Callable[[Case], bool]


def steady_pairs(
    a: str, b: str, statement: Statement, limit: float, wanted: Wanted, *modes: str
) -> Callable[[Groups], Iterator[Question]]:
    """A test of the steady time of a over that of b wherever a case is wanted."""

    def test(groups: Groups) -> Iterator[Question]:
        for group in groups:
            if not wanted(group.case) or (modes and group.mode not in modes):
                continue
            if planned(group, "steady", a, b):
                place = where(group, a.split("/", maxsplit=1)[0])
                yield steady_question(group, place, a, b, statement, limit)

    return test


def i2(groups: Groups) -> Iterator[Question]:
    """Large in batch and depth, dynamic is about as fast as static; small, it is slower."""
    a, b = "tensorflow/dynamic", "tensorflow/static"
    for group in groups:
        if not planned(group, "steady", a, b):
            continue
        case = group.case
        if case.batch >= 64 and case.layers >= 2:
            place = where(group, "tensorflow", size="large")
            yield steady_question(group, place, a, b, "at most", ABOUT)
        if case.batch == 1 and case.layers == 1:
            place = where(group, "tensorflow", size="small")
            yield steady_question(group, place, a, b, "slower")


def i4(groups: Groups) -> Iterator[Question]:
    """An unrolled GRU of four layers and about 3000 steps takes minutes to build.

    Roughly as long as the reporter's: the encoder, or its gradients and the optimiser.
    """
    for group in groups:
        case = group.case
        gru = case.cell in ("gru", "gru-reset-after")
        if gru and case.layers >= 4 and case.seq_len >= 2500:
            seconds = ENCODER_S if group.mode == "forward" else GRADIENTS_S
            yield from lasts(group, "tensorflow/static", seconds / ROUGHLY, "build")


def lasts(group: Group, name: str, seconds: float, *phases: str) -> Iterator[Question]:
    """That cold phases of an implementation take so many seconds, or more, on this host."""
    if not planned(group, "cold", name):
        return
    job = group.get(name, "cold")
    label = f"{name}, {' and '.join(phases)}, over {seconds:g} s"
    logs = [math.log(taken / seconds) for taken in job.single(*phases).values()]
    part = Hypothesis(
        label=label,
        statement="at least",
        ratio=stats.ratio_of(logs, group.confidence) if logs else None,
    )
    place = where(group, name.split("/", maxsplit=1)[0], quantity=" and ".join(phases))
    yield tested(Question(run=group.run, where=place, rows=(name,)), [part], [job])


def i5(groups: Groups) -> Iterator[Question]:
    """Half the steps take dynamic_rnn no less, and static_rnn less."""
    asked: tuple[tuple[str, Statement, float], ...] = (
        ("tensorflow/dynamic", "at most", ABOUT),
        ("tensorflow/static", "at least", HALF),
    )
    for members in families(groups, lambda case: replace(case, lengths="full")):
        by_lengths = {group.case.lengths: group for group in members}
        if not {"ragged", "half"} <= by_lengths.keys():
            continue
        all_of_it, half = by_lengths["ragged"], by_lengths["half"]
        for name, statement, limit in asked:
            if not (planned(all_of_it, "steady", name) and planned(half, "steady", name)):
                continue
            place = where(half, "tensorflow", strategy=name.split("/")[1])
            said = "longest sequence T / longest sequence T / 2"
            yield calls_question((all_of_it, half), place, name, said, statement, limit)


#: The loop of a tf.function is about 7 times as slow as the unrolled one.
i6 = steady_pairs(
    "tensorflow/keras", "tensorflow/keras-unrolled", "at least", 7 / ROUGHLY, lambda _case: True
)


#: scan is about 6 times as slow as the unrolled loop where a step does next to nothing.
i9 = steady_pairs(
    "jax/dynamic",
    "jax/static",
    "at least",
    6 / ROUGHLY,
    lambda c: c.hidden <= 8 and c.inputs <= 8 and c.batch == 1 and c.device == "cpu",
)


def i10(groups: Groups) -> Iterator[Question]:
    """Compiling the unrolled loop takes longer in proportion to T, or worse; scan does not."""
    static, scan = "jax/static", "jax/dynamic"
    for members in over_lengths(groups):
        there = [g for g in members if planned(g, "cold", static, scan)]
        ok = [g for g in there if g.get(static, "cold").believed and g.get(scan, "cold").believed]
        if len(ok) < 3 or ok[-1].case.seq_len < SPAN * ok[0].case.seq_len:
            if there:
                place = _over(where(there[-1], "jax"), there)
                question = Question(run=there[0].run, where=place, rows=(static, scan))
                jobs = [g.get(name, "cold") for g in there for name in (static, scan)]
                yield lacking(question, jobs, f"needs three T, the last {SPAN} times the first")
            continue
        short, middle, long = ok[0], ok[len(ok) // 2], ok[-1]
        place = _over(where(long, "jax"), ok)
        question = Question(run=long.run, where=place, rows=(static, scan))
        jobs = [g.get(name, "cold") for g in (short, middle, long) for name in (static, scan)]
        span = f"build at T={long.case.seq_len} / T={short.case.seq_len}"

        def growth(name: str, statement: Statement, limit: float, said: str = span) -> Hypothesis:
            ends = [(g, g.get(name, "cold")) for g in (long, short)]  # noqa: B023 (called at once)
            return across_cases(f"{name}, {said}", statement, limit, ends, "build")

        parts = [
            growth(static, "at least", GROWS),
            _step_costs(short, middle, long, static),
            growth(scan, "at most", STAYS),
        ]
        yield tested(question, parts, jobs)


def _over(place: dict[str, str], members: Groups) -> dict[str, str]:
    return {**place, "T": f"{members[0].case.seq_len} to {members[-1].case.seq_len}"}


def _step_costs(short: Group, middle: Group, long: Group, name: str) -> Hypothesis:
    """That a further step costs no less late than early: seconds a step, early over late.

    Without a ratio where a block has none, since its steps cost nothing: leaving out such blocks
    would choose by what was found.
    """
    by_block = [group.get(name, "cold").single("build") for group in (short, middle, long)]
    t = [group.case.seq_len for group in (short, middle, long)]
    logs = []
    blocks = sorted(set.intersection(*(set(found) for found in by_block)))
    for block in blocks:
        first, second, third = (found[block] for found in by_block)
        early, late = (second - first) / (t[1] - t[0]), (third - second) / (t[2] - t[1])
        if early > 0 and late > 0:
            logs.append(math.log(early / late))
    costless = len(blocks) - len(logs)
    label = f"{name}, seconds a step, T={t[0]} to {t[1]} / T={t[1]} to {t[2]}"
    return Hypothesis(
        label=f"{label} ({costless} blocks without cost)" if costless else label,
        statement="at most",
        ratio=stats.ratio_of(logs, long.confidence) if logs and not costless else None,
        limit=LINEARLY,
        floor=long.floors.within(name.split("/", maxsplit=1)[0], long.mode, "cold"),
    )


def i11(groups: Groups) -> Iterator[Question]:
    """Scan needs more memory than the unrolled loop: XLA's scratch memory, and the host's peak."""
    a, b = "jax/dynamic", "jax/static"
    for group in groups:
        if not planned(group, "memory", a, b):
            continue
        jobs = [group.get(name, "memory") for name in (a, b)]
        place = where(group, "jax", quantity="scratch memory of the program")
        question = Question(run=group.run, where=place, rows=(a, b))
        scan, unrolled = (_scratch(job) for job in jobs)
        if scan and unrolled:
            said = f"scratch memory: {a} {scan:,.0f} bytes, {b} {unrolled:,.0f} bytes"
            found = Fact(
                holds=scan > unrolled, statement=said, effect=scan / unrolled, unit="x", limit=1.0
            )
            yield replace(question, fact=found)
        else:
            yield lacking(question, jobs, "XLA does not tell its scratch memory")
        place = where(group, "jax", quantity="peak memory of the process")
        yield peak_question(group, place, a, b, "slower")


def _scratch(job: Evidence) -> float:
    return max(job.values("program_temp_bytes").values(), default=0.0)


def i13(groups: Groups) -> Iterator[Question]:
    """torch.compile takes over 15 minutes for 1024 steps, and its program is slower at 64."""
    static, eager = "torch/static", "torch/dynamic"
    for group in groups:
        if group.case.seq_len == 1024:
            yield from lasts(group, static, QUARTER_HOUR_S, *TO_FIRST)
        elif group.case.seq_len == 64 and planned(group, "steady", static, eager):
            place = where(group, "torch", quantity=" and ".join(TO_FIRST)) | {"T": "1024"}
            said = "no run has T = 1024"
            yield Question(run=group.run, where=place, rows=(static,), reason=said)
        if group.case.seq_len == 64 and planned(group, "steady", static, eager):
            place = where(group, "torch", quantity="time a call")
            yield steady_question(group, place, static, eager, "slower")


#: A packed sequence's forward pass takes about 5 times as long as the padded one's, or more. Of a
#: ragged batch nn.LSTM computes the right outputs only when it is packed: there the two are one.
i14 = steady_pairs(
    "torch/packed",
    "torch/fused",
    "at least",
    5 / ROUGHLY,
    lambda c: c.lengths == "full",
    "forward",
)
