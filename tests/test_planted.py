"""Figures that are not of the work: memories of earlier calls, and calls that do nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.record import Status
from bench.report import build
from bench.run import failed
from tests.scripted_runners import REMEMBERED_S
from tests.scripted_runs import execute, of, sweep

pytestmark = pytest.mark.usefixtures("scripted_backend")


@pytest.mark.parametrize("strategy", ["remembers-two", "remembers-all", "keeps-product"])
def test_a_memory_of_earlier_calls_saves_no_time_in_a_burst(tmp_path: Path, strategy: str) -> None:
    """It is right whenever it is asked, and each call of a burst has values of its own."""
    plan = sweep("fine", strategy, blocks=1, cold_blocks=0, memory_blocks=0)
    (record,) = of(execute(tmp_path, plan), strategy, "steady")
    assert record.status == Status.OK
    assert min(record.samples["steady"]) >= REMEMBERED_S


@pytest.mark.parametrize("strategy", ["memoises", "keeps-last"])
def test_a_result_that_outlives_its_batch_is_wrong(tmp_path: Path, strategy: str) -> None:
    plan = sweep("fine", strategy, blocks=1, cold_blocks=0, memory_blocks=0)
    (record,) = of(execute(tmp_path, plan), strategy, "steady")
    assert (record.status, record.samples) == (Status.WRONG_OUTPUT, {})
    assert "batch 3: outputs differ" in record.reason


def test_a_call_that_does_nothing_is_implausible_and_not_ranked(tmp_path: Path) -> None:
    """It computes for every check, and hands its last result out while it is timed."""
    plan = sweep("fine", "skips", blocks=2, hidden=(512,), cold_blocks=1, memory_blocks=0)
    result = execute(tmp_path, plan, peaks=True)
    for record in of(result, "skips", "steady"):
        assert (record.status, record.samples) == (Status.IMPLAUSIBLE, {})
        # Both figures: that of the call, and that of the host.
        assert record.reason.count("FLOP/s") >= 1
        assert "float64" in record.reason
    assert [r.status for r in of(result, "skips", "cold")] == [Status.IMPLAUSIBLE]
    assert {r.status for r in of(result, "fine", "steady")} == {Status.OK}
    assert {r.job.implementation for r in failed(result)} == {"scripted/skips"}
    report = build([result])
    (ranking,) = (table.frame for table in report.tables if table.name == "ranking")
    ranks = dict(zip(ranking["implementation"], ranking["rank"].notna(), strict=True))
    assert not ranks.get("scripted/skips", False)
    assert any("GFLOP/s, where this host reaches" in note for note in report.footnotes)
