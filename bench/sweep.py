"""Axes -> jobs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from backends import IMPLEMENTATIONS, Implementation, refusal
from backends.api import MODES, Case, Mode
from backends.devices import is_gpu
from bench import strict
from bench.axes import RANKED, RIDING, Axes, check_size, is_count
from bench.errors import UsageError, choose
from bench.record import MEASURES, Job, Measure
from bench.sampling import Sampling


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """An ordered set of jobs made from axes."""

    name: str
    title: str
    axes: Axes
    sampling: Sampling
    #: Further axes, each with cases of its own; backends, strategies, devices and modes are those
    #: of `axes`.
    more: tuple[Axes, ...] = ()
    #: implementation -> mode -> longest T. Absent: no cap.
    caps: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_size(sum(axes.size for axes in (self.axes, *self.more)))

    def implementations(self) -> list[Implementation]:
        """The chosen implementations, in registry order; those of GPUs where there is one."""
        gpu = any(map(is_gpu, self.axes.device))
        return [
            entry
            for entry in IMPLEMENTATIONS.values()
            if entry.kind in RANKED
            and (gpu or not entry.strategy.of_gpus)
            and (not self.axes.backend or entry.backend in self.axes.backend)
            and (not self.axes.strategy or entry.strategy.name in self.axes.strategy)
        ]

    def riders(self) -> list[Implementation]:
        """Reference arms of steady blocks: NumPy's products, and the chosen backends' own."""
        chosen = {entry.backend for entry in self.implementations()} | {"reference"}
        return [
            entry
            for entry in IMPLEMENTATIONS.values()
            if entry.kind in RIDING and entry.backend in chosen
        ]

    def backends(self) -> list[str]:
        """The backends that take part, in registry order; those that only ride along last."""
        entries = self.implementations() + self.riders()
        return list(dict.fromkeys(entry.backend for entry in entries))

    def cases(self) -> list[Case]:
        """Every combination of the axes, shortest sequences first, then those of `more`."""
        return list(
            dict.fromkeys(case for axes in (self.axes, *self.more) for case in axes.cases())
        )

    def threads(self) -> list[int]:
        """The numbers of threads that its cases have, the fewest first."""
        return sorted({case.threads for case in self.cases()})

    def modes(self) -> list[Mode]:
        return [mode for mode in MODES if mode in self.axes.mode]

    def cap(self, job: Job) -> str | None:
        """Reason why this sweep leaves a job out, or None."""
        longest, t = self.longest(job), job.case.seq_len
        if longest is None or t <= longest:
            return None
        return (
            f"T={t}: this sweep stops {job.implementation} {job.mode} at T={longest}: it takes "
            "too long, or is not asked here; --no-caps lifts it"
        )

    def runs(self, job: Job) -> bool:
        """Whether neither this sweep nor the implementation itself leaves a job out."""
        refused = refusal(job.implementation, job.case, job.mode)
        return refused is None and self.cap(job) is None

    def longest(self, job: Job) -> int | None:
        """The T at which this sweep stops the job's implementation and mode; None: nowhere."""
        return self.caps.get(job.implementation, {}).get(job.mode)

    def jobs(self, measure: Measure) -> list[Job]:
        """Every job of one way of measuring, capped ones too.

        What rides along has steady jobs only, and none that it refuses: nobody has asked for it.

        A capacity job looks for its T itself, from the shortest one on. The A/A twins come last;
        a capacity job has none, and of what is found once and not timed there is nothing to tell.
        """
        entries = self.implementations() + (self.riders() if measure == "steady" else [])
        cases = self.cases()
        if measure == "capacity":
            cases = _shortest(cases)
        jobs = [
            Job(implementation=entry.name, case=case, mode=mode, measure=measure)
            for case in cases
            for mode in self.modes()
            for entry in entries
            if entry.kind in RANKED or refusal(entry.name, case, mode) is None
        ]
        return jobs + self.twins(measure) if measure in MEASURES else jobs

    def twins(self, measure: Measure) -> list[Job]:
        """Jobs that are measured twice, to see what two identical things differ by here.

        One job of each backend, mode, device and number of threads: the strategy that the others
        are compared with, in the middle one of the cases that it runs, among those that most of its
        backend express.
        """
        chosen = self.implementations()
        backends = dict.fromkeys(entry.backend for entry in chosen)
        axes = (self.axes.device, self.threads(), self.modes(), backends)
        jobs = (
            self._middle(_baseline(chosen, backend), (device, threads), mode, measure)
            for device, threads, mode, backend in itertools.product(*axes)
        )
        return [replace(job, replica=1) for job in jobs if job is not None]

    def _middle(
        self, entry: Implementation, where: tuple[str, int], mode: Mode, measure: Measure
    ) -> Job | None:
        jobs = (
            Job(implementation=entry.name, case=case, mode=mode, measure=measure)
            for case in self.cases()
            if (case.device, case.threads) == where
        )
        running = [job for job in jobs if self.runs(job)]
        if not running:
            return None
        names = [e.name for e in self.implementations() if e.backend == entry.backend]
        company = [
            [refusal(name, job.case, job.mode) for name in names].count(None) for job in running
        ]
        most = [job for job, count in zip(running, company, strict=True) if count == max(company)]
        return most[(len(most) - 1) // 2]

    def to_json(self) -> dict[str, Any]:
        """The sweep as data, "all" spelt out: a later registry may have more implementations."""
        chosen = self.implementations()
        named = {
            "backend": list(dict.fromkeys(entry.backend for entry in chosen)),
            "strategy": list(dict.fromkeys(entry.strategy.name for entry in chosen)),
        }
        first, *more = (
            {name: list(values) for name, values in asdict(axes).items()}
            for axes in (self.axes, *self.more)
        )
        return {**asdict(self), "axes": {**first, **named}, "more": more}

    @classmethod
    def from_json(cls, data: object) -> Sweep:
        """The sweep that `to_json` wrote. Raises `UsageError` for anything else."""
        try:
            given = strict.mapping(data, "plan")
            caps = strict.mapping(given.get("caps", {}), "caps")
            return cls(
                name=strict.text(given.get("name"), "name"),
                title=strict.text(given.get("title"), "title"),
                axes=_axes(given.get("axes")),
                more=tuple(_axes(axes) for axes in strict.listed(given.get("more", []), "more")),
                sampling=Sampling(**strict.mapping(given.get("sampling"), "sampling")),
                caps={name: cap_by_mode(name, value) for name, value in caps.items()},
            )
        except (TypeError, ValueError, UsageError) as error:
            raise UsageError(f"plan not readable ({error})") from error


def _shortest(cases: Sequence[Case]) -> list[Case]:
    """Of cases that differ in T alone, the one with the smallest."""
    least: dict[Case, int] = {}
    for case in cases:
        other = replace(case, seq_len=1)
        least[other] = min(case.seq_len, least.get(other, case.seq_len))
    return [case for case in cases if case.seq_len == least[replace(case, seq_len=1)]]


def _axes(data: object) -> Axes:
    """Axes as `to_json` wrote them."""
    axes = strict.mapping(data, "axes")
    return Axes(**{k: tuple(strict.listed(v, f"axis {k}")) for k, v in axes.items()})


def _baseline(chosen: Sequence[Implementation], backend: str) -> Implementation:
    """The chosen strategy of a backend that most others are compared with, or the first one."""
    entries = [entry for entry in chosen if entry.backend == backend]
    against = [entry.strategy.against for entry in entries]
    return max(entries, key=lambda entry: against.count(entry.strategy.name))


def cap_by_mode(name: str, value: object) -> dict[str, int]:
    """The longest T by mode."""
    by_mode: dict[str, Any] = value if isinstance(value, dict) else dict.fromkeys(MODES, value)
    for mode, longest in by_mode.items():
        choose(f"mode of cap {name}", mode, MODES)
        if not is_count(longest):
            raise UsageError(
                f"cap {name} {longest!r}: must be a whole number of 1 or more, below 2^63"
            )
    return by_mode
