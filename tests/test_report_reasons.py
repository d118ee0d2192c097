"""Reasons in a report: a traceback is read from what was raised, and is there whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.record import Status
from bench.report import Report, build, latex, markdown, page
from bench.report.reason import LONGEST, headed, headline
from bench.worker import LONGEST_REASON, failure
from tests import synthetic
from tests.reading import terminal


def raised(error: Exception, depth: int = 0) -> str:
    """The reason that a worker gives for an exception from a stack of this depth."""

    def fail(left: int) -> None:
        if left:
            fail(left - 1)
        raise error

    try:
        fail(depth)
    except type(error) as caught:
        return str(failure(caught)["reason"])
    raise AssertionError(error)


def chained() -> str:
    second = ValueError("second\nwith a line of its own")
    second.__cause__ = KeyError("first")
    return raised(second)


def reported(reason: str) -> Report:
    change = synthetic.only("jax/static", synthetic.ends(Status.CRASHED, reason))
    return build([synthetic.run(synthetic.sweep(blocks=1), change=change)])


HERE = "(raised in test_report_reasons.py:"


@pytest.mark.parametrize(
    ("reason", "start"),
    [
        (raised(ValueError("bad thing")), f"ValueError: bad thing {HERE}"),
        (raised(ValueError("bad thing"), depth=30), f"ValueError: bad thing {HERE}"),
        (f"after the timing: {raised(KeyError('x'))}", f"after the timing: KeyError: 'x' {HERE}"),
        (raised(ValueError("two\n  lines")), f"ValueError: two lines {HERE}"),
        (raised(ValueError()), f"ValueError {HERE}"),
        (chained(), f"ValueError: second with a line of its own {HERE}"),
    ],
    ids=["one", "deep", "prefix", "lines", "silent", "chained"],
)
def test_a_traceback_begins_with_what_was_raised_and_stays_whole(reason: str, start: str) -> None:
    report = reported(reason)
    footnote = report.footnotes[0]
    assert footnote.startswith(start)
    assert footnote.endswith(reason.strip())
    assert f"[1] {start}" in " ".join(terminal(report, 300).split())
    assert "Traceback" not in terminal(report, 300)
    assert f"<pre>{start[:10]}" in page.render(report)
    assert f"1. ` {start}" in markdown.render(report)
    assert rf"\item[{{[1]}}] {start[:10]}" in latex.render(report)


@pytest.mark.parametrize("length", [1_000, LONGEST_REASON, 50_000_000])
def test_a_long_message_leaves_room_for_its_place(length: int) -> None:
    line = headline(raised(RuntimeError("again " * (length // 6))))
    assert line.startswith("RuntimeError: again again")
    assert HERE in line
    assert len(line) <= LONGEST


def test_what_is_no_traceback_is_as_it_was() -> None:
    for reason in ("killed by SIGSEGV", "two\nlines", "Traceback (most recent call last):", ""):
        assert headline(reason) == " ".join(reason.split())
    assert headed("two\nlines") == "two\nlines"


@given(st.lists(st.sampled_from([
    "Traceback (most recent call last):", '  File "a.py", line 3, in f', "    x = 1", "    ^",
    "ValueError: bad", "", "[9 characters cut]", '  File "' + "b" * 300 + '.py", line ' + "9" * 99,
])))  # fmt: skip
def test_whatever_a_reason_is_its_headline_is_one_short_line(lines: list[str]) -> None:
    reason = "\n".join(lines)
    line = headline(reason)
    assert len(line) <= LONGEST
    assert "\n" not in line
    assert headline(headed(reason)) == line
