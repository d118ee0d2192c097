"""Arms that disturb each other: what pairs measure by themselves, and what in turns."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from bench.evidence import Group
from bench.floors import INTERFERENCE, alone_change
from bench.format import interval
from bench.pairs import Pair, declared
from bench.report.model import LETTERS, Layout

#: Arms interfere where alone and paired differ by more than `INTERFERENCE`, and than so many times
#: what the identical pairs of their worker do.
BEYOND_TWINS = 3

#: A pair is named once; so many of the places where it interferes are, those with most of it.
MOST_PLACES = 4


@dataclass(frozen=True, kw_only=True)
class Change:
    """By how much the log ratio of a pair is another with each arm by itself than in turns."""

    pair: Pair
    group: Group
    change: float


def changes(groups: Sequence[Group]) -> list[Change]:
    """Every pair that some block also looked at arm by arm."""
    pairs = declared()
    found = []
    for group in groups:
        looked = {
            name: believed
            for name in group.implementations("steady")
            for believed in [group.get(name, "steady").believed]
            if any("alone" in record.samples for record in believed)
        }
        for pair in pairs:
            if pair.a in looked and pair.b in looked:
                change = alone_change(looked[pair.a], looked[pair.b])
                if change is not None:
                    found.append(Change(pair=pair, group=group, change=change))
    return found


def warnings(groups: Sequence[Group], changed: Sequence[Change]) -> list[str]:
    """A line a pair that interferes: where, and what its ratio is by itself and in turns."""
    by_pair: dict[tuple[str, str], list[Change]] = defaultdict(list)
    for found in changed:
        least = max(math.log1p(INTERFERENCE), BEYOND_TWINS * _meaningless(found))
        if abs(found.change) > least:
            by_pair[found.pair.a, found.pair.b].append(found)
    varying = Layout.of(groups, several_runs=False).varying
    return [f"interference: {a} over {b}, {_places(at, varying)}" for (a, b), at in by_pair.items()]


def _places(found: Sequence[Change], varying: Sequence[str]) -> str:
    """The places with the largest changes in words, in reading order, and how many more."""
    largest = sorted(found, key=lambda change: -abs(change.change))[:MOST_PLACES]
    said = "; ".join(_said(change, varying) for change in found if change in largest)
    more = len(found) - len(largest)
    return f"{said}; and in {more} more, less" if more else said


def _said(found: Change, varying: Sequence[str]) -> str:
    """`lstm T=10 forward: by itself 0.87, in turns 0.92 (5 % lower)`."""
    group, pair = found.group, found.pair
    case = group.case
    others = [name for name in LETTERS if name in varying and name != "seq_len"]
    letters = [f"{LETTERS[name]}={getattr(case, name)}" for name in ("seq_len", *others)]
    where = " ".join((case.cell, *letters, group.mode))
    ratio = group.steady_ratio(pair.a, pair.b)
    share = math.expm1(found.change)
    words = f"{abs(share):.0%}".replace("%", " %") + (" lower" if share < 0 else " higher")
    if ratio is None:
        return f"{where}: by itself {words} than in turns"
    turns, itself = (_plain(value) for value in (ratio.ratio, ratio.ratio * (1 + share)))
    return f"{where}: by itself {itself}, in turns {turns} ({words})"


def _plain(ratio: float) -> str:
    return interval(ratio, ratio, ratio).partition(" ")[0]


def _meaningless(found: Change) -> float:
    """The largest change of the backend's identical pairs: what two that are the same show."""
    group, pair = found.group, found.pair
    alone = (
        twins.alone_change
        for twins in group.floors.twins
        if (twins.job.backend, twins.job.mode) == (pair.backend, group.mode)
        and not twins.job.has_second_worker
    )
    return max((abs(change) for change in alone if change is not None), default=0.0)


def most(changed: Sequence[Change]) -> str:
    """The largest change of all in words."""
    found = [abs(change.change) for change in changed]
    if not found:
        return ""
    largest = math.exp(max(found))
    text = f"{largest - 1:.1%}" if largest < 1.995 else f"a factor of {largest:.1f}"
    return f"ratios alone and paired differ by up to {text}"
