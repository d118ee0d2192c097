"""Axes -> jobs. Named presets are TOML files in `presets/`."""

from __future__ import annotations

import itertools
import math
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_args

from backends import IMPLEMENTATIONS, Implementation
from backends.api import CELL_NAMES, MODES, Case, Dtype, InitialState, Kind, Lengths, Mode
from bench import strict
from bench.errors import UsageError, choose
from bench.record import OTHER_WORKER, SAME_WORKER, TWIN_IN_OTHER, Job, Measure

PRESETS = Path(__file__).with_name("presets")

#: Kinds that a sweep compares; `limit` rides along in every block.
RANKED: tuple[Kind, ...] = ("static", "dynamic", "fused")

DEVICES = ("cpu", "gpu")

_WORDS: Mapping[str, Sequence[str]] = {
    "cell": CELL_NAMES,
    "lengths": get_args(Lengths),
    "initial_state": get_args(InitialState),
    "dtype": get_args(Dtype),
    "device": DEVICES,
    "mode": MODES,
}


#: Axes that are fields of a case, the slowest to vary first.
_CASE_AXES = (
    *("device", "dtype", "cell", "layers", "hidden", "inputs"),
    *("batch", "lengths", "initial_state", "seq_len"),
)

#: A case takes minutes: more of them than this are a slip of the keyboard.
MAX_CASES = 1000


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
    initial_state: tuple[str, ...] = ("zeros",)
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
        cases = math.prod(len(getattr(self, name)) for name in _CASE_AXES)
        if cases > MAX_CASES:
            raise UsageError(f"axes: make {cases:,} cases; allowed are {MAX_CASES:,}")

    @staticmethod
    def _check(axis: str, name: str, value: object) -> None:
        if axis in _WORDS:
            choose(name, str(value), _WORDS[axis])
        elif axis == "backend":
            choose(name, str(value), _names("backend"))
        elif axis == "strategy":
            choose(name, str(value), _names("strategy"))
        elif not _is_count(value):
            raise UsageError(f"{name} {value!r}: must be a whole number of 1 or more, below 2^63")


def _is_count(value: object) -> bool:
    return type(value) is int and 1 <= value < strict.LARGEST


def _names(part: str) -> list[str]:
    ranked = [entry for entry in IMPLEMENTATIONS.values() if entry.kind in RANKED]
    words = (e.backend if part == "backend" else e.strategy.name for e in ranked)
    return list(dict.fromkeys(words))


#: What the implementations of a block have in common.
Setting = tuple[Case, Mode]

#: Nobody waits longer for a benchmark.
MAX_BUDGET_S = 7 * 86400.0


def _between(value: object, low: float, high: float) -> bool:
    """Whether a value from a file is a number in (low, high]."""
    return type(value) in (int, float) and low < value <= high  # type: ignore[operator]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How often. `blocks` of steady state, of which the first few also hold cold and memory jobs.

    `steady_s` and `warmup_s` are seconds, `warmup_calls` calls, of an implementation in a block.
    `blocks_per_server` blocks of each case share the processes that fork their workers. A block
    waits up to `quiet_wait_s` for a quiet host, less often the more has been waited. With a
    `precision` (0.02 is 2 %) the blocks are a first look: what is not yet known that well gets as
    many again, and then twice as many. `budget_s` bounds the measuring; what does not fit in is
    left out. With a `memory_limit_bytes` one block also looks for the longest T that runs within
    it, in trials of at most `probe_limit_s`.
    """

    blocks: int
    cold_blocks: int
    memory_blocks: int
    steady_s: float
    warmup_s: float
    warmup_calls: int = 5
    blocks_per_server: int = 1
    quiet_wait_s: float = 60.0
    precision: float | None = None
    budget_s: float | None = None
    memory_limit_bytes: int | None = None
    probe_limit_s: float = 60.0

    def __post_init__(self) -> None:
        for name in (
            *("blocks", "cold_blocks", "memory_blocks"),
            *("warmup_calls", "blocks_per_server"),
        ):
            value = getattr(self, name)
            if not _is_count(value):
                raise UsageError(
                    f"{name} {value!r}: must be a whole number of 1 or more, below 2^63"
                )
        for name in ("steady_s", "warmup_s"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 < value < 3600:
                raise UsageError(f"{name} {value!r}: must be seconds above 0")
        if not _between(self.quiet_wait_s, -1e-9, 3600):
            raise UsageError(f"quiet_wait_s {self.quiet_wait_s!r}: must be 0 to 3600 seconds")
        if self.precision is not None and not _between(self.precision, 0, 1):
            raise UsageError(f"precision {self.precision!r}: must be above 0 and below 1 (100%)")
        if self.budget_s is not None and not _between(self.budget_s, 0, MAX_BUDGET_S):
            raise UsageError(f"budget_s {self.budget_s!r}: must be seconds above 0, a week at most")
        if self.memory_limit_bytes is not None and not _is_count(self.memory_limit_bytes):
            raise UsageError(
                f"memory_limit_bytes {self.memory_limit_bytes!r}: must be a whole number of 1 or "
                "more, below 2^63"
            )
        if not _between(self.probe_limit_s, 0, 3600):
            raise UsageError(f"probe_limit_s {self.probe_limit_s!r}: must be above 0, 3600 at most")

    def counts(self) -> dict[Measure, int]:
        """In how many blocks each way of measuring takes part; what is not asked for lacks."""
        counts: dict[Measure, int] = {
            "steady": self.blocks,
            "cold": self.cold_blocks,
            "memory": self.memory_blocks,
        }
        return counts if self.memory_limit_bytes is None else {**counts, "capacity": 1}

    def but(
        self,
        *,
        blocks: int | None = None,
        precision: float | None = None,
        budget_s: float | None = None,
        memory_limit_bytes: int | None = None,
    ) -> Sampling:
        """The same with other values; with other blocks every kind of job takes part in them."""
        changed = self
        if blocks is not None:
            memory_blocks = min(blocks, self.memory_blocks)
            changed = replace(self, blocks=blocks, cold_blocks=blocks, memory_blocks=memory_blocks)
        return replace(
            changed,
            precision=self.precision if precision is None else precision,
            budget_s=self.budget_s if budget_s is None else budget_s,
            memory_limit_bytes=(
                self.memory_limit_bytes if memory_limit_bytes is None else memory_limit_bytes
            ),
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
    #: The backend that has a second worker beside its first one; None: the first that is chosen.
    twinned: str | None = None

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

    def backends(self) -> list[str]:
        """The backends that take part, in registry order; those of the limits last."""
        entries = self.implementations() + self.limits()
        return list(dict.fromkeys(entry.backend for entry in entries))

    def cases(self) -> list[Case]:
        """Every combination of the axes, shortest sequences first."""
        grid = itertools.product(*(getattr(self.axes, name) for name in _CASE_AXES))
        return [Case(**dict(zip(_CASE_AXES, values, strict=True))) for values in grid]

    def modes(self) -> list[Mode]:
        return [mode for mode in MODES if mode in self.axes.mode]

    def cap(self, job: Job) -> str | None:
        """Why this sweep leaves a job out, or None."""
        longest, t = self.longest(job), job.case.seq_len
        if longest is None or t <= longest:
            return None
        return (
            f"T={t}: this sweep stops {job.implementation} {job.mode} at T={longest}, where "
            "compiling takes too long; --no-caps lifts it"
        )

    def longest(self, job: Job) -> int | None:
        """The T at which this sweep stops the job's implementation and mode; None: nowhere."""
        return self.caps.get(job.implementation, {}).get(job.mode)

    def jobs(self, measure: Measure) -> list[Job]:
        """Every job of one way of measuring, capped ones too. Limits have steady jobs only.

        A capacity job looks for its T itself, from the shortest one on. The A/A twins come last.
        """
        entries = self.implementations() + (self.limits() if measure == "steady" else [])
        jobs = [
            Job(implementation=entry.name, case=case, mode=mode, measure=measure)
            for case in self.cases()
            if measure != "capacity" or case.seq_len == min(self.axes.seq_len)
            for mode in self.modes()
            for entry in entries
        ]
        return jobs if measure == "capacity" else jobs + self.twins(measure)

    def twins(self, measure: Measure) -> list[Job]:
        """What is measured twice, to see what two identical things differ by here.

        One job of each backend, mode and device: the strategy that the others are compared with, in
        the middle one of the cases that are not capped for it. In steady state one backend also has
        a second worker with all that the first one holds, so that both have the same neighbours:
        what differs between processes does so across frameworks too.
        """
        twins: list[Job] = []
        chosen = self.implementations()
        second = self.twinned or chosen[0].backend
        backends = dict.fromkeys(entry.backend for entry in chosen)
        for device, mode, backend in itertools.product(self.axes.device, self.modes(), backends):
            job = self._middle(_baseline(chosen, backend), device, mode, measure)
            if job is None:
                continue
            twins.append(replace(job, replica=SAME_WORKER))
            if measure == "steady" and backend == second:
                twins += self._second_worker(job)
        return twins

    def _second_worker(self, job: Job) -> list[Job]:
        """All steady jobs of a worker once more; the given one is there twice, as in the first."""
        entries = [e for e in self.implementations() + self.limits() if e.backend == job.backend]
        beside = [replace(job, implementation=e.name, replica=OTHER_WORKER) for e in entries]
        uncapped = [twin for twin in beside if self.cap(twin) is None]
        return [*uncapped, replace(job, replica=TWIN_IN_OTHER)]

    def _middle(
        self, entry: Implementation, device: str, mode: Mode, measure: Measure
    ) -> Job | None:
        jobs = (
            Job(implementation=entry.name, case=case, mode=mode, measure=measure)
            for case in self.cases()
            if case.device == device
        )
        open_jobs = [job for job in jobs if self.cap(job) is None]
        return open_jobs[(len(open_jobs) - 1) // 2] if open_jobs else None

    def to_json(self) -> dict[str, Any]:
        """The sweep as data, "all" spelt out: a later registry may have more implementations."""
        chosen = self.implementations()
        named = {
            "backend": list(dict.fromkeys(entry.backend for entry in chosen)),
            "strategy": list(dict.fromkeys(entry.strategy.name for entry in chosen)),
        }
        axes = {name: list(values) for name, values in asdict(self.axes).items()}
        return {**asdict(self), "axes": {**axes, **named}}

    @classmethod
    def from_json(cls, data: object) -> Sweep:
        """The sweep that `to_json` wrote. Raises `UsageError` for anything else."""
        try:
            given = strict.mapping(data, "plan")
            axes = strict.mapping(given.get("axes"), "axes")
            caps = strict.mapping(given.get("caps", {}), "caps")
            twinned = given.get("twinned")
            return cls(
                name=strict.text(given.get("name"), "name"),
                title=strict.text(given.get("title"), "title"),
                axes=Axes(**{k: tuple(strict.listed(v, f"axis {k}")) for k, v in axes.items()}),
                sampling=Sampling(**strict.mapping(given.get("sampling"), "sampling")),
                caps={name: _cap(name, value) for name, value in caps.items()},
                twinned=None if twinned is None else strict.text(twinned, "twinned"),
            )
        except (TypeError, ValueError, UsageError) as error:
            raise UsageError(f"plan not readable ({error})") from error


def _baseline(chosen: Sequence[Implementation], backend: str) -> Implementation:
    """The chosen strategy of a backend that most others are compared with, or the first one."""
    entries = [entry for entry in chosen if entry.backend == backend]
    against = [entry.strategy.against for entry in entries]
    return max(entries, key=lambda entry: against.count(entry.strategy.name))


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
        return _sweep(path, tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UsageError(f"preset {path}: {error.strerror}") from error
    except (TypeError, ValueError, RecursionError) as error:
        # No TOML, no UTF-8, a number of thousands of digits, lists nested as deep, a key missing.
        raise UsageError(f"preset {path}: {error}") from error


def _sweep(path: Path, data: Mapping[str, Any]) -> Sweep:
    for key in data:
        choose(f"key in {path.name}", key, ("title", "axes", "sampling", "caps"))
    axes = _table(path, data, "axes", [f.name for f in fields(Axes)])
    sampling = _table(path, data, "sampling", [f.name for f in fields(Sampling)])
    for name, values in axes.items():
        if not isinstance(values, list):
            raise UsageError(f"preset {path}: axis {name} {values!r}: must be a list")
    return Sweep(
        name=path.stem,
        title=str(data.get("title", path.stem)),
        axes=Axes(**{k: tuple(v) for k, v in axes.items()}),
        sampling=Sampling(**sampling),
        caps=_caps(path, data),
    )


def _caps(path: Path, data: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Read the table [caps]: `"torch/static" = 10`, or `{ forward = 50, train = 10 }`."""
    table = _table(path, data, "caps", IMPLEMENTATIONS) if "caps" in data else {}
    return {name: _cap(name, value) for name, value in table.items()}


def _cap(name: str, value: object) -> dict[str, int]:
    """The longest T by mode."""
    by_mode: dict[str, Any] = value if isinstance(value, dict) else dict.fromkeys(MODES, value)
    for mode, longest in by_mode.items():
        choose(f"mode of cap {name}", mode, MODES)
        if not _is_count(longest):
            raise UsageError(
                f"cap {name} {longest!r}: must be a whole number of 1 or more, below 2^63"
            )
    return by_mode


def _table(
    path: Path, data: Mapping[str, Any], name: str, allowed: Iterable[str]
) -> dict[str, Any]:
    table = data.get(name)
    if not isinstance(table, dict):
        raise UsageError(f"preset {path}: has no table [{name}]")
    for key in table:
        choose(f"key in [{name}] of {path.name}", key, allowed)
    return table
