"""Data of the page: tables and marks by column, small, and safe inside a script element."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from bench.report.model import LETTERS, Plot, Report, Table
from bench.report.plots import PLACE

#: Filters that a page always offers where there is a choice; other fields follow if they vary.
_FIRST = ("framework", "strategy", "cell", "seq_len", "batch", "layers", "mode", "device", "run")
_LABELS: Mapping[str, str] = {**LETTERS, "layers": "layers"}

#: Of the implementation; all others are of the place.
_OF_NAME = ("framework", "strategy")

#: Digits of a number in a plot: more than a screen has room for.
_DIGITS = 4


@dataclass(frozen=True, kw_only=True)
class _Index:
    """Places and implementations, numbered as they come up."""

    places: dict[tuple[Any, ...], int] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)

    def of(self, frame: pd.DataFrame) -> dict[str, list[int]]:
        """The numbers of each row's place, implementation and, where it has one, partner."""
        places = zip(*(frame[name].tolist() for name in PLACE), strict=True)
        found = {
            "place": [self.places.setdefault(place, len(self.places)) for place in places],
            "name": self._names(frame["implementation"]),
        }
        if "against" in frame:
            found["against"] = self._names(frame["against"])
        return found

    def _names(self, names: Iterable[str]) -> list[int]:
        return [self.names.setdefault(name, len(self.names)) for name in names]

    def dimensions(self) -> list[dict[str, Any]]:
        """Choices of the page: values in reading order, and which one each place or name has."""
        order = [*_FIRST, *(name for name in PLACE if name not in _FIRST)]
        return [found for name in order if len((found := self._dimension(name))["values"]) > 1]

    def _dimension(self, name: str) -> dict[str, Any]:
        if name in _OF_NAME:
            part = 2 * _OF_NAME.index(name)
            given: list[Any] = [whole.partition("/")[part] for whole in self.names]
        else:
            given = [place[PLACE.index(name)] for place in self.places]
        values = list(dict.fromkeys(given))
        if all(isinstance(value, int | float) for value in values):
            values.sort()
        number = {value: n for n, value in enumerate(values)}
        return {
            "name": name,
            "label": _LABELS.get(name, name.replace("_", " ")),
            "of": "name" if name in _OF_NAME else "place",
            "values": [str(value) for value in values],
            "codes": [number[value] for value in given],
        }


def data(report: Report, specifications: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Tables and plots of a report, and what their rows can be chosen by."""
    index = _Index()
    tables = [_table(table, index) for table in report.tables]
    plots = [_plot(plot, specifications[plot.name], index) for plot in report.plots]
    return {
        "tables": tables,
        "plots": plots,
        "names": list(index.names),
        "dimensions": index.dimensions(),
    }


def embedded(value: object) -> str:
    """JSON that no HTML parser takes for anything but the text of a script element.

    It is ASCII, so that the line separators of Unicode are escapes too.
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _table(table: Table, index: _Index) -> dict[str, Any]:
    return {
        "title": table.name,
        "columns": [
            {
                "name": name,
                "words": name in (*table.words, *table.heads),
                **_column(table.display[name].tolist()),
            }
            for name in table.display.columns
        ],
        **index.of(table.frame),
    }


def _column(values: Sequence[str]) -> dict[str, Any]:
    """Cells as they are, or each text once and its number in every row."""
    numbers: dict[str, int] = {}
    codes = [numbers.setdefault(value, len(numbers)) for value in values]
    if len(numbers) > len(values) / 2:
        return {"cells": values}
    return {"texts": list(numbers), "codes": codes}


def _plot(plot: Plot, specification: Mapping[str, Any], index: _Index) -> dict[str, Any]:
    frame = plot.frame
    marks = {
        name: _column(frame[name].tolist()) if name in _TEXTS else _numbers(frame[name])
        for name in (*_TEXTS, "x", "y", "low", "high", "decided")
        if name in frame
    }
    return {
        "title": plot.name,
        "kind": plot.kind,
        "spec": specification,
        "marks": marks,
        **index.of(frame),
    }


_TEXTS = ("panel", "series", "text")


def _numbers(column: pd.Series[Any]) -> dict[str, Any]:
    if column.dtype == bool:
        return {"cells": column.astype(int).tolist()}
    return {"cells": [_rounded(value) for value in column.tolist()]}


def _rounded(value: float) -> float | int | None:
    """To the digits of a plot; None where there is no number."""
    if not math.isfinite(value):
        return None
    rounded = float(f"{value:.{_DIGITS}g}")
    return int(rounded) if rounded.is_integer() else rounded
