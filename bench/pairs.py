"""Which strategies are held against which: the declared comparisons of every backend."""

from __future__ import annotations

from dataclasses import dataclass

from backends import IMPLEMENTATIONS
from backends.api import Strategy


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A strategy and the dynamic one of the same backend that it is compared with."""

    backend: str
    strategy: Strategy
    against: str

    @property
    def a(self) -> str:
        return f"{self.backend}/{self.strategy.name}"

    @property
    def b(self) -> str:
        return f"{self.backend}/{self.against}"

    @property
    def label(self) -> str:
        return f"{self.backend} {self.strategy.name} / {self.against}"


def declared() -> list[Pair]:
    """Every declared pair, in registry order: the static ones of all backends, then the others."""
    pairs = [
        Pair(backend=entry.backend, strategy=entry.strategy, against=entry.strategy.against)
        for entry in IMPLEMENTATIONS.values()
        if entry.strategy.against is not None
    ]
    return sorted(pairs, key=lambda pair: pair.strategy.kind != "static")
