"""The longest T within a limit of memory in two runs: side by side, and no ratio of them.

Either run searched once, and two searches need not end at the same T.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from bench.capacity import FAILED, LARGEST, LIMIT, is_close
from bench.evidence import Evidence


@dataclass(frozen=True, kw_only=True)
class Search:
    """Result of a run's search. `largest` is NaN if it found nothing, 0 if T=1 did not run.

    `failed` is the smallest T that ran out of memory, NaN where none did.
    `at_least`: something else than memory ended it. `limit_bytes` is NaN where it is not known;
    `limited_by` says how the limit was kept.
    """

    status: str
    reason: str
    largest: float
    failed: float
    at_least: bool
    limit_bytes: float
    limited_by: str

    @classmethod
    def of(cls, evidence: Evidence) -> Search:
        """Result of a capacity job: it has one block."""
        largest, failed = (_only(evidence, name) for name in (LARGEST, FAILED))
        limits = (record.worker.get("limited_by", "") for record in evidence.believed)
        return cls(
            status=evidence.outcome.status,
            reason=evidence.outcome.reason,
            largest=largest,
            failed=failed,
            # A NaN is close to nothing.
            at_least=not math.isnan(largest) and not is_close(largest, failed),
            limit_bytes=_only(evidence, LIMIT),
            limited_by=str(next(limits, "")),
        )

    @property
    def limit(self) -> tuple[float, str]:
        """The memory limit, and the mechanism that enforced it."""
        return self.limit_bytes, self.limited_by

    @property
    def ends(self) -> bool:
        """Whether memory ended it."""
        return not self.at_least and not math.isnan(self.largest)

    @property
    def words(self) -> str:
        """The longest T that runs."""
        return f"{'at least ' if self.at_least else ''}{self.largest:,.0f}"

    @property
    def runs(self) -> bool:
        """Whether it found a T that runs."""
        return self.largest > 0


def _only(evidence: Evidence, name: str) -> float:
    return next(iter(evidence.values(name).values()), math.nan)
