"""Regions where a claim holds, is refuted, or is undecided, in words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import get_args

from bench import stats
from bench.claims.model import HEADS, Finding


def region(findings: Sequence[Finding]) -> dict[str, str]:
    """By answer: the parts where it is the answer everywhere, and the shapes of the others.

    A part is a framework with what is compared and a phase; of a shape only what varies within its
    part is named.
    """
    parts: dict[tuple[str, ...], list[Finding]] = defaultdict(list)
    for finding in findings:
        parts[finding.head].append(finding)
    said: dict[str, list[str]] = defaultdict(list)
    for head, members in parts.items():
        name = " ".join(head)
        varying = _varying(members)
        for answer in get_args(stats.Answer):
            same = [finding for finding in members if finding.answer == answer]
            if not same:
                continue
            if len(same) == len(members):
                said[answer].append(name)
            else:
                shapes = dict.fromkeys(_shape(finding.where, varying) for finding in same)
                said[answer].append(f"{name} at {' | '.join(shapes)}")
    return {answer: "; ".join(texts) for answer, texts in said.items()}


def _varying(findings: Sequence[Finding]) -> list[str]:
    names = dict.fromkeys(name for finding in findings for name in finding.where)
    return [
        name
        for name in names
        if name not in HEADS and len({finding.where.get(name) for finding in findings}) > 1
    ]


def _shape(where: Mapping[str, str], varying: Sequence[str]) -> str:
    return " ".join(f"{name}={where[name]}" for name in varying if name in where) or "another run"
