"""What is not yet known well enough: where a run with a precision to reach goes on measuring."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from bench import stats
from bench.belief import doubt
from bench.floors import Floors, steady_blocks
from bench.pairs import Pair, declared
from bench.record import Record, Status
from bench.sweep import Setting

#: The steady records of a setting by implementation.
_Arms = Mapping[str, Sequence[Record]]


def unsettled(records: Iterable[Record], precision: float) -> list[Setting]:
    """The settings in which a declared comparison is neither that precise nor decided.

    Each interval, those of identical pairs too, is at the level that three looks share. Where the
    identical pair that such a comparison rests on is too coarse to show that a difference is small,
    its setting gets more blocks as well. What has no ratio (unsupported, failed) gets none by more
    blocks either.
    """
    known = list(records)
    arms: dict[Setting, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in known:
        job = record.job
        if record.status != Status.OK or doubt(record) is not None:
            continue
        if job.measure == "steady" and not job.replica:
            arms[job.case, job.mode][job.implementation].append(record)
    devices = {case.device for case, _ in arms}
    floors = {name: Floors.of(known, name, stats.look_confidence()) for name in devices}
    wanted: dict[Setting, None] = {}
    for setting, found in arms.items():
        case, mode = setting
        for pair in _open(setting, found, floors[case.device], precision):
            wanted[setting] = None
            for twins in floors[case.device].family(pair.backend, mode, "steady"):
                if twins.floor.wide:
                    wanted[twins.job.case, mode] = None
    return list(wanted)


def _open(setting: Setting, arms: _Arms, floors: Floors, precision: float) -> list[Pair]:
    """The declared pairs of a setting of which not enough is known."""
    return [
        pair
        for pair in declared()
        if pair.a in arms
        and pair.b in arms
        and (ratio := _ratio(arms[pair.a], arms[pair.b])) is not None
        and not stats.settled(ratio, precision, floors.within(pair.backend, setting[1], "steady"))
    ]


def _ratio(a: Iterable[Record], b: Iterable[Record]) -> stats.Ratio | None:
    return stats.steady_ratio(steady_blocks(a), steady_blocks(b), stats.look_confidence())
