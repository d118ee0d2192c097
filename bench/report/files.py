"""Files beside a page: one CSV a table, pictures, and the raw records."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from bench.claims.model import Verdict
from bench.report.model import Report

#: The files of a run that a reader may want.
DATA = ("records.jsonl", "manifest.json")

#: Where copies of them go, and where pictures go.
RAW, PLOTS = "raw", "plots"


@dataclass(frozen=True, kw_only=True)
class Raw:
    """Links from the page to a run's own files; `source` is set if they must be copied."""

    label: str
    folder: str
    source: Path | None


def raw_files(report: Report, folder: Path) -> list[Raw]:
    """The files of each run: in the folder of the page or below it already, or copied there.

    A run that has no files (one that was never stored) is left out.
    """
    found = []
    for number, run in enumerate(report.runs, start=1):
        if run.folder is None or not all((run.folder / name).is_file() for name in DATA):
            continue
        if run.folder.resolve().is_relative_to(folder.resolve()):
            below = run.folder.resolve().relative_to(folder.resolve()).parts
            there = "".join(f"{part}/" for part in below)
            found.append(Raw(label=run.label, folder=there, source=None))
        else:
            name = f"{RAW}/{number}-{_file_name(run.label)}"
            found.append(Raw(label=run.label, folder=f"{name}/", source=run.folder))
    return found


def _file_name(label: str) -> str:
    """A label as part of a file's name: whatever a manifest says, it leads nowhere else."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", label)[:60].strip("-") or "run"


def copy_raw(raw: Sequence[Raw], folder: Path) -> list[Path]:
    """Copy what does not lie there already; returns the copies. Raises `OSError`."""
    copies = []
    for run in raw:
        if run.source is not None:
            (folder / run.folder).mkdir(parents=True, exist_ok=True)
            for name in DATA:
                copies.append(folder / run.folder / name)
                shutil.copyfile(run.source / name, copies[-1])
    return copies


def csv_files(report: Report) -> Iterator[tuple[str, str]]:
    """Name and text of every CSV: the tables', and what is in no table."""
    tables = {table.name for table in report.all_tables}
    for table in report.all_tables:
        yield f"{table.name}.csv", table.frame.to_csv(index=False)
    for plot in report.plots:
        if plot.data.removesuffix(".csv") not in tables:
            yield plot.data, plot.frame.to_csv(index=False)
    if report.verdicts:
        yield "findings.csv", pd.DataFrame(list(_findings(report.verdicts))).to_csv(index=False)


def _findings(verdicts: Sequence[Verdict]) -> Iterator[Mapping[str, object]]:
    """A row a finding; one of a verdict without any."""
    for verdict in verdicts:
        said = {
            "claim": verdict.id,
            "host": verdict.host,
            "sentence": verdict.sentence,
            "verdict": verdict.answer,
            "verdict_reason": verdict.reason,
        }
        if not verdict.findings:
            yield said
        for finding in verdict.findings:
            row = asdict(finding)
            where = {f"where_{name}": value for name, value in row.pop("where").items()}
            lists = {name: "\n".join(row.pop(name)) for name in ("rows", "arithmetic")}
            yield {**said, **where, **row, **lists}
