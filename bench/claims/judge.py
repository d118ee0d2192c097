"""Runs -> verdicts. Every claim is judged, whichever is asked for: Holm counts them all."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from bench import stats
from bench.claims.model import Finding, Verdict
from bench.claims.question import THREADS, Question
from bench.claims.region import region
from bench.claims.registry import CLAIMS, Claim
from bench.evidence import Group, groups_of
from bench.format import interval
from bench.hosts import host_differences
from bench.preset import load_preset
from bench.store import Run

_NEEDS_GPU = "needs a GPU"
_NOT_MEASURED = "not measured"


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A run under the name by which a report calls it, with its groups."""

    run: Run
    label: str
    groups: Sequence[Group]


def judge(runs: Sequence[Run], labels: Sequence[str] | None = None) -> list[Verdict]:
    """The verdicts on all claims, host by host: runs of two hosts are never judged together."""
    names = labels or [run.folder.name for run in runs]
    labelled = [
        Labelled(run=run, label=label, groups=groups_of(run, label)[0])
        for run, label in zip(runs, names, strict=True)
    ]
    return judge_groups(labelled)


def judge_groups(runs: Sequence[Labelled]) -> list[Verdict]:
    """Judge runs whose groups were made already."""
    hosts = _hosts(runs)
    verdicts = []
    for name, members in hosts.items():
        host = name if len(hosts) > 1 else ""
        verdicts += _judge_host([g for member in members for g in member.groups], host)
    return verdicts


def _hosts(runs: Sequence[Labelled]) -> dict[str, list[Labelled]]:
    """Runs by the host and how workers started, named by their first run.

    How many threads a run had is said by its places.
    """
    found: dict[str, list[Labelled]] = {}
    for run in runs:
        for members in found.values():
            if not host_differences(members[0].run.manifest, run.run.manifest, ["start"]):
                members.append(run)
                break
        else:
            found[run.label] = [run]
    return found


def _judge_host(groups: Sequence[Group], host: str) -> list[Verdict]:
    questions = {claim.id: list(claim.test(groups)) for claim in CLAIMS.values()}
    tests = [q.test for asked in questions.values() for q in asked if q.test is not None]
    corrected = iter(stats.adjusted(tests))
    verdicts = []
    for claim in CLAIMS.values():
        findings = [
            _finding(question, math.nan if question.test is None else next(corrected))
            for question in questions[claim.id]
        ]
        verdicts.append(_verdict(claim, questions[claim.id], _reconciled(findings), host))
    return verdicts


def _finding(question: Question, adjusted_p: float) -> Finding:
    """A question with its answer."""
    base = Finding(
        run=question.run,
        where=question.where,
        answer="no data",
        reason=question.reason,
        rows=question.rows,
        arithmetic=question.notes,
    )
    if question.fact is not None:
        fact = question.fact
        answer: stats.Answer = "holds" if fact.holds else "refuted"
        lines = [fact.statement, *question.notes]
        return replace(
            base,
            answer=answer,
            statement=fact.statement,
            limit=fact.limit,
            effect=fact.effect,
            unit=fact.unit,
            arithmetic=lines,
        )
    if question.test is None:
        return base
    test = question.test
    answer = "inconclusive" if question.withheld else test.answer(adjusted_p)
    shown = test.deciding
    ratio = shown.ratio
    if ratio is None:
        raise RuntimeError(f"{question.where}: a test without a ratio")
    return replace(
        base,
        answer=answer,
        reason=question.withheld or _why_not(test, answer, adjusted_p),
        statement=_said(shown),
        limit=shown.limit,
        effect=ratio.ratio,
        low=ratio.low,
        high=ratio.high,
        confidence=ratio.confidence,
        p=test.p,
        adjusted_p=adjusted_p,
        blocks=ratio.blocks,
        arithmetic=[*(_line(part) for part in test.parts), *question.notes],
    )


def _said(part: stats.Hypothesis) -> str:
    said = {"faster": "below 1", "slower": "above 1"}
    return f"{part.label}: {said.get(part.statement, f'{part.statement} {part.limit:.3g}')}"


def _line(part: stats.Hypothesis) -> str:
    """A hypothesis with what was found, and how sure one is of either answer."""
    ratio = part.ratio
    if ratio is None:
        return f"{_said(part)}: no data"
    floor = (
        "A/A failed or is missing"
        if part.floor.withholds
        else f"floor {100 * part.floor.value:.2g} %"
    )
    return (
        f"{_said(part)}; found {interval(ratio.ratio, ratio.low, ratio.high)} "
        f"({100 * ratio.confidence:.3g} %, {ratio.blocks} blocks, {floor}); "
        f"p that it does not hold {part.p_holds:.1e}, that it does {part.p_refuted:.1e}"
    )


def _why_not(test: stats.Conjunction, answer: stats.Answer, adjusted_p: float) -> str:
    """Reason for which an existing test has no answer."""
    if answer != "inconclusive":
        return ""
    shown, ratio = test.deciding, test.deciding.ratio
    lacking = [part.label for part in test.parts if part.ratio is None]
    reasons = {
        "its identical pair failed, or is missing": shown.floor.withholds,
        "one block has no interval": ratio is None or math.isnan(ratio.low),
        f"not measured: {'; '.join(lacking)}": bool(lacking),
        "shown by itself, but not after the correction for all questions": (
            test.p <= stats.ALPHA < adjusted_p
        ),
        "its interval has the limit in it": (
            ratio is not None and ratio.low <= shown.limit <= ratio.high
        ),
    }
    found = (reason for reason, is_so in reasons.items() if is_so)
    return next(found, "not beyond what identical pairs differ by")


def _reconciled(findings: Sequence[Finding]) -> list[Finding]:
    """Findings of one place in several runs: where they contradict each other, nobody can tell."""
    answers: dict[tuple[tuple[str, str], ...], set[str]] = defaultdict(set)
    for finding in findings:
        answers[tuple(finding.where.items())].add(finding.answer)
    return [
        replace(
            finding, answer="inconclusive", reason="two runs of this host contradict each other"
        )
        if {"holds", "refuted"} <= answers[tuple(finding.where.items())]
        else finding
        for finding in findings
    ]


def _verdict(
    claim: Claim, questions: Sequence[Question], findings: Sequence[Finding], host: str
) -> Verdict:
    counted = [
        (question, finding)
        for question, finding in zip(questions, findings, strict=True)
        if claim.counts(question.where)
    ]
    answer, reason = _answer(claim, counted)
    return Verdict(
        id=claim.id,
        sentence=claim.sentence,
        source=claim.source,
        url=claim.url,
        hypothesis=claim.hypothesis,
        scope=claim.scope,
        answer=answer,
        reason=reason,
        region=region(findings),
        findings=findings,
        deciding=_deciding(answer, [finding for _, finding in counted]),
        host=host,
    )


def _answer(claim: Claim, counted: Sequence[tuple[Question, Finding]]) -> tuple[stats.Answer, str]:
    """A claim is refuted by one place, and holds where every one of its sweeps' places does."""
    places: dict[tuple[tuple[str, str], ...], set[stats.Answer]] = defaultdict(set)
    for question, finding in counted:
        places[question.place].add(finding.answer)
    # Of several runs the one that has an answer counts; contradictions are none already.
    answers = [min(found, key=_MOST_SAID.index) for found in places.values()]
    known = len(answers) - answers.count("no data")
    if known == 0:
        return "no data", _absence(claim, counted)
    refuted, held = answers.count("refuted"), answers.count("holds")
    if refuted:
        unsure = known - refuted - held
        others = [f"holds at {held}"] * bool(held) + [f"cannot be told at {unsure}"] * bool(unsure)
        return "refuted", "; ".join([f"at {refuted} of {known} places", *others])
    told = {_any_threads(place) for place, found in places.items() if found != {"no data"}}
    excused = {_any_threads(q.place) for q, f in counted if f.answer == "no data" and q.excused}
    silent = {_any_threads(q.place) for q, f in counted if f.answer == "no data" and not q.excused}
    lacking = len((_places(claim.id) - told - excused) | (silent - told))
    if held < known:
        rest = f"; holds at {held}" if held else ""
        return "inconclusive", f"at {known - held} of {known} places{rest}"
    if lacking:
        return "inconclusive", f"it holds at all {known} places, but {lacking} more lack data"
    return "holds", f"at all {known} places"


def _any_threads(place: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """A place as it is planned: measured on other threads than one, it has been measured."""
    return tuple(item for item in place if item[0] != THREADS)


#: Of the answers at one place, which counts.
_MOST_SAID: tuple[stats.Answer, ...] = ("refuted", "holds", "inconclusive", "no data")


def _absence(claim: Claim, counted: Sequence[tuple[Question, Finding]]) -> str:
    said = next((finding.reason for _, finding in counted if finding.reason), "")
    return said or (_NEEDS_GPU if claim.gpu else _NOT_MEASURED)


@cache
def _places(claim_id: str) -> frozenset[tuple[tuple[str, str], ...]]:
    """Every place within the scope of a claim that its sweeps are to measure."""
    claim = CLAIMS[claim_id]
    places = set()
    for preset in claim.presets:
        plan = {"sweep": load_preset(preset).to_json(), "status": "planned"}
        groups, _ = groups_of(
            Run(folder=Path(preset), manifest=plan, records=[], faults=[]), preset
        )
        places |= {
            _any_threads(question.place)
            for question in claim.test(groups)
            if claim.counts(question.where)
        }
    return frozenset(places)


def _deciding(answer: stats.Answer, findings: Iterable[Finding]) -> Finding | None:
    """The finding that a verdict rests on: the furthest beyond the limit, or the nearest to it."""
    same = [finding for finding in findings if finding.answer == answer]
    if not same or answer == "no data":
        return None
    return (max if answer == "refuted" else min)(same, key=_distance)


def _distance(finding: Finding) -> float:
    """Distance of an effect from its limit, as the logarithm of a factor.

    What has no limit, or one of 0, has no distance; an effect of 0 is as far as can be.
    """
    if not finding.limit > 0:
        return 0.0
    return abs(math.log(finding.effect / finding.limit)) if finding.effect > 0 else math.inf
