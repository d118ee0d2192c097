"""The report as Markdown (GitHub's)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bench.format import plain, shortened
from bench.report.model import Report, Table

#: Characters of a footnote; the page and the CSV files have all of it.
LONGEST = 2000

#: Rows of a table in a document; nobody reads, and no site shows, one of forty thousand.
MOST_ROWS = 2000


def render(report: Report) -> str:
    """The whole report in one document."""
    parts = [f"# {escaped(report.title)}", escaped(report.case)]
    for run in report.runs:
        parts += [f"**{escaped(warning)}**" for warning in run.warnings]
        parts.append("\n".join(f"- {name}: {escaped(text)}" for name, text in run.facts.items()))
    for table in report.all_tables:
        parts += [f"## {escaped(table.title)}", escaped(table.caption)]
        parts += [table_text(table.first(MOST_ROWS)), table.cut_off(MOST_ROWS)]
    if report.footnotes:
        parts.append("## Reasons")
        parts.append("\n".join(f"{n}. {code(t)}" for n, t in enumerate(report.footnotes, start=1)))
    return "\n\n".join(part for part in parts if part) + "\n"


def table_text(table: Table) -> str:
    """One table; every row says its case and mode."""
    left = {*table.heads, *table.words}
    columns = [
        _column(str(name), table.display[name].tolist(), left=name in left)
        for name in table.display.columns
    ]
    return "\n".join(f"|{'|'.join(line)}|" for line in zip(*columns, strict=True))


def _column(name: str, cells: Sequence[str], *, left: bool) -> list[str]:
    """A header, the line below it that says how the column is set, and cells; all of one width."""
    texts = [escaped(text) for text in (name, *cells)]
    width = max(len(texts[0]) + 2, *map(len, texts[1:]))
    rule = f":{'-' * (width + 1)}" if left else f"{'-' * (width + 1)}:"
    texts = [f" {text:<{width}} " if left else f" {text:>{width}} " for text in texts]
    return [texts[0], rule, *texts[1:]]


_MARKUP = str.maketrans({character: f"\\{character}" for character in "\\`*_<>|~&"})


def escaped(text: object) -> str:
    """Text from outside as text: no HTML, no new cell, no emphasis, no link."""
    return plain(str(text)).translate(_MARKUP).replace("](", "]\\(")


def code(text: str) -> str:
    """A code span around text that may hold backticks itself."""
    line = shortened(text, LONGEST)
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {line} {fence}"
