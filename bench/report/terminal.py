"""The report on a terminal: one table after the other, as many columns as fit.

The first table comes last: what has scrolled away is not read.
"""

from __future__ import annotations

from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable
from rich.text import Text

from bench.format import plain
from bench.report.model import Report, RunSummary, Table
from bench.report.reason import headline

#: Columns of words are wrapped down to these widths before a column is left out.
_FIRST, _WORDS = 25, 12

#: Nobody reads more rows of a table on a terminal; printing takes half a millisecond each.
MOST_ROWS = 200

#: What stands between columns: one of padding, one of the box.
_GAP = 2

STYLES = {
    "faster": "green",
    "slower": "red",
    "fastest": "bold green",
    "holds": "green",
    "refuted": "red",
    "inconclusive": "yellow",
    "no data": "dim",
}


def show(report: Report, console: Console) -> None:
    """Print a report. Text from records is never read as markup."""
    console.print(Text(report.title, style="bold"))
    if report.case:
        console.print(Text(report.case))
    for run in report.runs:
        _show_run(run, console)
    if report.footnotes:
        console.print(Text("\nReasons", style="bold"))
        for number, text in enumerate(report.footnotes, start=1):
            console.print(Text(f"[{number}] {headline(text)}"))  # the files have all of it
    for table in reversed(report.all_tables):
        show_table(table, console)


def _show_run(run: RunSummary, console: Console) -> None:
    grid = RichTable.grid(padding=(0, 2))
    for name, text in run.facts.items():
        grid.add_row(Text(name, style="dim"), Text(text))
    console.print()
    console.print(grid)
    for warning in run.warnings:
        console.print(Text(f"! {warning}", style="yellow"))


def show_table(table: Table, console: Console) -> None:
    """Print one table with as many columns as fit."""
    shown = table.first(MOST_ROWS)
    columns, widths = _fit(shown, console.width)
    console.print(Text(f"\n{table.title}", style="bold"))
    console.print(Text(table.caption, style="dim"))
    left_out = [column for column in table.columns() if column not in columns]
    if left_out:
        said = ", ".join(left_out)
        console.print(Text(f"Left out for width, and in the files: {said}.", style="dim"))
    if table.cut_off(MOST_ROWS):
        console.print(Text(table.cut_off(MOST_ROWS), style="dim"))
    result = RichTable(
        box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style=""
    )
    for column in columns:
        justify: Literal["left", "right"] = "left" if column in table.words else "right"
        result.add_column(_header(column), justify=justify, width=widths[column])
    for label, rows in shown.sections():
        if label:
            result.add_row(Text(label, style="bold"))
        for row in rows[columns].itertuples(index=False, name=None):
            result.add_row(*(Text(plain(cell), style=STYLES.get(cell, "")) for cell in row))
        result.add_section()
    console.print(result)


def _header(column: str) -> str:
    """Units stand below the name."""
    return escape(column.replace(" (", "\n("))


def _fit(table: Table, room: int) -> tuple[list[str], dict[str, int]]:
    """The columns that fit, with their widths: words are wrapped first, then columns left out.

    (Rich would squeeze numbers too, and cut them off.)
    """
    columns, spare = table.columns(), list(table.spare)
    widths = {column: _width(table, column) for column in columns}
    while True:
        excess = sum(widths[column] + _GAP for column in columns) - _GAP - room
        for column in reversed([c for c in columns if c in table.words]):
            least = min(widths[column], _FIRST if column == columns[0] else _WORDS)
            give = max(0, min(excess, widths[column] - least))
            widths[column] -= give
            excess -= give
        if excess <= 0 or not spare:
            return columns, widths
        columns.remove(spare.pop(0))
        widths = {column: _width(table, column) for column in columns}


def _width(table: Table, column: str) -> int:
    cells = [*_header(column).split("\n"), *table.display[column]]
    return max(cell_len(cell) for cell in cells)
