"""Values of every type and size, and ways to spoil a document with them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

_WORDS = (
    *[
        "lstm",
        "lstn",
        "LSTM",
        "cpu",
        "gpu",
        "full",
        "forward",
        "steady",
        "torch",
        "torch/static",
        "ok",
        "nan",
        "1",
        "0",
        "true",
        "null",
    ],
    *[
        "NaN",
        "Infinity",
        "-Infinity",
        "/",
        "a/b/c",
        "..",
        "#",
        "<script>",
        "[red]",
        "$x_1$",
        "%s%n",
        "{}",
        "`",
        "|",
    ],
    *("", "\0", "\n", "\x1b[31m", "\ud800", "\udcff", "\u202e", "\ufeff", "\U0001f600", "e\u0301"),
    "x" * 10_000,
)
_NUMBERS: tuple[int | float, ...] = (
    *(0, -1, 1, 2, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 10**18, 10**30, 10**400),
    *(0.0, -0.0, 5e-324, 1e-300, 0.5, 1e300, 1.7e308, float("nan"), float("inf"), -float("inf")),
)
TEXT = st.text(st.characters(), max_size=12) | st.sampled_from(_WORDS)
_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
_EXTREME = st.sampled_from(_NUMBERS) | st.floats() | st.integers()
_SCALARS |= _EXTREME
VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=6,
)


def _nested(depth: int, value: Any) -> Any:
    for _ in range(depth):
        value = [value]
    return value


#: Also what is deep, and what is long.
_LARGE = (
    st.builds(_nested, st.sampled_from([10, 31, 33, 100, 300]), _SCALARS)
    | st.builds(list, st.builds(range, st.just(1), st.sampled_from([50, 500, 5000])))
    | st.builds(dict.fromkeys, st.builds(map, st.just(str), st.just(range(1000))), _SCALARS)
)


@st.composite
def confused(draw: st.DrawFn, document: Any) -> Any:
    """A document with one value somewhere in it replaced, removed, or joined by another one."""
    result = copy.deepcopy(document)
    inner: Any = result
    while True:
        keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        key = draw(st.sampled_from(keys))
        child = inner[key]
        if isinstance(child, dict | list) and child and draw(st.integers(0, 3)):
            inner = child
            continue
        what = draw(st.sampled_from(["replace", "replace", "replace", "remove", "add", "rename"]))
        if what == "replace":
            number = type(child) in (int, float) and draw(st.booleans())
            inner[key] = draw(_EXTREME if number else VALUES | _LARGE)
        elif what == "remove":
            del inner[key]
        elif isinstance(inner, list):
            inner.append(draw(VALUES))
        elif what == "add":
            inner[draw(TEXT)] = draw(VALUES)
        else:
            inner[draw(near(str(key)))] = inner.pop(key)
        return result


@st.composite
def near(draw: st.DrawFn, word: str) -> str:
    """A word that is nearly another: a letter more, less, doubled or of another case."""
    at = draw(st.integers(0, max(0, len(word) - 1)))
    before, letter, after = word[:at], word[at : at + 1], word[at + 1 :]
    other = draw(st.characters())
    return before + draw(st.sampled_from(["", letter * 2, letter.swapcase(), other])) + after


def several(
    change: Callable[[Any], st.SearchStrategy[Any]], document: Any
) -> st.SearchStrategy[Any]:
    """None, one or two changes, one after the other."""
    once = change(document)
    return st.just(document) | once | once.flatmap(change)


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes with some flipped, lost, repeated or foreign, or lines in another order."""
    at = draw(st.integers(0, len(data)))
    end = draw(st.integers(at, min(len(data), at + 300)))
    what = draw(st.sampled_from(["flip", "cut", "lose", "repeat", "insert", "swap", "only"]))
    if what == "flip":
        mask = draw(st.integers(1, 255))
        return data[:at] + bytes(b ^ mask for b in data[at : at + 1]) + data[at + 1 :]
    if what == "insert":
        foreign = st.binary(max_size=40) | st.sampled_from(_FOREIGN)
        return data[:at] + draw(foreign) + data[at:]
    if what == "swap":
        return b"".join(draw(st.permutations(data.splitlines(keepends=True))))
    if what == "repeat":
        return data[:end] + data[at:]
    return {"cut": data[:at], "lose": data[:at] + data[end:], "only": data[at:end]}[what]


_FOREIGN = (
    *(
        b"",
        b"\n\n",
        b"\r\n",
        b"\0" * 100,
        b"NaN",
        b"1e999",
        b'"\\ud800"',
        b"\xff\xfe",
        b"\xef\xbb\xbf",
    ),
    *(b"[" * 10_000, b'{"a":' * 10_000, b"9" * 5000, b"0x" + b"f" * 5000),
    *(b"\x1f\x8b\x08", b"\x80\x04\x95cposix\nsystem\n"),
)
