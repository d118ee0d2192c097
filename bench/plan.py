"""What a sweep would do here, said without doing it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from itertools import groupby

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from backends import IMPLEMENTATIONS, Implementation
from bench.estimate import job_seconds, runnable, sweep_seconds, words
from bench.naming import case_name
from bench.record import MEASURES, Job
from bench.sweep import Sweep


def print_plan(sweep: Sweep, absent: Mapping[str, str], console: Console) -> None:
    """Print the jobs by case and mode, the number of workers and the time that it may take.

    `absent` says by backend why it is not here.
    """
    console.print(Text(f"{sweep.name}: {sweep.title}", style="bold"))
    console.print(_table(sweep, absent))
    counts = sweep.sampling.counts()
    jobs = ", ".join(f"{len(runnable(sweep, m, absent))} {m} ({counts[m]} x)" for m in MEASURES)
    console.print(f"jobs     {jobs}")
    console.print(f"workers  {workers(sweep, absent)}, a process each")
    console.print(f"time     about {words(sweep_seconds(sweep, absent=absent))}")
    for backend, reason in absent.items():
        console.print(Text(f"{backend}: {reason}", style="yellow"))


def workers(sweep: Sweep, absent: Collection[str] = ()) -> int:
    """Processes that measure.

    In each block one for each backend, case and mode; and one for each cold and memory job.
    """
    counts = sweep.sampling.counts()
    shared = {
        (job.case, job.mode, _entry(job).backend) for job in runnable(sweep, "steady", absent)
    }
    alone = sum(counts[m] * len(runnable(sweep, m, absent)) for m in ("cold", "memory"))
    return counts["steady"] * len(shared) + alone


def _table(sweep: Sweep, absent: Collection[str]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in ("case", "mode", "backend", "strategies", "time"):
        table.add_column(column, justify="right" if column == "time" else "left")
    for (case, mode), group in groupby(sweep.jobs("steady"), key=lambda job: (job.case, job.mode)):
        heads = case_name(case, between=" ", equals="="), str(mode)
        for backend, jobs in _by_backend(group).items():
            said = ", ".join(_said(sweep, job) for job in jobs)
            if backend in absent:
                said = f"{said} (not installed)"
            seconds = _seconds(sweep, jobs, absent)
            table.add_row(*heads, backend, said, words(seconds) if seconds else "")
            heads = "", ""
        table.add_section()
    return table


def _by_backend(jobs: Iterable[Job]) -> dict[str, list[Job]]:
    found: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        found[_entry(job).backend].append(job)
    return found


def _said(sweep: Sweep, job: Job) -> str:
    capped = sweep.cap(job) is not None
    return _entry(job).strategy.name + (" (capped)" if capped else "")


def _seconds(sweep: Sweep, steady: Iterable[Job], absent: Collection[str]) -> float:
    """Seconds for jobs and those that measure the same in another way."""
    counts = sweep.sampling.counts()
    named = {(job.implementation, job.case, job.mode) for job in steady}
    return sum(
        counts[measure] * job_seconds(job, sweep.sampling)
        for measure in MEASURES
        for job in runnable(sweep, measure, absent)
        if (job.implementation, job.case, job.mode) in named
    )


def _entry(job: Job) -> Implementation:
    return IMPLEMENTATIONS[job.implementation]
