"""Presets, command lines and run folders: valid ones, and those with something wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import click
from hypothesis import strategies as st

from backends import BACKENDS, IMPLEMENTATIONS
from bench import cli
from bench.preset import load_preset, preset_names
from bench.record import Record
from bench.store import SCHEMA, line_of
from benchmarks.hostile_values import TEXT, confused, damaged, near, several
from tests import synthetic


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of input: where inputs come from, and the arguments of the command that takes one.

    `prepare` is called in an empty folder, which it may fill.
    """

    name: str
    inputs: st.SearchStrategy[Any]
    prepare: Callable[[Any], Sequence[str]]


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
                words.append(draw(TEXT))
        words += [flag, value] if draw(st.booleans()) else [f"{flag}={value}"]
    return words


#: In an order that does not change from process to process, so that a seed gives the same inputs.
_STRATEGIES = dict.fromkeys(entry.strategy.name for entry in IMPLEMENTATIONS.values())
_NAMES = st.sampled_from(
    [
        *(*BACKENDS, *_STRATEGIES, *preset_names()),
        *[
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
            "zeros",
            "random",
        ],
    ]
)
_COUNTS = st.sampled_from(
    [
        *[
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
            "٣",
            "nan",
            "2%",
            "0%",
            "100%",
            "nan%",
            "1e400%",
            "10m",
            "1h",
            "-1h",
            "0s",
        ],
        *(" 7 ", "9" * 18, "9" * 19, "9" * 5000),
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
_ONE = _NAMES | _NAMES.flatmap(near) | _COUNTS | TEXT | _PLACES
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
VALID_MANIFEST["backends"]["torch"]["overhead"] = {"sample_s": 1e-7}


def _full(record: Record) -> dict[str, Any]:
    """A record with all that the engine writes, and few samples: four show what forty do."""
    samples = {phase: values[:4] for phase, values in record.samples.items()}
    if "steady" in samples:
        samples["device"] = samples["steady"]
    noise = {"quiet": False, "reasons": ["steal 3 %"], "missing": ["throttled"], "steal": 0.03}
    worker = {"pid": 1, "at": "2026-01-02T03:04:05+00:00", "noise": noise}
    worker["kernels"] = {"total": 3, "names": 1, "longest": [["aten::mm", 3]]}
    return replace(record, samples=samples, worker=worker).to_json()


VALID_RECORDS: list[dict[str, Any]] = [_full(record) for record in _RUN.records]


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
