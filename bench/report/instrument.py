"""What the run says of its own instrument: identical pairs, arms alone, noise, overhead."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import pandas as pd

from bench import format as fmt
from bench import stats
from bench.axes import RANKED
from bench.evidence import Group, kind_of
from bench.floors import Floors, Twins
from bench.measure import SAMPLE_S
from bench.record import TWIN_IN_OTHER, Measure
from bench.report import interference
from bench.report.interference import Change
from bench.report.model import Layout, Table
from bench.report.rows import MARGIN, intervals, level, ratio_columns
from bench.store import Run, mapping_in

_CAPTION = """\
The same thing twice, through the same pipeline: what the second took over what the first took, \
with the {level} interval over blocks. Two workers: the second one is in a process of its own, as \
two frameworks are. Floor: what a difference must exceed to be called one, the larger of 1 % and \
the far end of the interval. Failed: the two were called different, so that nothing that rests on \
it gets a verdict; for this the interval is widened for the number of pairs in the run. Wide: \
further out than half the margin of {margin}, too coarse to show that two things are equally \
fast, and a difference must be beyond floor and margin together. No interval: there are fewer \
than two blocks."""

#: What the instrument may add to a sample: a fifth of a percent of the shortest.
MOST_OVERHEAD_S = 2e-6

#: What rests on a floor of its own within a backend, besides the peaks, which get no verdict.
_JUDGED: tuple[Measure, ...] = ("steady", "cold")


def identical(groups: Sequence[Group], _layout: Layout) -> Table | None:
    """A/A pairs; one row a backend, mode, device and way of measuring, in each run."""
    pairs = sorted(_pairs(groups), key=lambda pair: pair[2].job.mode)
    if not any(twins.floor.measured for _, _, twins in pairs):
        return None  # one block: there is nothing to say of any of them
    several = len({run for run, _, _ in pairs}) > 1
    frame = pd.DataFrame([_row(*pair) for pair in pairs])
    display = pd.DataFrame(
        {
            "mode": frame["mode"],
            **({"run": frame["run"]} if several else {}),
            "the same twice": [_named(twins) for _, _, twins in pairs],
            "ratio": intervals(frame, "ratio"),
            "floor": [f"{100 * value:.1f} %" for value in frame["floor"]],
            "verdict": frame["verdict"],
        }
    )
    return Table(
        name="identical",
        title="The instrument: identical pairs",
        caption=_CAPTION.format(level=level(groups), margin=MARGIN),
        frame=frame,
        display=display,
        heads=("mode", "run") if several else ("mode",),
        words=("the same twice", "verdict"),
        spare=("floor",),
    )


def _pairs(groups: Sequence[Group]) -> list[tuple[str, Floors, Twins]]:
    """Every identical pair with its run and the floors that it is of, once."""
    found = {
        (group.run, twins.job): (group.run, group.floors, twins)
        for group in groups
        for twins in group.floors.twins
    }
    return list(found.values())


def _named(twins: Twins) -> str:
    job = twins.job
    device = "" if job.case.device == "cpu" else f" {job.case.device}"
    where = ", two workers" if job.has_second_worker else ""
    where += " (its twin)" if job.replica == TWIN_IN_OTHER else ""
    return f"{job.implementation} T={job.case.seq_len}{device} {job.measure}{where}"


def _row(run: str, floors: Floors, twins: Twins) -> dict[str, object]:
    job = twins.job
    return {
        "run": run,
        **asdict(job.case),
        "mode": job.mode,
        "implementation": job.implementation,
        "measure": job.measure,
        "replica": job.replica,
        "workers": 2 if job.has_second_worker else 1,
        **ratio_columns("ratio", twins.ratio),
        "floor": twins.floor.value,
        "verdict": _verdict(floors, twins),
    }


def _verdict(floors: Floors, twins: Twins) -> str:
    if not twins.floor.measured:
        return "no interval"
    return "failed" if floors.failed(twins) else "wide" if twins.floor.wide else "ok"


def warnings(groups: Sequence[Group], changed: Sequence[Change]) -> list[str]:
    """What a reader must know before any figure: A/A pairs that failed or lack, interference."""
    failed = [
        f"A/A failed: {_named(t)} {t.job.mode} differs from itself, "
        f"{fmt.interval(t.ratio.ratio, t.ratio.low, t.ratio.high)}; {_withheld(t)}"
        for _, floors, t in _pairs(groups)
        if t.ratio is not None and floors.failed(t)
    ]
    disturbed = interference.warnings(groups, changed)
    return [*failed, *_lacking(groups), *disturbed, *_failed_alone(groups)]


def _withheld(twins: Twins) -> str:
    """What gets no verdict where an identical pair was called different."""
    job = twins.job
    if job.has_second_worker:
        return f"no verdicts across frameworks, {job.mode}"
    if job.measure == "memory":
        return f"peaks of {job.backend}, {job.mode}, are not to be compared"
    what = "verdicts" if job.measure == "steady" else "break-even counts"
    return f"no {what} within {job.backend}, {job.mode}"


def _lacking(groups: Sequence[Group]) -> list[str]:
    """Where verdicts have no identical pair to rest on."""
    within: dict[str, None] = {}
    across: dict[str, None] = {}
    for group in groups:
        repeated = {
            (job.job.backend, measure): None
            for measure in _JUDGED
            for name in group.implementations(measure)
            if kind_of(name) in RANKED and len((job := group.get(name, measure)).believed) > 1
        }
        for backend, measure in repeated:
            if not group.floors.within(backend, group.mode, measure).measured:
                within[f"{backend} {group.mode} {measure}"] = None
        steady = {backend for backend, measure in repeated if measure == "steady"}
        if len(steady) > 1 and not group.floors.across(group.mode).measured:
            across[group.mode] = None
    said = []
    if within:
        said.append(
            f"no identical pair: {', '.join(within)}; a floor of {100 * stats.FLOOR:g} % is assumed"
        )
    if across:
        said.append(
            f"no identical pair in two workers: {', '.join(across)}; "
            "there are no verdicts across frameworks"
        )
    return said


def _failed_alone(groups: Sequence[Group]) -> list[str]:
    """Arms that broke once their samples had been taken, when they were timed by themselves."""
    return [
        f"{name} T={group.case.seq_len} {group.mode}: {said}"
        for group in groups
        for name in group.implementations("steady")
        for record in group.get(name, "steady").believed
        if isinstance(said := record.worker.get("alone"), str)
    ]


def facts(run: Run, changed: Sequence[Change]) -> dict[str, str]:
    """Lines of the run's header about the instrument."""
    return {
        "instrument": "; ".join(
            text for text in (_overhead(run), _noise(run), interference.most(changed)) if text
        )
    }


def costly(run: Run) -> list[str]:
    """A warning where the instrument itself takes more of a sample than it may."""
    worst = _worst_overhead(run)
    if worst <= MOST_OVERHEAD_S:
        return []
    said = (
        f"the clock adds {1e6 * worst:.1f} µs to a sample, more than {1e6 * MOST_OVERHEAD_S:g} µs"
    )
    return [f"overhead: {said}; short calls are overstated"]


def _worst_overhead(run: Run) -> float:
    """The dearest of the backends' overheads of a sample [s]; 0 where none is known."""
    found = [
        info["overhead"].get("sample_s")
        for info in mapping_in(run.manifest, "backends").values()
        if isinstance(info, Mapping) and isinstance(info.get("overhead"), Mapping)
    ]
    known = [seconds for seconds in found if isinstance(seconds, float) and seconds > 0]
    return max(known, default=0.0)


def _overhead(run: Run) -> str:
    """The dearest of the overheads, and its share of the shortest sample."""
    worst = _worst_overhead(run)
    if not worst:
        return ""
    return f"{1e6 * worst:.1f} µs a sample ({worst / SAMPLE_S:.2%} of the shortest)"


def _noise(run: Run) -> str:
    """How many measurements were disturbed, and the reasons given most often."""
    labels = {
        # The jobs of a steady block were measured together, the others each by itself.
        (record.block, str(record.worker.get("turns", record.job.key))): noise
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
