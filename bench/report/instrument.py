"""The instrument by the run's own data: identical pairs, processes, noise, overhead."""

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
from bench.pairs import declared
from bench.record import Measure
from bench.report.model import Layout, Table
from bench.report.rows import MARGIN, intervals, level, ratio_columns
from bench.store import Protocol, Run, mapping_in

_CAPTION = """\
The same thing twice, through the same pipeline: what the second took over what the first took, \
each in a process of its own, with the {level} interval over blocks. Floor: what a difference \
must exceed to be called one, the larger of 1 % and \
the far end of the interval. Failed: the two were called different, so that nothing that rests on \
it gets a verdict; for this the interval is widened for the number of pairs in the run. Wide: \
further out than half the margin of {margin}, too coarse to show that two things are equally \
fast, and a difference must be beyond floor and margin together. No interval: there are fewer \
than two blocks."""

#: What the instrument may add to a call.
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
    where = "" if job.case.device == "cpu" else f" {job.case.device}"
    where += "" if job.case.threads == 1 else f" threads={job.case.threads}"
    number = f" ({job.replica})" if job.replica > 1 else ""
    return f"{job.implementation} T={job.case.seq_len}{where} {job.measure}{number}"


def _row(run: str, floors: Floors, twins: Twins) -> dict[str, object]:
    job = twins.job
    return {
        "run": run,
        **asdict(job.case),
        "mode": job.mode,
        "implementation": job.implementation,
        "measure": job.measure,
        "replica": job.replica,
        **ratio_columns("ratio", twins.ratio),
        "floor": twins.floor.value,
        "verdict": _verdict(floors, twins),
    }


def _verdict(floors: Floors, twins: Twins) -> str:
    if not twins.floor.measured:
        return "no interval"
    return "failed" if floors.failed(twins) else "wide" if twins.floor.wide else "ok"


def warnings(groups: Sequence[Group]) -> list[str]:
    """Lines to read before any figure: A/A pairs that failed or are missing, unlike processes."""
    failed = [
        f"A/A failed: {_named(t)} {t.job.mode} differs from itself, "
        f"{fmt.interval(t.ratio.ratio, t.ratio.low, t.ratio.high)}; {_withheld(t)}"
        for _, floors, t in _pairs(groups)
        if t.ratio is not None and floors.failed(t)
    ]
    return [*failed, *_lacking(groups), *_unlike(groups), *_failed_on_device(groups)]


def _withheld(twins: Twins) -> str:
    """Verdicts that are withheld because an identical pair was called different."""
    job = twins.job
    if job.measure == "memory":
        return f"peaks of {job.backend}, {job.mode}, are not to be compared"
    what = "verdicts" if job.measure == "steady" else "break-even counts"
    return f"no {what} on {job.backend}, {job.mode}"


def _lacking(groups: Sequence[Group]) -> list[str]:
    """Comparisons that have no identical pair to rest on."""
    lacking: dict[str, None] = {}
    silent = False
    for group in groups:
        repeated = {
            (job.job.backend, measure): None
            for measure in _JUDGED
            for name in group.implementations(measure)
            if kind_of(name) in RANKED and len((job := group.get(name, measure)).believed) > 1
        }
        several = len({backend for backend, measure in repeated if measure == "steady"}) > 1
        silent |= several and group.floors.all_steady(group.mode).missing
        for backend, measure in repeated:
            if not group.floors.within(backend, group.mode, measure).measured:
                lacking[f"{backend} {group.mode} {measure}"] = None
    if not lacking:
        return []
    said = f"no identical pair: {', '.join(lacking)}; a floor of {100 * stats.FLOOR:g} % is assumed"
    return [f"{said}, and there are no verdicts across frameworks" if silent else said]


#: A ratio is named whose blocks differ by more than this (standard deviation of its logarithm), and
#: by so many times what the rounds within a block explain.
UNLIKE, BEYOND_ROUNDS = 0.025, 3.0


def _unlike(groups: Sequence[Group]) -> list[str]:
    """Pairs whose processes differ: their ratio is a property of the process, too."""
    found = []
    for group in groups:
        for pair in declared():
            one, other = (group.get(name, "steady").paired for name in (pair.a, pair.b))
            spread = stats.between_processes(one, other)
            if spread is None or spread.between < UNLIKE:
                continue
            if spread.between > BEYOND_ROUNDS * spread.within:
                case = group.case
                found.append(
                    f"processes differ: {pair.a} over {pair.b}, {case.cell} T={case.seq_len} "
                    f"B={case.batch} {group.mode}: {spread.low:.2f} to {spread.high:.2f} over "
                    f"{spread.blocks} blocks, each steady within itself"
                )
    return found


def _failed_on_device(groups: Sequence[Group]) -> list[str]:
    """Arms that broke once their samples had been taken, when the GPU's clock was read."""
    return [
        f"{name} T={group.case.seq_len} {group.mode}: {said}"
        for group in groups
        for name in group.implementations("steady")
        for record in group.get(name, "steady").believed
        if isinstance(said := record.worker.get("device"), str)
    ]


#: How a run's arms took turns, in words.
_PROTOCOLS: Mapping[Protocol, str] = {
    "bursts": "a process for each implementation, in turns by bursts of calls",
    "calls": "EARLIER PROTOCOL: one process a framework, in turns call by call",
}


def facts(run: Run, groups: Sequence[Group]) -> dict[str, str]:
    """Lines of the run's header about the instrument."""
    told = (_PROTOCOLS[run.protocol], _overhead(run, groups), _noise(run))
    return {"instrument": "; ".join(text for text in told if text)}


def earlier_protocol(run: Run) -> list[str]:
    """A warning where the ratios are of arms that shared a process."""
    if run.protocol == "bursts":
        return []
    said = "arms took turns call by call in one process, which moves ratios by up to 40 %"
    return [f"earlier protocol: {said}; measure again before you rely on one"]


def costly(run: Run) -> list[str]:
    """A warning where the instrument itself takes more of a sample than it may."""
    worst = _worst_overhead(run)
    if worst <= MOST_OVERHEAD_S:
        return []
    said = f"the clock adds {1e6 * worst:.1f} µs to a call, more than {1e6 * MOST_OVERHEAD_S:g} µs"
    return [f"overhead: {said}; short calls are overstated"]


def _worst_overhead(run: Run) -> float:
    """The dearest of the backends' overheads of a call [s]; 0 where none is known."""
    found = [
        info["overhead"].get("call_s")
        for info in mapping_in(run.manifest, "backends").values()
        if isinstance(info, Mapping) and isinstance(info.get("overhead"), Mapping)
    ]
    known = [seconds for seconds in found if isinstance(seconds, float) and seconds > 0]
    return max(known, default=0.0)


def _overhead(run: Run, groups: Sequence[Group]) -> str:
    """The dearest of the overheads, and its share of the shortest call."""
    worst = _worst_overhead(run)
    calls = [
        steady.value
        for group in groups
        for name in group.implementations("steady")
        if kind_of(name) in RANKED and (steady := group.get(name, "steady").steady)
    ]
    if not worst or not calls:
        return ""
    return f"the clock adds {1e6 * worst:.2f} µs a call ({worst / min(calls):.2%} of the shortest)"


def _noise(run: Run) -> str:
    """Number of disturbed measurements, and the most frequent reasons."""
    labels = {
        # The jobs of a steady block were measured together, the others each by itself.
        (
            record.pairing,
            (record.job.case, record.job.mode) if record.job.measure == "steady" else record.job,
        ): noise
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
