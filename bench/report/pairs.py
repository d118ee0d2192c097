"""Static against dynamic within each framework: what is gained a call, and what it costs first."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from bench import capacity, stats
from bench import format as fmt
from bench.evidence import Group, is_misread, is_small
from bench.pairs import Pair, declared
from bench.record import MEASURES, TO_FIRST, Status
from bench.report.model import Footnotes, Layout, Table
from bench.report.rows import (
    MARGIN,
    by_device,
    ends,
    identity,
    intervals,
    level,
    over_blocks,
    ratio_columns,
)

_CAPTION = """\
a / b is what the first strategy takes over what the second takes: above 1 the first (mostly the \
static one) is slower or larger. Ratios are paired within blocks and have the {level} t-interval \
over blocks; one block has none. Steady: a call after warm-up. First result: build, load and \
first call in a fresh process. Peak: {peak}. Verdict: the first one's steady time; faster or \
slower where the interval excludes 1 and the effect is above the A/A floor, 1 % or more, and a \
wide one by the margin; else equivalent where it was shown to be less than {margin} either way, \
and else one cannot tell; with a drift where the second half of the blocks had another ratio than \
the first, by more than 2 %. Break-even: calls after which the one with the sooner first result \
has lost its lead, to two digits; "never (a)", "never (b)": that one leads in both. Static \
strategies come first, then other variants. Intervals are not widened for the number of rows."""

_HOST_PEAK = """\
host memory above the imported framework (small: a side is below 8 MB, where a constant error of \
0.2-0.3 MB rules; not calibrated: a known allocation was read more than 5 % off)"""

_GPU_PEAK = "memory of the GPU, as the framework's allocator counts it"

_CAPACITY_CAPTION = """\
 Largest T, of a / of b: the longest sequence with which a call, or a training step, ran within \
that much memory {memory}; to 5 %, and as "at least" where something else ended the search. \
It stands in the rows of the shortest T, with which the search began."""

_HOST_LIMIT = "above the imported framework"

_GPU_LIMIT = "taken by the framework's allocator there"

#: What a capacity record holds -> what the column of either side is called.
_CAPACITY_COLUMNS = (capacity.LARGEST, capacity.FAILED, capacity.LIMIT)


def static_dynamic(groups: Sequence[Group], layout: Layout) -> Table | None:
    """Each strategy against its dynamic partner; one row a case, mode and pair."""
    rows, heads, labels, status, largest = [], [], [], [], []
    for group in groups:
        present = set(group.implementations(*MEASURES))
        for pair in declared():
            if pair.a in present:
                rows.append(_row(group, pair))
                largest.append([_largest(group, name, layout) for name in (pair.a, pair.b)])
                heads.append(layout.head(group))
                labels.append(pair.label)
                status.append(_status(group, pair, layout.footnotes))
    if not rows:
        return None
    frame = pd.DataFrame(rows)
    display = pd.DataFrame(heads, columns=list(layout.heads()))
    display["a / b"] = labels
    small = frame["peak_is_small"] & frame["peak_ratio"].notna()
    display["steady"] = intervals(frame, "steady_ratio")
    display["verdict"] = _verdicts(frame)
    display["first result"] = intervals(frame, "time_to_first_ratio")
    display["break-even (calls)"] = _break_evens(frame)
    uncalibrated = frame["peak_is_uncalibrated"] & frame["peak_ratio"].notna()
    display["peak"] = (
        intervals(frame, "peak_ratio")
        + small.map({True: " small", False: ""})
        + uncalibrated.map({True: " not calibrated", False: ""})
    )
    display["build"] = intervals(frame, "build_ratio")
    display["first call"] = intervals(frame, "first_ratio")
    looked_for = any(side for both in largest for side in both)
    header = _largest_header(frame)
    if looked_for:
        display[header] = [" / ".join(side or fmt.NONE for side in both) for both in largest]
    display["status"] = status
    return Table(
        name="static-dynamic",
        title="Static against dynamic",
        caption=_caption(groups, frame["device"], looked_for=looked_for),
        frame=frame,
        display=display,
        heads=layout.heads(),
        words=("a / b", "verdict", "status"),
        spare=(
            *("first call", "build", "peak", "break-even (calls)"),
            "first result",
            *((header,) if looked_for else ()),
            "verdict",
        ),
    )


def _caption(groups: Sequence[Group], devices: Iterable[str], *, looked_for: bool) -> str:
    devices = set(devices)
    peak = by_device(devices, _HOST_PEAK, _GPU_PEAK, "; on a GPU, ")
    said = _CAPTION.format(level=level(groups), margin=MARGIN, peak=peak)
    if looked_for:
        memory = by_device(devices, _HOST_LIMIT, _GPU_LIMIT, ", or on a GPU ")
        said += _CAPACITY_CAPTION.format(memory=memory)
    return said


def _largest_header(frame: pd.DataFrame) -> str:
    """Header of the largest lengths, with the limit if the rows share one."""
    sides = pd.concat([frame[f"{side}_{capacity.LIMIT}"] for side in "ab"])
    limits = sides.dropna().unique()
    if len(limits) != 1:
        return "largest T"
    unit = fmt.size(limits)
    return f"largest T ({fmt.digits(limits[0] / unit.scale)} {unit.name})"


def _largest(group: Group, name: str, layout: Layout) -> str:
    """The largest T of an implementation in words; "" where it was not looked for."""
    job = group.get(name, "capacity")
    if not job.planned:
        return ""
    found, failed = (over_blocks(job.values(n)) for n in (capacity.LARGEST, capacity.FAILED))
    if found is None:
        return layout.footnotes.cell(group.outcomes(name, "capacity"))
    if failed is not None and capacity.is_close(found.value, failed.value):
        return f"{found.value:,.0f}" if found.value else "none"
    return f"at least {found.value:,.0f} {layout.footnotes.mark(job.outcome.reason)}"


def _verdicts(frame: pd.DataFrame) -> list[str]:
    """The verdicts; one whose ratio moved within its blocks says so."""
    return [
        f"{verdict} (drift {move - 1:+.0%})" if drifts else verdict
        for verdict, move, drifts in zip(
            frame["verdict"].fillna(fmt.NONE), frame["drift"], frame["drifts"], strict=True
        )
    ]


def _row(group: Group, pair: Pair) -> dict[str, object]:
    ratios = _ratios(group, pair)
    floor, drift = group.floors.within(pair.backend, group.mode, "steady"), _drift(group, pair)
    memory = [group.get(name, "memory") for name in (pair.a, pair.b)]
    return {
        **identity(group, pair.a),
        "against": pair.b,
        **ends({f"a_{k}": v for k, v in group.outcomes(pair.a, *MEASURES).items()}),
        **ends({f"b_{k}": v for k, v in group.outcomes(pair.b, *MEASURES).items()}),
        "verdict": stats.finding(ratios["steady"], floor) if ratios["steady"] else None,
        "floor": floor.value,
        "floor_measured": floor.measured,
        **ratio_columns("drift", drift),
        "drifts": stats.judge(drift, stats.DRIFT) != "cannot tell",
        **_capacities(group, pair),
        "peak_is_uncalibrated": any(map(is_misread, memory)),
        "peak_is_small": any(is_small(j.job, j.values("peak_bytes").values()) for j in memory),
        **_break_even(group, pair, ratios),
        **{
            column: value
            for name, ratio in ratios.items()
            for column, value in ratio_columns(f"{name}_ratio", ratio).items()
        },
    }


def _capacities(group: Group, pair: Pair) -> dict[str, object]:
    """Longest sequences that were found; NaN if no search was made."""
    row: dict[str, object] = {}
    for side, name in (("a", pair.a), ("b", pair.b)):
        job = group.get(name, "capacity")
        row |= ends({f"{side}_{k}": v for k, v in group.outcomes(name, "capacity").items()})
        for column in _CAPACITY_COLUMNS:
            found = over_blocks(job.values(column))
            row[f"{side}_{column}"] = math.nan if found is None else found.value
    return row


def _drift(group: Group, pair: Pair) -> stats.Ratio | None:
    """Drift of the steady ratio within its blocks: the second half over the first."""
    a, b = (group.get(name, "steady").paired for name in (pair.a, pair.b))
    known = [math.log1p(move) for move in stats.paired_drifts(a, b) if not math.isnan(move)]
    return stats.ratio_of(known, group.confidence) if known else None


def _ratios(group: Group, pair: Pair) -> dict[str, stats.Ratio | None]:
    """Every ratio a / b; None where no block has both."""
    peak_a, peak_b = (group.get(name, "memory").values("peak_bytes") for name in (pair.a, pair.b))
    cold_a, cold_b = (group.get(name, "cold") for name in (pair.a, pair.b))
    phases = {"time_to_first": TO_FIRST, "build": ("build",), "first": ("first",)}
    # What takes less than the method's error can read as nothing or less: no ratio of that.
    measurable = all(value > 0 for peak in (peak_a, peak_b) for value in peak.values())
    return {
        "steady": group.steady_ratio(pair.a, pair.b),
        "peak": stats.single_ratio(peak_a, peak_b, group.confidence) if measurable else None,
        **{
            name: stats.single_ratio(cold_a.single(*parts), cold_b.single(*parts), group.confidence)
            for name, parts in phases.items()
        },
    }


def _break_even(
    group: Group, pair: Pair, ratios: Mapping[str, stats.Ratio | None]
) -> dict[str, object]:
    start = over_blocks(group.get(pair.b, "cold").single(*TO_FIRST))
    steady = group.get(pair.b, "steady").steady
    found = None
    if start is not None and steady is not None:
        found = stats.break_even(
            ratios["time_to_first"],
            ratios["steady"],
            start_b=start,
            steady_b=steady,
            start_floor=group.floors.within(pair.backend, group.mode, "cold"),
            steady_floor=group.floors.within(pair.backend, group.mode, "steady"),
        )
    if found is None:
        nan = dict.fromkeys(("calls", "calls_low", "calls_high"), math.nan)
        return {"leads_at_first": None, **{f"break_even_{k}": v for k, v in nan.items()}}
    return {
        "leads_at_first": found.leader,
        "break_even_calls": found.calls,
        "break_even_calls_low": found.low,
        "break_even_calls_high": found.high,
    }


def _break_evens(frame: pd.DataFrame) -> list[str]:
    known = frame["steady_ratio"].notna() & frame["time_to_first_ratio"].notna()
    return [
        _break_even_text(calls, leader) if is_known else fmt.NONE
        for calls, leader, is_known in zip(
            frame["break_even_calls"], frame["leads_at_first"], known, strict=True
        )
    ]


def _break_even_text(calls: float, leader: str) -> str:
    if math.isnan(calls):
        return "cannot tell"
    return f"never ({leader})" if math.isinf(calls) else fmt.count(calls)


def _status(group: Group, pair: Pair, footnotes: Footnotes) -> str:
    """Ends of either side's jobs that are not simply ok."""
    said = []
    for name in (pair.a, pair.b):
        outcomes = group.outcomes(name, *MEASURES)
        cell = footnotes.cell(outcomes) if outcomes else "not in this run"
        if cell != Status.OK:
            said.append(f"{name.split('/')[1]} {cell}")
    return "; ".join(said) or str(Status.OK)
