"""The claims: what `claims.toml` says of each, with its test."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.claims import facts, gpu, gradients, threads, tutorial
from bench.claims.question import Question
from bench.claims.reading import Groups

Test = Callable[[Groups], Iterable[Question]]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Claim of a third party, with its source and its test.

    `test` asks a run's groups. `presets` are the sweeps that decide it; where one of their places
    lacks, it does not hold. `scope` says what is judged, and `within` which findings count for the
    verdict, by the words of their places; none: all. `gpu` says that no CPU decides it.
    """

    id: str
    sentence: str
    source: str
    hypothesis: str
    scope: str
    test: Test
    presets: tuple[str, ...]
    url: str = ""
    within: Mapping[str, Sequence[str]] = field(default_factory=dict)
    gpu: bool = False

    def counts(self, where: Mapping[str, str]) -> bool:
        """Whether what is found at a place counts for the verdict.

        What a CPU decides is decided by one: places on a GPU are in the region.
        """
        if not self.gpu and where.get("device", "cpu") != "cpu":
            return False
        return all(where.get(name) in allowed for name, allowed in self.within.items())


_TESTS: Mapping[str, Test] = {
    "T1": tutorial.t1,
    "T2": facts.t2,
    "T3": facts.t3,
    "T4": tutorial.t4,
    "T5": tutorial.t5,
    "T6": facts.t6,
    "T7": tutorial.t7,
    "T8": tutorial.t8,
    "T9": facts.t9,
    "T10": gradients.t10,
    "T11": facts.t11,
    "T12": facts.t12,
    "T13": tutorial.t13,
    "I1": gpu.i1,
    "I2": threads.i2,
    "I3": gpu.i3,
    "I4": threads.i4,
    "I5": threads.i5,
    "I6": threads.i6,
    "I7": gpu.i7,
    "I8": gpu.i8,
    "I9": threads.i9,
    "I10": threads.i10,
    "I11": threads.i11,
    "I12": gpu.i12,
    "I13": threads.i13,
    "I14": threads.i14,
    "I15": facts.i15,
    "I16": facts.i16,
    "I17": gpu.i17,
    "I18": gpu.i18,
}


def _read() -> dict[str, Claim]:
    text = Path(__file__).with_name("claims.toml").read_text(encoding="utf-8")
    entries = tomllib.loads(text)["claim"]
    return {
        entry["id"]: Claim(
            **{**entry, "presets": tuple(entry["presets"]), "test": _TESTS[entry["id"]]}
        )
        for entry in entries
    }


#: Id -> claim, in the order in which they are shown.
CLAIMS: dict[str, Claim] = _read()
