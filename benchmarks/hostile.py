"""Hostile input by the thousand: `python benchmarks/hostile.py [--inputs 10000] [--seed 0]`.

Presets, command lines of a dry run, and run folders to report, each mutated from valid ones. Every
one must end in a normal result, or in one line with exit status 2 and nothing written: never in a
traceback, never in a program that hangs. Exit status 1 where one does not.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, Literal
from unittest.mock import patch

import click
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table

from backends import BACKENDS, IMPLEMENTATIONS
from bench import cli, run
from bench.measure import clock
from bench.record import SCHEMA, line_of
from bench.sweep import load_preset, preset_names
from tests import synthetic

#: Seconds after which an input hangs; the slowest takes one or two.
LIMIT_S = 20.0

Ending = Literal["ok", "refused", "traceback", "hang", "untidy"]
GOOD: tuple[Ending, ...] = ("ok", "refused")


class _Hang(BaseException):
    """Not an `Exception`: nothing of what is tested may catch it."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of input: where inputs come from, and the arguments of the command that takes one.

    `prepare` is called in an empty folder, which it may fill.
    """

    name: str
    inputs: st.SearchStrategy[Any]
    prepare: Callable[[Any], Sequence[str]]


@dataclass(kw_only=True)
class Tally:
    """How the inputs of a kind ended, and one input for each way of ending badly."""

    ends: Counter[Ending] = field(default_factory=Counter)
    details: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


# Values

_WORDS = (
    *(
        "",
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
    ),
    *(
        "ok",
        "NaN",
        "Infinity",
        "-Infinity",
        "nan",
        "1",
        "0",
        "true",
        "null",
        "/",
        "a/b/c",
        "..",
        "#",
    ),
    *("\0", "\n", "\x1b[31m", "\ud800", "\udcff", "\u202e", "\ufeff", "\U0001f600", "e\u0301"),
    *("<script>", "[red]", "$x_1$", "%s%n", "{}", "`", "|", "x" * 10_000),
)
_NUMBERS: tuple[int | float, ...] = (
    *(0, -1, 1, 2, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 10**18, 10**30, 10**400),
    *(0.0, -0.0, 5e-324, 1e-300, 0.5, 1e300, 1.7e308, float("nan"), float("inf"), -float("inf")),
)
_TEXT = st.text(st.characters(), max_size=12) | st.sampled_from(_WORDS)
_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | _TEXT
_EXTREME = st.sampled_from(_NUMBERS) | st.floats() | st.integers()
_SCALARS |= _EXTREME
VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
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
            inner[draw(_TEXT)] = draw(VALUES)
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
        b"\0" * 100,
        b"[" * 10_000,
        b'{"a":' * 10_000,
        b"9" * 5000,
        b"NaN",
        b"\xff\xfe",
    ),
    *(
        b"\xef\xbb\xbf",
        b"\r\n",
        b"\x1f\x8b\x08",
        b"\x80\x04\x95cposix\nsystem\n",
        b"1e999",
        b'"\\ud800"',
    ),
)


# Presets

#: What is valid; inputs are this with something wrong.
VALID_PRESET: dict[str, Any] = {
    "title": "a preset",
    "axes": {
        **{name: list(values) for name, values in vars(load_preset("smoke").axes).items()},
        "backend": ["jax", "torch"],
        "strategy": ["static", "dynamic"],
    },
    "sampling": {
        "blocks": 3,
        "cold_blocks": 2,
        "memory_blocks": 1,
        "steady_s": 0.1,
        "warmup_s": 0.1,
        "warmup_calls": 5,
        "blocks_per_server": 1,
        "precision": 0.02,
        "budget_s": 100.0,
    },
    "caps": {"jax/static": 5, "torch/static": {"forward": 10, "train": 5}},
}


def toml(value: Any) -> str:
    """A value as TOML; what it cannot say (none, a lone surrogate) it says as nearly as it can."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_quoted(k)} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and value >= 2**63:
        return hex(value)  # the digits of these are not limited
    return str(value) if isinstance(value, int | float) else _quoted(value)


def _quoted(value: object) -> str:
    return json.dumps(str(value).encode(errors="replace").decode())


def document(tables: dict[str, Any]) -> bytes:
    """A preset's file."""
    return "".join(f"{_quoted(k)} = {toml(v)}\n" for k, v in tables.items()).encode()


def _prepare_preset(data: bytes) -> list[str]:
    Path("hostile.toml").write_bytes(data)
    return ["run", "--dry-run", "--preset", "hostile.toml"]


_confused_presets = several(confused, VALID_PRESET).map(document)
PRESETS = (
    _confused_presets
    | _confused_presets.flatmap(lambda data: damaged(data) | st.just(data))
    | st.binary(max_size=200)
)


# Command lines


@cache
def _flags() -> list[str]:
    """Every option of `run` that the command itself declares, whichever those are by now."""
    command = cli.cli.commands["run"]
    return [
        flag
        for option in command.params
        if isinstance(option, click.Option)
        for flag in option.opts
    ]


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """Options of `run` with values that fit, near-misses of both, and what belongs to neither."""
    words: list[str] = []
    for flag in draw(st.lists(st.sampled_from(_flags()), max_size=5)):
        value = draw(_FITTING.get(flag, _COUNTS))
        match draw(st.sampled_from(["as it is"] * 6 + ["value", "flag", "lone", "foreign"])):
            case "value":
                value = draw(_ARGUMENTS)
            case "flag":
                words.append(draw(near(flag)))
            case "lone":
                words.append(draw(st.sampled_from([flag, value])))
            case "foreign":
                words.append(draw(_TEXT))
        words += [flag, value] if draw(st.booleans()) else [f"{flag}={value}"]
    return words


_NAMES = st.sampled_from(
    [
        *(*BACKENDS, *{entry.strategy.name for entry in IMPLEMENTATIONS.values()}, *preset_names()),
        *(
            "lstm",
            "gru",
            "rnn",
            "cpu",
            "gpu",
            "forward",
            "train",
            "full",
            "ragged",
            "fork",
            "spawn",
        ),
        *("zeros", "random", "float32", "float64"),
    ]
)
_COUNTS = st.sampled_from(
    [
        *(
            "1",
            "2",
            "10",
            "0",
            "-1",
            "01",
            "1.5",
            "1e3",
            "1_000",
            "0x10",
            "+5",
            " 7 ",
            "\u0663",
            "nan",
        ),
        *(
            "9" * 18,
            "9" * 19,
            "9" * 5000,
            "2%",
            "0%",
            "100%",
            "nan%",
            "1e400%",
            "10m",
            "1h",
            "-1h",
            "0s",
        ),
        *(",".join(map(str, range(1, n))) for n in (3, 100, 3000)),
    ]
)
_PLACES = st.sampled_from(
    [
        "new",
        "new/folder",
        ".",
        "/",
        "",
        "/proc/x",
        "/dev/null",
        "x.toml",
        ".toml",
        "x" * 300,
        "a\0b",
    ]
)
_ONE = _NAMES | _NAMES.flatmap(near) | _COUNTS | _TEXT | _PLACES
_ARGUMENTS = _ONE | st.lists(_ONE, min_size=1, max_size=3).map(",".join)


def _some(*words: str) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(words), min_size=1, unique=True).map(",".join)


#: Values that an option takes. What is not here takes numbers, or nothing.
_FITTING: Mapping[str, st.SearchStrategy[str]] = {
    "--preset": st.sampled_from(preset_names()),
    "--cell": _some("lstm", "gru", "rnn"),
    "--backend": _some("torch", "jax", "tensorflow"),
    "--strategy": _some("static", "dynamic", "fused", "traced"),
    "--lengths": _some("full", "ragged"),
    "--initial-state": _some("zeros", "random"),
    "--dtype": _some("float32", "float64"),
    "--device": _some("cpu"),
    "--mode": _some("forward", "train"),
    "--start": st.sampled_from(["fork", "spawn"]),
    "--threads": st.just("1"),
    "--out": st.sampled_from(["new", "new/folder"]),
    "--precision": st.sampled_from(["2%", "0.5%"]),
    "--budget": st.sampled_from(["90s", "10m", "2h"]),
    **dict.fromkeys(
        ("--seq-len", "--batch", "--layers", "--hidden", "--inputs"),
        _some("1", "2", "50", "999999999999999999") | _COUNTS,
    ),
}

COMMAND_LINES = command_lines()


def _prepare_command_line(words: list[str]) -> list[str]:
    # First, so that no word can take it for its value, nor end the options before it.
    return ["run", "--dry-run", *words]


# Run folders

_RUN = synthetic.run(
    synthetic.sweep(seq_len=[10], mode=["train"], backend=["torch", "jax"], blocks=2)
)
VALID_MANIFEST: dict[str, Any] = json.loads(json.dumps({**_RUN.manifest, "schema": SCHEMA}))
#: Few samples: what is wrong with one is wrong with it among forty.
VALID_RECORDS: list[dict[str, Any]] = [
    {**data, "samples": {phase: values[:4] for phase, values in data["samples"].items()}}
    for data in (record.to_json() for record in _RUN.records)
]


def lines(records: list[Any]) -> bytes:
    return b"".join(map(line_of, records))


def _prepare_folder(files: tuple[bytes, bytes]) -> list[str]:
    folder = Path("run")
    folder.mkdir()
    for name, data in zip(("manifest.json", "records.jsonl"), files, strict=True):
        (folder / name).write_bytes(data)
    return ["report", "run", "--out", "out"]


_manifests = several(confused, VALID_MANIFEST).map(lambda value: json.dumps(value).encode())


@st.composite
def stretched(draw: st.DrawFn, records: list[Any]) -> list[Any]:
    """Records whose numbers are of the right type, and far larger or smaller than any clock's."""
    return [
        {
            **record,
            "samples": {
                phase: [value * draw(_FACTORS) for value in values]
                for phase, values in record["samples"].items()
            },
            "values": {name: value * draw(_FACTORS) for name, value in record["values"].items()},
        }
        for record in records
    ]


_FACTORS = st.sampled_from([1, 1, 1, 1, 1e-320, 1e-200, 1e-9, 1e9, 1e200, 1e308, -1, 0])

_records = (several(confused, VALID_RECORDS) | stretched(VALID_RECORDS)).map(lines)
FOLDERS = st.tuples(
    _manifests | _manifests | _manifests.flatmap(damaged),
    _records | _records | _records.flatmap(damaged),
)


KINDS = (
    Kind(name="preset", inputs=PRESETS, prepare=_prepare_preset),
    Kind(name="command line", inputs=COMMAND_LINES, prepare=_prepare_command_line),
    Kind(name="run folder", inputs=FOLDERS, prepare=_prepare_folder),
)


# Trying them


def attempt(kind: Kind, value: Any) -> tuple[Ending, str]:
    """How one input ends, and what was said; in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder, contextlib.chdir(folder):
        arguments = kind.prepare(value)
        before = _tree()
        out, err = io.StringIO(), io.StringIO()
        try:
            with (
                _alarm(),
                warnings.catch_warnings(action="error"),
                contextlib.redirect_stdout(out),
                contextlib.redirect_stderr(err),
                _nothing_measured(),
            ):
                status = cli.main(arguments)
        except _Hang:
            return "hang", "".join(traceback.format_exc())
        except Exception:
            return "traceback", traceback.format_exc()
        return _judged(status, out.getvalue(), err.getvalue(), written=_tree() - before)


def _judged(status: int, out: str, err: str, *, written: set[str]) -> tuple[Ending, str]:
    said = f"exit {status}\n{out[-2000:]}\n{err[-2000:]}"
    if status == cli.OK and not err and _printable(out):
        return "ok", said
    one_line = err.startswith("bench: error: ") and err.count("\n") == 1 and _printable(err)
    if status == cli.USAGE and one_line and not out and not written:
        return "refused", said
    return "untidy", f"{said}\nwritten: {written}"


def _printable(text: str) -> bool:
    """Whether text moves no cursor and sets no colour: a terminal obeys what a file says."""
    return all(line.isprintable() for line in text.split("\n"))


def _tree() -> set[str]:
    return {str(path) for path in Path().rglob("*")}


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    """Raise `_Hang` in the body after `LIMIT_S`; a timer that runs already goes on afterwards."""

    def ring(_signal: int, _frame: FrameType | None) -> None:
        raise _Hang

    handler = signal.signal(signal.SIGALRM, ring)
    left, interval = signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    start = clock()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:
            passed = (clock() - start) / 1e9
            signal.setitimer(signal.ITIMER_REAL, max(1e-3, left - passed), interval)


@contextlib.contextmanager
def _nothing_measured() -> Iterator[None]:
    """No input may start a process: devices are said without asking, and nothing is run."""

    def describe() -> dict[str, dict[str, Any]]:
        return {name: {"devices": {"cpu": "a CPU"}} for name in BACKENDS}

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a dry run measures nothing")

    with (
        patch.object(run, "describe_backends", describe),
        patch.object(run, "execute", refuse),
        patch.object(run, "resume", refuse),
    ):
        yield


def attack(kind: Kind, *, inputs: int, start: int) -> Tally:
    """Try so many inputs of a kind; the same for the same `start`."""
    tally = Tally()

    @seed(start)
    @settings(
        max_examples=inputs,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(kind.inputs)
    def each(value: Any) -> None:
        ending, said = attempt(kind, value)
        tally.ends[ending] += 1
        if ending not in GOOD:
            # The last lines tell one fault from another.
            last = "\n".join(said.splitlines()[-4:-1])
            tally.details.setdefault(last, f"{kind.name}, {ending}: {value!r:.1500}\n{said}")

    before = clock()
    each()
    tally.seconds = (clock() - before) / 1e9
    return tally


@click.command(help=__doc__)
@click.option("--inputs", default=10_000, show_default=True, help="Of all kinds together.")
@click.option("--seed", "start", default=0, show_default=True, help="Other inputs.")
def main(inputs: int, start: int) -> None:
    table = Table("kind", "inputs", "ok", "refused", "tracebacks", "hangs", "untidy", "seconds")
    tallies = {kind.name: attack(kind, inputs=inputs // len(KINDS), start=start) for kind in KINDS}
    for name, tally in tallies.items():
        ends = (tally.ends[word] for word in ("ok", "refused", "traceback", "hang", "untidy"))
        table.add_row(name, str(tally.ends.total()), *map(str, ends), f"{tally.seconds:.0f}")
    Console(width=100).print(table)
    details = [detail for tally in tallies.values() for detail in tally.details.values()]
    for detail in details:
        print(f"\n{detail}", file=sys.stderr)
    sys.exit(1 if details else 0)


if __name__ == "__main__":
    main()
