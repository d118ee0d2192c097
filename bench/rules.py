"""Rules by which a comparison of two runs fails: `--fail-if slower-than-5%`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bench import stats
from bench.errors import UsageError
from bench.record import Measure


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Rule by which a comparison fails: a measure takes more than `limit` more (0.05: 5 %).

    Written `slower-than-5%` (steady calls and first results) or `larger-than-5%` (peak memory).
    """

    word: Literal["slower", "larger"]
    limit: float

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Read a rule. Raises `UsageError` for anything else."""
        found = re.fullmatch(r"(slower|larger)-than-([0-9]{1,4}(?:\.[0-9]{1,4})?)%", text)
        if found is None or float(found[2]) == 0:
            raise UsageError(
                f"fail-if {text!r}: must be slower-than-N% or larger-than-N%, with N above 0"
            )
        word: Literal["slower", "larger"] = "slower" if found[1] == "slower" else "larger"
        return cls(word=word, limit=float(found[2]) / 100)

    @property
    def measures(self) -> tuple[Measure, ...]:
        return ("steady", "cold") if self.word == "slower" else ("memory",)

    def __str__(self) -> str:
        return f"{self.word}-than-{100 * self.limit:g}%"


DEFAULT_RULE = Rule(word="slower", limit=stats.MARGIN)


def parse_rules(texts: Sequence[str]) -> tuple[Rule, ...]:
    """Read `--fail-if`, the default where none is given. Raises `UsageError` for two of a kind."""
    rules = [Rule.parse(text) for text in texts] or [DEFAULT_RULE]
    for rule in rules:
        if sum(other.word == rule.word for other in rules) > 1:
            raise UsageError(f"fail-if {rule.word}-than: is given twice")
    return tuple(rules)
