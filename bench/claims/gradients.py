"""T10: how far back gradients reach, from the norms that a behaviour in training left."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace

from bench import stats
from bench.claims.facts import place_of
from bench.claims.question import Question, tested
from bench.claims.reading import Groups, families
from bench.evidence import Group
from bench.stats import Hypothesis, Statement

#: What `bench.decay` calls a norm: forget bias ("-": the cell has none), seed, distance.
_NAME = re.compile(r"gradient_norm/b(?P<bias>[^/]+)/s(?P<seed>\d+)/d(?P<distance>\d+)")

#: Over the longest distance a gradient is lost that has become this many times smaller, and is kept
#: that has not. A better cell, or a better bias, has this many times as much left.
LOST, MORE_LEFT = 100.0, 10.0


def t10(groups: Groups) -> Iterator[Question]:
    """Gradients over distance: lost by the vanilla RNN, kept by LSTM and GRU, by a bias too."""
    for members in families(groups, lambda case: replace(case, cell="rnn")):
        by_cell = {group.case.cell: group for group in members if group.mode == "train"}
        plain = by_cell.get("rnn")
        if plain is None:
            continue
        for name in plain.implementations("behaviour"):
            # One loop a framework: that others have the same gradients is checked in every run.
            if name.split("/")[1] == "dynamic":
                yield from _gradients(by_cell, name)


def _gradients(by_cell: Mapping[str, Group], name: str) -> Iterator[Question]:
    decays = {
        (cell, bias): decay
        for cell, group in by_cell.items()
        for bias, decay in gradient_decay(group, name).items()
    }

    def ask(
        said: str, cell: str, logs: Mapping[int, float], statement: Statement, limit: float
    ) -> Question:
        group = by_cell[cell]
        place = place_of(group, name, statement=said) | {"B": "1", "dtype": "float64"}
        question = Question(run=group.run, where=place, rows=(name,))
        ratio = stats.ratio_of([logs[seed] for seed in sorted(logs)]) if logs else None
        part = Hypothesis(label=said, statement=statement, ratio=ratio, limit=limit)
        return tested(question, [part], [g.get(name, "behaviour") for g in (group, by_cell["rnn"])])

    distance = by_cell["rnn"].case.seq_len - 1
    lost = f"lost from 1 to {distance} steps back"
    yield ask(f"vanilla RNN, {lost}", "rnn", decays.get(("rnn", "-"), {}), "at least", LOST)
    for cell, bias in (("lstm", "1"), ("gru", "-")):
        if cell not in by_cell:
            continue
        found = decays.get((cell, bias), {})
        title = cell if bias == "-" else f"{cell}, forget bias {bias}"
        yield ask(f"{title}, {lost}", cell, found, "at most", LOST)
        gained = _less(decays.get(("rnn", "-"), {}), found)
        yield ask(f"{title} has more left than the RNN", cell, gained, "at least", MORE_LEFT)
    if "lstm" in by_cell:
        gained = _less(decays.get(("lstm", "0"), {}), decays.get(("lstm", "3"), {}))
        said = "lstm has more left with forget bias 3 than with 0"
        yield ask(said, "lstm", gained, "at least", MORE_LEFT)


def _less(a: Mapping[int, float], b: Mapping[int, float]) -> dict[int, float]:
    return {seed: a[seed] - b[seed] for seed in a.keys() & b.keys()}


def gradient_norms(values: Mapping[str, float]) -> dict[str, dict[int, dict[int, float]]]:
    """Norms that a training behaviour recorded, by forget bias ("-": none), seed and distance.

    A norm is that of d (v . h_T) / d x_t for a random unit vector v, by the distance from t to the
    last step. Values of other names are passed over.
    """
    found: dict[str, dict[int, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for name, norm in values.items():
        parts = _NAME.fullmatch(name)
        if parts:
            found[parts["bias"]][int(parts["seed"])][int(parts["distance"])] = norm
    return {bias: dict(seeds) for bias, seeds in found.items()}


def gradient_decay(group: Group, name: str) -> dict[str, dict[int, float]]:
    """By forget bias and seed: the log ratio of the nearest norm to the farthest one."""
    records = group.get(name, "behaviour").believed
    decays: dict[str, dict[int, float]] = defaultdict(dict)
    for bias, seeds in gradient_norms(records[0].values if records else {}).items():
        for seed, norms in seeds.items():
            near, far = norms[min(norms)], norms[max(norms)]
            if near > 0 and far > 0:
                decays[bias][seed] = math.log(near / far)
    return dict(decays)
