"""What the run says of its own instrument: identical pairs, arms alone, noise, overhead."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import pandas as pd

from bench import stats
from bench.floors import Twins, alone_change
from bench.measure import SAMPLE_S
from bench.pairs import Pair, declared
from bench.record import OTHER_WORKER, Run, mapping_in
from bench.report import format as fmt
from bench.report.evidence import Group
from bench.report.model import Layout, Table
from bench.report.rows import ratio_columns

_CAPTION = """\
The same thing twice, through the same pipeline: what the second took over what the first took, \
with the 95 % interval over blocks. Two workers: the second one is in a process of its own, as two \
frameworks are. Floor: what a difference must exceed to be called one, the larger of 1 % and the \
far end of the interval. Failed: the interval excludes 1 and the effect is above 1 %, so that \
nothing that rests on it gets a verdict. Wide: further out than half the margin of 5 %, too coarse \
to show that two things are equally fast. No interval: there are fewer than two blocks."""

#: Arms interfere where alone and paired differ by more than this, and than 3 times what twins do.
INTERFERENCE = stats.MARGIN


def identical(groups: Sequence[Group], _layout: Layout) -> Table | None:
    """A/A pairs; one row a backend, mode and way of measuring, in each run."""
    floors = {group.run: group.floors for group in groups}
    pairs = [(run, twins) for run, found in floors.items() for twins in found.twins]
    if not pairs:
        return None
    frame = pd.DataFrame([_row(run, twins) for run, twins in pairs])
    display = pd.DataFrame(
        {
            "mode": frame["mode"],
            **({"run": frame["run"]} if len(floors) > 1 else {}),
            "the same twice": [
                f"{t.job.implementation} T={t.job.case.seq_len} {t.job.measure}"
                + (", two workers" if t.job.replica == OTHER_WORKER else "")
                for _, t in pairs
            ],
            "ratio": pd.Series(
                fmt.each(fmt.interval, *(frame[f"ratio{s}"] for s in ("", "_low", "_high")))
            ),
            "floor": [f"{100 * value:.1f} %" for value in frame["floor"]],
            "verdict": frame["verdict"],
        }
    ).sort_values("mode", kind="stable", ignore_index=True)
    return Table(
        name="identical",
        title="The instrument: identical pairs",
        caption=_CAPTION,
        frame=frame,
        display=display,
        heads=("mode", "run") if len(floors) > 1 else ("mode",),
        words=("the same twice", "verdict"),
        spare=("floor",),
    )


def _row(run: str, twins: Twins) -> dict[str, object]:
    job, floor = twins.job, twins.floor
    return {
        "run": run,
        **asdict(job.case),
        "mode": job.mode,
        "implementation": job.implementation,
        "measure": job.measure,
        "workers": 2 if job.replica == OTHER_WORKER else 1,
        **ratio_columns("ratio", twins.ratio),
        "floor": floor.value,
        "verdict": _verdict(floor),
    }


def _verdict(floor: stats.Floor) -> str:
    if not floor.measured:
        return "no interval"
    return "failed" if floor.failed else "wide" if floor.wide else "ok"


def warnings(groups: Sequence[Group]) -> list[str]:
    """What a reader must know before any figure: A/A pairs that failed, arms that interfere."""
    if not groups:
        return []
    failed = [twins for twins in groups[0].floors.twins if twins.floor.failed]
    said = [
        f"A/A failed: {t.job.implementation} {t.job.mode} {t.job.measure} differs from itself, "
        f"{fmt.interval(t.ratio.ratio, t.ratio.low, t.ratio.high)}; "
        "verdicts that rest on it are withheld"
        for t in failed
        if t.ratio is not None
    ]
    found = [
        f"interference: {pair.label} T={group.case.seq_len} {group.mode} differs by "
        f"{math.expm1(change):+.0%} alone from paired, "
        "so that one changes what the other takes"
        for group in groups
        for pair, change in alone_against_paired(group)
        if abs(change) > max(math.log1p(INTERFERENCE), 3 * _meaningless(group, pair))
    ]
    return said + found


def alone_against_paired(group: Group) -> list[tuple[Pair, float]]:
    """By how much the log ratio of a pair is another with each arm by itself than in turns."""
    found = []
    for pair in declared():
        a, b = (group.get(name, "steady") for name in (pair.a, pair.b))
        change = alone_change(a.believed, b.believed)
        if change is not None:
            found.append((pair, change))
    return found


def _meaningless(group: Group, pair: Pair) -> float:
    """The largest change of the backend's identical pairs: what two that are the same show."""
    changes = (
        twins.alone_change
        for twins in group.floors.twins
        if (twins.job.backend, twins.job.mode) == (pair.backend, group.mode)
    )
    return max((abs(change) for change in changes if change is not None), default=0.0)


def facts(run: Run, groups: Sequence[Group]) -> dict[str, str]:
    """Lines of the run's header about the instrument."""
    return {
        "instrument": "; ".join(
            text for text in (_overhead(run), _noise(run), _alone(groups)) if text
        )
    }


def _overhead(run: Run) -> str:
    """The dearest of the backends' overheads, and its share of the shortest sample."""
    found = [
        info["overhead"]["sample_s"]
        for info in mapping_in(run.manifest, "backends").values()
        if isinstance(info, Mapping) and isinstance(info.get("overhead"), Mapping)
    ]
    known = [seconds for seconds in found if isinstance(seconds, float) and seconds > 0]
    if not known:
        return ""
    worst = max(known)
    return f"{1e6 * worst:.1f} µs a sample ({worst / SAMPLE_S:.2%} of the shortest)"


def _noise(run: Run) -> str:
    """How many measurements were disturbed, and the reasons given most often."""
    labels = {
        (record.block, str(record.worker.get("at")), record.job.measure): noise
        for record in run.records
        if isinstance(noise := record.worker.get("noise"), Mapping)
    }
    if not labels:
        return ""
    noisy = [noise for noise in labels.values() if noise.get("quiet") is False]
    reasons: Counter[str] = Counter()
    for noise in noisy:
        given = noise.get("reasons")
        reasons.update(str(r).split(",")[0] for r in given if r) if isinstance(given, list) else 0
    said = f"{len(noisy)} of {len(labels)} measurements disturbed"
    return f"{said} (most often: {reasons.most_common(1)[0][0]})" if reasons else said


def _alone(groups: Sequence[Group]) -> str:
    changes = [change for group in groups for _, change in alone_against_paired(group)]
    if not changes:
        return ""
    most = math.exp(max(map(abs, changes)))
    text = f"{most - 1:.1%}" if most < 1.995 else f"a factor of {most:.1f}"
    return f"ratios alone and paired differ by up to {text}"
