"""Named sweeps: TOML files in `presets/`, or of the same form elsewhere."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

from backends import IMPLEMENTATIONS
from bench import published
from bench.axes import CASE_AXES, Axes
from bench.errors import UsageError, choose
from bench.sampling import Sampling
from bench.sweep import Sweep, cap_by_mode

PRESETS = Path(__file__).with_name("presets")

#: What [[more]] may name: devices are looked for, and have twins, by the sweep's axes.
_FURTHER = [name for name in CASE_AXES if name != "device"]

_KEYS = ("title", "axes", "more", "sampling", "caps", "source", "published")


def preset_names() -> list[str]:
    """Names that `load_preset` takes."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def load_preset(name_or_path: str) -> Sweep:
    """Read a preset by its name, or a TOML file of the same form by its path.

    Raises `UsageError` for an unknown name, a file that cannot be read, and anything in it that is
    not a preset.
    """
    if name_or_path.endswith(".toml"):
        return _read(Path(name_or_path))[0]
    return _read(PRESETS / f"{choose('preset', name_or_path, preset_names())}.toml")[0]


@cache
def source_of(preset: str) -> published.Source | None:
    """Published figures of a preset's cases, by its name; None for any other name."""
    return _read(PRESETS / f"{preset}.toml")[1] if preset in preset_names() else None


def has_own_threads(preset: str) -> bool:
    """Whether a named preset says how many threads it is about."""
    text = (PRESETS / f"{preset}.toml").read_text(encoding="utf-8")
    return "threads" in tomllib.loads(text)["axes"]


def _read(path: Path) -> tuple[Sweep, published.Source | None]:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        sweep = _sweep(path, data)
        return sweep, published.read(data, sweep)
    except OSError as error:
        raise UsageError(f"preset {path}: {error.strerror}") from error
    except (TypeError, ValueError, RecursionError) as error:
        # No TOML, no UTF-8, a number of thousands of digits, lists nested as deep, a key missing.
        raise UsageError(f"preset {path}: {error}") from error


def _sweep(path: Path, data: Mapping[str, Any]) -> Sweep:
    for key in data:
        choose(f"key in {path.name}", key, _KEYS)
    axes = _table(path, data, "axes", [f.name for f in fields(Axes)])
    sampling = _table(path, data, "sampling", [f.name for f in fields(Sampling)])
    _check_lists(path, axes)
    return Sweep(
        name=path.stem,
        title=str(data.get("title", path.stem)),
        axes=Axes(**{k: tuple(v) for k, v in axes.items()}),
        more=tuple(_more(path, data, axes)),
        sampling=Sampling(**sampling),
        caps=_caps(path, data),
    )


def _check_lists(path: Path, axes: Mapping[str, Any]) -> None:
    for name, values in axes.items():
        if not isinstance(values, list):
            raise UsageError(f"preset {path}: axis {name} {values!r}: must be a list")


def _more(path: Path, data: Mapping[str, Any], axes: Mapping[str, Any]) -> Iterator[Axes]:
    """Read the tables [[more]]: what differs in each from [axes], fields of a case only."""
    tables = data.get("more", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UsageError(f"preset {path}: more {tables!r}: must be tables [[more]]")
    for table in tables:
        for key in table:
            choose(f"key in [[more]] of {path.name}", key, _FURTHER)
        _check_lists(path, table)
        yield Axes(**{k: tuple(v) for k, v in {**axes, **table}.items()})


def _caps(path: Path, data: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Read the table [caps]: `"torch/static" = 10`, or `{ forward = 50, train = 10 }`."""
    table = _table(path, data, "caps", IMPLEMENTATIONS) if "caps" in data else {}
    return {name: cap_by_mode(name, value) for name, value in table.items()}


def _table(
    path: Path, data: Mapping[str, Any], name: str, allowed: Iterable[str]
) -> dict[str, Any]:
    table = data.get(name)
    if not isinstance(table, dict):
        raise UsageError(f"preset {path}: has no table [{name}]")
    for key in table:
        choose(f"key in [{name}] of {path.name}", key, allowed)
    return table
