"""Peak memory: of the host, or of the GPU that computes with the host's and its driver's beside."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import pandas as pd

from backends.devices import is_gpu
from bench import format as fmt
from bench.evidence import Evidence, Group, is_misread, is_small
from bench.memory import HOST_PEAK
from bench.report.model import Layout, Table
from bench.report.rows import by_device, ends, identity, over_blocks, ranges, spread
from bench.watch import NVML_PEAK

_HOST_CAPTION = """\
Peak host memory above the imported framework, through build, load and two calls in a fresh \
process in which nothing is timed: the median over workers, with their range (low..high). Build \
peak: before the first call. Small: below 8 MB, where a constant error of 0.2-0.3 MB rules. Not \
calibrated: a known allocation of 64 MB was read more than 5 % off, when the run started or \
after the job."""

_GPU_CAPTION = """\
On a GPU the peak is of its memory, as the framework's allocator counts it, above what was there \
before the build; through build, load and two calls in a fresh process in which nothing is timed: \
the median over workers, with their range (low..high). Build peak: before the first call. Host \
peak: host memory meanwhile, above the imported framework. NVML peak: the GPU's memory in use by \
its driver's account, above what was before the process began; it holds the context, libraries, \
what the allocator keeps in reserve, and what the check takes, and is not told where another \
process computed there."""

#: The peaks that stand beside that of a GPU, and what they are called.
_BESIDE = {HOST_PEAK: "host peak", NVML_PEAK: "NVML peak"}

_XLA_CAPTION = """\
 XLA temp: what the compiler says that the program needs beside arguments and results, as a check \
on the method."""


def memory(groups: Sequence[Group], layout: Layout) -> Table | None:
    """Peak memory; one row an implementation, the smallest first."""
    rows, heads, status = [], [], []
    measured = [group for group in groups if group.implementations("memory")]
    beside = _BESIDE if any(is_gpu(group.case.device) for group in measured) else {}
    for group in measured:
        jobs = [group.get(name, "memory") for name in group.implementations("memory")]
        for job in sorted(jobs, key=_peak):
            name = job.job.implementation
            rows.append(_row(group, name, job, beside))
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
    for name, header in beside.items():
        display[f"{header} ({unit.name})"] = fmt.each(fmt.digits, frame[name] / unit.scale)
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
        caption=by_device(frame["device"], _HOST_CAPTION, _GPU_CAPTION)
        + (_XLA_CAPTION if analysed else ""),
        frame=frame,
        display=display,
        heads=layout.heads(),
        words=("implementation", "note", "status"),
        spare=(
            *("build peak range", f"build peak ({unit.name})"),
            *(f"{header} ({unit.name})" for header in beside.values()),
            *((f"XLA temp ({unit.name})",) if analysed else ()),
            "peak range",
        ),
    )


def _peak(job: Evidence) -> float:
    peak = over_blocks(job.values("peak_bytes"))
    return peak.value if peak else math.inf


def _row(group: Group, name: str, job: Evidence, beside: Iterable[str]) -> dict[str, object]:
    """`beside` are further values of which each row has columns."""
    peak = over_blocks(job.values("peak_bytes"))
    calibration = job.calibration_error
    notes = []
    if is_misread(job):
        notes.append(f"not calibrated ({calibration:+.0%})")
    if is_small(job.job, [] if peak is None else [peak.value]):
        notes.append("small")
    return {
        **identity(group, name),
        **ends(group.outcomes(name, "memory")),
        **spread("peak_bytes", peak),
        **spread("build_peak_bytes", over_blocks(job.values("build_peak_bytes"))),
        **{k: v for b in beside for k, v in spread(b, over_blocks(job.values(b))).items()},
        **spread("program_temp_bytes", over_blocks(job.values("program_temp_bytes"))),
        "calibration_error": calibration,
        "note": ", ".join(notes),
    }
