"""The report as Markdown (GitHub's)."""

from __future__ import annotations

import re

import pandas as pd

from bench.report.format import plain, shortened
from bench.report.model import Report, Table

#: Characters of a footnote; the page and the CSV files have all of it.
LONGEST = 2000


def render(report: Report) -> str:
    """The whole report in one document."""
    parts = [f"# {_escaped(report.title)}", _escaped(report.case)]
    for run in report.runs:
        parts += [f"**{_escaped(warning)}**" for warning in run.warnings]
        parts.append("\n".join(f"- {name}: {_escaped(text)}" for name, text in run.facts.items()))
    for table in report.tables:
        parts += [f"## {_escaped(table.title)}", _escaped(table.caption), table_text(table)]
    if report.footnotes:
        parts.append("## Reasons")
        parts.append("\n".join(f"{n}. {_code(t)}" for n, t in enumerate(report.footnotes, start=1)))
    return "\n\n".join(part for part in parts if part) + "\n"


def table_text(table: Table) -> str:
    """One table; every row says its case and mode."""
    left = {*table.heads, *table.words}
    cells: pd.DataFrame = table.display.map(_escaped).rename(columns=_escaped)
    return str(
        cells.to_markdown(
            index=False,
            disable_numparse=True,
            colalign=["left" if c in left else "right" for c in table.display.columns],
        )
    )


def _escaped(text: object) -> str:
    """Text from outside as text: no HTML, no new cell, no emphasis, no link."""
    return re.sub(r"([\\`*_<>|~&]|(?<=\])\()", r"\\\1", plain(str(text)))


def _code(text: str) -> str:
    """A code span around text that may hold backticks itself."""
    line = shortened(text, LONGEST)
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {line} {fence}"
