"""The report as one page that needs nothing else."""

from __future__ import annotations

from pathlib import Path

import jinja2

from bench.report.model import Report

_TEMPLATE = Path(__file__).with_name("page.html.j2")


def render(report: Report) -> str:
    """The whole report in one document; everything in it is escaped."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(report=report)
