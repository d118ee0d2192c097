"""Parts that rows of a `frame`, and columns of a `display`, are put together from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields

import pandas as pd

from backends.api import Case
from backends.devices import is_gpu
from bench import format as fmt
from bench import stats
from bench.evidence import Group, Outcome

#: The margin of a verdict, as words.
MARGIN = f"{100 * stats.MARGIN:g} %"


_FIELDS = tuple(field.name for field in fields(Case))


def identity(group: Group, implementation: str) -> dict[str, object]:
    """Which run, case, mode and implementation: what every row starts with."""
    return {
        "run": group.run,
        **{name: getattr(group.case, name) for name in _FIELDS},
        "mode": group.mode,
        "implementation": implementation,
    }


def by_device(devices: Iterable[str], host: str, gpu: str, between: str = " ") -> str:
    """Words for rows on these devices: the host's, a GPU's, or both."""
    on_gpu = {is_gpu(device) for device in devices}
    if on_gpu == {True}:
        return gpu
    return f"{host}{between}{gpu}" if True in on_gpu else host


def ends(outcomes: Mapping[str, Outcome]) -> dict[str, object]:
    """Ends of jobs, their reasons, and how many blocks were ok of how many."""
    row: dict[str, object] = {}
    for label, outcome in outcomes.items():
        row[f"{label}_status"], row[f"{label}_reason"] = outcome.status, outcome.reason
        row[f"{label}_blocks"], row[f"{label}_planned"] = outcome.ok, outcome.planned
    return row


def over_blocks(values: Mapping[int, float]) -> stats.Estimate | None:
    """The estimate from one value a block; None where there is none."""
    return stats.estimate(values.values()) if values else None


def spread(name: str, estimate: stats.Estimate | None) -> dict[str, object]:
    """An estimate, its range and its number of workers; NaN where there is none."""
    if estimate is None:
        nan = dict.fromkeys((name, f"{name}_low", f"{name}_high"), math.nan)
        return {**nan, f"{name}_workers": 0}
    return {
        name: estimate.value,
        f"{name}_low": estimate.low,
        f"{name}_high": estimate.high,
        f"{name}_workers": estimate.n,
    }


def ranges(frame: pd.DataFrame, name: str, unit: fmt.Unit) -> list[str]:
    """The ranges of an estimate's column, as words."""
    low, high = frame[f"{name}_low"] / unit.scale, frame[f"{name}_high"] / unit.scale
    return fmt.each(fmt.spread, low, high, frame[f"{name}_workers"])


def intervals(frame: pd.DataFrame, name: str, scale: float = 1.0) -> pd.Series[str]:
    """The ratios of a column times `scale` with their intervals, as words."""
    columns = (scale * frame[f"{name}{suffix}"] for suffix in ("", "_low", "_high"))
    return pd.Series(fmt.each(fmt.interval, *columns))


def level(groups: Sequence[Group]) -> str:
    """The level of the groups' intervals, as words."""
    levels = sorted({group.confidence for group in groups})
    return " or ".join(f"{100 * confidence:.3g} %" for confidence in levels)


def ratio_columns(name: str, ratio: stats.Ratio | None) -> dict[str, object]:
    """A ratio, its interval with its level, and its number of blocks; NaN where there is none."""
    if ratio is None:
        columns = (name, f"{name}_low", f"{name}_high", f"{name}_confidence")
        return {**dict.fromkeys(columns, math.nan), f"{name}_blocks": 0}
    return {
        name: ratio.ratio,
        f"{name}_low": ratio.low,
        f"{name}_high": ratio.high,
        f"{name}_confidence": ratio.confidence,
        f"{name}_blocks": ratio.blocks,
    }
