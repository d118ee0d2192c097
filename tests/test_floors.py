"""A/A floors, what rests on them, and where a run goes on measuring."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd
import pytest

from bench import stats
from bench.evidence import groups_of
from bench.floors import Floors
from bench.looks import unsettled
from bench.record import MEASURES, Job, Record, Setting
from bench.report import build
from bench.store import Run
from bench.sweep import Sweep
from tests import synthetic


def slower_twin(factor: float) -> synthetic.Change:
    """A change that makes the second of an identical pair slower than the first."""

    def change(record: Record) -> Record:
        if not record.job.replica:
            return record
        samples = {name: [factor * s for s in found] for name, found in record.samples.items()}
        return replace(record, samples=samples)

    return change


@pytest.mark.parametrize("measure", MEASURES)
def test_each_backend_and_mode_has_a_twin_in_the_middle_case(measure: str) -> None:
    plan = synthetic.sweep(seq_len=(10, 50, 200))
    twins = [job for job in plan.jobs(measure) if job.replica]  # type: ignore[arg-type]
    assert {(t.implementation, t.mode, t.case.seq_len) for t in twins} == {
        (f"{backend}/dynamic", mode, 50)
        for backend in ("torch", "jax")
        for mode in ("forward", "train")
    }
    assert all(twin.original in plan.jobs(measure) for twin in twins)  # type: ignore[arg-type]
    assert {job.replica for job in plan.jobs(measure)} == {0, 1}  # type: ignore[arg-type]


def test_each_device_has_twins_of_its_own() -> None:
    plan = synthetic.sweep(blocks=10)
    plan = replace(plan, axes=replace(plan.axes, device=("cpu", "gpu")))
    change = synthetic.only("torch/dynamic", slower_twin(1.2))
    records = [
        change(record) if record.job.case.device == "gpu" else record
        for record in synthetic.run(plan).records
    ]
    for device in ("cpu", "gpu"):
        floors = Floors.of(records, device)
        assert {twins.job.case.device for twins in floors.twins} == {device}
        assert floors.within("torch", "train", "steady").failed == (device == "gpu")


def test_a_twin_is_taken_where_its_implementation_is_not_capped() -> None:
    plan = synthetic.sweep(seq_len=(10, 50, 200), backend=("torch",))
    plan = replace(plan, axes=replace(plan.axes, strategy=("static",)))
    assert {twin.case.seq_len for twin in plan.twins("steady")} == {10}
    assert replace(plan, caps={"torch/static": {"forward": 1, "train": 1}}).twins("steady") == []


def test_identical_pairs_of_a_sound_run_give_floors_near_one_percent() -> None:
    floors = Floors.of(synthetic.run(synthetic.sweep(blocks=10)).records, "cpu")
    for backend in ("torch", "jax"):
        floor = floors.within(backend, "forward", "steady")
        assert floor.measured
        assert not floor.failed
        assert 0.01 <= floor.value < 0.02
    assert floors.between("torch", "jax", "train").measured
    # One without a pair of its own has the coarsest of the others'.
    lone = floors.between("torch", "tensorflow", "train")
    assert lone.value == floors.between("torch", "jax", "train").value
    assert not lone.missing
    assert Floors.of([], "cpu").between("torch", "jax", "train").missing
    assert not floors.within("tensorflow", "forward", "steady").measured


def test_an_identical_pair_that_differs_takes_the_verdicts_that_rest_on_it() -> None:
    plan = synthetic.sweep(blocks=10)
    sound, broken = (
        build([synthetic.run(plan)]),
        build(
            [
                synthetic.run(
                    plan, change=synthetic.only("torch/dynamic", slower_twin(1.2), mode="train")
                )
            ]
        ),
    )
    assert not any("A/A failed" in warning for warning in sound.runs[0].warnings)
    assert any(
        "A/A failed: torch/dynamic T=10 steady train differs" in warning
        for warning in broken.runs[0].warnings
    )

    def verdicts(report_: object, backend: str, mode: str) -> set[str]:
        (table,) = (t for t in report_.tables if t.name == "static-dynamic")  # type: ignore[attr-defined]
        frame = table.frame
        rows = frame["implementation"].str.startswith(backend) & (frame["mode"] == mode)
        return set(frame.loc[rows, "verdict"].dropna())

    assert verdicts(sound, "torch", "train") & {"faster", "slower"}
    assert verdicts(broken, "torch", "train") == {"cannot tell"}
    assert verdicts(broken, "torch", "forward") == verdicts(sound, "torch", "forward")
    assert verdicts(broken, "jax", "train") == verdicts(sound, "jax", "train")


def table(run: Run, name: str) -> pd.DataFrame:
    (found,) = (table.frame for table in build([run]).tables if table.name == name)
    return found


def ranked(run: Run) -> dict[str, str]:
    """The verdicts of one case's ranking, by implementation."""
    frame = table(run, "ranking")
    group = frame[(frame["seq_len"] == 50) & (frame["mode"] == "train")]
    return dict(zip(group["implementation"], group["verdict"], strict=True))


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_a_pair_that_fails_in_either_framework_withholds_comparisons_of_both(backend: str) -> None:
    plan = synthetic.sweep(blocks=10)
    assert ranked(synthetic.run(plan))["jax/dynamic"] == "slower"
    change = synthetic.only(f"{backend}/dynamic", slower_twin(1.2), measure="steady")
    assert ranked(synthetic.run(plan, change=change))["jax/dynamic"] == "cannot tell"


def test_without_an_identical_pair_nothing_is_said_across_frameworks() -> None:
    whole = synthetic.run(synthetic.sweep(blocks=10))
    lacking = replace(whole, records=[r for r in whole.records if not r.job.replica])
    assert ranked(lacking)["jax/dynamic"] == "cannot tell"
    assert ranked(lacking)["torch/dynamic"] == "slower"
    said = [w for w in build([lacking]).runs[0].warnings if "no identical pair" in w]
    assert len(said) == 1
    assert "jax forward steady" in said[0]
    assert said[0].endswith("and there are no verdicts across frameworks")


def test_a_framework_without_a_pair_is_compared_by_the_floor_of_the_others() -> None:
    whole = synthetic.run(synthetic.sweep(blocks=10))
    lacking = replace(
        whole, records=[r for r in whole.records if not r.job.replica or r.job.backend == "torch"]
    )
    assert ranked(lacking)["jax/dynamic"] == "slower"
    said = [w for w in build([lacking]).runs[0].warnings if "no identical pair" in w]
    assert len(said) == 1
    assert said[0].startswith("no identical pair: jax forward steady, jax forward cold")
    assert said[0].endswith("a floor of 1 % is assumed")


def test_a_floor_that_no_pair_was_measured_for_is_said_to_be_assumed() -> None:
    whole = synthetic.run(synthetic.sweep(blocks=10))
    kept = [r for r in whole.records if not (r.job.replica and r.job.mode == "train")]
    said = [
        w
        for w in build([replace(whole, records=kept)]).runs[0].warnings
        if w.startswith("no identical pair:")
    ]
    assert len(said) == 1
    for backend in ("torch", "jax"):
        assert f"{backend} train steady" in said[0]
        assert f"{backend} train cold" in said[0]
        assert f"{backend} forward" not in said[0]
    assert "; a floor of 1 % is assumed" in said[0]
    assert not any("no identical" in w for w in build([whole]).runs[0].warnings)


def test_the_table_of_identical_pairs_fails_the_ones_that_verdicts_are_withheld_for() -> None:
    """One of four pairs is 1.2 % off: at its own level it differs, among four it does not."""

    def shifted(record: Record) -> Record:
        if not record.job.replica or record.job.backend != "torch":
            return record
        wave = 0.0145 * (-1) ** record.block
        samples = {n: [s * math.exp(0.014 + wave) for s in f] for n, f in record.samples.items()}
        return replace(record, samples=samples)

    def quiet(record: Record) -> Record:
        """Every arm of a block takes the same, so that only `shifted` is left."""
        steady = 1e-3 * synthetic.STEP_S[record.job.implementation]
        return shifted(replace(record, samples={"steady": [steady] * 8}))

    plan = synthetic.sweep(blocks=8, seq_len=(50,))
    run = synthetic.run(plan)
    records = [quiet(r) for r in run.records if r.job.measure == "steady" and r.samples]
    found = replace(run, records=records)
    frame = table(found, "identical")
    row = frame[(frame["implementation"] == "torch/dynamic") & (frame["mode"] == "train")]
    floors = Floors.of(records, "cpu")
    assert len(floors.twins) == 4
    (twins,) = floors.family("torch", "train", "steady")
    assert stats.judge(twins.ratio) == "slower"
    assert stats.judge(twins.ratio.at(1 - 0.05 / 4)) == "cannot tell"  # type: ignore[union-attr]
    assert not floors.within("torch", "train", "steady").failed
    assert row["verdict"].tolist() == ["wide"]
    assert not any("A/A failed" in w for w in build([found]).runs[0].warnings)


def test_two_that_differ_by_less_than_the_margin_are_called_equivalent() -> None:
    def close(record: Record) -> Record:
        if record.job.implementation != "jax/scan-unroll-8" or "steady" not in record.samples:
            return record
        ratio = 1.003 * synthetic.STEP_S["jax/dynamic"] / synthetic.STEP_S["jax/scan-unroll-8"]
        return replace(record, samples={"steady": [ratio * s for s in record.samples["steady"]]})

    frame = table(synthetic.run(synthetic.sweep(blocks=10), change=close), "static-dynamic")
    rows = frame[frame["implementation"] == "jax/scan-unroll-8"]
    assert set(rows["verdict"]) == {"equivalent"}
    few = table(synthetic.run(synthetic.sweep(blocks=1), change=close), "static-dynamic")
    assert set(few[few["implementation"] == "jax/scan-unroll-8"]["verdict"]) == {"cannot tell"}


def looking(run: Run) -> Run:
    """The run as one that looks for a precision, whose intervals are wider."""
    plan = Sweep.from_json(run.manifest["sweep"])
    plan = replace(plan, sampling=replace(plan.sampling, precision=0.01))
    return replace(run, manifest={**run.manifest, "sweep": plan.to_json()})


def open_settings(run: Run, precision: float) -> list[Setting]:
    return unsettled(groups_of(looking(run), "run")[0], precision)


def looks(plan: Sweep, precision: float) -> list[tuple[int, str]]:
    found = open_settings(synthetic.run(plan), precision)
    return sorted((case.seq_len, mode) for case, mode in found)


def test_nothing_is_unsettled_where_every_ratio_is_clear() -> None:
    assert looks(synthetic.sweep(blocks=10), 0.02) == []


def test_what_is_close_to_one_is_measured_on() -> None:
    """One strategy is 1.2 % slower: two blocks cannot say so."""

    def close(record: Record) -> Record:
        if record.job.implementation != "jax/scan-unroll-8" or "steady" not in record.samples:
            return record
        ratio = 1.012 * synthetic.STEP_S["jax/dynamic"] / synthetic.STEP_S["jax/scan-unroll-8"]
        return replace(record, samples={"steady": [ratio * s for s in record.samples["steady"]]})

    few = synthetic.run(synthetic.sweep(blocks=2, backend=["jax"]), change=close)
    assert len(open_settings(few, 0.001)) >= 3
    assert open_settings(few, 0.9) == []
    # With more blocks it is known to be within the margin, whatever precision was asked for.
    many = synthetic.run(synthetic.sweep(blocks=10, backend=["jax"]), change=close)
    assert open_settings(many, 0.001) == []


def test_a_coarse_identical_pair_is_measured_on_with_what_rests_on_it() -> None:
    """The twins are at T=50; a comparison at T=10 is open, and their pair too wide to close it."""

    def change(record: Record) -> Record:
        job = record.job
        if job.measure != "steady" or not record.samples:
            return record
        ratio = 1.0
        if job.replica:
            ratio = 1 + 0.04 * (-1) ** record.block  # identical, but within 4 % only
        elif job.implementation == "jax/scan-unroll-8":
            here = synthetic.STEP_S["jax/dynamic"] / synthetic.STEP_S[job.implementation]
            ratio = here * (1 + 0.03 * (-1) ** record.block if job.case.seq_len == 10 else 2)
        return replace(record, samples={"steady": [ratio * s for s in record.samples["steady"]]})

    plan = synthetic.sweep(blocks=4, seq_len=(10, 50, 200), backend=["jax"], mode=("train",))
    plan = replace(plan, axes=replace(plan.axes, strategy=("dynamic", "scan-unroll-8")))
    found = open_settings(synthetic.run(plan, change=change), 0.01)
    assert sorted(case.seq_len for case, _ in found) == [10, 50]


def test_one_block_settles_nothing() -> None:
    assert len(looks(synthetic.sweep(blocks=1), 0.02)) == 4


def test_a_look_takes_a_third_of_alpha() -> None:
    job = Job(
        implementation="torch/traced",
        case=synthetic.sweep().cases()[0],
        mode="forward",
        measure="steady",
    )
    plan = synthetic.sweep(blocks=5)
    looking = replace(plan, sampling=replace(plan.sampling, precision=0.02))
    report, usual = build([synthetic.run(looking)]), build([synthetic.run(plan)])

    def width(found: object) -> float:
        (frame,) = (t.frame for t in found.tables if t.name == "static-dynamic")  # type: ignore[attr-defined]
        row = frame[
            (frame["implementation"] == job.implementation)
            & (frame["mode"] == job.mode)
            & (frame["seq_len"] == job.case.seq_len)
        ].iloc[0]
        return math.log(row["steady_ratio_high"] / row["steady_ratio_low"])

    # Student's t with four degrees of freedom at 1 - 0.05 / 3 over that at 0.95.
    assert width(report) == pytest.approx(3.961 / 2.776 * width(usual), rel=1e-3)


@pytest.mark.parametrize("bad", [math.nan, 0.0, -1.0, math.inf])
def test_a_twin_that_no_clock_read_is_no_twin(bad: float) -> None:
    def spoil(record: Record) -> Record:
        return replace(record, samples={"steady": [bad]}) if record.job.replica else record

    found = synthetic.run(change=spoil)
    assert not Floors.of(found.records, "cpu").within("torch", "train", "steady").measured
    build([found])


def test_the_reference_of_a_ranking_is_the_one_that_is_called_fastest() -> None:
    """Medians over rounds need not be transitive: here each of three beats the next one."""
    beats = {
        "torch/traced": (0.0, 1.0, 2.0),
        "torch/scripted": (1.0, 2.0, 0.0),
        "torch/dynamic": (2.0, 0.0, 1.0),
    }

    def cyclic(record: Record) -> Record:
        logs = beats.get(record.job.implementation)
        if logs is None or "steady" not in record.samples:
            return record
        samples = [1e-4 * math.exp(0.05 * log) for log in logs]
        return replace(record, samples={"steady": samples})

    plan = synthetic.sweep(blocks=5, seq_len=(50,), mode=("train",), backend=["torch"])
    frame = table(synthetic.run(plan, change=cyclic), "ranking")
    (best,) = frame[frame["verdict"] == "fastest"].to_dict("records")
    assert best["ratio"] == 1.0
    assert best["rank"] == 1
    assert best["implementation"] in beats


def test_a_pair_whose_processes_differ_is_named() -> None:
    """Two modes of a process: each block is steady within itself, and half of them are faster."""

    def bimodal(record: Record) -> Record:
        if record.job.implementation != "torch/traced" or record.block % 2:
            return record
        return replace(record, samples={n: [1.1 * s for s in f] for n, f in record.samples.items()})

    def said(change: synthetic.Change) -> list[str]:
        plan = synthetic.sweep(blocks=10, seq_len=(50,), mode=("train",))
        warnings = build([synthetic.run(plan, change=change)]).runs[0].warnings
        return [text for text in warnings if text.startswith("processes differ")]

    (named,) = said(bimodal)
    assert named.startswith("processes differ: torch/traced over torch/dynamic, lstm T=50 B=16 ")
    assert named.endswith("over 10 blocks, each steady within itself")
    assert said(lambda record: record) == []


def test_blocks_are_counted_by_job_and_the_fewest_make_a_run_preliminary() -> None:
    """One case was measured on, the other was not: its verdicts rest on five blocks."""
    whole = synthetic.run(synthetic.sweep(blocks=12))
    kept = [r for r in whole.records if r.block < 5 or r.job.case.seq_len == 10]
    (summary,) = build([replace(whole, records=kept)]).runs
    assert "5 to 12 of 12 steady" in summary.facts["blocks"]
    assert "preliminary" in summary.facts["blocks"]
    assert "preliminary: fewer than 10 blocks (5)" in summary.warnings
    (summary,) = build([whole]).runs
    assert "12 of 12 steady" in summary.facts["blocks"]
    assert not any("preliminary" in text for text in summary.warnings)


def test_jobs_of_the_same_second_are_counted_one_by_one() -> None:
    def labelled(record: Record) -> Record:
        quiet = record.job.implementation != "torch/fused"
        noise = {"quiet": quiet, "reasons": [] if quiet else ["others took 20 % of CPU 1"]}
        return replace(record, worker={"at": "2026-01-02T03:04:05+00:00", "noise": noise})

    plan = synthetic.sweep(blocks=1, seq_len=(10,), mode=("forward",), backend=["torch"])
    run = synthetic.run(plan, change=labelled)
    cold = replace(run, records=[r for r in run.records if r.job.measure == "cold"])
    said = build([cold]).runs[0].facts["instrument"]
    assert f"1 of {len(cold.records)} measurements disturbed" in said
    assert len(cold.records) > 3
