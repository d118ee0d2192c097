"""Static against dynamic within each framework: what is gained a call, and what it costs first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from backends import IMPLEMENTATIONS
from backends.api import Strategy
from bench import stats
from bench.record import MEASURES, Status
from bench.report import format as fmt
from bench.report.evidence import TO_FIRST, Group
from bench.report.model import Footnotes, Layout, Table
from bench.report.rows import ends, identity, intervals, over_blocks, ratio_columns

#: Below this a constant error of the method, 0.2 to 0.3 MB, is a share of a peak that matters.
SMALL_BYTES = 8e6

_CAPTION = """\
a / b is what the first strategy takes over what the second takes: above 1 the first (mostly the \
static one) is slower or larger. Ratios are paired within blocks and have the 95 % t-interval over \
blocks; one block has none. Steady: a call after warm-up. First result: build, load and first call \
in a fresh process. Peak: host memory above the imported framework (small: a side is below 8 MB, \
where a constant error of 0.2-0.3 MB rules). Verdict: the first one's steady time; "cannot tell" \
unless the interval excludes 1 and the effect is above 1 %. Break-even: calls after which the one \
with the sooner first result has lost its lead, to two digits; "never (a)", "never (b)": that one \
leads in both. Static strategies come first, then other variants. Intervals are not widened for \
the number of rows."""


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


def static_dynamic(groups: Sequence[Group], layout: Layout) -> Table | None:
    """Each strategy against its dynamic partner; one row a case, mode and pair."""
    rows, heads, labels, status = [], [], [], []
    for group in groups:
        present = set(group.implementations(*MEASURES))
        for pair in declared():
            if pair.a in present:
                rows.append(_row(group, pair))
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
    display["verdict"] = frame["verdict"].fillna(fmt.NONE)
    display["first result"] = intervals(frame, "time_to_first_ratio")
    display["break-even (calls)"] = _break_evens(frame)
    display["peak"] = intervals(frame, "peak_ratio") + small.map({True: " small", False: ""})
    display["build"] = intervals(frame, "build_ratio")
    display["first call"] = intervals(frame, "first_ratio")
    display["status"] = status
    return Table(
        name="static-dynamic",
        title="Static against dynamic",
        caption=_CAPTION,
        frame=frame,
        display=display,
        heads=layout.heads(),
        words=("a / b", "verdict", "status"),
        spare=("first call", "build", "peak", "break-even (calls)", "first result", "verdict"),
    )


def _row(group: Group, pair: Pair) -> dict[str, object]:
    ratios = _ratios(group, pair)
    peaks = [group.get(name, "memory").values("peak_bytes") for name in (pair.a, pair.b)]
    return {
        **identity(group, pair.a),
        "against": pair.b,
        **ends({f"a_{k}": v for k, v in group.outcomes(pair.a, *MEASURES).items()}),
        **ends({f"b_{k}": v for k, v in group.outcomes(pair.b, *MEASURES).items()}),
        "verdict": stats.judge(ratios["steady"]) if ratios["steady"] else None,
        "peak_is_small": any(min(peak.values(), default=math.inf) < SMALL_BYTES for peak in peaks),
        **_break_even(group, pair, ratios),
        **{
            column: value
            for name, ratio in ratios.items()
            for column, value in ratio_columns(f"{name}_ratio", ratio).items()
        },
    }


def _ratios(group: Group, pair: Pair) -> dict[str, stats.Ratio | None]:
    """Every ratio a / b; None where no block has both."""
    steady = (group.get(name, "steady").blocks("steady") for name in (pair.a, pair.b))
    peaks = [group.get(name, "memory").values("peak_bytes") for name in (pair.a, pair.b)]
    cold = [group.get(name, "cold") for name in (pair.a, pair.b)]
    phases = {"time_to_first": TO_FIRST, "build": ("build",), "first": ("first",)}
    # What takes less than the method's error can read as nothing or less: no ratio of that.
    measurable = all(value > 0 for peak in peaks for value in peak.values())
    return {
        "steady": stats.steady_ratio(*steady),
        "peak": stats.single_ratio(*peaks) if measurable else None,
        **{
            name: stats.single_ratio(*(job.single(*parts) for job in cold))
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
            ratios["time_to_first"], ratios["steady"], start_b=start, steady_b=steady
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
    """How either side's jobs ended, where that is not simply ok."""
    said = []
    for name in (pair.a, pair.b):
        outcomes = group.outcomes(name, *MEASURES)
        cell = footnotes.cell(outcomes) if outcomes else "not in this run"
        if cell != Status.OK:
            said.append(f"{name.split('/')[1]} {cell}")
    return "; ".join(said) or str(Status.OK)
