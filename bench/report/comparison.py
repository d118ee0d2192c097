"""A comparison of two runs in words: for a terminal, and as Markdown, CSV and JSON."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from backends.api import Kind
from bench import format as fmt
from bench import stats
from bench.compare import NOT_PLANNED, Comparison, Longest, Row, Unmatched
from bench.evidence import Group, kind_of
from bench.hosts import other_differences
from bench.longest import Search
from bench.record import Job
from bench.report.model import Layout, Report, RunSummary, Table
from bench.report.rows import ratio_columns
from bench.report.summary import SETTLED_BLOCKS, same_everywhere
from bench.store import Run

#: Version of the JSON form.
SCHEMA = 1

#: What a measure is called in a table.
_NAMES = {"steady": "a call", "cold": "first", "memory": "peak"}

_CAPTION = """\
new / old: above 1 the new run is slower, or larger. The ratio of geometric means over blocks, \
with its 95 % t-interval; old and new are medians. Slower (larger): the true ratio is above the \
limit, after Holm's correction for all rows that --fail-if names. Not slower (not larger): the \
90 % interval ends below the limit. Faster (smaller): the interval excludes 1 and the effect is \
above the A/A floor. Else one cannot tell. Small: a peak below 8 MB, where the method's error of \
0.3 MB is the floor. Rows in brackets are not counted."""

_UNMATCHED_CAPTION = """\
Jobs without a figure in one of the runs. Failure: the job was measured, and ends badly now."""

_LONGEST_CAPTION = """\
The longest sequence that ran within the limit of memory, by one search in either run, which began \
with the T of its row; "at least" where something else than memory ended the search. Two \
searches need not end at the same T, so there is no ratio, and no T counts. Failure: the old \
search found a T, and the new one failed, or found that not even T=1 fits."""

_UNPAIRED = """\
unpaired: the runs were measured one after the other. On a busy or virtual host two such runs \
differ by several percent with nothing different between them, and no interval holds that"""


def build(comparison: Comparison) -> Report:
    """The tables of a comparison, and above them what it comes to."""
    jobs = [row.job for row in comparison.rows] + [job.job for job in comparison.unmatched]
    jobs += [job.job for job in comparison.longest]
    groups = [Group(run="", case=job.case, mode=job.mode, jobs={}) for job in jobs]
    layout = Layout.of(groups, several_runs=False)
    tables = (
        _compared(comparison, layout),
        _not_compared(comparison.unmatched, layout),
        _longest(comparison.longest, layout),
    )
    where = ", across hosts" if comparison.hosts else ""
    return Report(
        title=f"{_id(comparison.new)} against {_id(comparison.old)}{where}",
        case=same_everywhere(groups, layout),
        runs=[RunSummary(label="", facts=_facts(comparison), warnings=_warnings(comparison))],
        tables=[table for table in tables if table is not None],
        footnotes=layout.footnotes.texts,
    )


def to_csv(comparison: Comparison) -> str:
    """One row a job, SI units and every digit."""
    rows = [_figures(row, _how(comparison)) for row in comparison.rows]
    rows += [_ends(job) for job in comparison.unmatched]
    rows += [_searches(job) for job in comparison.longest]
    return str(pd.DataFrame(rows).to_csv(index=False))


def to_json(comparison: Comparison) -> str:
    """Everything, every digit, SI units; null where there is no number."""
    data = {
        "schema": SCHEMA,
        **{
            side: {"id": _id(run), "created": run.manifest.get("created")}
            for side, run in (("old", comparison.old), ("new", comparison.new))
        },
        "exit_status": comparison.exit_status,
        "rules": [str(rule) for rule in comparison.rules],
        "paired": comparison.paired,
        "across_hosts": list(comparison.hosts),
        "alpha": stats.ALPHA,
        "warnings": _warnings(comparison),
        "rows": [_figures(row, _how(comparison)) for row in comparison.rows],
        "not_compared": [_ends(job) for job in comparison.unmatched],
        "longest": [_searches(job) for job in comparison.longest],
    }
    return json.dumps(_finite(data), indent=1, allow_nan=False, ensure_ascii=False)


def _finite(value: Any) -> Any:
    """Replace a value that JSON has no number for by None."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _id(run: Run) -> str:
    return fmt.plain(str(run.manifest.get("id", run.folder.name)))


def _how(comparison: Comparison) -> str:
    if comparison.hosts:
        return "across hosts"
    return "paired" if comparison.paired else "unpaired"


def _job(job: Job) -> dict[str, object]:
    """A job as one column a field."""
    return {
        "key": job.key,
        "implementation": job.implementation,
        **asdict(job.case),
        "mode": job.mode,
        "measure": job.measure,
    }


def _figures(row: Row, how: str) -> dict[str, object]:
    """A row with every digit: seconds or bytes, by its measure."""
    return {
        **_job(row.job),
        "verdict": row.verdict,
        "counts": row.gated,
        "old": row.old.value,
        "new": row.new.value,
        "old_blocks": row.old.n,
        "new_blocks": row.new.n,
        **ratio_columns("ratio", row.ratio),
        "confidence": stats.CONFIDENCE,
        "limit": 1 + row.limit,
        "p": row.p,
        "p_family": row.p_family,
        "floor": row.floor.value,
        "floor_measured": row.floor.measured,
        "floor_failed": row.floor.failed,
        "small": row.small,
        "how": how,
    }


def _ends(job: Unmatched) -> dict[str, object]:
    """A job without a ratio: how it ended on either side."""
    return {
        **_job(job.job),
        "verdict": job.effect,
        "old_status": job.old,
        "new_status": job.new,
        "reason": job.reason,
    }


def _searches(job: Longest) -> dict[str, object]:
    """The longest T of either side, in steps; None where a run was not to search."""
    row = {**_job(job.job), "verdict": job.effect}
    for name, side in (("old", job.old), ("new", job.new)):
        row[name] = None if side is None else side.largest
        row[f"{name}_status"] = NOT_PLANNED if side is None else side.status
        row[f"{name}_reason"] = "" if side is None else side.reason
        row[f"{name}_at_least"] = side is not None and side.at_least
        row[f"{name}_limit_bytes"] = None if side is None else side.limit_bytes
        row[f"{name}_limited_by"] = "" if side is None else side.limited_by
    return row


def _compared(comparison: Comparison, layout: Layout) -> Table | None:
    if not comparison.rows:
        return None
    frame = pd.DataFrame([_figures(row, _how(comparison)) for row in comparison.rows])
    display = _heads([row.job for row in comparison.rows], layout)
    display["implementation"] = frame["implementation"]
    small = frame["small"].map({True: ", small", False: ""})
    display["of"] = frame["measure"].map(_NAMES) + small
    display["old"] = [_amount(row, row.old.value) for row in comparison.rows]
    display["new"] = [_amount(row, row.new.value) for row in comparison.rows]
    ratios = (frame[f"ratio{suffix}"] for suffix in ("", "_low", "_high"))
    display["new / old"] = fmt.each(fmt.interval, *ratios)
    display["verdict"] = [verdict_text(row) for row in comparison.rows]
    display["how"] = frame["how"]
    return Table(
        name="compared",
        title="New against old",
        caption=_CAPTION,
        frame=frame,
        display=display,
        heads=layout.heads(),
        words=("implementation", "of", "verdict", "how"),
        spare=("new", "old"),
    )


def _not_compared(jobs: Sequence[Unmatched], layout: Layout) -> Table | None:
    """One row for all measures of an implementation that ended alike."""
    if not jobs:
        return None
    alike: dict[tuple[object, ...], list[Unmatched]] = defaultdict(list)
    for job in jobs:
        what = (job.job.implementation, job.job.case, job.job.mode)
        alike[*what, job.old, job.new, job.reason, job.effect].append(job)
    firsts = [found[0] for found in alike.values()]
    display = _heads([job.job for job in firsts], layout)
    display["implementation"] = [job.job.implementation for job in firsts]
    display["of"] = [", ".join(_NAMES[j.job.measure] for j in found) for found in alike.values()]
    display["old"] = [job.old for job in firsts]
    display["new"] = [job.new for job in firsts]
    display["verdict"] = [_effect_text(job.effect) for job in firsts]
    display["reason"] = [layout.footnotes.mark(job.reason) for job in firsts]
    return Table(
        name="not-compared",
        title="Not compared",
        caption=_UNMATCHED_CAPTION,
        frame=pd.DataFrame([_ends(job) for job in jobs]),
        display=display,
        heads=layout.heads(),
        words=("implementation", "of", "old", "new", "verdict", "reason"),
        spare=(),
    )


def _longest(jobs: Sequence[Longest], layout: Layout) -> Table | None:
    if not jobs:
        return None
    display = _heads([job.job for job in jobs], layout)
    display["implementation"] = [job.job.implementation for job in jobs]
    display["old"] = [_length(job.old, layout) for job in jobs]
    display["new"] = [_length(job.new, layout) for job in jobs]
    display["limit"] = [_limits(job) for job in jobs]
    display["verdict"] = [_effect_text(job.effect) for job in jobs]
    return Table(
        name="longest",
        title="Longest T",
        caption=_LONGEST_CAPTION,
        frame=pd.DataFrame([_searches(job) for job in jobs]),
        display=display,
        heads=layout.heads(),
        words=("implementation", "old", "new", "limit", "verdict"),
        spare=("limit",),
    )


def _length(side: Search | None, layout: Layout) -> str:
    """The longest T of a search in words, or how it ended."""
    if side is None:
        return NOT_PLANNED
    if side.largest == 0:
        return "none"
    if side.runs and not side.at_least:
        return f"{side.largest:,.0f}"
    said = f"at least {side.largest:,.0f}" if side.runs else side.status
    return f"{said} {layout.footnotes.mark(side.reason)}" if side.reason else said


def _limits(job: Longest) -> str:
    """The limit of memory and how it was kept, of both sides where they differ."""
    said = [_limit(side) for side in (job.old, job.new) if side is not None]
    return " / ".join(dict.fromkeys(text for text in said if text)) or fmt.NONE


def _limit(side: Search) -> str:
    if math.isnan(side.limit_bytes):
        return ""
    unit = fmt.size([side.limit_bytes])
    said = f"{fmt.digits(side.limit_bytes / unit.scale)} {unit.name}"
    return f"{said}, {side.limited_by}" if side.limited_by else said


def _effect_text(effect: str) -> str:
    return "not counted" if effect == "none" else effect


def _heads(jobs: Sequence[Job], layout: Layout) -> pd.DataFrame:
    groups = (Group(run="", case=job.case, mode=job.mode, jobs={}) for job in jobs)
    return pd.DataFrame([layout.head(group) for group in groups], columns=list(layout.heads()))


def _amount(row: Row, value: float) -> str:
    """Seconds or bytes, in the same unit on both sides."""
    both = (row.old.value, row.new.value)
    unit = fmt.size(both) if row.job.measure == "memory" else fmt.seconds(both)
    return f"{fmt.digits(value / unit.scale)} {unit.name}"


def verdict_text(row: Row) -> str:
    """A verdict as a table says it; in brackets where it does not count."""
    text: str = row.verdict
    if row.job.measure == "memory":
        text = text.replace("slower", "larger").replace("faster", "smaller")
    return text if row.gated else f"({text})"


def _facts(comparison: Comparison) -> dict[str, str]:
    old, new = comparison.old.manifest, comparison.new.manifest
    changed = other_differences(old, new)
    facts = {
        "result": _result(comparison),
        "fails if": ", ".join(str(rule) for rule in comparison.rules),
        "old": f"{_id(comparison.old)}, {old.get('created', 'at an unknown time')}",
        "new": f"{_id(comparison.new)}, {new.get('created', 'at an unknown time')}",
        "changed": "; ".join(changed) or "nothing that the runs' manifests know of",
    }
    return {name: fmt.plain(text) for name, text in facts.items()}


def _result(comparison: Comparison) -> str:
    """Counts of the rows that matter, the worst first, and the exit status that follows."""
    texts = [verdict_text(row) for row in comparison.rows if row.gated]
    texts += [job.effect for job in comparison.unmatched if job.effect != "none"]
    texts += [job.effect for job in comparison.longest if job.effect != "none"]
    order = ("slower", "larger", "failure", "cannot tell")
    counts = Counter(texts)
    said = [f"{counts.pop(word)} {word}" for word in order if word in counts]
    said += [f"{count} {word}" for word, count in counts.most_common()]
    return f"{', '.join(said) or 'nothing that counts'}; exit status {comparison.exit_status}"


def _warnings(comparison: Comparison) -> list[str]:
    rows = comparison.rows
    found = []
    if comparison.hosts:
        found.append(
            f"across hosts ({'; '.join(comparison.hosts)}): a ratio may be the hosts' and not the "
            "software's"
        )
    if not comparison.paired:
        found.append(_UNPAIRED)
    fewest = min((min(row.old.n, row.new.n) for row in rows), default=SETTLED_BLOCKS)
    if fewest < SETTLED_BLOCKS:
        found.append(f"preliminary: fewer than {SETTLED_BLOCKS} blocks ({fewest}) of some job")
    bare = sum(not row.floor.measured and not row.small for row in rows)
    if bare:
        found.append(f"no A/A pair for {bare} of {len(rows)} rows: their floor is 1 %")
    blind = sum(row.floor.missing for row in rows)
    if blind:
        found.append(f"memory is not calibrated for {blind} rows, of which one cannot tell")
    failed = sum(row.floor.failed for row in rows)
    if failed:
        found.append(f"A/A failed (identical arms were called different) for {failed} rows")
    if comparison.overruled:
        found.append(
            f"rows beyond their limit by themselves, but not among so many (Holm): "
            f"{comparison.overruled}; more blocks, or fewer jobs, would tell"
        )
    found += _moved_limits(rows)
    for word, run in (("old", comparison.old), ("new", comparison.new)):
        status = run.manifest.get("status")
        if status != "finished":
            found.append(f"the {word} run is not finished: its status is {status}")
    return [fmt.plain(text) for text in (*found, *comparison.faults)]


def _moved_limits(rows: Sequence[Row]) -> list[str]:
    """Reference arms that take another time than before: no implementation is part of them."""
    found = []
    for kind, (what, reason) in _BARE.items():
        moved = [
            f"{row.job.implementation} {row.job.mode}"
            for row in rows
            if kind_of(row.job.implementation) == kind and row.verdict in ("slower", "faster")
        ]
        if moved:
            found.append(f"{what} moved too ({', '.join(dict.fromkeys(moved))}): {reason}")
    return found


_BARE: Mapping[Kind, tuple[str, str]] = {
    "limit": (
        "bare matrix products",
        "the host, or the libraries under the frameworks, may be the reason",
    ),
    "launches": ("bare launches", "the host, or the GPU's driver, may be the reason"),
}


__all__ = ["build", "to_csv", "to_json", "verdict_text"]
