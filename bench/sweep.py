"""Axes -> jobs. Named presets are TOML files in `presets/`."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_args

from backends import IMPLEMENTATIONS, Implementation
from backends.api import CELL_NAMES, MODES, Case, Dtype, Kind, Lengths, Mode
from bench.errors import UsageError, choose
from bench.record import Job, Measure

PRESETS = Path(__file__).with_name("presets")

#: Kinds that a sweep compares; `limit` rides along in every block.
RANKED: tuple[Kind, ...] = ("static", "dynamic", "fused")

DEVICES = ("cpu", "gpu")

_WORDS: Mapping[str, Sequence[str]] = {
    "cell": CELL_NAMES,
    "lengths": get_args(Lengths),
    "dtype": get_args(Dtype),
    "device": DEVICES,
    "mode": MODES,
}


@dataclass(frozen=True, kw_only=True)
class Axes:
    """What varies. Empty `backend` or `strategy` means all of them."""

    cell: tuple[str, ...]
    seq_len: tuple[int, ...]
    batch: tuple[int, ...]
    layers: tuple[int, ...]
    hidden: tuple[int, ...]
    inputs: tuple[int, ...]
    lengths: tuple[str, ...]
    dtype: tuple[str, ...]
    device: tuple[str, ...]
    mode: tuple[str, ...]
    backend: tuple[str, ...] = ()
    strategy: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for axis in fields(self):
            values: tuple[Any, ...] = getattr(self, axis.name)
            name = axis.name.replace("_", "-")
            if not values and axis.name not in ("backend", "strategy"):
                raise UsageError(f"axis {name}: has no value")
            for value in values:
                if values.count(value) > 1:
                    raise UsageError(f"axis {name}: value {value} is given twice")
                self._check(axis.name, name, value)

    @staticmethod
    def _check(axis: str, name: str, value: object) -> None:
        if axis in _WORDS:
            choose(name, str(value), _WORDS[axis])
        elif axis == "backend":
            choose(name, str(value), _names("backend"))
        elif axis == "strategy":
            choose(name, str(value), _names("strategy"))
        elif not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UsageError(f"{name} {value!r}: must be a whole number of 1 or more")


def _names(part: str) -> list[str]:
    ranked = [entry for entry in IMPLEMENTATIONS.values() if entry.kind in RANKED]
    words = (e.backend if part == "backend" else e.strategy.name for e in ranked)
    return list(dict.fromkeys(words))


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How often. `blocks` of steady state, of which the first few also hold cold and memory jobs.

    `steady_s` and `warmup_s` are seconds, `warmup_calls` calls, of an implementation in a block.
    """

    blocks: int
    cold_blocks: int
    memory_blocks: int
    steady_s: float
    warmup_s: float
    warmup_calls: int = 5

    def __post_init__(self) -> None:
        for name in ("blocks", "cold_blocks", "memory_blocks", "warmup_calls"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UsageError(f"{name} {value!r}: must be a whole number of 1 or more")
        for name in ("steady_s", "warmup_s"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 < value < 3600:
                raise UsageError(f"{name} {value!r}: must be seconds above 0")

    def counts(self) -> dict[Measure, int]:
        """In how many blocks each way of measuring takes part."""
        return {
            "steady": self.blocks,
            "cold": self.cold_blocks,
            "memory": self.memory_blocks,
        }

    def with_blocks(self, blocks: int) -> Sampling:
        """The same with another number of blocks, in which every kind of job takes part."""
        return replace(
            self,
            blocks=blocks,
            cold_blocks=blocks,
            memory_blocks=min(blocks, self.memory_blocks),
        )


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """An ordered set of jobs made from axes."""

    name: str
    title: str
    axes: Axes
    sampling: Sampling
    #: implementation -> mode -> longest T. Absent: no cap.
    caps: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def implementations(self) -> list[Implementation]:
        """The chosen implementations, in registry order."""
        return [
            entry
            for entry in IMPLEMENTATIONS.values()
            if entry.kind in RANKED
            and (not self.axes.backend or entry.backend in self.axes.backend)
            and (not self.axes.strategy or entry.strategy.name in self.axes.strategy)
        ]

    def limits(self) -> list[Implementation]:
        """Implementations of kind `limit` that ride along: NumPy's, and the chosen backends'."""
        chosen = {entry.backend for entry in self.implementations()} | {"reference"}
        return [
            entry
            for entry in IMPLEMENTATIONS.values()
            if entry.kind == "limit" and entry.backend in chosen
        ]

    def cases(self) -> list[Case]:
        """Every combination of the axes, shortest sequences first."""
        a = self.axes
        grid = itertools.product(
            a.device, a.dtype, a.cell, a.layers, a.hidden, a.inputs, a.batch, a.lengths, a.seq_len
        )
        return [
            Case(
                cell=choose("cell", cell, CELL_NAMES),  # type: ignore[arg-type]
                seq_len=seq_len,
                batch=batch,
                inputs=inputs,
                hidden=hidden,
                layers=layers,
                lengths=lengths,  # type: ignore[arg-type]
                dtype=dtype,  # type: ignore[arg-type]
                device=device,
            )
            for device, dtype, cell, layers, hidden, inputs, batch, lengths, seq_len in grid
        ]

    def modes(self) -> list[Mode]:
        return [mode for mode in MODES if mode in self.axes.mode]

    def cap(self, job: Job) -> str | None:
        """Why this sweep leaves a job out, or None."""
        longest = self.caps.get(job.implementation, {}).get(job.mode)
        t = job.case.seq_len
        if longest is None or t <= longest:
            return None
        return (
            f"T={t}: this sweep stops {job.implementation} {job.mode} at T={longest}, where "
            "compiling takes too long; --no-caps lifts it"
        )

    def jobs(self, measure: Measure) -> list[Job]:
        """Every job of one way of measuring, capped ones too. Limits have steady jobs only."""
        entries = self.implementations() + (self.limits() if measure == "steady" else [])
        return [
            Job(implementation=entry.name, case=case, mode=mode, measure=measure)
            for case in self.cases()
            for mode in self.modes()
            for entry in entries
        ]

    def to_json(self) -> dict[str, Any]:
        """The sweep as data, "all" spelt out: a later registry may have more implementations."""
        chosen = self.implementations()
        named = {
            "backend": list(dict.fromkeys(entry.backend for entry in chosen)),
            "strategy": list(dict.fromkeys(entry.strategy.name for entry in chosen)),
        }
        return {**asdict(self), "axes": {**asdict(self.axes), **named}}


def preset_names() -> list[str]:
    """Names that `load_preset` takes."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def load_preset(name_or_path: str) -> Sweep:
    """Read a preset by its name, or a TOML file of the same form by its path.

    Raises `UsageError` for an unknown name, a file that cannot be read, and anything in it that is
    not a preset.
    """
    if name_or_path.endswith(".toml"):
        path = Path(name_or_path)
    else:
        path = PRESETS / f"{choose('preset', name_or_path, preset_names())}.toml"
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"preset {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        # Not TOML, not UTF-8, a number of thousands of digits, lists nested as deep.
        raise UsageError(f"preset {path}: {error}") from error
    return _sweep(path, data)


def _sweep(path: Path, data: Mapping[str, Any]) -> Sweep:
    for key in data:
        choose(f"key in {path.name}", key, ("title", "axes", "sampling", "caps"))
    axes = _table(path, data, "axes", [f.name for f in fields(Axes)])
    sampling = _table(path, data, "sampling", [f.name for f in fields(Sampling)])
    for name, values in axes.items():
        if not isinstance(values, list):
            raise UsageError(f"preset {path}: axis {name} {values!r}: must be a list")
    try:
        return Sweep(
            name=path.stem,
            title=str(data.get("title", path.stem)),
            axes=Axes(**{k: tuple(v) for k, v in axes.items()}),
            sampling=Sampling(**sampling),
            caps=_caps(path, data),
        )
    except TypeError as error:
        raise UsageError(f"preset {path}: {error}") from error


def _caps(path: Path, data: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Read the table [caps]: `"torch/static" = 10`, or `{ forward = 50, train = 10 }`."""
    table = _table(path, data, "caps", IMPLEMENTATIONS) if "caps" in data else {}
    caps: dict[str, dict[str, int]] = {}
    for name, value in table.items():
        by_mode = value if isinstance(value, dict) else dict.fromkeys(MODES, value)
        for mode, longest in by_mode.items():
            choose(f"mode of cap {name} in {path.name}", mode, MODES)
            if not isinstance(longest, int) or isinstance(longest, bool) or longest < 1:
                raise UsageError(f"cap {name} {longest!r}: must be a whole number of 1 or more")
        caps[name] = by_mode
    return caps


def _table(
    path: Path, data: Mapping[str, Any], name: str, allowed: Iterable[str]
) -> dict[str, Any]:
    table = data.get(name)
    if not isinstance(table, dict):
        raise UsageError(f"preset {path}: has no table [{name}]")
    for key in table:
        choose(f"key in [{name}] of {path.name}", key, allowed)
    return table
