"""A run in words: where it was measured, with what, how often, and what speaks against it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from backends.api import Case
from bench.evidence import Group, absent_reason
from bench.format import digits, plain
from bench.report import instrument
from bench.report.model import LETTERS, Layout, RunSummary
from bench.store import Run, mapping_in

#: Fewer blocks than this give intervals that are wide, and a run that is called preliminary.
SETTLED_BLOCKS = 10

_UNKNOWN = "unknown"


def summary(run: Run, label: str, groups: Sequence[Group], faults: Sequence[str]) -> RunSummary:
    """The header of one run. `faults` are what was found wrong with it besides its own."""
    manifest = run.manifest
    facts = {
        "run": _line(manifest, "id", "created"),
        "command": _text(manifest.get("command")),
        "host": _host(mapping_in(manifest, "host")),
        "threads": f"{_threads(groups)}, workers by {_text(manifest.get('start'))}",
        "versions": _pairs(mapping_in(manifest, "versions")),
        "backends": _backends(mapping_in(manifest, "backends")),
        "blocks": _blocks(groups),
        "load": f"{_text(manifest.get('load_before'))} before, "
        f"{_text(manifest.get('load_after'))} after (1-minute average)",
        "jobs": _statuses(groups),
        **instrument.facts(run, groups),
    }
    return RunSummary(
        label=label,
        folder=run.folder,
        facts={name: plain(text) for name, text in facts.items() if text},
        warnings=[
            plain(text)
            for text in (
                *instrument.earlier_protocol(run),
                *instrument.warnings(groups),
                *instrument.costly(run),
                *_warnings(run, groups),
                *faults,
                *run.faults,
            )
        ],
    )


def same_everywhere(groups: Sequence[Group], layout: Layout) -> str:
    """The fields of the case that do not vary over the report."""
    case = groups[0].case
    return ", ".join(
        f"{LETTERS.get(f.name, f.name.replace('_', ' '))}={getattr(case, f.name)}"
        for f in fields(Case)
        if f.name not in layout.varying
    )


def _threads(groups: Sequence[Group]) -> str:
    return ", ".join(map(str, sorted({group.case.threads for group in groups}))) or _UNKNOWN


def _text(value: object) -> str:
    if value is None:
        return _UNKNOWN
    return digits(value) if isinstance(value, float) else str(value)


def _line(manifest: Mapping[str, Any], *keys: str) -> str:
    return ", ".join(_text(manifest.get(key)) for key in keys)


def _pairs(values: object) -> str:
    if not isinstance(values, Mapping):
        return "" if values is None else _text(values)
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _host(host: Mapping[str, Any]) -> str:
    memory = host.get("memory_bytes")
    parts = [
        _text(host.get("hostname")),
        f"{_cpu(host)}, {_text(host.get('cores'))} cores",
        f"{memory / 1e9:.0f} GB" if isinstance(memory, int | float) and 0 <= memory < 1e18 else "",
        str(host.get("system", "")),
        f"Python {_text(host.get('python'))}",
        "a virtual machine" if host.get("virtual") else "",
    ]
    return "; ".join(part for part in parts if part)


def _cpu(host: Mapping[str, Any]) -> str:
    """Its name; a model that a generic name does not tell, and the widest vectors that it has."""
    told = [_text(host.get("cpu"))]
    model, vectors = host.get("cpu_model"), host.get("vectors")
    if isinstance(model, str) and model.strip("/"):
        told.append(f"family/model/stepping {model}")
    if isinstance(vectors, list) and vectors:
        widest = [str(v) for v in vectors if v in ("avx2", "avx512f", "amx_tile", "sve", "asimd")]
        told.append(" ".join(widest))
    return ", ".join(text for text in told if text)


def _backends(backends: Mapping[str, Any]) -> str:
    """Description of each backend, or the reason why it gave none."""
    said = []
    for name, info in backends.items():
        if not isinstance(info, Mapping) or "error" in info:
            said.append(f"{name}: {info['error'] if isinstance(info, Mapping) else info}")
            continue
        threads = _pairs(info.get("threads"))
        devices = _pairs(info.get("devices"))
        said.append(f"{name}: threads {threads or _UNKNOWN}; devices {devices or _UNKNOWN}")
    return " | ".join(said)


def _believed(groups: Sequence[Group], measure: str) -> list[int]:
    """Number of blocks of each job of a measure that count, of those that have any."""
    counts = [
        job.outcome.ok
        for group in groups
        for (_, found), job in group.jobs.items()
        if found == measure
    ]
    return [count for count in counts if count]


def _blocks(groups: Sequence[Group]) -> str:
    """Blocks of the jobs out of those that were planned; a range if they differ."""
    planned: dict[str, int] = {}
    for group in groups:
        for (_, measure), job in group.jobs.items():
            planned[measure] = max(job.planned, planned.get(measure, 0))
    text = ", ".join(
        f"{_span(_believed(groups, measure))} of {count} {measure}"
        for measure, count in planned.items()
    )
    return f"{text} (preliminary)" if _is_preliminary(groups) else text


def _span(counts: Sequence[int]) -> str:
    if not counts:
        return "0"
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def _fewest(groups: Sequence[Group]) -> int:
    """The blocks of the timed job that has the fewest, of those that have any."""
    steady = any(measure == "steady" for group in groups for _, measure in group.jobs)
    return min(_believed(groups, "steady" if steady else "cold"), default=0)


def _is_preliminary(groups: Sequence[Group]) -> bool:
    """Whether there are times, and few blocks of them."""
    timed = any(m in ("steady", "cold") for group in groups for _, m in group.jobs) or not groups
    return timed and _fewest(groups) < SETTLED_BLOCKS


def _statuses(groups: Sequence[Group]) -> str:
    counts = Counter(job.outcome.status for group in groups for job in group.jobs.values())
    return ", ".join(f"{count} {status}" for status, count in counts.most_common())


def _warnings(run: Run, groups: Sequence[Group]) -> list[str]:
    found = []
    if _is_preliminary(groups):
        found.append(f"preliminary: fewer than {SETTLED_BLOCKS} blocks ({_fewest(groups)})")
    status = run.manifest.get("status")
    if run.manifest.get("finished") is None or status != "finished":
        found.append(f"not finished ({_text(status)}): {absent_reason(run.manifest)}")
    return found
