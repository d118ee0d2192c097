"""The report as one page that needs nothing else: no network, no other file.

Whatever records, hosts and sources say is text: in the page's markup it is escaped by Jinja, in its
data it is JSON that no HTML parser reads, and its scripts put it into the page as text. A policy in
the page forbids every request and every script but its own.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import jinja2
from markupsafe import Markup

from bench import format as fmt
from bench.claims.model import Finding, Verdict
from bench.report import charts
from bench.report.files import DATA, Raw
from bench.report.model import Report, RunSummary
from bench.report.page_data import data, embedded

_ASSETS = Path(__file__).with_name("assets")
_SCRIPTS = ("dom.js", "rows.js", "filters.js", "tables.js", "plots.js", "start.js")

_BUNDLING = Lock()

#: Warnings of one kind that are shown before a reader asks for the others.
_FIRST_WARNINGS = 3

#: Findings of a verdict that stand in the page; `findings.csv` has all of them.
MOST_FINDINGS = 60


def render(report: Report, raw: Sequence[Raw] = ()) -> str:
    """The whole report in one document, with links to what lies beside it."""
    names = charts.names_in(report.plots)
    specifications = {plot.name: charts.specification(plot, names) for plot in report.plots}
    style, script = _asset("page.css"), "".join(_asset(name) for name in _SCRIPTS)
    vega = bundle() if report.plots else ""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_ASSETS),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "interval": _interval,
        "probability": _probability,
        "link": web_address,
        "plain": fmt.plain,
    }
    return environment.get_template("index.html.j2").render(
        report=report,
        raw=raw,
        names=DATA,
        claims=claims(report.verdicts),
        places=places,
        warnings=warnings(report.runs),
        most_findings=MOST_FINDINGS,
        policy=_policy(style, script, vega),
        style=Markup(style),  # noqa: S704, ours
        script=Markup(script),  # noqa: S704, ours
        vega=Markup(vega),  # noqa: S704, the library's
        data=Markup(embedded(data(report, specifications))),  # noqa: S704, escaped for its place
    )


def claims(verdicts: Sequence[Verdict]) -> list[list[Verdict]]:
    """Verdicts claim by claim: those of several hosts stand side by side."""
    by_claim: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        by_claim[verdict.id].append(verdict)
    return list(by_claim.values())


def warnings(runs: Sequence[RunSummary]) -> list[dict[str, Any]]:
    """Warnings by run and kind (what stands before the colon), the first few of each apart."""
    found = []
    for run in runs:
        kinds: dict[str, list[str]] = defaultdict(list)
        for text in run.warnings:
            kinds[text.partition(":")[0]].append(text)
        for kind, texts in kinds.items():
            first, more = texts[:_FIRST_WARNINGS], texts[_FIRST_WARNINGS:]
            if len(more) == 1:  # a line that says so would be as long
                first, more = texts, []
            label = run.label if len(runs) > 1 else ""
            found.append({"run": label, "kind": kind, "first": first, "more": more})
    return found


def places(verdict: Verdict) -> dict[str, Any]:
    """Columns that tell the findings of a verdict apart, and what the findings have in common."""
    names = list(dict.fromkeys(name for found in verdict.findings for name in found.where))
    values = {name: {found.where.get(name, "") for found in verdict.findings} for name in names}
    several = len({found.run for found in verdict.findings}) > 1
    return {
        "columns": [name for name in names if len(values[name]) > 1],
        "common": {name: next(iter(values[name])) for name in names if len(values[name]) == 1},
        "several_runs": several,
    }


def web_address(url: str) -> str:
    """The address if it is one of the web that a reader can be sent to, else nothing."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    printable = url.isprintable() and not any(c.isspace() for c in url)
    return url if printable and parts.scheme in ("http", "https") and parts.netloc else ""


def _interval(finding: Finding) -> str:
    """An effect with its interval and unit; ratios have none."""
    if math.isnan(finding.effect):
        return fmt.NONE
    if math.isnan(finding.low):
        text = fmt.digits(finding.effect)
    else:
        text = fmt.interval(finding.effect, finding.low, finding.high)
        if finding.effect <= 0 or finding.low <= 0:
            bounds = f"{fmt.digits(finding.low)}, {fmt.digits(finding.high)}"
            text = f"{fmt.digits(finding.effect)} [{bounds}]"
    return text if finding.unit in ("x", "") else f"{text} {finding.unit}"


def _probability(p: float) -> str:
    if math.isnan(p):
        return fmt.NONE
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"


@cache
def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


@cache
def _bundle() -> str:
    """The library that draws; it takes a second to bundle, and is the same for every page."""
    text = charts.bundle()
    if "</script" in text.lower() or "<!--" in text:
        raise RuntimeError("the bundle of vl-convert cannot stand inside a script element")
    return text


def remember_nothing() -> None:
    """Bundle the library anew when it is asked for next."""
    _bundle.cache_clear()


def bundle() -> str:
    """Return the bundle, which is made once however many ask for it at once."""
    with _BUNDLING:
        return _bundle()


def _policy(style: str, *scripts: str) -> str:
    """No request at all, and no script or style but these, which are named by their hashes."""
    allowed: Mapping[str, Sequence[str]] = {"script-src": scripts, "style-src": (style,)}
    rules = [f"{kind} {' '.join(map(_hash, texts))}" for kind, texts in allowed.items()]
    return "; ".join(["default-src 'none'", *rules, "base-uri 'none'", "form-action 'none'"])


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
