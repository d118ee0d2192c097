"""The longest T within a limit of memory, in two runs: it is shown, and only a failure counts."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace

import pytest

from bench.capacity import FAILED, LARGEST, LIMIT
from bench.compare import Comparison, compare
from bench.record import Record, Status
from bench.report import comparison as words
from bench.rules import parse_rules
from bench.store import Run
from tests import synthetic
from tests.reading import table, terminal

MB = 1_000_000

#: How a search ended: its status, its values, its reason.
End = tuple[Status, dict[str, float], str]


def ok(largest: int, failed: int | None, limit: int = 300 * MB) -> End:
    values = {LARGEST: largest, LIMIT: limit} | ({FAILED: failed} if failed else {})
    return Status.OK, values, "why"


def run_with(end: End | None, *, limited_by: str = "cgroup v2", blocks: int = 10) -> Run:
    """A drawn run in which jax/static was searched for its longest T; None: nothing was."""
    sweep = synthetic.sweep(seq_len=(10,), mode=("forward",), blocks=blocks)
    found = []
    if end is not None:
        limited = replace(sweep.sampling, memory_limit_bytes=300 * MB)
        sweep = replace(sweep, sampling=limited)
        for job in sweep.jobs("capacity"):
            status, values, reason = end if job.implementation == "jax/static" else ok(50, 51)
            found.append(
                Record(
                    job=job,
                    block=0,
                    status=status,
                    values=values,
                    reason=reason,
                    worker={"limited_by": limited_by},
                )
            )
    # With this seed no identical pair happens to be too coarse for "not slower".
    run = synthetic.run(sweep, seed=2)
    return replace(run, records=[*run.records, *found], manifest={**run.manifest, "session": "a"})


def both(old: End | None, new: End | None) -> Comparison:
    return compare(run_with(old), run_with(new))


def shown(found: Comparison) -> dict[str, str]:
    display = table(words.build(found), "longest").display.set_index("implementation")
    return {str(name): str(text) for name, text in display.loc["jax/static"].items()}


def test_both_are_shown_and_neither_half_nor_twice_counts() -> None:
    for old, new in ((186, 90), (90, 186)):
        found = both(ok(old, old + 4), ok(new, new + 4))
        row = shown(found)
        assert (row["old"], row["new"], row["verdict"]) == (f"{old}", f"{new}", "not counted")
        assert row["limit"] == "300 MB, cgroup v2"
        assert found.exit_status == compare(run_with(None), run_with(None)).exit_status == 0
    said = " ".join(terminal(words.build(found)).split())
    assert "Two searches need not end at the same T, so there is no ratio" in said


@pytest.mark.parametrize(
    ("new", "text"),
    [
        ((Status.CRASHED, {}, "why"), "crashed [1]"),
        ((Status.TIMEOUT, {}, "why"), "timeout [1]"),
        (ok(0, 1), "none"),
    ],
    ids=["crashed", "timeout", "nothing fits"],
)
def test_a_search_that_fails_now_is_a_failure(new: End, text: str) -> None:
    found = both(ok(186, 190), new)
    assert (shown(found)["new"], shown(found)["verdict"]) == (text, "failure")
    assert found.exit_status == 1
    assert "1 failure, 16 not slower; exit status 1" in words.build(found).runs[0].facts["result"]
    # The other way round it is a repair; a search that failed before has not got worse.
    assert both(new, ok(186, 190)).exit_status == both(new, new).exit_status == 0


@pytest.mark.parametrize("status", [Status.INTERRUPTED, Status.UNSUPPORTED, Status.CAPPED])
def test_a_search_that_was_not_made_does_not_count(status: Status) -> None:
    found = both(ok(186, 190), (status, {}, "why"))
    assert (shown(found)["new"], shown(found)["verdict"]) == (f"{status} [1]", "not counted")
    assert found.exit_status == 0


def test_nothing_that_fits_in_less_memory_is_no_failure() -> None:
    found = both(ok(186, 190), ok(0, 1, limit=MB))
    assert shown(found)["limit"] == "300 MB, cgroup v2 / 1.00 MB, cgroup v2"
    assert found.exit_status == 0
    other_kind = compare(run_with(ok(186, 190)), run_with(ok(0, 1), limited_by="RLIMIT_AS"))
    assert shown(other_kind)["limit"] == "300 MB, cgroup v2 / 300 MB, RLIMIT_AS"
    assert other_kind.exit_status == 0


def test_what_ended_a_search_other_than_memory_is_said() -> None:
    assert shown(both(ok(186, 190), ok(2560, None)))["new"] == "at least 2,560 [1]"


def test_a_run_that_was_not_to_search_is_no_failure() -> None:
    found = both(ok(186, 190), None)
    assert (shown(found)["new"], found.exit_status) == ("not planned", 0)
    assert both(None, None).longest == []


def test_one_measure_alone_leaves_the_searches_out() -> None:
    found = compare(
        run_with(ok(186, 190)),
        run_with((Status.CRASHED, {}, "why")),
        measures=["memory"],
        rules=parse_rules(["larger-than-50%"]),
    )
    assert (found.longest, found.exit_status) == ([], 0)


def test_json_and_csv_have_both() -> None:
    found = both(ok(186, 190), (Status.CRASHED, {}, "why"))
    data = json.loads(words.to_json(found))
    (row,) = [row for row in data["longest"] if row["implementation"] == "jax/static"]
    assert (row["old"], row["new"], row["verdict"]) == (186, None, "failure")
    assert (row["old_limit_bytes"], row["old_limited_by"]) == (300 * MB, "cgroup v2")
    rows = list(csv.DictReader(io.StringIO(words.to_csv(found))))
    (line,) = [
        line
        for line in rows
        if (line["implementation"], line["measure"]) == ("jax/static", "capacity")
    ]
    assert math.isclose(float(line["old"]), 186)
    assert (line["new"], line["new_status"], line["new_reason"]) == ("", "crashed", "why")
