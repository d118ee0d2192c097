"""Selection of the cases that are neither precise enough nor decided, and need more blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bench import stats
from bench.evidence import Group
from bench.pairs import Pair, declared
from bench.record import Setting


def unsettled(groups: Iterable[Group], precision: float) -> list[Setting]:
    """The settings in which a declared comparison is neither that precise nor decided.

    `groups` are those of a run that looks for a precision: each interval, those of identical pairs
    too, is at the level that three looks share. Where the identical pair that such a comparison
    rests on is too coarse to show that a difference is small, its setting gets more blocks as well.
    What has no ratio (unsupported, failed) gets none by more blocks either.
    """
    wanted: dict[Setting, None] = {}
    for group in groups:
        for pair in _open(group, precision):
            wanted[group.setting] = None
            for twins in group.floors.family(pair.backend, group.mode, "steady"):
                if twins.floor.wide:
                    wanted[twins.job.setting] = None
    return list(wanted)


def _open(group: Group, precision: float) -> Iterator[Pair]:
    """The declared pairs of which not enough is known."""
    for pair in declared():
        ratio = group.steady_ratio(pair.a, pair.b)
        floor = group.floors.within(pair.backend, group.mode, "steady")
        if ratio is not None and not stats.settled(ratio, precision, floor):
            yield pair
