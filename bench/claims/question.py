"""Questions of a claim's test at one place, with the data that answer them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bench import stats
from bench.evidence import Evidence, Group
from bench.record import Measure, Status

#: How a job may end that the sweep or the implementation itself decided: nobody misses it.
_EXCUSED = frozenset({str(s) for s in (Status.UNSUPPORTED, Status.UNAVAILABLE, Status.CAPPED)})

#: What a place says of how many threads there were, other than one.
THREADS = "threads"


@dataclass(frozen=True, kw_only=True)
class Fact:
    """Exact behaviour of an implementation: `effect` is the value read, in `unit`.

    `limit` is the bound that the claim gives it; NaN where it has none.
    """

    holds: bool
    statement: str
    effect: float
    unit: str
    limit: float = math.nan


@dataclass(frozen=True, kw_only=True)
class Question:
    """A claim at one place of one run: answered by a test, by a fact, or by neither (`reason`).

    `excused` says that there was nothing to expect: what the sweep leaves out, or what an
    implementation cannot express, is no gap in the evidence. `withheld` says why a test that there
    is gets no answer.
    """

    run: str
    where: Mapping[str, str]
    rows: Sequence[str]
    test: stats.Conjunction | None = None
    fact: Fact | None = None
    reason: str = ""
    excused: bool = False
    withheld: str = ""
    notes: Sequence[str] = ()

    @property
    def place(self) -> tuple[tuple[str, str], ...]:
        """Identity of the question among the claim's others, in any run."""
        return tuple(self.where.items())

    @property
    def answerable(self) -> bool:
        return self.fact is not None or self.test is not None


def where(group: Group, framework: str, **more: str) -> dict[str, str]:
    """A group as a place: what a reader must know, and of the rest what is not as usual."""
    case = group.case
    place = {"framework": framework, **more, "phase": group.mode, "cell": case.cell}
    place |= {"T": f"{case.seq_len}", "B": f"{case.batch}", "layers": f"{case.layers}"}
    place |= {"H": f"{case.hidden}"}
    unusual = {
        "D": (f"{case.inputs}", f"{case.hidden}"),
        "lengths": (case.lengths, "full"),
        "direction": (case.direction, "forward"),
        "dtype": (case.dtype, "float32"),
        "TF32": (case.tf32, "off"),
        "initial state": (case.initial_state, "zeros"),
        "device": (case.device, "cpu"),
        THREADS: (f"{case.threads}", "1"),
    }
    return place | {name: value for name, (value, usual) in unusual.items() if value != usual}


def tested(
    question: Question, parts: Sequence[stats.Hypothesis], jobs: Sequence[Evidence]
) -> Question:
    """The question with its test, or with the reason why a ratio of it is missing."""
    test = stats.Conjunction(parts=parts)
    return replace(question, test=test) if test.measured else lacking(question, jobs)


def lacking(question: Question, jobs: Sequence[Evidence], otherwise: str = "") -> Question:
    """The question without an answer, since one of these jobs has nothing to give."""
    for job in jobs:
        if not job.believed:
            end = job.outcome
            reason = f"{job.job.implementation} {job.job.measure}: {end.status}"
            reason += f" ({end.reason.strip().splitlines()[-1]})" if end.reason.strip() else ""
            return replace(question, reason=reason, excused=end.status in _EXCUSED)
    return replace(question, reason=otherwise or "no block has both sides")


def planned(group: Group, measure: Measure, *implementations: str) -> bool:
    """Whether a run was to measure, or has measured, all of these."""
    return all((name, measure) in group.jobs for name in implementations)
