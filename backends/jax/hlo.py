"""Reading a compiled program: how often it executes what."""

from __future__ import annotations

import re
from functools import cache

#: `ENTRY %main.4 (x.1: f32[1]) -> f32[1] {`, and the same of other computations.
_HEAD = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{$")

_CALLED = re.compile(r"(?:calls|to_apply|condition|body)=%?([\w.\-]+)")

#: What XLA notes on a loop whose number of steps it knows.
_STEPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


def loops(program: str) -> list[int]:
    """The numbers of steps of the loops of a compiled program, those that XLA knows."""
    return [int(steps) for steps in _STEPS.findall(program)]


def executed(program: str, pattern: str) -> int:
    """Number of times that a compiled program, as text, executes instructions that match a pattern.

    What is in a loop counts as often as it goes round; once where XLA does not know how often.
    """
    computations: dict[str, list[str]] = {}
    entry = name = ""
    for line in program.splitlines():
        head = _HEAD.match(line)
        if head:
            name = head[2]
            computations[name] = []
            entry = name if head[1] else entry
        elif name:
            computations[name].append(line)

    @cache
    def within(computation: str) -> int:
        found = 0
        for line in computations.get(computation, ()):
            known = _STEPS.search(line)
            rounds = int(known[1]) if known else 1
            found += re.search(pattern, line) is not None
            found += rounds * sum(within(called) for called in _CALLED.findall(line))
        return found

    return within(entry)
