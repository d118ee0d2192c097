"""JSON in which every value is what it should be: no NaN token goes out, nothing foreign comes in.

What reads checks with these, and whatever they refuse is a `ValueError` that names the value.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

try:  # part of the extra `report`: a large run is read in half the time
    import orjson
except ImportError:
    orjson = None  # type: ignore[assignment]

T = TypeVar("T")

#: JSON has no numbers for these: they are written as words.
NOT_FINITE: Mapping[str, float] = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

#: Whole numbers are below this in absolute value, as in every column of a table.
LARGEST = 2**63

#: No name of ours is half as long.
MAX_NAME = 200

#: Nothing of ours is nested half as deep; what walks a value can rely on it.
MAX_DEPTH = 32


def dumps(value: object, *, indent: int | None = None, sort_keys: bool = False) -> str:
    """JSON by the standard, ASCII only.

    Floats that are not finite are the words of `NOT_FINITE`, lone surrogates their escapes.
    """
    return json.dumps(_plain(value), indent=indent, sort_keys=sort_keys, allow_nan=False)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {_plain(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return next(word for word, float_ in NOT_FINITE.items() if str(float_) == str(value))
    return _unicode(value) if isinstance(value, str) else value


def _unicode(text: str) -> str:
    """Text that any file can hold: a name from the system may have lone surrogates in it."""
    return text.encode(errors="backslashreplace").decode()


def loads(data: bytes) -> Any:
    """Read JSON in UTF-8; the bare tokens NaN and Infinity of earlier files are floats."""
    try:
        value = _loads(data)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if data.count(b"{") + data.count(b"[") <= MAX_DEPTH:
        return value  # so few cannot be nested deeper
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [inner for outer in level if isinstance(outer, dict | list) for inner in _in(outer)]
        if not level:
            return value
    raise ValueError(_TOO_DEEP)


def _loads(data: bytes) -> Any:
    """Parse JSON with the faster reader; what it refuses (bare tokens), the other one reads.

    Both round a number in the same way. (A whole number beyond 2^64 is a float to orjson; none of
    ours is anywhere near.)
    """
    if orjson is not None:
        with suppress(ValueError):
            return orjson.loads(data)
    return json.loads(data.decode())


_TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels"


def _in(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def refused(what: str, value: object, allowed: str) -> ValueError:
    """The error that says what a value is, cut to a few words, and what it must be."""
    return ValueError(f"{what} is {reprlib.repr(value)}, must be {allowed}")


def mapping(value: object, what: str) -> dict[str, Any]:
    """A JSON object."""
    if not isinstance(value, dict):
        raise refused(what, value, "an object")
    return value


def listed(value: object, what: str) -> list[Any]:
    """A JSON array."""
    if not isinstance(value, list):
        raise refused(what, value, "a list")
    return value


def text(value: object, what: str) -> str:
    """Any text; lone surrogates in it are replaced by their escapes."""
    if not isinstance(value, str):
        raise refused(what, value, "text")
    return _unicode(value)


def name(value: object, what: str) -> str:
    """Printable text that is neither empty nor longer than a name."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME or not value.isprintable():
        raise refused(what, value, f"printable text of 1 to {MAX_NAME} characters")
    return value


def word(value: object, what: str, allowed: Sequence[str]) -> str:
    """One of some words."""
    if not isinstance(value, str) or value not in allowed:
        raise refused(what, value, f"one of {', '.join(allowed)}")
    return value


def whole(value: object, what: str, *, least: int = 1 - LARGEST) -> int:
    """A whole number; true and 1.0 are none."""
    if type(value) is not int or not least <= value < LARGEST:
        allowed = "a whole number" if least < 0 else f"a whole number of {least} or more"
        raise refused(what, value, f"{allowed} below 2^63")
    return value


def number(value: object, what: str) -> float:
    """A number, or a word of `NOT_FINITE`; a whole one stays one."""
    if isinstance(value, str) and value in NOT_FINITE:
        return NOT_FINITE[value]
    if type(value) is float:
        return value
    if type(value) is not int or abs(value) >= LARGEST:
        raise refused(what, value, "a number")
    return value


def numbers(value: object, what: str) -> list[float]:
    """A list of numbers."""
    if type(value) is list and set(map(type, value)) == {float}:
        return value  # what nearly every list is, and a run has millions of numbers
    return [number(inner, what) for inner in listed(value, what)]


def numbers_by_name(value: object, what: str) -> dict[str, float]:
    """An object of numbers."""
    given = mapping(value, what)
    if set(map(type, given.values())) <= {float}:
        return given
    return {key: number(inner, f"{what}, {key}") for key, inner in given.items()}


def build(cls: type[T], data: object, what: str) -> T:
    """A dataclass from an object with its fields, each of the type that it is declared with.

    Types may be `int`, `float` (finite), `str` (printable), a `Literal` of words, and dataclasses
    of such. Fields with a default may be absent; what is no field is refused.
    """
    given = mapping(data, what)
    hashable: Any = cls
    hints = _hints(hashable)
    for key in given:
        if key not in hints:
            raise ValueError(f"{what} has no {reprlib.repr(key)}")
    for key in _required(hashable):
        if key not in given:
            raise ValueError(f"{what} lacks {key}")
    return cls(**{key: _field(hints[key], value, f"{what}, {key}") for key, value in given.items()})


@cache
def _hints(cls: Any) -> dict[str, Any]:
    # Kept: a run has thousands of cases, and the annotations are evaluated each time.
    return get_type_hints(cls)


@cache
def _required(cls: Any) -> list[str]:
    return [f.name for f in fields(cls) if f.default is f.default_factory is MISSING]


def _field(hint: Any, value: object, what: str) -> Any:
    if is_dataclass(hint):
        return build(hint, value, what)  # type: ignore[arg-type]
    if get_origin(hint) is Literal:
        return word(value, what, get_args(hint))
    if hint is int:
        return whole(value, what)
    if hint is float:
        found = float(number(value, what))
        if not math.isfinite(found):
            raise refused(what, value, "finite")
        return found
    if hint is str:
        return name(value, what)
    raise TypeError(f"{what}: no field can be read as {hint}")
