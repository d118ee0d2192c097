"""Samples that were taken elsewhere, played back to pytest-benchmark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol


class Benchmark(Protocol):
    """Used part of pytest-benchmark's fixture."""

    extra_info: dict[str, Any]

    def pedantic(
        self, target: Callable[[], None], *, setup: Callable[[], None], rounds: int
    ) -> None:
        """Call `setup`, then `target` between two readings of the timer, `rounds` times."""


class ReplayClock:
    """A timer that shows what it was told: each round starts at 0 and ends at its sample.

    From 0, so that the difference that pytest-benchmark takes is the sample to the last digit.
    """

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        return self._now

    def __repr__(self) -> str:
        """Timer's name as it stands in the file."""
        return "replay"

    def replay(self, benchmark: Benchmark, samples: Sequence[float]) -> None:
        """Make each sample [s] a round of the benchmark."""
        remaining = iter(samples)
        benchmark.pedantic(
            lambda: self._set(next(remaining)), setup=lambda: self._set(0.0), rounds=len(samples)
        )

    def _set(self, now: float) -> None:
        self._now = now


#: pytest-benchmark takes a test's timer from its mark, so there is one for all of them.
clock = ReplayClock()
