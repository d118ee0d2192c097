"""The tests of claims that are decided by what an implementation does, and not by time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from bench.claims.question import Fact, Question, lacking, planned, where
from bench.claims.reading import LOOPS, Groups, compared, families, value
from bench.evidence import Group
from bench.outputs import tolerance

#: An error that no rounding explains.
WRONG = 1e-3

#: Strategies that are asked what they do: one of each kind.
ASKED = ("static", "traced", "dynamic", "fused", "packed")


@dataclass(frozen=True, kw_only=True)
class _Claimed:
    """Values that a behaviour left, each with the bounds that the claim gives it."""

    values: Mapping[str, float]
    bounds: Mapping[str, tuple[float, float]]

    @property
    def holds(self) -> bool:
        return all(low <= self.values[n] <= high for n, (low, high) in self.bounds.items())

    @property
    def statement(self) -> str:
        return "; ".join(
            f"{name} {self.values[name]:.3g}, claimed {_bounds(low, high)}"
            for name, (low, high) in self.bounds.items()
        )


def _bounds(low: float, high: float) -> str:
    if low == high:
        return f"{low:g}"
    return f"at most {high:g}" if math.isinf(low) else f"at least {low:g}"


def at_most(bound: float) -> tuple[float, float]:
    """The bounds of a value that is claimed to be small."""
    return -math.inf, bound


def at_least(bound: float) -> tuple[float, float]:
    """Those of one that is claimed to be large."""
    return bound, math.inf


def exactly(number: float) -> tuple[float, float]:
    """Those of one that is claimed to be just this."""
    return number, number


def fact(
    group: Group,
    place: Mapping[str, str],
    bounds: Mapping[tuple[str, str], tuple[float, float]],
    shown: tuple[str, str],
    unit: str = "largest error",
) -> Question:
    """A question that values answer: (implementation, name of a value) -> what the claim says.

    `shown` is the value that stands for the finding.
    """
    rows = tuple(dict.fromkeys(name for name, _ in bounds))
    question = Question(run=group.run, where=place, rows=rows)
    jobs = [group.get(name, "behaviour") for name in rows]
    values = {f"{n} {what}": value(group, n, what) for n, what in bounds}
    known = {name: found for name, found in values.items() if found is not None}
    if len(known) < len(values):
        missing = ", ".join(sorted(values.keys() - known.keys()))
        return lacking(question, jobs, f"no value of {missing}")
    claimed = _Claimed(values=known, bounds={f"{n} {w}": b for (n, w), b in bounds.items()})
    return replace(
        question,
        fact=Fact(
            holds=claimed.holds,
            statement=claimed.statement,
            effect=known[" ".join(shown)],
            unit=unit,
            limit=next(bound for bound in bounds[shown] if math.isfinite(bound)),
        ),
    )


def _each(groups: Groups) -> Iterator[tuple[Group, str]]:
    """Every implementation whose behaviour was asked for, forward."""
    for group in groups:
        if group.mode == "forward":
            for name in group.implementations("behaviour"):
                if name.split("/")[1] in ASKED:
                    yield group, name


def place_of(group: Group, name: str, **more: str) -> dict[str, str]:
    """A group and one implementation as a place."""
    backend, strategy = name.split("/")
    return where(group, backend, strategy=strategy, **more)


def _tolerance(group: Group) -> float:
    return tolerance(group.case).forward


def t2(groups: Groups) -> Iterator[Question]:
    """Fed T + 1 steps, the static one is refused; the dynamic one computes them, and right."""
    for group in groups:
        if group.mode != "forward" or group.case.lengths != "full":
            continue
        for pair in LOOPS:
            if planned(group, "behaviour", pair.a, pair.b):
                question = fact(
                    group,
                    where(group, pair.backend, **compared(pair)),
                    {
                        (pair.a, "longer_refused"): exactly(1),
                        (pair.b, "longer_refused"): exactly(0),
                    },
                    (pair.a, "longer_refused"),
                    "refused",
                )
                yield _with_error(group, pair.b, question)


def _with_error(group: Group, dynamic: str, question: Question) -> Question:
    """The answer of T2 where the dynamic one computed something: it must be right, too."""
    error = value(group, dynamic, "longer_error")
    if question.fact is None or not question.fact.holds:
        return question
    if error is None:
        return lacking(replace(question, fact=None), [], f"no value of {dynamic} longer_error")
    right = error <= _tolerance(group)
    said = f"; {dynamic} longer_error {error:.3g}, claimed at most {_tolerance(group):g}"
    changed = replace(
        question.fact,
        holds=question.fact.holds and right,
        statement=question.fact.statement + said,
    )
    return replace(question, fact=changed)


def t3(groups: Groups) -> Iterator[Question]:
    """With lengths given, outputs behind each are 0 and the state is held, as the oracle's is."""
    for group, name in _each(groups):
        if group.case.lengths != "full":
            bounds = {
                (name, "padding_largest"): exactly(0),
                (name, "held_error"): at_most(_tolerance(group)),
            }
            yield fact(group, place_of(group, name), bounds, (name, "held_error"))


def t6(groups: Groups) -> Iterator[Question]:
    """Without lengths the final state of padded input is not that of the sequences."""
    for group, name in _each(groups):
        if group.case.lengths != "full":
            shown = name, "unlengthed_state_error"
            yield fact(group, place_of(group, name), {shown: at_least(WRONG)}, shown)


def t9(groups: Groups) -> Iterator[Question]:
    """One cell as every layer has the weights of one layer; separate cells have those of each."""
    for members in families(groups, lambda case: replace(case, cell="lstm")):
        by_cell = {group.case.cell: group for group in members if group.mode == "forward"}
        if not {"lstm", "lstm-shared"} <= by_cell.keys() or members[0].case.layers < 2:
            continue
        shared, separate = by_cell["lstm-shared"], by_cell["lstm"]
        layers = shared.case.layers
        for name in shared.implementations("behaviour"):
            if not planned(separate, "behaviour", name):
                continue
            counts = value(shared, name, "parameters"), value(separate, name, "parameters")
            sets = value(shared, name, "weight_sets"), value(separate, name, "weight_sets")
            question = Question(run=shared.run, where=place_of(shared, name), rows=(name,))
            jobs = [group.get(name, "behaviour") for group in (shared, separate)]
            if None in counts or None in sets:
                yield lacking(question, jobs)
                continue
            one, many = (count or 0 for count in counts)
            said = (
                f"lstm-shared: {one:,.0f} parameters in {sets[0]:.0f} set; "
                f"lstm: {many:,.0f} in {sets[1]:.0f}; {layers} layers"
            )
            holds = sets == (1, layers) and many == layers * one
            found = Fact(holds=holds, statement=said, effect=many / one, unit="x")
            yield replace(question, fact=found)


def t11(groups: Groups) -> Iterator[Question]:
    """The backward outputs end at step 0 with the backward state, and are elsewhere at the last."""
    for group, name in _each(groups):
        if group.case.direction == "bidirectional" and group.case.layers == 1:
            bounds = {
                (name, "forward_end_error"): at_most(_tolerance(group)),
                (name, "backward_end_error"): at_most(_tolerance(group)),
                (name, "backward_last_difference"): at_least(WRONG),
            }
            yield fact(group, place_of(group, name), bounds, (name, "backward_end_error"))


def t12(groups: Groups) -> Iterator[Question]:
    """The output of a sequence's last step is its final hidden state."""
    for group, name in _each(groups):
        plain = group.case.cell in ("rnn", "lstm", "basic-lstm", "gru", "gru-reset-after")
        if plain and group.case.direction == "forward":
            shown = name, "last_output_error"
            yield fact(group, place_of(group, name), {shown: at_most(_tolerance(group))}, shown)


def i15(groups: Groups) -> Iterator[Question]:
    """With the same weights the two GRUs compute different outputs."""
    for group, name in _each(groups):
        usual = group.case.lengths == "full" and group.case.direction == "forward"
        if group.case.cell in ("gru", "gru-reset-after") and usual:
            shown = name, "other_gru_error"
            yield fact(group, place_of(group, name), {shown: at_least(WRONG)}, shown)


#: The frameworks' own LSTM classes that the claim speaks of, by the strategy that is built on each.
_NATIVE = ("tensorflow/dynamic", "torch/fused")


def _is_native(group: Group, name: str) -> bool:
    case = group.case
    usual = case.lengths == "full" and case.direction == "forward" and case.layers == 1
    return name in _NATIVE and case.cell in ("lstm", "basic-lstm") and usual


def i16(groups: Groups) -> Iterator[Question]:
    """Weights packed in a framework's own gate order are right, in the other's wrong.

    Where a framework has two biases, moving all of one into the other changes nothing.
    """
    for group, name in _each(groups):
        if not _is_native(group, name):
            continue
        bounds = {
            (name, "gate_order_error"): at_most(_tolerance(group)),
            (name, "other_order_error"): at_least(WRONG),
        }
        if value(group, name, "moved_bias_difference") is not None:
            bounds[name, "moved_bias_difference"] = at_most(_tolerance(group))
        yield fact(group, place_of(group, name), bounds, (name, "gate_order_error"))
