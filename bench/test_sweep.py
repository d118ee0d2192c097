"""The jobs of a sweep as pytest-benchmark items, replayed from records.

    pytest bench -k "lstm and static"              measures the smoke preset's, then replays
    pytest bench --bench-preset default            those of another preset
    pytest bench --bench-run results/local/x       replays a run that is there

Selected jobs are measured once and together, by the same engine as `python -m bench run`; no item
times anything itself.
"""

from __future__ import annotations

import pytest

from bench.evidence import Evidence
from bench.export import extra_info, rounds
from bench.record import EXPECTED, Status
from bench.replay import Benchmark, clock


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
