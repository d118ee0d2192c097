"""Numbers -> words. SI units in, a unit that fits out; the only place that rounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pandas as pd

#: What stands where there is no number.
NONE = "-"


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A unit that a column is written in: the number shown is the stored one over `scale`."""

    name: str
    scale: float


_SECONDS = (Unit(name="µs", scale=1e-6), Unit(name="ms", scale=1e-3), Unit(name="s", scale=1.0))
_BYTES = (Unit(name="MB", scale=1e6), Unit(name="GB", scale=1e9))


def seconds(values: Iterable[float]) -> Unit:
    """The unit for a column of times: the middle one reads as 1 to 1000."""
    return _fit(values, _SECONDS)


def size(values: Iterable[float]) -> Unit:
    """The unit for a column of bytes; powers of ten, and never below a megabyte."""
    return _fit(values, _BYTES)


def _fit(values: Iterable[float], units: tuple[Unit, ...]) -> Unit:
    middle = pd.Series(list(values), dtype=float).abs().median()
    fitting = [unit for unit in units if middle >= unit.scale]
    return fitting[-1] if fitting else units[0]


def digits(value: float, count: int = 3) -> str:
    """A number to `count` significant digits, without an exponent below a million."""
    if math.isnan(value):
        return NONE
    if math.isinf(value) or value == 0:
        return f"{value:g}"
    magnitude = math.floor(math.log10(abs(value)))
    rounded = round(value, count - 1 - magnitude)
    if abs(rounded) >= 1e9 or abs(rounded) < 1e-4:
        return f"{value:.{count - 1}e}"
    # Rounding may have carried into a new digit: 9.996 is 10.0, not 10.00.
    magnitude = math.floor(math.log10(abs(rounded)))
    return f"{rounded:,.{max(0, count - 1 - magnitude)}f}"


def count(value: float) -> str:
    """A number of calls, rounded up, to two significant digits."""
    whole = math.ceil(value)
    return f"{round(whole, 2 - len(str(whole))):,}" if whole >= 100 else f"{whole}"


def errors(absolute: float, relative: float) -> str:
    """An absolute and a relative error, to two digits, always with their power of ten."""
    return NONE if math.isnan(absolute) else f"{_power(absolute)} ({_power(relative)})"


def _power(value: float) -> str:
    return "0" if value == 0 else f"{value:.1e}"


def spread(low: float, high: float, workers: int) -> str:
    """A range over workers; one has none. Not in brackets: those are kept for intervals."""
    return f"{digits(low)}..{digits(high)}" if workers > 1 else NONE


def ratio(value: float) -> str:
    """A ratio, to three digits, or two decimals below 1."""
    return f"{value:.2f}" if 0.1 <= value < 1 else digits(value, 3 if value >= 1 else 2)


def interval(value: float, low: float, high: float) -> str:
    """A number with its interval, to three digits, or two decimals below 1."""
    if math.isnan(value):
        return NONE
    text = ratio(value)
    if math.isnan(low):
        return f"{text} (no interval)"
    if value >= 1e6:
        return f"{text} [{digits(low)}, {digits(high)}]"
    if low * 1000 < value or value * 1000 < high:
        return f"{text} [{low:.0e}, {high:.0e}]"
    decimals = len(text.partition(".")[2])
    return f"{text} [{_bound(low, decimals)}, {_bound(high, decimals)}]"


def _bound(bound: float, decimals: int) -> str:
    """A bound of an interval; one that is close to 1 has the digits that tell it from 1."""
    if bound != 1:
        while decimals < 6 and round(bound, decimals) == 1:
            decimals += 1
    return f"{bound:,.{decimals}f}"


def each(function: Callable[..., str], *columns: pd.Series[float]) -> list[str]:
    """Apply a formatter row by row."""
    return [function(*values) for values in zip(*columns, strict=True)]


def plain(text: str, *, lines: bool = False) -> str:
    """Text from outside without control characters; in one line, unless `lines` are kept."""
    if text.isprintable():
        return text.strip() if lines else " ".join(text.split())
    kept = "".join(c if c.isprintable() or c == "\n" else " " for c in text)
    return kept.strip() if lines else " ".join(kept.split())


def shortened(text: str, length: int) -> str:
    """Text in one line of at most `length` characters."""
    line = plain(text[: 10 * length])
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"
