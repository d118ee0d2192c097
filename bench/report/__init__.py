"""Runs -> tables, a page, files.

    report = build([read_run(folder)])
    print_report(report, Console())
    write(report, Path("report"))  # and open report/index.html

Runs of several hosts stand side by side and are never averaged. `write` needs the extra `report`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import Thread

from rich.console import Console

from backends import install_line
from bench.claims.judge import Labelled, judge_groups
from bench.claims.model import Verdict
from bench.claims.registry import CLAIMS
from bench.errors import UsageError
from bench.evidence import Group, groups_of, reading_order
from bench.format import plain
from bench.report import claims_markdown, files, terminal
from bench.report.checks import outputs
from bench.report.instrument import identical
from bench.report.kernels import kernels
from bench.report.latency import latency
from bench.report.memory import memory
from bench.report.model import Layout, Report, RunSummary, Table
from bench.report.pairs import static_dynamic
from bench.report.plots import plots
from bench.report.ranking import ranking
from bench.report.summary import same_everywhere, summary
from bench.report.then_and_now import then_and_now
from bench.report.threads import threads
from bench.report.verdicts import verdict_table
from bench.store import Run, mapping_in

_TABLES = (
    *(static_dynamic, then_and_now, ranking, threads, latency),
    *(kernels, memory, outputs, identical),
)

#: File -> the module whose `render(report) -> str` writes it.
_DOCUMENTS = {"report.md": "markdown", "report.tex": "latex"}

#: What those modules, the page and its plots need besides pandas.
_NEEDED = ("jinja2", "altair", "vl_convert")


#: More titles than this are no heading.
MOST_TITLES = 2


def build(runs: Sequence[Run]) -> Report:
    """Derive every table from the runs' records. Raises `UsageError` without any run."""
    if not runs:
        raise UsageError("report: no run was named")
    groups: list[Group] = []
    summaries: list[RunSummary] = []
    labelled: list[Labelled] = []
    for label, run in zip(labels_of(runs), runs, strict=True):
        found, faults = groups_of(run, label)
        labelled.append(Labelled(run=run, label=label, groups=found))
        groups += found
        summaries.append(summary(run, label, found, faults))
    # A stable sort: runs stay in the order in which they were named.
    groups.sort(key=reading_order)
    layout = Layout.of(groups, several_runs=len(runs) > 1)
    verdicts = _relevant(labelled)
    tables = [table for make in _TABLES if (table := make(groups, layout)) is not None]
    return Report(
        title=_title(runs),
        case=same_everywhere(groups, layout) if groups else "",
        runs=summaries,
        tables=tables,
        footnotes=layout.footnotes.texts,
        plots=plots(tables, [(run.label, run.run) for run in labelled], layout),
        verdicts=verdicts,
        claims=verdict_table(verdicts) if verdicts else None,
    )


def _relevant(runs: Sequence[Labelled]) -> list[Verdict]:
    """The verdicts of which the runs say something; all where they were to decide claims."""
    verdicts = judge_groups(runs)
    wanted = {preset for claim in CLAIMS.values() for preset in claim.presets}
    names = {mapping_in(run.run.manifest, "sweep").get("name") for run in runs}
    if names & wanted:
        return verdicts
    return [verdict for verdict in verdicts if verdict.answer != "no data"]


#: Plots as SVG and PNG, yet to come.
Drawing = Future[list[tuple[str, bytes]]]


def draw(report: Report) -> Drawing | None:
    """Begin to draw the plots, in a process of its own; None without the extra `report`."""
    if _absent():
        return None
    charts = import_module("bench.report.charts")
    other = ThreadPoolExecutor(max_workers=1)  # it waits for that process
    drawing: Drawing = other.submit(charts.pictures, report.plots)
    other.shutdown(wait=False)
    return drawing


def _absent() -> list[str]:
    return [name for name in _NEEDED if find_spec(name) is None]


def write(report: Report, folder: Path, drawing: Drawing | None = None) -> list[Path]:
    """Write a folder that can be sent to somebody, and return what is new in it.

    index.html, report.md and report.tex, one CSV a table, every plot as SVG and PNG, and the raw
    records where they do not lie there already. `drawing` is what `draw` began, if it did. Raises
    `UsageError` where the extra `report` is not installed, or the folder cannot be written.
    """
    drawing = drawing or draw(report)
    if drawing is None:
        raise UsageError(f"{', '.join(_absent())} not installed: {install_line('report')}")
    page = import_module("bench.report.page")
    raw = files.raw_files(report, folder)
    texts = {"index.html": str(page.render(report, raw))}
    texts |= {
        name: str(import_module(f"bench.report.{module}").render(report))
        for name, module in _DOCUMENTS.items()
    }
    if report.verdicts:
        texts["claims.md"] = claims_markdown.render(report)
    texts |= dict(files.csv_files(report))
    contents = {name: _encoded(text) for name, text in texts.items()}
    for plot, (svg, png) in zip(report.plots, drawing.result(), strict=True):
        contents |= {f"{files.PLOTS}/{plot.name}.svg": _encoded(svg)}
        contents |= {f"{files.PLOTS}/{plot.name}.png": png}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if report.plots:
            (folder / files.PLOTS).mkdir(exist_ok=True)
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        copied = files.copy_raw(raw, folder)
    except OSError as error:
        raise UsageError(f"report folder {folder}: {error.strerror}") from error
    return [*(folder / name for name in contents), *copied]


def named(paths: Sequence[Path], folder: Path) -> list[str]:
    """Written files in few words: files by name, folders with the number of theirs."""
    names = [path.relative_to(folder) for path in paths]
    counts = Counter(name.parts[0] for name in names if len(name.parts) > 1)
    top = [name.name for name in names if len(name.parts) == 1]
    return [*top, *(f"{name}/ ({count} files)" for name, count in counts.items())]


def prepare() -> None:
    """Begin with what `write` needs and takes a second to start, beside whatever comes first."""
    if not _absent():
        page = import_module("bench.report.page")
        Thread(target=page.bundle, daemon=True).start()


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", errors="backslashreplace")


def print_report(report: Report, console: Console) -> None:
    """Print the report, as wide as the console is."""
    terminal.show(report, console)


def labels_of(runs: Sequence[Run]) -> list[str]:
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
    """The titles of the sweeps; of many, what they are called."""
    sweeps = [mapping_in(run.manifest, "sweep") for run in runs]
    titles = dict.fromkeys(plain(str(sweep.get("title", "Benchmark"))) for sweep in sweeps)
    if len(titles) <= MOST_TITLES:
        return " | ".join(titles)
    names = dict.fromkeys(plain(str(sweep.get("name", "?"))) for sweep in sweeps)
    return f"{len(runs)} runs: {', '.join(names)}"


__all__ = ["Report", "RunSummary", "Table", "build", "draw", "prepare", "print_report", "write"]
