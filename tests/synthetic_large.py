"""A run of a hundred thousand records that was never measured, written as the engine writes one."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from bench import strict
from bench.record import MEASURES, Job
from bench.sweep import Sweep
from tests import synthetic

#: Samples in a steady record.
SAMPLES = 30


def sweep(
    *, cells: int = 5, lengths: int = 5, batches: int = 4, layers: int = 5, measured: str = "steady"
) -> Sweep:
    """So many cases twice (forward and train) under ten implementations; 1000 groups by default.

    `measured` "steady": ten blocks of that alone, 100,000 records besides the A/A twins; "all":
    first results in four blocks and peaks in two, too.
    """
    plain = synthetic.sweep(blocks=10)
    return replace(
        plain,
        title="A hundred thousand records, drawn at random",
        axes=replace(
            plain.axes,
            cell=("lstm", "gru", "rnn", "lstm-clip", "lstm-relu")[:cells],
            seq_len=(10, 20, 50, 100, 200)[:lengths],
            batch=(1, 4, 16, 64)[:batches],
            layers=(1, 2, 3, 4, 6)[:layers],
        ),
        sampling=replace(
            plain.sampling,
            cold_blocks=4 if measured == "all" else 0,
            memory_blocks=2 if measured == "all" else 0,
        ),
        caps={},
    )


def write(folder: Path, plan: Sweep | None = None, seed: int = 0) -> int:
    """Write the run into a folder that is made for it; returns the number of its records."""
    plan = plan or sweep()
    folder.mkdir(parents=True)
    text = strict.dumps(synthetic.manifest(plan, schema=2, id="large"), indent=1)
    (folder / "manifest.json").write_text(text + "\n")
    rng = np.random.default_rng(seed)
    count = 0
    with (folder / "records.jsonl").open("w") as file:
        for measure, blocks in plan.sampling.counts().items():
            if measure not in MEASURES:
                continue
            jobs = [(job, asdict(job), job.key) for job in plan.jobs(measure)]
            for block in range(blocks):
                for line in _lines(jobs, block, rng):
                    file.write(line)
                    count += 1
    return count


def _lines(
    jobs: list[tuple[Job, dict[str, object], str]], block: int, rng: np.random.Generator
) -> Iterator[str]:
    drift = math.exp(rng.normal(0.0, 0.1))
    for number, (job, described, key) in enumerate(jobs):
        record = {
            "block": block,
            "errors": _errors(job) if job.measure == "steady" else {},
            "inner": 1,
            "job": described,
            "key": key,
            "reason": "",
            "samples": _samples(job, drift, rng),
            "status": "ok",
            "values": _values(job, rng),
            "worker": {
                "at": "2026-01-02T03:04:05+00:00",
                "involuntary_switches": 4,
                "load": 1.11962890625,
                "noise": {
                    "missing": [],
                    "others_share": 0.0,
                    "pressure_share": 0.07965783312017717,
                    "quiet": number % 20 > 0,
                    "reasons": [] if number % 20 else ["others took 14 % of CPU 1"],
                    "spin_slowdown": 1.0126157493432695,
                    "steal_share": 0.0,
                    "throttled_share": 0.0,
                    "waited_s": 0.2520684880000772,
                },
                "pid": 30801,
                "turns": f"{block:032x}",
            },
        }
        body = json.dumps(record, sort_keys=True)
        yield f'{{"crc32": {zlib.crc32(body.encode())}, "record": {body}}}\n'


def _scale(job: Job, drift: float, rng: np.random.Generator) -> float:
    case = job.case
    size = case.seq_len * case.layers * (0.5 + case.batch / 32) * (0.8 + len(case.cell) / 20)
    return size * (3.0 if job.mode == "train" else 1.0) * drift * math.exp(rng.normal(0.0, 0.004))


def _samples(job: Job, drift: float, rng: np.random.Generator) -> dict[str, list[float]]:
    scale = _scale(job, drift, rng)
    if job.measure == "steady":
        found = synthetic.STEP_S[job.implementation] * scale * np.exp(rng.normal(0, 0.01, SAMPLES))
        return {"steady": np.round(found, 9).tolist()}
    if job.measure == "cold":
        constant, step = synthetic.FIRST_S[job.implementation]
        total = constant * drift + step * scale
        return {"build": [0.3 * total], "load": [0.001], "first": [0.7 * total]}
    return {}


def _values(job: Job, rng: np.random.Generator) -> dict[str, float]:
    if job.measure != "memory":
        return {}
    unrolled = 6 if "static" in job.implementation else 1
    peak = 2e6 + 4e3 * unrolled * _scale(job, 1.0, rng) * 16
    return {"build_peak_bytes": 0.4 * peak, "peak_bytes": peak}


def _errors(job: Job) -> dict[str, dict[str, float]]:
    parts = ("outputs", "state") if job.mode == "forward" else ("loss", "gradients")
    return {part: {"absolute": 3.4e-7, "relative": 4.2e-7} for part in parts}
