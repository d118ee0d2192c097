"""Gain by more threads: each implementation against itself on the fewest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import pandas as pd

from bench import format as fmt
from bench import stats
from bench.evidence import Group, kind_of
from bench.record import Setting
from bench.report.model import Layout, Table
from bench.report.rows import MARGIN, identity, intervals, level, ratio_columns, spread

_CAPTION = """\
Ratio: steady time on so many threads over that of the same implementation on the fewest of the \
run, each in a process of its own with as many CPUs as threads, paired within blocks, with the \
{level} t-interval over blocks. Below 1: more threads are faster. "cannot tell": the interval \
includes 1 or the effect is below the A/A floor of either; "equivalent": so is it, but they are \
less than {margin} apart."""


def threads(groups: Sequence[Group], layout: Layout) -> Table | None:
    """Steady time against that on the fewest threads; one row an implementation and number."""
    alike: dict[tuple[str, Setting], list[Group]] = defaultdict(list)
    for group in groups:
        alike[group.run, group.setting].append(group)
    rows, heads = [], []
    for members in alike.values():
        fewest, *others = sorted(members, key=lambda group: group.case.threads)
        for group in others:
            for name in group.implementations("steady"):
                rows.append({**identity(group, name), **_row(group, fewest, name)})
                heads.append(layout.head(group))
    if not rows:
        return None
    frame = pd.DataFrame(rows)
    display = pd.DataFrame(heads, columns=list(layout.heads()))
    display["implementation"] = frame["implementation"]
    unit = fmt.seconds(frame["steady_s"])
    display[f"steady ({unit.name})"] = fmt.each(fmt.digits, frame["steady_s"] / unit.scale)
    display["against"] = frame["fewest"].map(str)
    display["ratio"] = intervals(frame, "ratio")
    display["verdict"] = frame["verdict"]
    return Table(
        name="threads",
        title="More threads",
        caption=_CAPTION.format(level=level(groups), margin=MARGIN),
        frame=frame,
        display=display,
        heads=layout.heads(),
        words=("implementation", "verdict"),
        spare=("against", f"steady ({unit.name})"),
    )


def _row(group: Group, fewest: Group, name: str) -> dict[str, object]:
    more, few = group.get(name, "steady"), fewest.get(name, "steady")
    ratio = stats.steady_ratio(more.paired, few.paired, group.confidence)
    backend = more.job.backend
    floor = stats.coarsest(
        *(each.floors.within(backend, each.mode, "steady") for each in (group, fewest))
    )
    return {
        "kind": kind_of(name),
        "fewest": fewest.case.threads,
        **spread("steady_s", more.steady),
        **ratio_columns("ratio", ratio),
        "verdict": fmt.NONE if ratio is None else stats.finding(ratio, floor),
    }
