"""Plots drawn by Altair: as a specification that a page draws by itself, and as SVG and PNG."""

from __future__ import annotations

import base64
import json
import math
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd

from backends import IMPLEMENTATIONS
from bench.errors import UsageError
from bench.format import shortened
from bench.report.model import Plot

#: A plot has at most so many panels; a page chooses others by its filters.
MOST_PANELS = 6

#: Of Okabe and Ito (2008) those that stand out on white and on black; told apart with any eyes.
_COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#808080", "#e69f00", "#56b4e9")
_OF_FRAMEWORK: Mapping[str, str] = {
    "tensorflow": "#d55e00",
    "torch": "#0072b2",
    "jax": "#009e73",
    "onnx": "#cc79a7",
    "reference": "#808080",
}
_FASTER, _EVEN, _SLOWER, _UNDECIDED = "#56b4e9", "#f4f4f4", "#e69f00", "#c4c4c4"

#: A kind of strategy is a dash, a strategy a shape: no line is told by its colour alone.
_DASHES: Mapping[str | None, Sequence[int]] = {
    "static": [1, 0],
    "dynamic": [6, 3],
    "fused": [2, 2],
    "limit": [10, 3, 2, 3],
    "launches": [1, 3],
}
#: A cell's lines have no kind.
_CELLS_DASHES = ([1, 0], [6, 3], [2, 2], [10, 3, 2, 3])
_SHAPES = (
    *("circle", "square", "triangle-up", "diamond", "cross"),
    *("triangle-down", "triangle-right", "triangle-left"),
)

#: A ratio of 2 or 1/2 has all of a colour.
_MOST_LOG2 = 1.0

#: Columns that the marks of a plot need; the page hands in just these.
MARKS = ("panel", "series", "x", "y", "low", "high", "framework", "strategy", "text", "decided")

_NAME = "marks"


def names_in(plots: Iterable[Plot]) -> list[str]:
    """The implementations of plots that stand together: one has one look in all of them."""
    return list(dict.fromkeys(name for plot in plots for name in plot.frame["implementation"]))


def specification(plot: Plot, names: Sequence[str]) -> dict[str, Any]:
    """The plot as Vega-Lite, its data under the name `marks` yet to come."""
    return dict(_chart(plot, names, alt.NamedData(name=_NAME)).to_dict(validate=False))


def pictures(plots: Sequence[Plot]) -> list[tuple[str, bytes]]:
    """The first panels of each plot as SVG and as PNG."""
    if not plots:
        return []
    names = names_in(plots)
    given = json.dumps([_whole(plot, names) for plot in plots], default=_plain)
    drawn = in_another_process("pictures", given)
    return [(svg, base64.b64decode(png)) for svg, png in json.loads(drawn)]


def _whole(plot: Plot, names: Sequence[str]) -> dict[str, Any]:
    """The plot with its data in it."""
    marks = with_names(plot.frame)
    first = list(dict.fromkeys(marks["panel"]))[:MOST_PANELS]
    marks = marks[marks["panel"].isin(first)]
    values: list[dict[str, Any]] = [
        {str(name): value for name, value in row.items() if value == value}  # noqa: PLR0124, no NaN
        for row in marks[[name for name in MARKS if name in marks]].to_dict("records")
    ]
    chart = _chart(plot, names, alt.InlineData(values=values))
    title = alt.TitleParams(text=plot.title, anchor="start")
    return dict(chart.properties(title=title, background="white").to_dict(validate=False))


def bundle() -> str:
    """Vega, Vega-Lite and vega-embed as one script, which leaves `vegaEmbed` on the window."""
    return in_another_process("bundle")


def in_another_process(what: str, given: str = "") -> str:
    """Run `drawing` in a process of its own. Raises `UsageError` if it dies."""
    script = Path(__file__).with_name("drawing.py")
    ended = subprocess.run(
        [sys.executable, str(script), what, _version()],
        input=given.encode(),
        capture_output=True,
        check=False,
    )
    if ended.returncode:
        said = shortened(ended.stderr.decode(errors="replace").strip().rpartition("\n")[2], 200)
        raise UsageError(f"plots cannot be drawn: {said or f'exit status {ended.returncode}'}")
    return ended.stdout.decode()


def _version() -> str:
    """The version of Vega-Lite that Altair writes, as vl-convert calls it."""
    return ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])


def _plain(value: Any) -> Any:
    return value.item()


def with_names(frame: pd.DataFrame) -> pd.DataFrame:
    """The marks with framework and strategy told apart."""
    parts = frame["implementation"].str.partition("/")
    return frame.assign(framework=parts[0], strategy=parts[2])


def _chart(plot: Plot, names: Sequence[str], data: Any) -> alt.FacetChart:
    layers = {"lines": _lines, "decay": _decay, "heat": _heat}[plot.kind](plot, names)
    chart = alt.layer(*layers).properties(width=300, height=_height(plot))
    facet = alt.Facet("panel:N", title=None, sort=None, header=alt.Header(labelFontSize=11))
    faceted = chart.facet(facet, columns=2, data=data)
    configured: alt.FacetChart = faceted.configure_legend(
        orient="bottom", columns=4, labelLimit=260, symbolLimit=60, symbolOpacity=1
    )
    return configured


def _height(plot: Plot) -> Any:
    return alt.Step(20) if plot.kind == "heat" else 190


def _x(plot: Plot) -> alt.X:
    if not plot.log_x:
        return alt.X("x:Q", title=plot.x, scale=alt.Scale(zero=False, nice=False))
    ticks = sorted(int(x) for x in plot.frame["x"].unique())
    scale = alt.Scale(type="log", nice=False, padding=12)
    axis = alt.Axis(values=ticks, grid=False, format="d", labelOverlap="greedy")
    return alt.X("x:Q", title=plot.x, scale=scale, axis=axis)


def _y(plot: Plot, field: str = "y") -> alt.Y:
    kind = alt.Scale(type="log", nice=False, padding=8) if plot.log_y else alt.Scale(zero=True)
    axis = alt.Axis(tickCount=5, format="~g") if plot.log_y else alt.Axis(tickCount=5)
    return alt.Y(f"{field}:Q", title=plot.y, scale=kind, axis=axis)


def _lines(plot: Plot, names: Sequence[str]) -> list[alt.Chart]:
    """A line an implementation: the colour tells the framework, shape and dash the strategy."""
    parts = [name.partition("/") for name in names]
    known = IMPLEMENTATIONS.values()
    frameworks = _ordered([part[0] for part in parts], [entry.backend for entry in known])
    strategies = _ordered([part[2] for part in parts], [entry.strategy.name for entry in known])
    kinds = {entry.strategy.name: entry.kind for entry in IMPLEMENTATIONS.values()}
    colours = [_OF_FRAMEWORK.get(name, "#e69f00") for name in frameworks]
    colour = alt.Color(
        "framework:N", title="framework", scale=alt.Scale(domain=frameworks, range=colours)
    )
    dashes = [list(_DASHES.get(kinds.get(name), [4, 2])) for name in strategies]
    shapes = list(islice(cycle(_SHAPES), len(strategies)))
    dash = alt.StrokeDash(
        "strategy:N", title="strategy", scale=alt.Scale(domain=strategies, range=dashes)
    )
    shape = alt.Shape(
        "strategy:N", title="strategy", scale=alt.Scale(domain=strategies, range=shapes)
    )
    return _banded(plot, colour, dash, shape)


def _decay(plot: Plot, _names: Sequence[str]) -> list[alt.Chart]:
    """A line a cell and forget bias."""
    series = sorted(plot.frame["series"].unique())
    colours = list(islice(cycle(_COLOURS), len(series)))
    colour = alt.Color("series:N", title="cell", scale=alt.Scale(domain=series, range=colours))
    dashes = list(islice(cycle(_CELLS_DASHES), len(series)))
    dash = alt.StrokeDash("series:N", title="cell", scale=alt.Scale(domain=series, range=dashes))
    shapes = list(islice(cycle(_SHAPES), len(series)))
    shape = alt.Shape("series:N", title="cell", scale=alt.Scale(domain=series, range=shapes))
    return _banded(plot, colour, dash, shape)


def _banded(
    plot: Plot, colour: alt.Color, dash: alt.StrokeDash, shape: alt.Shape
) -> list[alt.Chart]:
    """Lines with a point a mark, over their bands."""
    base = alt.Chart().encode(x=_x(plot), color=colour, detail="series:N")
    tooltip = [
        alt.Tooltip("series:N", title="of"),
        alt.Tooltip("x:Q", title=plot.x),
        alt.Tooltip("y:Q", title=plot.y, format=".4~g"),
        alt.Tooltip("low:Q", title="low", format=".4~g"),
        alt.Tooltip("high:Q", title="high", format=".4~g"),
    ]
    known = alt.expr.isValid(alt.datum.low) & alt.expr.isValid(alt.datum.high)
    return [
        base.mark_area(opacity=0.18, line=False)
        .transform_filter(known)
        .encode(y=_y(plot, "low"), y2="high:Q"),
        base.mark_line(strokeWidth=1.6).encode(y=_y(plot), strokeDash=dash),
        base.mark_point(size=38, filled=False, strokeWidth=1.5).encode(
            y=_y(plot), shape=shape, tooltip=tooltip
        ),
    ]


def _heat(plot: Plot, _names: Sequence[str]) -> list[alt.Chart]:
    """A tile a T and pair; what has no verdict is grey, whatever its ratio, and has a sign."""
    pairs = list(dict.fromkeys(plot.frame["series"]))
    x = alt.X("x:O", title=plot.x, axis=alt.Axis(labelAngle=0))
    y = alt.Y("series:N", title=None, sort=pairs, axis=alt.Axis(labelLimit=170))
    scale = alt.Scale(
        domain=[-_MOST_LOG2, 0, _MOST_LOG2], range=[_FASTER, _EVEN, _SLOWER], clamp=True
    )
    legend = alt.Legend(
        title="static / dynamic",
        labelExpr="format(pow(2, datum.value), '.2~f')",
        values=[math.log2(value) for value in (0.5, 0.7, 1, 1.4, 2)],
        gradientLength=160,
        direction="horizontal",
    )
    colour = alt.condition(
        "datum.decided", alt.Color("y:Q", scale=scale, legend=legend), alt.value(_UNDECIDED)
    )
    tooltip = [
        alt.Tooltip("series:N", title="of"),
        alt.Tooltip("x:O", title="T"),
        alt.Tooltip("text:N", title="ratio"),
        alt.Tooltip("low:Q", title="low", format=".3~g"),
        alt.Tooltip("high:Q", title="high", format=".3~g"),
    ]
    base = alt.Chart().encode(x=x, y=y)
    return [
        base.mark_rect(stroke="#ffffff", strokeWidth=1).encode(color=colour, tooltip=tooltip),
        base.mark_text(fontSize=11, color="#111111").encode(text="text:N"),
    ]


def _ordered(found: Sequence[str], known: Sequence[str]) -> list[str]:
    """Each name once, as registered; others last."""
    names = list(dict.fromkeys(found))
    order = list(dict.fromkeys(known))
    return sorted(names, key=lambda name: order.index(name) if name in order else len(order))
