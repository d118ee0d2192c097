"""The axes of a sweep, and the cases that they make."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, get_args

from backends import IMPLEMENTATIONS
from backends.api import (
    CELL_NAMES,
    MODES,
    Case,
    Direction,
    Dtype,
    InitialState,
    Kind,
    Lengths,
    Tf32,
    has_tf32,
)
from backends.devices import ALLOWED, is_device
from bench import strict
from bench.errors import UsageError, choose

#: Kinds that a sweep compares.
RANKED: tuple[Kind, ...] = ("static", "dynamic", "fused")

#: Kinds that ride along in blocks, to hold the others against: no implementations, never ranked,
#: gated or judged. They have no outputs.
RIDING: tuple[Kind, ...] = ("limit", "launches")

_WORDS: Mapping[str, Sequence[str]] = {
    "cell": CELL_NAMES,
    "lengths": get_args(Lengths),
    "direction": get_args(Direction),
    "initial_state": get_args(InitialState),
    "dtype": get_args(Dtype),
    "tf32": get_args(Tf32),
    "mode": MODES,
}


#: Axes that are fields of a case, the slowest to vary first.
CASE_AXES = (
    *("device", "threads", "dtype", "tf32", "cell", "direction", "layers", "hidden", "inputs"),
    *("batch", "lengths", "initial_state", "seq_len"),
)

#: A case takes minutes: more of them than this are a slip of the keyboard.
MAX_CASES = 1000


@dataclass(frozen=True, kw_only=True)
class Axes:
    """Values of each axis. Empty `backend` or `strategy` means all of them."""

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
    initial_state: tuple[str, ...] = ("zeros",)
    direction: tuple[str, ...] = ("forward",)
    tf32: tuple[str, ...] = ("off",)
    threads: tuple[int, ...] = (1,)
    backend: tuple[str, ...] = ()
    strategy: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for axis in fields(self):
            values: tuple[Any, ...] = getattr(self, axis.name)
            name = axis.name.replace("_", "-")
            if not values and axis.name not in ("backend", "strategy"):
                raise UsageError(f"axis {name}: has no value")
            for value in values:
                self._check(axis.name, name, value)
            for value, count in Counter(values).items():
                if count > 1:
                    raise UsageError(f"axis {name}: value {value} is given twice")
        check_size(self.size)
        self.cases()

    @property
    def size(self) -> int:
        """The number of cases that they make."""
        return math.prod(len(getattr(self, name)) for name in CASE_AXES)

    def cases(self) -> list[Case]:
        """Every combination of the axes, shortest sequences first.

        Where TF32 is both, "on" is combined with the dtypes and devices that have it, if some do.

        Raises `UsageError` for a combination that there is not.
        """
        grid = itertools.product(*(getattr(self, name) for name in CASE_AXES))
        combinations = [dict(zip(CASE_AXES, values, strict=True)) for values in grid]
        some = any(has_tf32(dtype, device) for dtype in self.dtype for device in self.device)
        if some and "off" in self.tf32:
            combinations = [
                each
                for each in combinations
                if each["tf32"] == "off" or has_tf32(each["dtype"], each["device"])
            ]
        try:
            return [Case(**each) for each in combinations]
        except ValueError as error:
            raise UsageError(str(error)) from error

    @staticmethod
    def _check(axis: str, name: str, value: object) -> None:
        if axis in _WORDS:
            choose(name, str(value), _WORDS[axis])
        elif axis == "backend":
            choose(name, str(value), _names("backend"))
        elif axis == "strategy":
            choose(name, str(value), _names("strategy"))
        elif axis == "device":
            if not (isinstance(value, str) and is_device(value)):
                raise UsageError(f"device {value!r}: must be {ALLOWED}")
        elif not is_count(value):
            raise UsageError(f"{name} {value!r}: must be a whole number of 1 or more, below 2^63")


def check_size(cases: int) -> None:
    """Raise `UsageError` for more cases than anybody measures."""
    if cases > MAX_CASES:
        raise UsageError(f"axes: make {cases:,} cases; allowed are {MAX_CASES:,}")


def is_count(value: object) -> bool:
    """Whether a value from a file is a whole number of 1 or more that a record can hold."""
    return type(value) is int and 1 <= value < strict.LARGEST


def _names(part: str) -> list[str]:
    ranked = [entry for entry in IMPLEMENTATIONS.values() if entry.kind in RANKED]
    words = (e.backend if part == "backend" else e.strategy.name for e in ranked)
    return list(dict.fromkeys(words))
