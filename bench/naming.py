"""Names of cases and jobs. They are for people; no code parses them."""

from __future__ import annotations

from dataclasses import MISSING, fields

from backends.api import Case
from bench.record import Job
from bench.report.model import LETTERS

#: Fields of a case whose values do not say what they are of.
_NAMED = ("forget_bias", "seed", "tf32", "threads")


def case_name(case: Case, *, between: str = "-", equals: str = "") -> str:
    """`lstm-T50-B16-L1-H128-D128`, and after it whatever is not as usual: `-ragged-float64`.

    It depends on nothing but the case, and cases that differ have different names.
    """
    parts: list[str] = [case.cell]
    parts += [f"{letter}{equals}{getattr(case, name)}" for name, letter in LETTERS.items()]
    for field in fields(Case):
        value = getattr(case, field.name)
        if field.name not in LETTERS and field.default not in (MISSING, value):
            parts.append(f"{field.name}={value}" if field.name in _NAMED else value)
    return between.join(parts)


def group_name(job: Job) -> str:
    """Name of the jobs that are compared: `lstm-T50-B16-L1-H128-D128-train`, `...-train-cold`."""
    measure = "" if job.measure == "steady" else f"-{job.measure}"
    return f"{case_name(job.case)}-{job.mode}{measure}"


def job_name(job: Job) -> str:
    """`tensorflow/static-lstm-T50-B16-L1-H128-D128-train`; an A/A twin has its number in it."""
    return f"{job.arm}-{group_name(job)}"


def step_name(job: Job) -> str:
    """Name of a job in a progress bar: `tensorflow/static T=50 train steady`."""
    threads = f" threads={job.case.threads}" if job.case.threads > 1 else ""
    return f"{job.implementation} T={job.case.seq_len}{threads} {job.mode} {job.measure}"
