"""Runs -> tables, a page, files.

    report = build([read_run(folder)])
    print_report(report, Console())
    write(report, Path("report"))

Runs of several hosts stand side by side and are never averaged. `write` needs the extra `report`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from backends import install_line
from bench.errors import UsageError
from bench.report import terminal
from bench.report.checks import memory, outputs
from bench.report.evidence import Group, groups_of, reading_order
from bench.report.format import plain
from bench.report.instrument import identical
from bench.report.latency import latency
from bench.report.model import Layout, Report, RunSummary, Table
from bench.report.pairs import static_dynamic
from bench.report.ranking import ranking
from bench.report.summary import same_everywhere, summary
from bench.store import Run

_TABLES = (static_dynamic, ranking, latency, memory, outputs, identical)

#: File -> the module whose `render(report) -> str` writes it.
_DOCUMENTS = {"report.md": "markdown", "report.html": "html", "report.tex": "latex"}

#: What those modules need besides pandas.
_NEEDED = ("jinja2", "tabulate")


def build(runs: Sequence[Run]) -> Report:
    """Derive every table from the runs' records. Raises `UsageError` without any run."""
    if not runs:
        raise UsageError("report: no run was named")
    groups: list[Group] = []
    summaries: list[RunSummary] = []
    for label, run in zip(_labels(runs), runs, strict=True):
        found, faults = groups_of(run, label)
        groups += found
        summaries.append(summary(run, label, found, faults))
    # A stable sort: runs stay in the order in which they were named.
    groups.sort(key=reading_order)
    layout = Layout.of(groups, several_runs=len(runs) > 1)
    tables = [table for make in _TABLES if (table := make(groups, layout)) is not None]
    return Report(
        title=_title(runs),
        case=same_everywhere(groups, layout) if groups else "",
        runs=summaries,
        tables=tables,
        footnotes=layout.footnotes.texts,
    )


def write(report: Report, folder: Path) -> list[Path]:
    """Write report.md, report.html, report.tex and one CSV a table; return their paths.

    Raises `UsageError` where the extra `report` is not installed or the folder cannot be written.
    """
    absent = [name for name in _NEEDED if find_spec(name) is None]
    if absent:
        raise UsageError(f"{', '.join(absent)} not installed: {install_line('report')}")
    files = {
        name: str(import_module(f"bench.report.{module}").render(report))
        for name, module in _DOCUMENTS.items()
    }
    files |= {f"{table.name}.csv": table.frame.to_csv(index=False) for table in report.tables}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UsageError(f"report folder {folder}: {error.strerror}") from error
    return [folder / name for name in files]


def print_report(report: Report, console: Console) -> None:
    """Print the report, as wide as the console is."""
    terminal.show(report, console)


def _labels(runs: Sequence[Run]) -> list[str]:
    """The runs' ids; where two are the same, numbered."""
    names = [plain(str(run.manifest.get("id", run.folder.name))) for run in runs]
    counts = Counter(names)
    seen: Counter[str] = Counter()
    labels = []
    for name in names:
        seen[name] += 1
        labels.append(name if counts[name] == 1 else f"{name} ({seen[name]})")
    return labels


def _title(runs: Sequence[Run]) -> str:
    sweeps = [run.manifest.get("sweep") for run in runs]
    titles = [s.get("title", "Benchmark") if isinstance(s, dict) else "Benchmark" for s in sweeps]
    return " | ".join(dict.fromkeys(plain(str(title)) for title in titles))


__all__ = ["Report", "RunSummary", "Table", "build", "print_report", "write"]
