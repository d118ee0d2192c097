"""What tests of reports share: reports of synthetic runs, and ways to look into them."""

from __future__ import annotations

import io
from dataclasses import replace
from functools import cache
from typing import Any

import pandas as pd
from rich.console import Console

from bench.record import Status
from bench.report import Report, Table, build, print_report
from tests import synthetic

#: Markup of every kind that a report is written in.
NASTY = (
    "died <script>alert(1)</script> & $x_1$ 100% #2 {a} \\cmd [red]no[/red] [x](http://e) `t` | ~p~"
    "\nRuntimeError: a\x1b[31m \u201cquoted\u201d --flag"
)


def table(report: Report, name: str) -> Table:
    return next(found for found in report.tables if found.name == name)


def rows(report: Report, name: str, **where: object) -> pd.DataFrame:
    frame = table(report, name).frame
    for column, value in where.items():
        frame = frame[frame[column] == value]
    return frame


def shown(report: Report, name: str, **where: object) -> pd.DataFrame:
    return table(report, name).display.loc[rows(report, name, **where).index]


def one(frame: pd.DataFrame) -> dict[str, Any]:
    assert len(frame) == 1, frame
    return {str(name): value for name, value in frame.iloc[0].items()}


def terminal(report: Report, width: int = 100) -> str:
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    print_report(report, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def crashed(implementation: str, block: int, reason: str = "killed by SIGSEGV") -> synthetic.Change:
    return synthetic.only(implementation, synthetic.ends(Status.CRASHED, reason), block=block)


@cache
def plain_report() -> Report:
    """Ten blocks in which everything went well."""
    return build([synthetic.run(synthetic.sweep(blocks=10))])


@cache
def broken_report() -> Report:
    """One that crashed, one that was wrong once, and markup in what they said."""
    crash = crashed("torch/scripted", 2, NASTY)
    wrong = synthetic.only(
        "jax/scan-unroll-8",
        synthetic.ends(Status.WRONG_OUTPUT, "outputs differ by 0.3"),
        mode="train",
        block=1,
        measure="steady",
    )
    run = synthetic.run(change=lambda record: crash(wrong(record)))
    host = {**run.manifest["host"], "hostname": "<i>héllo</i> & co_1|x"}
    return build([replace(run, manifest={**run.manifest, "host": host})])
