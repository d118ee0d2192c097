"""Plan of a sweep, printed without running it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import groupby

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from backends import IMPLEMENTATIONS, Implementation, refusal
from bench.estimate import job_seconds, runnable, sweep_seconds, trials, words
from bench.format import plain
from bench.naming import case_name
from bench.record import Job, Measure
from bench.sweep import Sweep


def print_plan(sweep: Sweep, absent: Mapping[str, str], console: Console) -> None:
    """Print the jobs by case and mode, the number of workers and the time that it may take.

    `absent` says by backend why it is not here.
    """
    console.print(Text(plain(f"{sweep.name}: {sweep.title}"), style="bold"))
    console.print(_table(sweep, absent))
    counts = sweep.sampling.counts()
    jobs = ", ".join(f"{len(runnable(sweep, m, absent))} {m} ({counts[m]} x)" for m in counts)
    twins = sum(job.replica > 0 for m in counts for job in runnable(sweep, m, absent))
    console.print(f"jobs     {jobs}; {twins} of them are A/A twins")
    console.print(f"workers  {workers(sweep, absent)}, a process each")
    if sweep.sampling.memory_limit_bytes is not None:
        console.print(_capacity(sweep, absent))
    console.print(f"time     about {words(sweep_seconds(sweep, absent=absent))}{_bounds(sweep)}")
    for backend, reason in absent.items():
        console.print(Text(f"{backend}: {reason}", style="yellow"))


def _bounds(sweep: Sweep) -> str:
    """Bounds on the time of a run beyond its first look."""
    sampling, said = sweep.sampling, ""
    if sampling.precision is not None:
        said += f", up to 4 times as many steady blocks for a precision of {sampling.precision:.3g}"
    if sampling.budget_s is not None:
        said += f", {words(sampling.budget_s)} at most"
    return said


def _capacity(sweep: Sweep, absent: Collection[str]) -> str:
    """Cost of the search for the longest T."""
    sampling = sweep.sampling
    limit = f"{(sampling.memory_limit_bytes or 0) / 1e6:,.4g} MB"
    took = [
        seconds
        for job in runnable(sweep, "capacity", absent)
        for seconds in trials(job, sampling, longest=sweep.longest(job))
    ]
    return (
        f"memory   the longest T within {limit}: about {len(took)} trials, a process each, "
        f"at most {words(sampling.probe_limit_s)} each, {words(sum(took))} in all"
    )


def workers(sweep: Sweep, absent: Collection[str] = ()) -> int:
    """Processes that measure, without those that look for the longest T.

    One for each job of each block.
    """
    counts = sweep.sampling.counts()
    own: tuple[Measure, ...] = ("steady", "cold", "memory", "behaviour")
    return sum(counts.get(m, 0) * len(runnable(sweep, m, absent)) for m in own)


def _table(sweep: Sweep, absent: Collection[str]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in ("case", "mode", "backend", "strategies", "time"):
        table.add_column(column, justify="right" if column == "time" else "left")
    seconds = _seconds(sweep, absent)
    # Of the first way of measuring, which has every case: steady, unless there is no such block.
    first = next(iter(sweep.sampling.counts()))
    shown = (job for job in sweep.jobs(first) if not job.replica)
    for (case, mode), group in groupby(shown, key=lambda job: (job.case, job.mode)):
        heads = case_name(case, between=" ", equals="="), str(mode)
        for backend, jobs in _by_backend(group).items():
            said = "; ".join(_said(sweep, jobs))
            if backend in absent:
                said = f"{said} (not installed)"
            total = sum(seconds[replace(job, measure="steady")] for job in jobs)
            table.add_row(*heads, backend, said, words(total) if total else "")
            heads = "", ""
        table.add_section()
    return table


def _by_backend(jobs: Iterable[Job]) -> dict[str, list[Job]]:
    found: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        found[_entry(job).backend].append(job)
    return found


def _said(sweep: Sweep, jobs: Iterable[Job]) -> Iterator[str]:
    """The strategies that run, then those that do not with what keeps each from it."""
    found: dict[str, list[str]] = {"": [], "capped: ": [], "unsupported: ": []}
    for job in jobs:
        if refusal(job.implementation, job.case, job.mode) is not None:
            kept = "unsupported: "
        else:
            kept = "" if sweep.cap(job) is None else "capped: "
        found[kept].append(_entry(job).strategy.name)
    yield from (f"{kept}{', '.join(names)}" for kept, names in found.items() if names)


def _seconds(sweep: Sweep, absent: Collection[str]) -> Mapping[Job, float]:
    """Seconds of all that measures the same, by the job in steady state, measured or not."""
    sampling = sweep.sampling
    counts = sampling.counts()
    seconds: dict[Job, float] = defaultdict(float)
    for measure in counts:
        for job in runnable(sweep, measure, absent):
            one = job_seconds(job, sampling, longest=sweep.longest(job))
            seconds[replace(job, measure="steady", replica=0)] += counts[measure] * one
    return seconds


def _entry(job: Job) -> Implementation:
    return IMPLEMENTATIONS[job.implementation]
