"""Published ratios of a preset's cases beside those of a run of it; never times."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from backends.api import Case
from bench import format as fmt
from bench import stats
from bench.evidence import Group
from bench.pairing import unpaired_ratio
from bench.preset import source_of
from bench.published import Pair, Published, Source
from bench.record import TO_FIRST, Measure, Status
from bench.report.model import Footnotes, Layout, Table
from bench.report.rows import (
    MARGIN,
    ends,
    identity,
    intervals,
    level,
    ratio_columns,
)

#: What may be said of a row.
AS_PUBLISHED, SAME, TURNED = "as published", "same order", "order reversed"
EQUIVALENT, APART, OPEN = "equivalent now", "apart now", "order open now"
UNKNOWN, NOBODY = "cannot tell", "no counterpart"

_CAPTION = """\
a / b is what the first takes over what the second takes, by the names that they were published \
under; the second is the one that all of a source are held against here. Then: the published \
ratio, without an interval. Now: the same ratio on this host, of what runs each of them today \
(column "today"), with its {level} interval over blocks: paired within blocks, and where a \
training step is held against a forward pass, of the blocks' medians, unpaired. Setup is the time \
to the first result. Change: now over then. Times of two machines are not compared. \
"{as_published}": today's interval includes the published ratio, which has no interval of its \
own, or is within what that may have been rounded from; "{same}": not so, and the same one is \
ahead; "{turned}": the other one is; "{apart}": \
one is, of two that were less than {margin} apart then, too little for an order without an \
interval. Ahead: the interval excludes 1 and the effect is above the A/A floor, 1 % or more, and a \
wide one by the margin (the table as CSV has the floor of a row). "{equivalent}": they are now \
less than {margin} apart; "{open}": they were further apart then, the published ratio is outside \
today's interval, and as far as that from today's ratio, but nobody is ahead by that rule now; \
"{unknown}": nothing of this is so, there is no interval, or an identical pair that the row rests \
on failed or lacks (two implementations of one framework need none). What figures were rounded \
from may differ by half of their last digit: a word holds for all of it. Footnotes say where what \
runs today is a descendant or where there is none. """


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A published pair in the groups that measured both of its sides; `under` may lack."""

    source: Source
    pair: Pair
    over: Group
    under: Group | None

    @property
    def measure(self) -> Measure:
        return "steady" if self.pair.over.quantity == "steady" else "cold"

    def now(self) -> stats.Ratio | None:
        """Today's ratio; None where it was not measured."""
        a, b = self.pair.a.implementation, self.pair.b.implementation
        if a is None or b is None or self.under is None:
            return None
        top, bottom = self.over.get(a, self.measure), self.under.get(b, self.measure)
        confidence = self.over.confidence
        if not top.believed or not bottom.believed:
            return None
        if self.pair.across_modes:
            return unpaired_ratio(top, bottom).at(confidence)
        if self.measure == "steady":
            return self.over.steady_ratio(a, b)
        return stats.single_ratio(top.single(*TO_FIRST), bottom.single(*TO_FIRST), confidence)

    def floor(self) -> stats.Floor:
        """Floor under today's difference."""
        a, b = self.pair.a.implementation, self.pair.b.implementation
        if a is None or b is None or self.under is None:
            return stats.UNMEASURED
        if self.pair.across_modes:
            # Two workers at two moments, as in two runs.
            return stats.coarsest(
                *(
                    group.floors.anywhere(name.partition("/")[0], group.mode, self.measure).needed
                    for name, group in ((a, self.over), (b, self.under))
                )
            )
        if self.measure == "steady":
            return self.over.steady_floor(a, b)
        backends = dict.fromkeys(name.partition("/")[0] for name in (a, b))
        found = [self.over.floors.within(name, self.over.mode, "cold") for name in backends]
        return found[0] if len(found) == 1 else stats.coarsest(*(floor.needed for floor in found))

    def sides(self) -> Iterator[tuple[Published, Group | None]]:
        yield self.pair.a, self.over
        yield self.pair.b, self.under


def then_and_now(groups: Sequence[Group], layout: Layout) -> Table | None:
    """Each published pair of a run's preset beside today's ratio; one row a pair and quantity."""
    found = list(_rows(groups))
    if not found:
        return None
    frame = pd.DataFrame([_frame_row(row) for row in found])
    display = pd.DataFrame([layout.head(row.over) for row in found], columns=list(layout.heads()))
    display["a / b"] = [_label(row.pair) for row in found]
    display["then"] = fmt.each(fmt.ratio, frame["then"])
    display["now"] = intervals(frame, "now")
    display["change"] = intervals(frame, "change")
    display["today it is"] = frame["said"]
    display["today"] = [_today(row.pair) for row in found]
    display["source"] = frame["source"]
    display["status"] = [_status(row, layout.footnotes) for row in found]
    return Table(
        name="then-and-now",
        title="Then and now",
        caption=_caption(groups, found),
        frame=frame,
        display=display,
        heads=layout.heads(),
        words=("a / b", "today it is", "today", "source", "status"),
        spare=("source", "change", "today"),
    )


def said_of(
    then: float,
    now: stats.Ratio | None,
    floor: stats.Floor,
    bounds: tuple[float, float] | None = None,
) -> str:
    """Today's ratio beside the published one, in words; at the ratio's own level.

    `bounds` are what the published one may have been rounded from: a word is so of all of it.
    """
    least, most = bounds or (then, then)
    if now is None or math.isnan(now.low) or floor.withholds:
        return UNKNOWN
    if now.low <= then <= now.high or least <= now.low <= now.high <= most:
        return AS_PUBLISHED
    if now.low <= most and least <= now.high:
        return UNKNOWN
    between = (1.0,) if least < 1 < most else ()
    words = {_said(ratio, now, floor) for ratio in (least, *between, most)}
    return words.pop() if len(words) == 1 else UNKNOWN


def _said(then: float, now: stats.Ratio, floor: stats.Floor) -> str:
    """Of a published ratio outside of today's interval."""
    verdict = stats.finding(now, floor)
    if verdict == "equivalent":
        return EQUIVALENT
    had_order = max(then, 1 / then) >= 1 + stats.MARGIN
    if verdict == "cannot tell":
        moved = stats.judge(_over(now, then), floor) != "cannot tell"
        return OPEN if moved and had_order else UNKNOWN
    if not had_order:
        return APART
    return SAME if (verdict == "slower") == (then > 1) else TURNED


def _over(now: stats.Ratio, then: float) -> stats.Ratio:
    """Today's ratio over the published one, which has no interval."""
    return replace(now, ratio=now.ratio / then, low=now.low / then, high=now.high / then)


def _rows(groups: Sequence[Group]) -> Iterator[_Row]:
    measured = {(group.run, group.case, group.mode): group for group in groups}
    for group in groups:
        source = source_of(group.sweep)
        if source is None:
            continue
        for pair in source.pairs():
            if pair.over.mode == group.mode and _here(pair.over.case, group) == group.case:
                under = measured.get((group.run, group.case, pair.under.mode))
                yield _Row(source=source, pair=pair, over=group, under=under)


def _here(case: Case, group: Group) -> Case:
    """A published case on the group's device: the source's was another machine's anyway."""
    return replace(case, device=group.case.device)


def _frame_row(row: _Row) -> dict[str, object]:
    pair, now, floor = row.pair, row.now(), row.floor()
    change = None if now is None else _over(now, pair.ratio)
    unmatched = pair.a.implementation is None or pair.b.implementation is None
    outcomes = {
        f"{side}_{key}": value
        for side, (published, group) in zip("ab", row.sides(), strict=True)
        if published.implementation is not None and group is not None
        for key, value in group.outcomes(published.implementation, row.measure).items()
    }
    return {
        **identity(row.over, pair.a.implementation or ""),
        "against": pair.b.implementation,
        "against_mode": pair.under.mode,
        "source": row.source.name,
        "url": row.source.url,
        "a": pair.a.name,
        "b": pair.b.name,
        "a_descends": pair.a.descends,
        "b_descends": pair.b.descends,
        "quantity": pair.over.quantity,
        "a_published": pair.over.value,
        "b_published": pair.under.value,
        "unit": pair.over.unit,
        "then": pair.ratio,
        "then_least": pair.bounds[0],
        "then_most": pair.bounds[1],
        **ratio_columns("now", now),
        **ratio_columns("change", change),
        "floor": floor.value,
        "floor_measured": floor.measured,
        "includes_published": now is not None and now.low <= pair.ratio <= now.high,
        "said": NOBODY if unmatched else said_of(pair.ratio, now, floor, pair.bounds),
        **ends(outcomes),
    }


def _label(pair: Pair) -> str:
    if pair.across_modes:
        return f"{pair.a.name}, {pair.over.mode} / {pair.under.mode}"
    what = ", setup" if pair.over.quantity == "setup" else ""
    return f"{pair.a.name} / {pair.b.name}{what}"


def _today(pair: Pair) -> str:
    names = (published.implementation or fmt.NONE for published in (pair.a, pair.b))
    return " / ".join(dict.fromkeys(names))


def _status(row: _Row, footnotes: Footnotes) -> str:
    """Program of each side today, where it is not the same, and the ends of its jobs."""
    said: dict[str, None] = {}
    for published, group in row.sides():
        if published.note:
            mark = footnotes.mark(f"{published.name}: {published.note}")
            gone = published.implementation is None
            kind = NOBODY if gone else "descendant" if published.descends else "see"
            said[f"{kind} {mark}"] = None
        if published.implementation is not None:
            outcomes = group.outcomes(published.implementation, row.measure) if group else {}
            cell = footnotes.cell(outcomes) if outcomes else "not in this run"
            if cell != Status.OK:
                said[f"{published.implementation} {cell}"] = None
    return "; ".join(said) or str(Status.OK)


def _caption(groups: Sequence[Group], rows: Sequence[_Row]) -> str:
    common = _CAPTION.format(
        level=level(groups),
        as_published=AS_PUBLISHED,
        same=SAME,
        turned=TURNED,
        apart=APART,
        equivalent=EQUIVALENT,
        open=OPEN,
        unknown=UNKNOWN,
        margin=MARGIN,
    )
    sources = {row.source.url + row.source.title: row.source for row in rows}
    return common + " ".join(_described(source) for source in sources.values())


def _described(source: Source) -> str:
    return (
        f"{source.name}: {source.title} ({source.url}), {source.year}; {source.hardware}; "
        f"{source.software}. What differs: {'; '.join(source.differs)}."
    )
