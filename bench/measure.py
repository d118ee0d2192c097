"""The only file that reads a clock.

A **sample** is the time of `inner` calls, each synchronised, divided by `inner`. A **palindrome**
calls all arms of a worker once in order and once in reverse (A B C C B A), so that a drift of the
host that is linear over it adds the same to every arm. A **turn** is what a worker does while it
holds the token: one discarded pass that refills the caches, then palindromes.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

#: Nanoseconds from an arbitrary origin, never going back.
Clock = Callable[[], int]

clock: Clock = time.perf_counter_ns

#: Shorter samples are loops: a clock read and a call cost a share of them otherwise.
SAMPLE_S = 1e-3

PALINDROMES_PER_TURN = 2


class Stopwatch:
    """Named phases, each timed once or more: `samples[name]` in seconds."""

    def __init__(self, now: Clock = clock) -> None:
        self._now = now
        self.samples: dict[str, list[float]] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time the body; a body that raises leaves no sample."""
        start = self._now()
        yield
        self.samples.setdefault(name, []).append((self._now() - start) / 1e9)

    def stage(self, name: str) -> Any:
        """Time a named part of a build (a `backends.api.Stage`)."""
        return self.phase(f"stage:{name}")


@contextmanager
def collector_off() -> Iterator[None]:
    """Collect garbage now and keep the collector out of the body."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One thing that is timed: `call` enqueues, `sync` blocks until its result is there."""

    name: str
    call: Callable[[], Any]
    sync: Callable[[Any], None]
    inner: int = 1

    def sized(self, call_s: float) -> Arm:
        """The same with an inner loop that makes a sample of `SAMPLE_S` or longer."""
        return replace(self, inner=max(1, math.ceil(SAMPLE_S / max(call_s, 1e-9))))


def sample(arm: Arm, now: Clock = clock) -> float:
    """Seconds a call, over `arm.inner` synchronised calls."""
    call, sync = arm.call, arm.sync
    start = now()
    for _ in range(arm.inner):
        sync(call())
    return (now() - start) / 1e9 / arm.inner


def warm_up(arm: Arm, *, calls: int, seconds: float, now: Clock = clock) -> float:
    """Call until both bounds are reached; seconds a call over the second half."""
    times: list[int] = []
    start = now()
    while len(times) < calls or now() - start < seconds * 1e9:
        before = now()
        arm.sync(arm.call())
        times.append(now() - before)
    late = times[len(times) // 2 :]
    return sum(late) / len(late) / 1e9


def turn(arms: Sequence[Arm], *, palindromes: int, now: Clock = clock) -> dict[str, list[float]]:
    """One turn: samples by arm, two a palindrome, in the order in which they were taken."""
    samples: dict[str, list[float]] = {arm.name: [] for arm in arms}
    with collector_off():
        for arm in arms:
            arm.sync(arm.call())
        for _ in range(palindromes):
            for arm in (*arms, *reversed(arms)):
                samples[arm.name].append(sample(arm, now))
    return samples


def turns_needed(call_s: Mapping[str, float], *, seconds: float) -> int:
    """Turns that give each arm `seconds` of samples on average; 2 to 15."""
    per_turn = 2 * PALINDROMES_PER_TURN * sum(max(s, SAMPLE_S) for s in call_s.values())
    return min(15, max(2, math.ceil(seconds * len(call_s) / per_turn)))
