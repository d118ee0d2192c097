"""Both sides of a pair as pytest-benchmark items, one session."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.rivals.calls import call_of


@pytest.mark.parametrize("side", ["a", "b"])
def test_call(side: str, benchmark: BenchmarkFixture) -> None:
    benchmark(call_of(side))
