"""What is not yet known well enough: where a run with a precision to reach goes on measuring."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from bench import stats
from bench.belief import doubt
from bench.floors import Floors, steady_blocks
from bench.pairs import declared
from bench.record import Record, Status
from bench.sweep import Setting


def unsettled(records: Iterable[Record], precision: float) -> list[Setting]:
    """The settings in which a declared comparison is neither that precise nor decided.

    Each interval is at the level that three looks share. What has no ratio (unsupported, failed)
    gets none by more blocks either.
    """
    known = list(records)
    floors = Floors.of(known)
    arms: dict[Setting, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in known:
        job = record.job
        if record.status != Status.OK or doubt(record) is not None:
            continue
        if job.measure == "steady" and not job.replica:
            arms[job.case, job.mode][job.implementation].append(record)
    return [
        (case, mode)
        for (case, mode), found in arms.items()
        if any(
            not stats.settled(ratio, precision, floors.within(pair.backend, mode, "steady"))
            for pair in declared()
            if pair.a in found
            and pair.b in found
            and (ratio := _ratio(found[pair.a], found[pair.b])) is not None
        )
    ]


def _ratio(a: Iterable[Record], b: Iterable[Record]) -> stats.Ratio | None:
    return stats.steady_ratio(steady_blocks(a), steady_blocks(b), stats.look_confidence())
