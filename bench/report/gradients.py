"""Decay of gradients over time, from the records that measured it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from statistics import median

import pandas as pd

from bench import format as fmt
from bench.claims.gradients import gradient_norms
from bench.record import Record, Status
from bench.report.model import Layout, Plot
from bench.store import Run

_CAPTION = """\
Norm of the gradient of the loss at the last step with respect to the state so many steps before \
it: the median over seeds, the band their range; on a log axis a line that is straight decays by \
the same factor each step. A line a cell and forget bias."""


def decay(runs: Sequence[tuple[str, Run]], layout: Layout) -> Plot | None:
    """The plot of every run's behaviour records; None where there are none."""
    rows = [row for label, run in runs for row in _rows(label, run.records, layout)]
    frame = pd.DataFrame(rows)
    if frame.empty:
        return None
    low, high = (frame.iloc[int(at)] for at in (frame["y"].argmin(), frame["y"].argmax()))
    said = (
        f"{fmt.digits(float(row['y']))} ({row['series']}, {row['x']} steps before)"
        for row in (low, high)
    )
    return Plot(
        name="gradient-decay",
        title="Gradients over time",
        caption=_CAPTION,
        kind="decay",
        x="steps before the last",
        y="gradient norm",
        log_x=False,
        log_y=True,
        data="gradient-decay.csv",
        frame=frame,
        reading=f"Gradient norm against distance: from {' to '.join(said)}.",
    )


def _rows(label: str, records: Sequence[Record], layout: Layout) -> Iterator[dict[str, object]]:
    for record in records:
        job = record.job
        if str(job.measure) != "behaviour" or job.mode != "train" or record.status != Status.OK:
            continue
        where = [job.implementation, *(("run " + label,) if layout.several_runs else ())]
        for (bias, distance), norms in sorted(_norms(record).items()):
            yield {
                "run": label,
                **asdict(job.case),
                "mode": job.mode,
                "implementation": job.implementation,
                "panel": ", ".join(where),
                "series": job.case.cell + ("" if bias == "-" else f", forget bias {bias}"),
                "x": distance,
                "y": median(norms),
                "low": min(norms),
                "high": max(norms),
                "seeds": len(norms),
            }


def _norms(record: Record) -> dict[tuple[str, int], list[float]]:
    """Norms over seeds, by bias and distance; what is not above 0 has no place on a log axis."""
    found: dict[tuple[str, int], list[float]] = defaultdict(list)
    for bias, seeds in gradient_norms(record.values).items():
        for norms in seeds.values():
            for distance, norm in norms.items():
                if 0 < norm < math.inf:
                    found[bias, distance].append(norm)
    return found
