"""Plots of a report, made from its tables: marks with their places, and no library yet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import pandas as pd

from backends.api import Case
from bench import format as fmt
from bench.report.gradients import decay
from bench.report.model import LETTERS, Layout, Plot, Table
from bench.report.rows import by_device
from bench.store import Run

#: What tells rows of a plot apart, besides the implementation.
PLACE = ("run", *(field.name for field in fields(Case)), "mode")

_BAND = "median over workers, the band their range (low to high)"

_SHARE = """\
The time of the case's matrix products alone over the implementation's, in %, paired within \
blocks; the band is the interval of the table Latency. 100 % is as fast as the products."""

_FLOOR = """\
a chain of kernels that do next to nothing, as many as a loop of the framework launches at the \
very least: a floor for loops that go step by step, not for a kernel that does a whole sequence \
(cuDNN's) nor for a CUDA graph."""

_LAUNCH_SHARE = f"""\
The time of the framework's launches over the implementation's, in %, paired within blocks; the \
band is the interval of the table Latency. Launches are {_FLOOR}"""


@dataclass(frozen=True, kw_only=True)
class _Line:
    """A line plot: a column of a table times `scale` against T, with its range or interval.

    `gpu_caption` is what is said instead of marks on a GPU.
    """

    name: str
    title: str
    table: str
    column: str
    scale: float
    y: str
    caption: str
    gpu_caption: str | None = None
    log_y: bool = True


_LINES = (
    _Line(
        name="latency",
        title="A call against T",
        table="latency",
        column="steady_s",
        scale=1e3,
        y="a call (ms)",
        caption=f"Steady time of a call in ms: {_BAND}.",
    ),
    _Line(
        name="first-result",
        title="First result against T",
        table="latency",
        column="time_to_first_s",
        scale=1e3,
        y="first result (ms)",
        caption=f"Build, load and first call in a fresh process, in ms: {_BAND}.",
    ),
    _Line(
        name="build",
        title="Build time against T",
        table="latency",
        column="build_s",
        scale=1e3,
        y="build (ms)",
        caption=f"Time to build the graph, the module or the compiled program, in ms: {_BAND}.",
    ),
    _Line(
        name="memory",
        title="Peak memory against T",
        table="memory",
        column="peak_bytes",
        scale=1e-6,
        y="peak (MB)",
        caption=f"Peak of host memory above the imported framework, in MB: {_BAND}.",
        gpu_caption=f"Peak of the GPU's memory by the framework's allocator, in MB: {_BAND}.",
    ),
    _Line(
        name="limit-share",
        title="Share of the limit against T",
        table="latency",
        column="limit_share",
        scale=100,
        y="share of the limit (%)",
        caption=_SHARE,
        log_y=False,
    ),
    _Line(
        name="launch-share",
        title="Share of launches against T",
        table="latency",
        column="launch_share",
        scale=100,
        y="share of launches (%)",
        caption=_LAUNCH_SHARE,
        log_y=False,
    ),
)

_HEAT_CAPTION = """\
Steady time of the first strategy over that of the second: below 1 (blue) the first is faster, \
above 1 (orange) slower. Grey with "?": cannot tell; grey with "=": equivalent. No tile: it was \
not measured, or not ok."""


def plots(tables: Sequence[Table], runs: Sequence[tuple[str, Run]], layout: Layout) -> list[Plot]:
    """Every plot that there is anything to draw in."""
    by_name = {table.name: table.frame for table in tables}
    found = [
        _lines(by_name[line.table], layout, line)
        for line in _LINES
        if line.table in by_name and line.column in by_name[line.table]
    ]
    if "static-dynamic" in by_name:
        found.insert(1, _heat(by_name["static-dynamic"], layout))
    found.append(decay(runs, layout))
    return [plot for plot in found if plot is not None]


def panels(frame: pd.DataFrame, layout: Layout, *, without: Sequence[str]) -> pd.Series[str]:
    """Panel of each row: the fields that vary, but some, in words."""
    said: list[pd.Series[str]] = []
    for name in layout.varying:
        if name not in without:
            words = frame[name].astype(str)
            said.append(words if name == "cell" else f"{LETTERS.get(name, name)}=" + words)
    said.append(frame["mode"])
    if layout.several_runs:
        said.append(frame["run"])
    text = said[0]
    for more in said[1:]:
        text = text + ", " + more
    return text


def _lines(frame: pd.DataFrame, layout: Layout, line: _Line) -> Plot | None:
    """A value against T, a line an implementation; None where nothing was measured."""
    value = frame[line.column]
    kept = (value < math.inf) & (value > (0 if line.log_y else -math.inf))
    if not kept.any():
        return None
    frame = frame[kept]
    marks = frame[[*PLACE, "implementation"]].assign(
        panel=panels(frame, layout, without=["seq_len"]),
        series=frame["implementation"],
        x=frame["seq_len"],
        y=line.scale * frame[line.column],
        low=line.scale * frame[f"{line.column}_low"],
        high=line.scale * frame[f"{line.column}_high"],
    )
    if line.log_y:  # what is not above 0 has no place on such an axis
        marks["low"] = marks["low"].where(marks["low"] > 0)
    caption = line.caption
    if line.name == "latency" and (frame["kind"] == "launches").any():
        caption = f"{caption} Launches are {_FLOOR}"
    return Plot(
        name=line.name,
        title=line.title,
        caption=by_device(marks["device"], caption, line.gpu_caption or caption),
        kind="lines",
        x="T",
        y=line.y,
        log_x=True,
        log_y=line.log_y,
        data=f"{line.table}.csv",
        frame=marks.reset_index(drop=True),
        reading=_reading(marks, line.y),
    )


def _reading(marks: pd.DataFrame, y: str) -> str:
    """The ends of a plot in words."""
    low, high = (marks.iloc[int(at)] for at in (marks["y"].argmin(), marks["y"].argmax()))
    said = (
        f"{fmt.digits(float(row['y']))} ({row['series']}, T={row['seq_len']}, {row['panel']})"
        for row in (low, high)
    )
    return f"{y} against T: from {' to '.join(said)}."


def _heat(frame: pd.DataFrame, layout: Layout) -> Plot | None:
    """Each strategy over its partner, a tile a T."""
    ratio = frame["steady_ratio"]
    frame = frame[(ratio > 0) & (ratio < math.inf)]
    if frame.empty:
        return None
    verdict = frame["verdict"]
    mark = verdict.map({"cannot tell": "? ", "equivalent": "= "}).fillna("")
    partner = frame["against"].str.partition("/")[2]
    marks = frame[[*PLACE, "implementation"]].assign(
        panel=panels(frame, layout, without=["seq_len"]),
        series=frame["implementation"] + " / " + partner,
        x=frame["seq_len"],
        y=frame["steady_ratio"].map(math.log2),
        low=frame["steady_ratio_low"],
        high=frame["steady_ratio_high"],
        text=mark + frame["steady_ratio"].map(_two_digits).astype(str),
        decided=verdict.isin(["faster", "slower"]),
    )
    counts = verdict.value_counts()
    said = ", ".join(f"{counts[word]} {word}" for word in counts.index)
    return Plot(
        name="static-dynamic",
        title="Static over dynamic",
        caption=_HEAT_CAPTION,
        kind="heat",
        x="T",
        y="",
        log_x=False,
        log_y=False,
        data="static-dynamic.csv",
        frame=marks.reset_index(drop=True),
        reading=f"Ratios of steady time by pair and T: {said}.",
    )


def _two_digits(ratio: float) -> str:
    return f"{ratio:.2f}" if 0.1 <= ratio < 10 else fmt.digits(ratio, 2)
