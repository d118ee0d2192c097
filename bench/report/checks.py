"""Peak memory, and how far outputs are from the oracle's."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from bench import format as fmt
from bench.evidence import CALIBRATION, SMALL_BYTES, Evidence, Group, rides_along
from bench.record import MEASURES
from bench.report.model import Layout, Table
from bench.report.rows import ends, identity, over_blocks, ranges, spread

_MEMORY_CAPTION = """\
Peak host memory above the imported framework, through build, load and two calls in a fresh \
process in which nothing is timed: the median over workers, with their range (low..high). Build \
peak: before the first call. Small: below 8 MB, where a constant error of 0.2-0.3 MB rules. Not \
calibrated: a known allocation of 64 MB was read more than 5 % off, when the run started or \
after the job."""

_XLA_CAPTION = """\
 XLA temp: what the compiler says that the program needs beside arguments and results, as a check \
on the method."""

_OUTPUTS_CAPTION = """\
Largest absolute error against the float64 oracle over all blocks, and in brackets the same \
relative to the largest expected value. Forward jobs are checked by outputs and final state, \
training jobs by loss and gradients. The executable that is checked is the one that is timed. The \
least exact come first."""

_PARTS = ("outputs", "state", "loss", "gradients")


def memory(groups: Sequence[Group], layout: Layout) -> Table | None:
    """Peak memory; one row an implementation, the smallest first."""
    rows, heads, status = [], [], []
    for group in groups:
        jobs = [group.get(name, "memory") for name in group.implementations("memory")]
        for job in sorted(jobs, key=_peak):
            name = job.job.implementation
            rows.append(_memory_row(group, name, job))
            heads.append(layout.head(group))
            status.append(layout.footnotes.cell(group.outcomes(name, "memory")))
    if not rows:
        return None
    frame = pd.DataFrame(rows)
    display = pd.DataFrame(heads, columns=list(layout.heads()))
    display["implementation"] = frame["implementation"]
    unit = fmt.size(frame["peak_bytes"])
    for name, header in (("peak_bytes", "peak"), ("build_peak_bytes", "build peak")):
        display[f"{header} ({unit.name})"] = fmt.each(fmt.digits, frame[name] / unit.scale)
        display[f"{header} range"] = ranges(frame, name, unit)
    analysed = frame["program_temp_bytes"].notna().any()
    if analysed:
        temp = frame["program_temp_bytes"] / unit.scale
        display[f"XLA temp ({unit.name})"] = fmt.each(fmt.digits, temp)
    if frame["note"].any():
        display["note"] = frame["note"]
    display["status"] = status
    return Table(
        name="memory",
        title="Memory",
        caption=_MEMORY_CAPTION + (_XLA_CAPTION if analysed else ""),
        frame=frame,
        display=display,
        heads=layout.heads(),
        words=("implementation", "note", "status"),
        spare=(
            *("build peak range", f"build peak ({unit.name})"),
            *((f"XLA temp ({unit.name})",) if analysed else ()),
            "peak range",
        ),
    )


def _peak(job: Evidence) -> float:
    peak = over_blocks(job.values("peak_bytes"))
    return peak.value if peak else math.inf


def _memory_row(group: Group, name: str, job: Evidence) -> dict[str, object]:
    peak = over_blocks(job.values("peak_bytes"))
    calibration = job.calibration_error
    notes = []
    if abs(calibration) > CALIBRATION:
        notes.append(f"not calibrated ({calibration:+.0%})")
    if peak is not None and peak.value < SMALL_BYTES:
        notes.append("small")
    return {
        **identity(group, name),
        **ends(group.outcomes(name, "memory")),
        **spread("peak_bytes", peak),
        **spread("build_peak_bytes", over_blocks(job.values("build_peak_bytes"))),
        **spread("program_temp_bytes", over_blocks(job.values("program_temp_bytes"))),
        "calibration_error": calibration,
        "note": ", ".join(notes),
    }


def outputs(groups: Sequence[Group], layout: Layout) -> Table | None:
    """Errors against the oracle; one row an implementation, the least exact first."""
    rows, heads, status = [], [], []
    for group in groups:
        names = [n for n in group.implementations(*MEASURES) if not rides_along(n)]
        errors = {name: _errors(group, name) for name in names}
        for name in sorted(names, key=lambda name: -_largest(errors[name])):
            outcomes = group.outcomes(name, *MEASURES)
            rows.append({**identity(group, name), **ends(outcomes), **errors[name]})
            heads.append(layout.head(group))
            status.append(layout.footnotes.cell(outcomes))
    if not rows:
        return None
    frame = pd.DataFrame(rows)
    display = pd.DataFrame(heads, columns=list(layout.heads()))
    display["implementation"] = frame["implementation"]
    for forward, train in (("outputs", "loss"), ("state", "gradients")):
        # A job is of one mode, so that the two never meet in a row.
        pair = (
            frame[f"{forward}_{kind}"].fillna(frame[f"{train}_{kind}"])
            for kind in ("absolute", "relative")
        )
        display[f"{forward} or {train}"] = fmt.each(fmt.errors, *pair)
    display["status"] = status
    return Table(
        name="outputs",
        title="Outputs against the oracle",
        caption=_OUTPUTS_CAPTION,
        frame=frame,
        display=display,
        heads=layout.heads(),
        words=("implementation", "status"),
        spare=("state or gradients",),
    )


def _errors(group: Group, name: str) -> dict[str, float]:
    """The largest errors over all records of an implementation, those that failed too."""
    records = [record for measure in MEASURES for record in group.get(name, measure).records]
    return {
        f"{part}_{kind}": max(
            (r.errors[part][kind] for r in records if part in r.errors), default=math.nan
        )
        for part in _PARTS
        for kind in ("absolute", "relative")
    }


def _largest(errors: dict[str, float]) -> float:
    known = [value for kind, value in errors.items() if not math.isnan(value) and "rel" in kind]
    return max(known, default=-1.0)
