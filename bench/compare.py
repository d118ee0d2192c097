"""Two runs -> what takes longer in the second than in the first, and whether that is a failure.

Everything is derived from records; nothing here prints. A job is held against itself, so the two
runs differ in what was installed, or in the code, and not in what was asked.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from backends import IMPLEMENTATIONS
from bench import stats
from bench.errors import UsageError
from bench.evidence import Evidence, groups_of, is_misread, is_small, reading_order, rides_along
from bench.floors import Floors
from bench.hosts import host_differences, session_of
from bench.longest import Search
from bench.pairing import paired_ratio, unpaired_ratio, values_of
from bench.record import EXPECTED, MEASURES, Job, Measure, Status
from bench.rules import DEFAULT_RULE, Rule
from bench.store import Run

#: Exit statuses besides the usual ones: nothing got worse for all one can tell, but not of all of
#: it one can.
UNDECIDED = 3

#: What stands for the end of a job that a run was never to measure.
NOT_PLANNED = "not planned"

#: What a peak may be off by; it matters where `is_small` only.
_PEAK_ERROR_BYTES = 0.3e6

Word = Literal["slower", "faster", "not slower", "cannot tell"]
Effect = Literal["failure", "cannot tell", "none"]

#: Ends of a job in the new run that are nobody's plan.
_FAILURES = frozenset(
    {
        *(str(status) for status in (Status.WRONG_OUTPUT, Status.NAN, Status.IMPLAUSIBLE)),
        *(str(status) for status in (Status.OOM, Status.CRASHED, Status.TIMEOUT)),
        "bad samples",
    }
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One job that both runs measured. `old` and `new` are medians over blocks [s or bytes].

    `ratio` is new over old. `p` belongs to the question whether the true ratio is above the limit,
    `p_family` is p after Holm's correction for all rows that a rule names (`gated`); for others it
    is p.
    """

    job: Job
    old: stats.Estimate
    new: stats.Estimate
    ratio: stats.Ratio | None
    floor: stats.Floor
    limit: float
    gated: bool
    p: float = 1.0
    p_family: float = 1.0

    @property
    def small(self) -> bool:
        """Whether a constant error of the method is a share of this peak that matters."""
        return self.job.measure == "memory" and is_small(self.job, (self.old.low, self.new.low))

    @property
    def verdict(self) -> Word:
        """Slower beyond the limit, faster at all, not slower beyond the limit, or not known."""
        if self.ratio is None or self.floor.withholds:
            return "cannot tell"
        if self.p_family <= stats.ALPHA and self.ratio.ratio > 1 + self.floor.value:
            return "slower"
        found = stats.Judgement(ratio=self.ratio, floor=self.floor, margin=self.limit)
        if found.faster == "holds":
            return "faster"
        return "not slower" if found.as_fast_as == "holds" else "cannot tell"


@dataclass(frozen=True, kw_only=True)
class Unmatched:
    """A job that cannot be compared: how it ended in either run, why, and what follows."""

    job: Job
    old: str
    new: str
    reason: str
    effect: Effect


@dataclass(frozen=True, kw_only=True)
class Longest:
    """The longest T of a job by either run's search; None where a run was not to search."""

    job: Job
    old: Search | None
    new: Search | None

    @property
    def effect(self) -> Effect:
        """A failure where the old search found a T and the new one failed, or has not even T=1.

        No other difference counts: one search each has no interval.
        """
        if self.old is None or self.new is None or not self.old.runs or self.new.runs:
            return "none"
        if self.new.status == Status.OK:  # T=0: under another limit nothing speaks against it
            return "failure" if self.old.limit == self.new.limit else "none"
        return "failure" if self.new.status in _FAILURES else "none"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Comparison of two runs. `hosts` names how their hosts differ, if they do."""

    old: Run
    new: Run
    rules: Sequence[Rule]
    rows: Sequence[Row]
    unmatched: Sequence[Unmatched]
    longest: Sequence[Longest]
    paired: bool
    hosts: Sequence[str]
    faults: Sequence[str]

    @property
    def exit_status(self) -> int:
        """1 if a job is slower or fails now, else 3 if one cannot tell of some or all, else 0."""
        verdicts = [row.verdict for row in self.rows if row.gated]
        effects = {job.effect for job in self.unmatched} | {job.effect for job in self.longest}
        if "slower" in verdicts or "failure" in effects:
            return 1
        undecided = not verdicts or "cannot tell" in verdicts or "cannot tell" in effects
        return UNDECIDED if undecided else 0

    @property
    def overruled(self) -> int:
        """Rows that are beyond their limit by themselves, but not among so many."""
        return sum(row.gated and row.p <= stats.ALPHA < row.p_family for row in self.rows)


def compare(
    old: Run,
    new: Run,
    *,
    rules: Sequence[Rule] = (DEFAULT_RULE,),
    across_hosts: bool = False,
    measures: Sequence[Measure] = MEASURES,
) -> Comparison:
    """Hold each job of the new run against the same job of the old one.

    Where all of the usual measures are compared, so are the searches for the longest T, if there
    were any. Raises `UsageError` where the hosts differ, unless `across_hosts`, where steady calls
    were measured by two protocols, and where the runs have no job in common.
    """
    hosts = host_differences(old.manifest, new.manifest)
    if hosts and not across_hosts:
        raise UsageError(
            f"hosts differ: {'; '.join(hosts)}; --across-hosts compares them all the same"
        )
    if old.protocol != new.protocol and "steady" in measures:
        raise UsageError(
            f"runs {old.folder} and {new.folder}: took their turns in two ways (in one process, "
            "call by call, and in a process each), which alone moves a call's time; measure the "
            "older one again, or leave steady calls out with --measure"
        )
    before, old_faults, old_floors = _read(old, measures)
    after, new_faults, new_floors = _read(new, measures)
    if not before.keys() & after.keys():
        raise UsageError(
            f"runs {old.folder} and {new.folder}: have no job in common ({', '.join(measures)})"
        )
    sessions = session_of(old.manifest), session_of(new.manifest)
    paired = sessions[0] is not None and sessions[0] == sessions[1]
    rows: list[Row] = []
    unmatched: list[Unmatched] = []
    for job in dict.fromkeys([*before, *after]):
        a, b = before.get(job), after.get(job)
        if a is not None and b is not None and _measured(a) and _measured(b):
            floor = _floor(job, (old_floors, new_floors))
            rows.append(_row(job, a, b, paired=paired, floor=floor, rules=rules))
        elif _is_untold(job, before, after, rules):
            unmatched.append(replace(_unmatched(job, a, b), effect="cannot tell"))
        elif not (_left_out(a) and _left_out(b)):
            unmatched.append(_unmatched(job, a, b))
    return Comparison(
        old=old,
        new=new,
        rules=rules,
        rows=_corrected(rows),
        unmatched=unmatched,
        longest=_longest(old, new) if set(MEASURES) <= set(measures) else [],
        paired=paired,
        hosts=hosts,
        faults=[*old_faults, *new_faults],
    )


def _longest(old: Run, new: Run) -> list[Longest]:
    """The searches for the longest T of both runs, but those that neither was to make."""
    before, after = (_read(run, ["capacity"])[0] for run in (old, new))
    pairs = {job: (before.get(job), after.get(job)) for job in dict.fromkeys([*before, *after])}
    return [
        Longest(
            job=job,
            old=None if a is None else Search.of(a),
            new=None if b is None else Search.of(b),
        )
        for job, (a, b) in pairs.items()
        if not (_left_out(a) and _left_out(b))
    ]


#: The A/A twins of a run, by the device and the number of threads that they were measured on.
_ByPlace = Mapping[tuple[str, int], Floors]


def _read(run: Run, measures: Sequence[Measure]) -> tuple[dict[Job, Evidence], list[str], _ByPlace]:
    """Jobs in reading order, what is wrong with the run, and its A/A twins."""
    groups, faults = groups_of(run, str(run.manifest.get("id", run.folder.name)))
    places = {name: place for place, name in enumerate(IMPLEMENTATIONS)}
    jobs: dict[Job, Evidence] = {}
    for group in sorted(groups, key=reading_order):
        known = [evidence for evidence in group.jobs.values() if evidence.job.measure in measures]
        known.sort(
            key=lambda evidence: (
                places.get(evidence.job.implementation, len(places)),
                evidence.job.implementation,
                measures.index(evidence.job.measure),
            )
        )
        jobs.update((evidence.job, evidence) for evidence in known)
    floors = {(group.case.device, group.case.threads): group.floors for group in groups}
    return jobs, [*faults, *run.faults], floors


def _floor(job: Job, floors: Iterable[_ByPlace]) -> stats.Floor:
    """The floor that both runs' A/A pairs of the same backend, mode and measure set together.

    What is compared was measured by different workers, so a pair in two workers counts for all.
    """
    found = (by_place[job.case.device, job.case.threads] for by_place in floors)
    return stats.coarsest(*(one.anywhere(job.backend, job.mode, job.measure) for one in found))


def _row(
    job: Job,
    old: Evidence,
    new: Evidence,
    *,
    paired: bool,
    floor: stats.Floor,
    rules: Sequence[Rule],
) -> Row:
    values = [values_of(side) for side in (old, new)]
    least = min(value for side in values for value in side.values())
    ratio = None
    # What takes less memory than the method's error can read as nothing or less: no ratio of that.
    if least > 0:
        ratio = (paired_ratio if paired else unpaired_ratio)(new, old)
        if job.measure == "memory" and is_small(job, [least]):
            floor = _coarser(floor, _PEAK_ERROR_BYTES / least)
        if is_misread(old) or is_misread(new):
            floor = replace(floor, missing=True)  # what it reads is not what there was
    rule = next((rule for rule in rules if job.measure in rule.measures), None)
    limit = stats.MARGIN if rule is None else rule.limit
    above = ratio is not None and ratio.ratio > 1 + limit
    return Row(
        job=job,
        old=stats.estimate(values[0].values()),
        new=stats.estimate(values[1].values()),
        ratio=ratio,
        floor=floor,
        limit=limit,
        # Nobody waits for bare matrix products or launches.
        gated=rule is not None and not rides_along(job.implementation),
        p=ratio.p_value(1 + limit) if ratio is not None and above else 1.0,
    )


def _coarser(floor: stats.Floor, error: float) -> stats.Floor:
    """A floor that is no finer than a relative error of the method."""
    bound = error if math.isnan(floor.bound) else max(floor.bound, error)
    return replace(floor, value=max(floor.value, error), bound=bound)


def _corrected(rows: Sequence[Row]) -> list[Row]:
    """Rows with p-values for the family of those that a rule names and that have an interval."""
    family = [
        number
        for number, row in enumerate(rows)
        if row.gated and row.ratio is not None and not math.isnan(row.ratio.low)
    ]
    adjusted = dict(zip(family, stats.holm([rows[n].p for n in family]), strict=True))
    return [replace(row, p_family=adjusted.get(n, row.p)) for n, row in enumerate(rows)]


def _measured(evidence: Evidence) -> bool:
    return evidence.outcome.rankable and bool(values_of(evidence))


def _left_out(evidence: Evidence | None) -> bool:
    """Whether it was clear beforehand that there would be no figure."""
    return evidence is None or evidence.outcome.status in EXPECTED - {Status.OK}


def _is_untold(
    job: Job, old: Mapping[Job, Evidence], new: Mapping[Job, Evidence], rules: Sequence[Rule]
) -> bool:
    """Whether a rule asks for the peak of what both runs ran, on a host that does not tell."""
    if job.measure != "memory" or not any("memory" in rule.measures for rule in rules):
        return False
    peaks = [side[job] for side in (old, new) if job in side]
    beside = [replace(job, measure=measure) for measure in ("steady", "cold")]
    return (
        any(peak.outcome.status == Status.UNAVAILABLE for peak in peaks)
        and all(peak.outcome.status in (Status.UNAVAILABLE, Status.OK) for peak in peaks)
        and all(any(ran in side and _measured(side[ran]) for ran in beside) for side in (old, new))
    )


def _unmatched(job: Job, old: Evidence | None, new: Evidence | None) -> Unmatched:
    effect: Effect = "none"
    if old is None or new is None:
        reason = f"not in the {'old' if old is None else 'new'} run's plan"
    else:
        at_fault = new if _measured(old) else old
        reason = at_fault.outcome.reason or f"{job.measure} has no value"
        if at_fault is new:
            effect = _effect(new.outcome.status)
        elif (old.outcome.ok or old.outcome.status == Status.INTERRUPTED) and not _left_out(new):
            effect = "cannot tell"  # it was measured in part, and may have become slower
    return Unmatched(
        job=job,
        old=NOT_PLANNED if old is None else old.outcome.status,
        new=NOT_PLANNED if new is None else new.outcome.status,
        reason=reason,
        effect=effect,
    )


def _effect(status: str) -> Effect:
    """Meaning of a measured job's new status."""
    if status in _FAILURES:
        return "failure"
    # A cap is the plan's. What is missing or cut off was meant to be measured.
    return "none" if status == Status.CAPPED else "cannot tell"
