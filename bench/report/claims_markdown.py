"""The verdicts with everything that they rest on, as Markdown: a section a claim."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from bench.claims.model import Finding, Verdict
from bench.report.markdown import code, escaped
from bench.report.model import Report

_NOTE = """\
Effects are ratios with their own intervals unless a unit is named. p is after Holm's correction \
over all questions of all claims; a fact has none. Arithmetic: what was asked of each place, and \
what was found."""


def render(report: Report) -> str:
    """Every verdict: sentence, source, hypothesis, region, and the findings in a table."""
    parts = [f"# Verdicts on claims: {escaped(report.title)}", _NOTE]
    for verdict in report.verdicts:
        parts += _section(verdict)
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(verdict: Verdict) -> list[str]:
    host = f" (host of {escaped(verdict.host)})" if verdict.host else ""
    url = f" <{verdict.url}>" if verdict.url.startswith("https://") else ""
    facts = {
        "verdict": f"**{verdict.answer}**{host}, {escaped(verdict.reason)}",
        "source": f"{escaped(verdict.source)}{url}",
        "asked": escaped(verdict.hypothesis),
        "scope": escaped(verdict.scope),
        **{answer: escaped(text) for answer, text in verdict.region.items()},
    }
    return [
        f"## {verdict.id}",
        f"*{escaped(verdict.sentence)}*",
        "\n".join(f"- {name}: {text}" for name, text in facts.items()),
        _table([finding for finding in verdict.findings if finding.answer != "no data"]),
        _arithmetic(verdict.deciding),
    ]


def _table(findings: Sequence[Finding]) -> str:
    if not findings:
        return ""
    rows = [
        {
            "answer": finding.answer,
            "place": escaped(finding.place),
            "found": escaped(finding.said),
            "asked": escaped(finding.statement),
            "p": f"{finding.adjusted_p:.1e}" if finding.blocks else "",
            "blocks": str(finding.blocks or ""),
            "why not": escaped(finding.reason),
        }
        for finding in findings
    ]
    return str(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True))


def _arithmetic(finding: Finding | None) -> str:
    """The lines of the finding that the verdict rests on."""
    if finding is None or not finding.arithmetic:
        return ""
    lines = "\n".join(f"- {code(line)}" for line in finding.arithmetic)
    return f"{escaped(finding.place)}:\n\n{lines}"
