"""All implementations of a case against the fastest of them."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from bench import format as fmt
from bench import stats
from bench.axes import RIDING
from bench.evidence import Group, kind_of
from bench.report.model import Layout, Table
from bench.report.rows import (
    MARGIN,
    ends,
    identity,
    intervals,
    level,
    ratio_columns,
    spread,
)

_CAPTION = """\
Ratio: steady time over that of the fastest of the case, paired within blocks, with the {level} \
t-interval over blocks (one block has none). "cannot tell": the interval includes 1 or the effect \
is below the A/A floor (that of both frameworks, where they are two), so \
that the order of the two is open, or an identical pair that it rests on failed or lacks: then \
nobody has a rank; "equivalent": so is it, but they are less than {margin} \
apart. Only implementations that were ok are ranked; those whose outputs were wrong have no times. \
Each interval is for its own row: they are not widened for the number of rows, nor for the fastest \
having been picked after the fact."""

#: Kinds that are there to be held against, not to compete.
_UNRANKED = (*RIDING, "oracle")


def ranking(groups: Sequence[Group], layout: Layout) -> Table | None:
    """Steady time of every implementation against the fastest; one row an implementation."""
    rows, heads, status = [], [], []
    for group in groups:
        for row in _rows(group):
            rows.append(row)
            heads.append(layout.head(group))
            outcomes = group.outcomes(str(row["implementation"]), "steady")
            status.append(layout.footnotes.cell(outcomes))
    if not rows:
        return None
    frame = pd.DataFrame(rows)
    display = pd.DataFrame(heads, columns=list(layout.heads()))
    display["implementation"] = frame["implementation"]
    display["rank"] = [fmt.NONE if pd.isna(rank) else f"{rank:.0f}" for rank in frame["rank"]]
    display["kind"] = frame["kind"].fillna(fmt.NONE)
    unit = fmt.seconds(frame["steady_s"])
    display[f"steady ({unit.name})"] = fmt.each(fmt.digits, frame["steady_s"] / unit.scale)
    display["ratio"] = intervals(frame, "ratio").mask(frame["is_reference"], "1")
    display["verdict"] = frame["verdict"].fillna(fmt.NONE)
    display["status"] = status
    return Table(
        name="ranking",
        title="Across frameworks",
        caption=_CAPTION.format(level=level(groups), margin=MARGIN),
        frame=frame,
        display=display,
        heads=layout.heads(),
        words=("implementation", "kind", "verdict", "status"),
        spare=("kind", "rank", f"steady ({unit.name})", "verdict"),
    )


def _rows(group: Group) -> list[dict[str, object]]:
    """The rows of a group: those that can be held against the fastest in order, then the others.

    Where an identical pair that any of them rests on failed or lacks, nobody has a rank.
    """
    names = [n for n in group.implementations("steady") if kind_of(n) not in _UNRANKED]
    ranked = [n for n in names if group.get(n, "steady").outcome.rankable]
    best, ratios = _against_fastest(group, ranked)
    floors = {name: group.steady_floor(name, best) for name in ratios}
    withheld = any(floor.withholds for floor in floors.values())
    order = sorted(ratios, key=lambda name: (name != best, ratios[name].ratio))
    rest = [name for name in names if name not in ratios]

    def verdict(name: str) -> str | None:
        if name not in ratios:
            return None
        if name != best:
            return stats.finding(ratios[name], floors[name])
        return "cannot tell" if withheld else "fastest"

    return [
        {
            **identity(group, name),
            "kind": kind_of(name),
            **ends(group.outcomes(name, "steady")),
            "rank": order.index(name) + 1 if name in ratios and not withheld else None,
            **spread("steady_s", group.get(name, "steady").steady),
            **ratio_columns("ratio", ratios.get(name)),
            "is_reference": name == best,
            "verdict": verdict(name),
        }
        for name in order + rest
    ]


def _against_fastest(group: Group, ranked: Sequence[str]) -> tuple[str, dict[str, stats.Ratio]]:
    """The fastest, and ratios to it of those that share a block with it.

    The fastest by median is where to start; where another is faster than it in the blocks that both
    have, that one takes its place. Paired ratios need not be transitive within noise, so that a
    place is taken at most once for each implementation.
    """
    ratios: dict[str, stats.Ratio] = {}
    best, following = "", ranked[0] if ranked else None
    tried: set[str] = set()
    while following is not None and following not in tried:
        best = following
        tried.add(best)
        found = {name: group.steady_ratio(name, best) for name in ranked}
        ratios = {name: ratio for name, ratio in found.items() if ratio is not None}
        following = min(ratios, key=lambda name: ratios[name].ratio, default=None)
    return best, ratios
