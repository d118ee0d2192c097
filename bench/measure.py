"""The only file that reads a clock.

A **sample** is the time of `inner` calls, each synchronised, divided by `inner`; what goes before
the calls of an arm is left out, by a clock that is read around each. A **palindrome**
calls all arms of a worker once in order and once in reverse (A B C C B A), so that a drift of the
host that is linear over it adds the same to every arm. A **turn** is what a worker does while it
holds the token: one discarded pass that refills the caches, then palindromes.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from backends.api import DeviceTimer

#: Nanoseconds from an arbitrary origin, never going back.
Clock = Callable[[], int]

clock: Clock = time.perf_counter_ns

#: Told the number of the arm that runs next.
Show = Callable[[int], None]


def unseen(_number: int) -> None:
    """The `Show` for those whom nobody watches."""


#: Shorter samples are loops: a clock read and a call cost a share of them otherwise.
SAMPLE_S = 1e-3

PALINDROMES_PER_TURN = 2

#: 60 palindromes a block: more tell of the block again, not of how blocks differ.
MAX_TURNS = 30


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
    """One thing that is timed: `call` enqueues, `sync` blocks until its result is there.

    `before` comes before each call, and is not timed.
    """

    name: str
    call: Callable[[], Any]
    sync: Callable[[Any], None]
    inner: int = 1
    before: Callable[[], None] | None = None

    def ready(self) -> None:
        """What goes before a call and is not timed."""
        if self.before is not None:
            self.before()

    def sized(self, call_s: float) -> Arm:
        """The same with an inner loop that makes a sample of `SAMPLE_S` or longer."""
        return replace(self, inner=max(1, math.ceil(SAMPLE_S / max(call_s, 1e-9))))


def sample(arm: Arm, now: Clock = clock) -> float:
    """Seconds a call, over `arm.inner` synchronised calls."""
    if arm.before is not None:
        return _sample_apart(arm, now)
    call, sync = arm.call, arm.sync
    start = now()
    for _ in range(arm.inner):
        sync(call())
    return (now() - start) / 1e9 / arm.inner


def _sample_apart(arm: Arm, now: Clock) -> float:
    """The same of calls that something comes before, each timed by itself."""
    call, sync, ready, total = arm.call, arm.sync, arm.ready, 0
    for _ in range(arm.inner):
        ready()
        start = now()
        sync(call())
        total += now() - start
    return total / 1e9 / arm.inner


def by_device(arm: Arm, timer: DeviceTimer, count: int) -> list[float]:
    """Seconds between a mark before a call and one behind it, by the GPU's own clock.

    An idle GPU comes to the first mark at once, so that all in which it waits for the host is in
    it: before the first kernel too, and between kernels. What is left out is how the host learns
    of the end. The calls are those that `sample` times, after it, so that nobody pays for the
    marks; the first one, behind something else, is discarded.
    """
    times: list[float] = []
    with collector_off():
        arm.ready()
        arm.sync(arm.call())
        for _ in range(count):
            arm.ready()
            timer.start()
            out = arm.call()
            timer.stop()
            arm.sync(out)
            times.append(timer.seconds())
    return times


def warm_up(arm: Arm, *, calls: int, seconds: float, now: Clock = clock) -> float:
    """Call until both bounds are reached; seconds a call over the second half.

    What goes before a call warms nothing up, and may take longer the first time.
    """
    times: list[int] = []
    total = 0
    while len(times) < calls or total < seconds * 1e9:
        arm.ready()
        before = now()
        arm.sync(arm.call())
        times.append(now() - before)
        total += times[-1]
    late = times[len(times) // 2 :]
    return sum(late) / len(late) / 1e9


def turn(
    arms: Sequence[Arm], palindromes: int, *, now: Clock = clock, show: Show = unseen
) -> dict[str, list[float]]:
    """One turn: samples by arm, two a palindrome, in the order in which they were taken."""
    samples: dict[str, list[float]] = {arm.name: [] for arm in arms}
    numbered = list(enumerate(arms))
    with collector_off():
        for number, arm in numbered:
            show(number)
            arm.ready()
            arm.sync(arm.call())
        for _ in range(palindromes):
            for number, arm in (*numbered, *reversed(numbered)):
                show(number)
                samples[arm.name].append(sample(arm, now))
    return samples


def alone(
    arms: Sequence[Arm], count: int, *, now: Clock = clock, show: Show = unseen
) -> dict[str, list[float]]:
    """Each arm by itself: `count` samples in a row after one that is discarded, there and back.

    What a neighbour in a turn does to an arm (caches, an allocator's state) is not in these: where
    their ratio differs from the paired one, the arms interfere.
    """
    samples: dict[str, list[float]] = {arm.name: [] for arm in arms}
    numbered = list(enumerate(arms))
    with collector_off():
        for number, arm in (*numbered, *reversed(numbered)):
            show(number)
            sample(arm, now)
            samples[arm.name] += [sample(arm, now) for _ in range(count)]
    return samples


def overhead(now: Clock = clock) -> tuple[float, float]:
    """What the instrument adds: seconds a call in an inner loop, and seconds a sample of one call.

    Both are read from an arm that does nothing, through the same code as any other; the second one
    holds the first.
    """
    idle = Arm(name="idle", call=lambda: None, sync=lambda _out: None)
    call_s = sorted(sample(replace(idle, inner=1000), now) for _ in range(11))[5]
    sample_s = sorted(sample(idle, now) for _ in range(1001))[500]
    return call_s, sample_s


def turns_needed(call_s: Collection[float], *, seconds: float) -> int:
    """Turns that give each arm `seconds` of samples on average; 2 to `MAX_TURNS`."""
    per_turn = 2 * PALINDROMES_PER_TURN * sum(max(s, SAMPLE_S) for s in call_s)
    return min(MAX_TURNS, max(2, math.ceil(seconds * len(call_s) / per_turn)))


#: Two readings of the clock that are further apart: somebody else ran in between. A loop takes
#: 0.1 us from one to the next, a timer's interrupt some 5 us, another task's turn 100 us or more.
SPIN_GAP_NS = 20_000


def spin_probe(seconds: float = 5e-3, now: Clock = clock) -> float:
    """How many times as long as undisturbed a busy loop takes, here and now: 1 on a quiet CPU.

    The loop reads the clock. What is beyond `SPIN_GAP_NS` between two readings was taken by another
    task, an interrupt or the hypervisor: at 2 they took half of the time. This needs no reference,
    as iterations a millisecond would, and does not mind that a CPU which idled between blocks
    starts at a low frequency; it does not depend on where a slice ends, as the slowest slice over
    the fastest would. A neighbour that only slows the CPU, on its other hyperthread, is not seen.
    """
    kept = 0
    start = last = now()
    while last - start < seconds * 1e9:
        here = now()
        kept += min(here - last, SPIN_GAP_NS)
        last = here
    return (last - start) / kept
