"""Parts of a report: tables with every digit and as they are read, runs, footnotes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal

import pandas as pd

from backends.api import Case
from bench.claims.model import Verdict
from bench.evidence import Group, Outcome
from bench.format import plain
from bench.record import Status
from bench.report.reason import headed

#: The letters of `backends.api`; other fields of a case are called what they are.
LETTERS: Mapping[str, str] = {
    "seq_len": "T",
    "batch": "B",
    "layers": "L",
    "hidden": "H",
    "inputs": "D",
}


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table. `frame` has SI units and every digit; `display` has the same rows as words.

    `heads` are the columns of `display` that say which run, case and mode a row belongs to,
    `words` those that read as text (the others are numbers), and `spare` those that a narrow
    terminal leaves out, the first one first.
    """

    name: str
    title: str
    caption: str
    frame: pd.DataFrame
    display: pd.DataFrame
    heads: tuple[str, ...]
    words: tuple[str, ...]
    spare: tuple[str, ...]

    def first(self, rows: int) -> Table:
        """The first rows of the table."""
        return self if len(self.display) <= rows else replace(self, display=self.display[:rows])

    def cut_off(self, rows: int) -> str:
        """Note on the rows that were cut off; empty if there are none."""
        more = len(self.display) - rows
        return f"The first {rows:,} rows; {self.name}.csv has {more:,} more." if more > 0 else ""

    def columns(self) -> list[str]:
        """The columns of `display` but its heads."""
        return [column for column in self.display.columns if column not in self.heads]

    def sections(self) -> Iterator[tuple[str, pd.DataFrame]]:
        """Consecutive rows with the same heads: what they share in words, and the rest of them."""
        heads = self.display[list(self.heads)]
        number = heads.ne(heads.shift()).any(axis=1).cumsum()
        for _, rows in self.display.groupby(number, sort=False):
            shared = rows.iloc[0][list(self.heads)]
            yield ", ".join(_said(str(k), str(v)) for k, v in shared.items()), rows[self.columns()]


def _said(head: str, value: str) -> str:
    if head == "mode":
        return value
    return f"{head} {value}" if head == "run" else f"{head}={value}"


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """A run in words: `facts` are labelled lines, `warnings` what a reader must know first.

    `folder` is where its records lie, None for what is no run of its own.
    """

    label: str
    facts: Mapping[str, str]
    warnings: Sequence[str]
    folder: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Plot:
    """Content of a plot, free of any library; `bench.report.charts` draws it.

    `frame` has a row a mark: the columns that identify a row of a table (run, case, mode,
    implementation), `panel` (the drawing that it is in, as a reader is told), `x`, `y`, and `low`
    and `high` of its band, NaN where it has none. In a line plot `series` is what a line is of; in
    a heat map it is the row of a tile, `text` what stands in it and `decided` whether there was a
    verdict. `data` is the file with the same figures and more. `reading` says in a sentence what a
    reader sees who cannot see it.
    """

    name: str
    title: str
    caption: str
    kind: Literal["lines", "decay", "heat"]
    x: str
    y: str
    log_x: bool
    log_y: bool
    data: str
    frame: pd.DataFrame
    reading: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """Report on a set of runs.

    `case` is what all cases have in common, `footnotes` the reasons that tables refer to as [1],
    `verdicts` what the runs say of declared claims, host by host, and `claims` the same as a table,
    for writers that have no better way to show them.
    """

    title: str
    case: str
    runs: Sequence[RunSummary]
    tables: Sequence[Table]
    footnotes: Sequence[str]
    verdicts: Sequence[Verdict] = ()
    plots: Sequence[Plot] = ()
    claims: Table | None = None

    @property
    def all_tables(self) -> list[Table]:
        """The verdicts as a table, if there are any, and the tables."""
        return [*([self.claims] if self.claims else []), *self.tables]


@dataclass(kw_only=True)
class Footnotes:
    """Reasons, numbered as they come up; the same one has the same number."""

    _numbers: dict[str, int] = field(default_factory=dict)

    @property
    def texts(self) -> list[str]:
        """The reasons; a traceback below the line that says what was raised."""
        return [plain(headed(text), lines=True) for text in self._numbers]

    def mark(self, text: str) -> str:
        """The number of a reason in brackets."""
        return f"[{self._numbers.setdefault(text, len(self._numbers) + 1)}]"

    def cell(self, outcomes: Mapping[str, Outcome]) -> str:
        """Ends of jobs, in a word if they agree, else those that are not ok.

        Where they agree, the blocks that were ok are counted for the first of them that lacks some.
        """
        said = {label: self._said(outcome) for label, outcome in outcomes.items()}
        counts = {label: o.counted for label, o in outcomes.items() if 0 < o.ok < o.planned}
        if len(set(said.values())) > 1:
            return "; ".join(f"{label} {text}" for label, text in said.items() if text != Status.OK)
        (text,) = set(said.values())
        if not counts:
            return text
        label, counted = next(iter(counts.items()))
        where = counted if label == next(iter(said)) else f"{label} {counted}"
        return where if text == Status.OK else f"{text}, {where}"

    def _said(self, outcome: Outcome) -> str:
        return f"{outcome.status} {self.mark(outcome.reason)}" if outcome.reason else outcome.status


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Which fields of a case vary over a report: only those become columns of `display`."""

    varying: tuple[str, ...]
    several_runs: bool
    footnotes: Footnotes

    @classmethod
    def of(cls, groups: Sequence[Group], *, several_runs: bool) -> Layout:
        cases = {group.case for group in groups}
        return cls(
            varying=tuple(
                f.name for f in fields(Case) if len({getattr(case, f.name) for case in cases}) > 1
            ),
            several_runs=several_runs,
            footnotes=Footnotes(),
        )

    def heads(self) -> tuple[str, ...]:
        """The columns that say which run, case and mode a row belongs to."""
        run = ("run",) if self.several_runs else ()
        return (*(LETTERS.get(name, name) for name in self.varying), "mode", *run)

    def head(self, group: Group) -> dict[str, str]:
        """Their values."""
        case = {LETTERS.get(name, name): str(getattr(group.case, name)) for name in self.varying}
        run = {"run": group.run} if self.several_runs else {}
        return {**case, "mode": group.mode, **run}
