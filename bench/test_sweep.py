"""The jobs of a sweep as pytest-benchmark items, replayed from records.

    pytest bench -k "lstm and static"              measures the smoke preset's, then replays
    pytest bench --bench-preset default            those of another preset
    pytest bench --bench-run results/local/x       replays a run that is there

Selected jobs are measured once and together, by the same engine as `python -m bench run`; no item
times anything itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import pytest

from bench.export import extra_info, rounds
from bench.record import EXPECTED, Status
from bench.report.evidence import Evidence


class Benchmark(Protocol):
    """What is used of pytest-benchmark's fixture."""

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

    def replay(self, benchmark: Benchmark, samples: list[float]) -> None:
        remaining = iter(samples)
        benchmark.pedantic(
            lambda: self._set(next(remaining)), setup=lambda: self._set(0.0), rounds=len(samples)
        )

    def _set(self, now: float) -> None:
        self._now = now


clock = ReplayClock()


@pytest.mark.benchmark(timer=clock)
# An item that skips or fails has used no fixture, and says itself why.
@pytest.mark.filterwarnings("ignore:Benchmark fixture was not used")
def test_job(
    job_evidence: Evidence, memory_evidence: Evidence | None, benchmark: Benchmark
) -> None:
    """A job ended as planned, and these are its times."""
    samples = rounds(job_evidence)
    if not samples:
        outcome = job_evidence.outcome
        said = f"{outcome.status}: {outcome.reason}"
        if outcome.status in EXPECTED - {Status.OK}:
            pytest.skip(said)
        pytest.fail(said, pytrace=False)
    benchmark.extra_info.update(extra_info(job_evidence, memory_evidence))
    clock.replay(benchmark, samples)
