"""The report as a LaTeX document: booktabs, longtable, landscape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bench.format import plain, shortened
from bench.report.markdown import LONGEST, MOST_ROWS
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

_TRANSLATED = str.maketrans(dict(_SPECIAL))


def render(report: Report) -> str:
    """The whole report in one document."""
    parts = [rf"\section*{{{escaped(report.title)}}}", escaped(report.case)]
    parts += [_run(run) for run in report.runs]
    for table in report.all_tables:
        parts += [rf"\subsection*{{{escaped(table.title)}}}", escaped(table.caption)]
        parts += [_table(table.first(MOST_ROWS)), escaped(table.cut_off(MOST_ROWS))]
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
    names = [str(name) for name in table.display.columns]
    head = [r"\toprule", _line(names), r"\midrule"]
    columns = (table.display[name].tolist() for name in table.display.columns)
    return "\n".join(
        [
            r"{\scriptsize",
            rf"\begin{{longtable}}{{{''.join('l' if name in left else 'r' for name in names)}}}",
            *(*head, r"\endfirsthead", *head, r"\endhead"),
            r"\midrule",
            rf"\multicolumn{{{len(names)}}}{{r}}{{Continued on next page}} \\",
            *(r"\midrule", r"\endfoot", r"\bottomrule", r"\endlastfoot"),
            *(_line(cells) for cells in zip(*columns, strict=True)),
            r"\end{longtable}",
            "}",
        ]
    )


def _line(cells: Iterable[str]) -> str:
    return " & ".join(escaped(cell) for cell in cells) + r" \\"


def escaped(text: object) -> str:
    """Text from outside as text; what the fonts of the preamble lack becomes a question mark."""
    known = plain(str(text)).encode("latin-1", errors="replace").decode("latin-1")
    return known.translate(_TRANSLATED).replace("--", "-{}-")  # two hyphens would be set as a dash
