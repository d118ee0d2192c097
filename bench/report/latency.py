"""Time of each implementation to its first result, and of a call from then on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

import pandas as pd

from backends import BACKENDS
from backends.devices import is_gpu
from backends.products import flops
from bench import format as fmt
from bench import stats
from bench.evidence import Evidence, Group, kind_of
from bench.record import TO_FIRST
from bench.report.model import Layout, Table
from bench.report.rows import (
    ends,
    identity,
    intervals,
    level,
    over_blocks,
    ranges,
    ratio_columns,
    spread,
)

_CAPTION = """\
Times are medians over workers of each worker's median, with their range over workers (low..high; \
not an interval). First result: build, load of weights and batch, first call with its \
synchronisation; in a fresh process, the framework already imported. GFLOP/s counts matrix \
products only, padding too, and so do sequences and steps. Share of the limit: the time of the \
case's matrix products alone, by the fastest library that ran them, over the implementation's, \
paired within blocks, with its {level} interval; an implementation that fuses products can \
exceed 100 %."""

_LAUNCHES = """\
 Share of launches: the time of a chain of kernels that do next to nothing, as many as a loop \
of the implementation's framework launches at the very least (one for each step, layer and \
direction, two in training), over the implementation's. They are a floor for loops that go step by \
step, not for a kernel that does a whole sequence (cuDNN's) nor for a CUDA graph, which can exceed \
100 %."""

_BY_GPU = """\
 By the GPU: between a mark before a call and one behind it, by the GPU's own clock (events), in \
calls of their own after the timing. An idle GPU comes to the first mark at once, so that all in \
which it waits for the host is in it, before the first kernel too; what a call takes beside is how \
the host learns of the end."""

#: What is said beside the name of what is no implementation.
_RIDING = {"limit": " (limit)", "launches": " (floor of step-by-step loops)"}


def latency(groups: Sequence[Group], layout: Layout) -> Table | None:
    """Latency, throughput, share of the limit and program size; one row an implementation."""
    rows, heads, status = [], [], []
    launched = any(group.launches(backend) for group in groups for backend in BACKENDS)
    by_gpu = any(map(_has_own_clock, groups))
    caption = _CAPTION.format(level=level(groups))
    caption += (_LAUNCHES if launched else "") + (_BY_GPU if by_gpu else "")
    for group in groups:
        limit = group.limit()
        for name in group.implementations("steady", "cold"):
            row = {**identity(group, name), **_row(group, name, limit)}
            row |= _launches(group, name) if launched else {}
            rows.append(row | (_by_gpu(group, name) if by_gpu else {}))
            heads.append(layout.head(group))
            status.append(layout.footnotes.cell(group.outcomes(name, "steady", "cold")))
    if not rows:
        return None
    frame = pd.DataFrame(rows)
    display = pd.DataFrame(heads, columns=list(layout.heads()))
    display["implementation"] = [
        name + _RIDING.get(kind, "")
        for name, kind in zip(frame["implementation"], frame["kind"], strict=True)
    ]
    unit = fmt.seconds(frame["steady_s"])
    display[f"steady ({unit.name})"] = fmt.each(fmt.digits, frame["steady_s"] / unit.scale)
    display["range"] = ranges(frame, "steady_s", unit)
    own_clock = [f"by the GPU ({unit.name})"] if by_gpu else []
    for column in own_clock:
        display[column] = fmt.each(fmt.digits, frame["gpu_s"] / unit.scale)
    unit = fmt.seconds(frame["time_to_first_s"])
    for column, header in _COLD.items():
        display[f"{header} ({unit.name})"] = fmt.each(fmt.digits, frame[column] / unit.scale)
    display["share of limit (%)"] = intervals(frame, "limit_share", 100)
    shares = ["share of limit (%)"]
    if launched:
        shares.append("share of launches (%)")
        display[shares[-1]] = intervals(frame, "launch_share", 100)
    display["GFLOP/s"] = fmt.each(fmt.digits, frame["flop_per_s"] / 1e9)
    display["sequences/s"] = fmt.each(fmt.digits, frame["sequences_per_s"])
    display["steps/s"] = fmt.each(fmt.digits, frame["steps_per_s"])
    display["program"] = _programs(frame)
    display["status"] = status
    first, build, load, call = (f"{header} ({unit.name})" for header in _COLD.values())
    spare = ("steps/s", "sequences/s", load, "program", build, call, "GFLOP/s", "range")
    return Table(
        name="latency",
        title="Latency",
        caption=caption,
        frame=frame,
        display=display,
        heads=layout.heads(),
        words=("implementation", "status"),
        spare=(*spare, first, *own_clock, *shares),
    )


_COLD = {
    "time_to_first_s": "first result",
    "build_s": "build",
    "load_s": "load",
    "first_s": "first call",
}


def _row(group: Group, name: str, limit: str | None) -> dict[str, object]:
    steady, cold = group.get(name, "steady"), group.get(name, "cold")
    row: dict[str, object] = {"kind": kind_of(name)}
    row |= ends(group.outcomes(name, "steady", "cold"))
    row |= spread("steady_s", steady.steady)
    computes = kind_of(name) != "launches"
    seconds = steady.steady.value if steady.steady and computes else float("nan")
    row["sequences_per_s"] = group.case.batch / seconds
    row["steps_per_s"] = group.case.batch * group.case.seq_len / seconds
    flop = flops(group.case, group.mode)
    row |= {"flop": flop, "flop_per_s": flop / seconds}
    share = None
    if limit is not None and computes:
        share = group.steady_ratio(limit, name)
    row |= {"limit": limit, **ratio_columns("limit_share", share)}
    row |= spread("time_to_first_s", over_blocks(cold.single(*TO_FIRST)))
    for phase in ("create", *TO_FIRST):
        row |= spread(f"{phase}_s", over_blocks(cold.single(phase)))
    return row | _parts(cold) | _parts(steady)


def _launches(group: Group, name: str) -> dict[str, object]:
    """The share of the floor of the framework's own loops, where that was measured."""
    floor = group.launches(name.partition("/")[0])
    share = None if floor is None else group.steady_ratio(floor, name)
    return {"launches": floor, **ratio_columns("launch_share", share)}


def _has_own_clock(group: Group) -> bool:
    """Whether there are calls by the GPU's own clock."""
    jobs = group.jobs.values() if is_gpu(group.case.device) else ()
    return any(job.blocks("device") for job in jobs)


def _by_gpu(group: Group, name: str) -> dict[str, object]:
    """A call by the GPU's own clock, where the framework reads it."""
    blocks = group.get(name, "steady").blocks("device")
    return spread("gpu_s", over_blocks({n: median(found) for n, found in blocks.items()}))


def _parts(job: Evidence) -> dict[str, float]:
    """Named parts of a build, and the size of the program (the same in every block)."""
    parts = {
        f"{phase.replace(':', '_')}_s": stats.estimate(job.single(phase).values()).value
        for phase in job.phases()
        if phase.startswith("stage:")
    }
    sizes = {name for record in job.records for name in record.values if _is_size(name)}
    return parts | {
        name: max(values.values()) for name in sorted(sizes) if (values := job.values(name))
    }


def _is_size(name: str) -> bool:
    return name.startswith("program_")


def _programs(frame: pd.DataFrame) -> list[str]:
    names = [str(column) for column in frame.columns if _is_size(str(column))]
    if not names:
        return [fmt.NONE] * len(frame)
    return [
        ", ".join(
            f"{n:,.0f} {name.removeprefix('program_')}"
            for name, n in zip(names, sizes, strict=True)
            if not math.isnan(n)
        )
        or fmt.NONE
        for sizes in zip(*(frame[name].tolist() for name in names), strict=True)
    ]
