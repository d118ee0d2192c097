"""The only file that reads a clock.

A **burst** is what a worker does while it holds the token: calls that are discarded, which refill
the caches and wake the pools of threads, then `calls` calls that are timed, each with inputs of
its own. Its figure is their mean, in seconds a call. Going from one batch to the next is left out.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

from backends.api import DeviceTimer

#: Nanoseconds from an arbitrary origin, never going back.
Clock = Callable[[], int]

clock: Clock = time.perf_counter_ns

#: Timed calls of a burst fill this [s]. Shorter bursts carry more of what the other processes left
#: in the caches; longer ones are hit by other load on the same core (docs/measuring.md).
BURST_S = 25e-3

#: Discarded calls of a burst: at least so many, for at least so long [s].
DISCARDED_CALLS, DISCARDED_S = 2, 3e-3

#: A call that takes longer [s] is a burst by itself, and so is the one that is discarded.
LONG_S = 0.1

#: Rounds of a block: at least so many, and where an arm's calls are as long as bursts.
FEWEST_ROUNDS, FEWEST_LONG_ROUNDS = 8, 4

#: Warm-up ends at `WARM_LIMIT` times the seconds that were asked for, warm or not, but not before
#: `FEWEST_CALLS` calls.
WARM_LIMIT, FEWEST_CALLS = 10, 2

#: An arm whose calls became faster by more than this share, from one quarter of the calls to the
#: last one, is not warm.
STILL_FASTER = 0.03


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
    """One implementation that is timed.

    `call` enqueues, `sync` blocks until its result is there. `advance` comes before each call, and
    is not timed: it goes to the next batch.
    """

    call: Callable[[], Any]
    sync: Callable[[Any], None]
    advance: Callable[[], None]


def calls_needed(call_s: float, burst_s: float = BURST_S) -> int:
    """Timed calls of a burst, for an arm whose calls take so long."""
    return 1 if call_s >= LONG_S else math.ceil(burst_s / max(call_s, 1e-9))


def discarded_needed(call_s: float) -> int:
    """Discarded calls of a burst."""
    if call_s >= LONG_S:
        return 1
    return max(DISCARDED_CALLS, math.ceil(DISCARDED_S / max(call_s, 1e-9)))


def burst(arm: Arm, *, calls: int, discarded: int, now: Clock = clock) -> float:
    """Seconds a call, over `calls` calls behind `discarded` ones; the collector is off."""
    call, sync, advance, total = arm.call, arm.sync, arm.advance, 0
    with collector_off():
        for _ in range(discarded):
            advance()
            sync(call())
        for _ in range(calls):
            advance()
            start = now()
            sync(call())
            total += now() - start
    return total / 1e9 / calls


def by_device(arm: Arm, timer: DeviceTimer, count: int) -> list[float]:
    """Seconds between a mark before a call and one behind it, by the GPU's own clock.

    An idle GPU comes to the first mark at once, so that all in which it waits for the host is in
    it: before the first kernel too, and between kernels. The time in which the host learns of the
    end is left out. These calls follow the bursts, which therefore pay for no marks; the first
    one, behind something else, is discarded.
    """
    times: list[float] = []
    with collector_off():
        arm.advance()
        arm.sync(arm.call())
        for _ in range(count):
            arm.advance()
            timer.start()
            out = arm.call()
            timer.stop()
            arm.sync(out)
            times.append(timer.seconds())
    return times


def warm_up(arm: Arm, *, calls: int, seconds: float, now: Clock = clock) -> float:
    """Call until the arm is warm; seconds a call, the median over the last quarter.

    Warm is an arm after `calls` calls and `seconds` seconds at least, once its calls do not become
    faster any more. It is taken as it is after `WARM_LIMIT` times the seconds. (TorchScript
    compiles a training step anew, for a second, at about its fourth call.)
    """
    times: list[int] = []
    total, wanted = 0, calls
    while total < 1e9 * WARM_LIMIT * seconds or len(times) < min(calls, FEWEST_CALLS):
        arm.advance()
        before = now()
        arm.sync(arm.call())
        times.append(now() - before)
        total += times[-1]
        if len(times) >= wanted and total >= 1e9 * seconds:
            if not _is_still_faster(times):
                break
            wanted = math.ceil(1.25 * len(times))
    return median(times[-max(1, len(times) // 4) :]) / 1e9


def _is_still_faster(times: Sequence[int]) -> bool:
    """Whether the last quarter of the calls is faster than the one before it."""
    quarter = len(times) // 4
    if quarter == 0:
        return False
    before, last = times[-2 * quarter : -quarter], times[-quarter:]
    return median(last) < (1 - STILL_FASTER) * median(before)


def overhead(now: Clock = clock) -> float:
    """Seconds that the instrument adds to a call: the figure of a burst that does nothing."""
    idle = Arm(call=lambda: None, sync=lambda _out: None, advance=lambda: None)
    return median(burst(idle, calls=1000, discarded=1, now=now) for _ in range(20))


#: Two readings of the clock that are further apart: somebody else ran in between. A loop takes
#: 0.1 us from one to the next, a timer's interrupt some 5 us, another task's turn 100 us or more.
SPIN_GAP_NS = 20_000


def spin_probe(seconds: float = 5e-3, now: Clock = clock) -> float:
    """Ratio of a busy loop's duration to its undisturbed duration: 1 on a quiet CPU.

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
