"""State of a GPU while it is measured on: clock, memory, reasons of slow-downs, other processes.

A GPU that is hot, or at its limit of power, runs at a lower clock, and what is timed then is
another machine. So a thread of the parent, which waits meanwhile, asks the driver for the clock all
through a turn, and turns of a block below `LOW` of the clock that is usual in this run are set
aside: all arms lose them together, by the clock and not by the times.

Outside of turns it also asks how much of the GPU's memory is in use, whosever it is. What that rose
by since the body began, before there was a worker, holds all that a worker takes there: arrays,
what its allocator keeps in reserve, its context, libraries with their kernels and workspaces. What
an allocator took it keeps, so that looks now and then see the peak.
"""

from __future__ import annotations

import itertools
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from statistics import median
from typing import Any, Protocol

import psutil

from bench.record import Record, Status

#: A turn whose clock is below this share of the usual one is set aside.
LOW = 0.75

#: The clock is asked for so often [s].
EVERY_S = 0.02

#: Who computes there is asked once in so many looks, at the beginning and at the end.
MEET_EVERY = 50


#: The value of a memory job on a GPU that is the peak by its driver's account.
NVML_PEAK = "nvml_peak_bytes"


class Driver(Protocol):
    """Readings that a watch takes of one GPU. None: not reported."""

    def clock_mhz(self) -> float | None:
        """The clock of its multiprocessors now [MHz]."""

    def slowed(self) -> AbstractSet[str]:
        """Reasons why its clock is lower than it could be, in words."""

    def used_bytes(self) -> float | None:
        """Bytes of its memory that are in use, by any process."""

    def processes(self) -> AbstractSet[int] | None:
        """Ids of the processes that compute on it."""


def family() -> set[int]:
    """Ids of this process and of all that it has started."""
    this = psutil.Process()
    return {this.pid, *(child.pid for child in this.children(recursive=True))}


class Unwatched:
    """Looks at nothing: on a CPU, and at a GPU of which no driver tells."""

    def begin(self) -> None:
        """A block starts: what was seen of the one before it is forgotten."""

    def during(self, turn: int | None) -> AbstractContextManager[None]:
        """Look all through the body, a part of this turn.

        None is outside of turns: there the clock does not count, and memory does.
        """
        return nullcontext()

    def low_turns(self) -> set[int]:
        """The turns of this block below `LOW` of the usual clock; none where all of them are."""
        return set()

    def memory_peak(self) -> float | None:
        """The most that was in use outside of turns, above what was at first [bytes].

        None where the driver does not tell, or somebody else was there: some of it may be theirs.
        """
        return None

    def end(self, noise: Mapping[str, Any]) -> dict[str, Any]:
        """The block has ended: what a gate says of it, with what was seen of the GPU."""
        return dict(noise)


class Watch(Unwatched):
    """Looks at one GPU, block by block."""

    def __init__(
        self,
        driver: Driver,
        *,
        own: Callable[[], AbstractSet[int]] = family,
        every_s: float = EVERY_S,
    ) -> None:
        self._driver, self._own, self._every_s = driver, own, every_s
        #: Median clock of each turn of earlier blocks.
        self._before: list[float] = []
        self.begin()

    def begin(self) -> None:
        self._clocks: dict[int, list[float]] = defaultdict(list)
        self._used: list[float] = []
        self._slowed: set[str] = set()
        self._there: set[int] = set()
        self._ours: set[int] = set()
        self._silent = False

    @contextmanager
    def during(self, turn: int | None) -> Iterator[None]:
        if turn is None:
            self._see_memory()  # before anything in the body takes some
        done = threading.Event()
        looks = threading.Thread(target=self._look_until, args=(done, turn), daemon=True)
        looks.start()
        try:
            yield
        finally:
            done.set()
            looks.join()

    def _look_until(self, done: threading.Event, turn: int | None) -> None:
        for look in itertools.count():
            if look % MEET_EVERY == 0:
                self._meet()
            clock = self._driver.clock_mhz()
            if clock is not None and turn is not None:
                self._clocks[turn].append(clock)
            if turn is None:
                self._see_memory()
            self._slowed |= self._driver.slowed()
            if done.wait(self._every_s):
                break
        self._meet()

    def _see_memory(self) -> None:
        used = self._driver.used_bytes()
        if used is not None:
            self._used.append(used)

    def memory_peak(self) -> float | None:
        if not self._used or self._foreign():
            return None
        return max(self._used) - self._used[0]

    def _meet(self) -> None:
        """Note the processes that compute there; our own may not have begun, or have ended."""
        there = self._driver.processes()
        self._silent |= there is None
        self._there |= there or set()
        self._ours |= self._own()

    def _foreign(self) -> int | None:
        """Number of processes that are not ours; None if none of ours was ever seen.

        Then the driver does not tell, or its ids are of another namespace.
        """
        if self._silent or (self._there and not self._there & self._ours):
            return None
        return len(self._there - self._ours)

    def _medians(self) -> dict[int, float]:
        return {turn: median(clocks) for turn, clocks in self._clocks.items() if clocks}

    def low_turns(self) -> set[int]:
        found = self._medians()
        usual = self._usual(found)
        low = {turn for turn, clock in found.items() if clock < LOW * usual}
        return low if len(low) < len(found) else set()

    def _usual(self, found: Mapping[int, float]) -> float:
        return median([*self._before, *found.values()]) if found else 0.0

    def end(self, noise: Mapping[str, Any]) -> dict[str, Any]:
        found = self._medians()
        usual, low = self._usual(found), self.low_turns()
        here = median(found.values()) if found else None
        self._before += found.values()
        reasons = [f"the GPU was slowed down ({why})" for why in sorted(self._slowed)]
        if here is not None and here < LOW * usual:
            reasons.append(f"the GPU's clock was {here / usual:.0%} of its usual one")
        if self._foreign():
            reasons.append("another process computed on the GPU")
        gpu = {
            "clock_mhz": here,
            "usual_mhz": usual or None,
            "turns_set_aside": len(low),
            "slowed": sorted(self._slowed),
            "foreign_processes": self._foreign(),
        }
        said = [*noise.get("reasons", ()), *reasons]
        return {**noise, "quiet": not said, "reasons": said, "gpu": gpu}


class Gate(Protocol):
    """Observer of the host: `bench.noise.Gate`."""

    def begin(self) -> None:
        """Something is measured from now on."""

    def end(self) -> dict[str, Any]:
        """It is over: what disturbed it."""


class Lookout:
    """The host's gate, and who looks at each device, while something is measured."""

    def __init__(self, gate: Gate, watches: Mapping[str, Unwatched]) -> None:
        self._gate, self._watches = gate, watches

    def begin(self, device: str) -> Unwatched:
        """Something is measured from now on; who looks at the device that it is on."""
        watch = self._watches[device]
        watch.begin()
        self._gate.begin()
        return watch

    def end(self, device: str) -> dict[str, Any]:
        """It is over: what disturbed it."""
        return self._watches[device].end(self._gate.end())


def with_memory(record: Record, watch: Unwatched) -> Record:
    """A memory job's record with the driver's account of the GPU's memory, where there is one."""
    peak = watch.memory_peak()
    if record.job.measure != "memory" or record.status != Status.OK or peak is None:
        return record
    return replace(record, values={**record.values, NVML_PEAK: peak})
