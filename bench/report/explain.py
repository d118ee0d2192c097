"""One claim on a terminal: its sentence, the rows that it rests on, and the arithmetic."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from bench import format as fmt
from bench import stats
from bench.claims.model import Finding, Verdict
from bench.report.terminal import STYLES


def show(verdicts: Iterable[Verdict], console: Console) -> None:
    """Print verdicts, a host each, with every finding. Text from records is never markup."""
    for verdict in verdicts:
        _head(verdict, console)
        for answer in get_args(stats.Answer):
            findings = [f for f in verdict.findings if f.answer == answer]
            if findings:
                console.print(Text(f"\n{answer}: {verdict.region[answer]}", style=STYLES[answer]))
            if answer == "no data":
                for reason in dict.fromkeys(finding.reason for finding in findings):
                    console.print(Text(fmt.plain(f"  {reason}"), style="dim"))
                continue
            for finding in findings:
                _finding(finding, console)


def _head(verdict: Verdict, console: Console) -> None:
    console.print(Text(f"{verdict.id}: {verdict.sentence}", style="bold"))
    host = f" on the host of {verdict.host}" if verdict.host else ""
    said = f"{verdict.answer}{host}, {verdict.reason}"
    console.print(Text(said, style=STYLES[verdict.answer]))
    lines = {
        "source": " ".join(filter(None, (verdict.source, verdict.url))),
        "asked": verdict.hypothesis,
        "scope": verdict.scope,
        "at": "" if verdict.deciding is None else verdict.deciding.place,
    }
    for name, text in lines.items():
        if text:
            console.print(Text.assemble((f"{name}: ", "dim"), text))


def _finding(finding: Finding, console: Console) -> None:
    rows = f" [{', '.join(finding.rows)}]" if finding.rows else ""
    console.print(Padding(Text(fmt.plain(f"{finding.place}{rows}: {finding.said}")), (0, 0, 0, 2)))
    reason = [finding.reason] if finding.reason else []
    adjusted = [f"p after Holm's correction over all claims {finding.adjusted_p:.1e}"]
    for line in [*reason, *finding.arithmetic, *(adjusted if finding.blocks else [])]:
        console.print(Padding(Text(fmt.plain(line), style="dim"), (0, 0, 0, 4)))
