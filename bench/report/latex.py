"""The report as a LaTeX document: booktabs, longtable, landscape."""

from __future__ import annotations

import re
from collections.abc import Mapping

from bench.report.format import plain, shortened
from bench.report.markdown import LONGEST
from bench.report.model import Report, RunSummary, Table

_PREAMBLE = r"""\documentclass[a4paper,landscape]{article}
\usepackage[T1]{fontenc}
\usepackage{textcomp}
\usepackage{booktabs}
\usepackage{longtable}
\usepackage[margin=12mm]{geometry}
\setlength{\tabcolsep}{3pt}
\setlength{\parindent}{0pt}
\setlength{\LTleft}{0pt}
\begin{document}
"""

_SPECIAL: Mapping[str, str] = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def render(report: Report) -> str:
    """The whole report in one document."""
    parts = [rf"\section*{{{escaped(report.title)}}}", escaped(report.case)]
    parts += [_run(run) for run in report.runs]
    for table in report.tables:
        parts += [rf"\subsection*{{{escaped(table.title)}}}", escaped(table.caption)]
        parts.append(_table(table))
    if report.footnotes:
        items = "\n".join(
            rf"\item[{{[{n}]}}] {escaped(shortened(text, LONGEST))}"
            for n, text in enumerate(report.footnotes, start=1)
        )
        parts.append(r"\subsection*{Reasons}")
        parts.append(f"\\begin{{description}}\n{items}\n\\end{{description}}")
    return _PREAMBLE + "\n\n".join(part for part in parts if part) + "\n\\end{document}\n"


def _run(run: RunSummary) -> str:
    warnings = [rf"\textbf{{{escaped(warning)}}}\\" for warning in run.warnings]
    facts = [rf"{escaped(name)}: {escaped(text)}\\" for name, text in run.facts.items()]
    return "\n".join([*warnings, *facts])


def _table(table: Table) -> str:
    left = {*table.heads, *table.words}
    style = table.display.style.hide(axis="index").format(escaped)
    style = style.format_index(escaped, axis="columns")
    body = style.to_latex(
        environment="longtable",
        hrules=True,
        column_format="".join("l" if c in left else "r" for c in table.display.columns),
    )
    return f"{{\\scriptsize\n{body}}}"


def escaped(text: object) -> str:
    """Text from outside as text; what the fonts of the preamble lack becomes a question mark."""
    known = plain(str(text)).encode("latin-1", errors="replace").decode("latin-1")
    safe = re.sub(r"[\\~^<>|&%$#_{}]", lambda match: _SPECIAL[match[0]], known)
    return safe.replace("--", "-{}-")  # two hyphens would be set as a dash
