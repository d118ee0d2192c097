"""Conversion of what earlier versions wrote.

In records of schema 1 and 2 one worker of a framework interleaved the calls of its arms. Their
steady samples are palindromes, A B C C B A: a drift that is linear over one falls out of the
difference of two arms' means. Turns had names instead of numbers.

Manifests without an axis of threads have one number of them for all jobs.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from backends.api import Case, Mode
from bench import strict
from bench.record import Job, Record


def threads_of(manifest: Mapping[str, Any]) -> int:
    """The threads of all jobs of a run whose manifest has them; else 1, which a case has anyway."""
    threads = manifest.get("threads")
    return threads if type(threads) is int and 0 < threads < strict.LARGEST else 1


def with_threads(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest whose sweep has the axis; what is no sweep stays as it is."""
    axis, sweep = {"threads": [threads_of(manifest)]}, manifest.get("sweep")
    try:
        given = strict.mapping(sweep, "sweep")
        axes = strict.mapping(given.get("axes"), "axes")
        more = [strict.mapping(one, "more") for one in strict.listed(given.get("more", []), "more")]
    except ValueError:
        return manifest
    parts = {"axes": {**axis, **axes}, "more": [{**axis, **one} for one in more]}
    return {**manifest, "sweep": {**given, **parts}}


class Older:
    """Converts the records of one run, in their order."""

    def __init__(self, *, threads: int, palindromes: bool) -> None:
        self._threads, self._palindromes = threads, palindromes
        self._jobs: dict[Job, Job] = {}
        self._turns: dict[tuple[int, Case, Mode], dict[str, int]] = defaultdict(dict)

    def upgraded(self, record: Record) -> Record:
        """Convert a record, where it is of an earlier form."""
        if self._threads > 1:
            record = replace(record, job=self._with_threads(record.job))
        return self._in_samples(record) if self._palindromes else record

    def _with_threads(self, job: Job) -> Job:
        if job not in self._jobs:
            self._jobs[job] = replace(job, case=replace(job.case, threads=self._threads))
        return self._jobs[job]

    def _in_samples(self, record: Record) -> Record:
        """A sample for each palindrome, an attempt in place of named turns."""
        if record.job.measure != "steady":
            return record
        seen = self._turns[record.block, record.job.case, record.job.mode]
        turns = record.worker.get("turns")
        # Without turns nothing was sampled: it is paired with nothing.
        attempt = 0 if turns is None else seen.setdefault(str(turns), len(seen))
        samples = dict(record.samples)
        if "steady" in samples:
            samples["steady"] = merged(samples["steady"])
        return replace(record, attempt=attempt, samples=samples)


def merged(samples: Sequence[float]) -> list[float]:
    """The geometric mean of each palindrome, samples 2p and 2p + 1.

    The difference of two arms' logarithms is then that of their means over the palindrome. A value
    that no clock reads stays, for `bench.belief` to find; so does a sample without a partner.
    """
    if len(samples) < 2:
        return list(samples)
    pairs = zip(samples[::2], samples[1::2], strict=False)
    return [_mean(one, other) for one, other in pairs]


def _mean(one: float, other: float) -> float:
    for value in (one, other):
        if not (math.isfinite(value) and value > 0):
            return value
    return math.sqrt(one) * math.sqrt(other)
