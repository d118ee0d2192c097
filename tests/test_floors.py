"""A/A floors, what rests on them, and where a run goes on measuring."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from bench.floors import Floors
from bench.looks import unsettled
from bench.record import MEASURES, OTHER_WORKER, SAME_WORKER, Job, Record
from bench.report import build
from bench.sweep import Sweep
from tests import synthetic


def slower_twin(factor: float, replica: int = SAME_WORKER) -> synthetic.Change:
    """A change that makes the second of an identical pair slower than the first."""

    def change(record: Record) -> Record:
        if record.job.replica != replica:
            return record
        samples = {name: [factor * s for s in found] for name, found in record.samples.items()}
        return replace(record, samples=samples)

    return change


@pytest.mark.parametrize("measure", MEASURES)
def test_each_backend_and_mode_has_a_twin_in_the_middle_case(measure: str) -> None:
    plan = synthetic.sweep(seq_len=(10, 50, 200))
    twins = [job for job in plan.jobs(measure) if job.replica == SAME_WORKER]  # type: ignore[arg-type]
    assert {(t.implementation, t.mode, t.case.seq_len) for t in twins} == {
        (f"{backend}/dynamic", mode, 50)
        for backend in ("torch", "jax")
        for mode in ("forward", "train")
    }
    assert all(twin.original in plan.jobs(measure) for twin in twins)  # type: ignore[arg-type]
    others = [job for job in plan.jobs(measure) if job.replica == OTHER_WORKER]  # type: ignore[arg-type]
    # The second worker is filled as the first one is, but for what is capped.
    assert {twin.implementation for twin in others} == (
        {f"torch/{name}" for name in ("traced", "dynamic", "scripted", "fused")}
        if measure == "steady"
        else set()
    )


def test_a_twin_is_taken_where_its_implementation_is_not_capped() -> None:
    plan = synthetic.sweep(seq_len=(10, 50, 200), backend=("torch",))
    plan = replace(plan, axes=replace(plan.axes, strategy=("static",)))
    assert {twin.case.seq_len for twin in plan.twins("steady")} == {10}
    assert replace(plan, caps={"torch/static": {"forward": 1, "train": 1}}).twins("steady") == []


def test_identical_pairs_of_a_sound_run_give_floors_near_one_percent() -> None:
    floors = Floors.of(synthetic.run(synthetic.sweep(blocks=10)).records)
    for backend in ("torch", "jax"):
        floor = floors.within(backend, "forward", "steady")
        assert floor.measured
        assert not floor.failed
        assert 0.01 <= floor.value < 0.02
    assert floors.across("train").measured
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
        "A/A failed: torch/dynamic train steady" in warning for warning in broken.runs[0].warnings
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


def test_two_workers_that_differ_take_the_ranking_across_frameworks_only() -> None:
    plan = synthetic.sweep(blocks=10)
    change = synthetic.only("torch/dynamic", slower_twin(1.2, OTHER_WORKER))
    report = build([synthetic.run(plan, change=change)])
    (ranking,) = (table.frame for table in report.tables if table.name == "ranking")
    group = ranking[(ranking["seq_len"] == 50) & (ranking["mode"] == "train")]
    by_name = dict(zip(group["implementation"], group["verdict"], strict=True))
    assert by_name["torch/fused"] == "fastest"
    assert by_name["torch/dynamic"] == "slower"
    assert by_name["jax/dynamic"] == "cannot tell"


def looks(plan: Sweep, precision: float) -> list[tuple[int, str]]:
    found = unsettled(synthetic.run(plan).records, precision)
    return sorted((case.seq_len, mode) for case, mode in found)


def test_nothing_is_unsettled_where_every_ratio_is_clear() -> None:
    assert looks(synthetic.sweep(blocks=10), 0.02) == []


def test_what_is_close_to_one_is_measured_on() -> None:
    """One strategy is 1.2 % slower: two blocks cannot say so."""

    def close(record: Record) -> Record:
        if record.job.implementation != "jax/scan-unroll" or "steady" not in record.samples:
            return record
        ratio = 1.012 * synthetic.STEP_S["jax/dynamic"] / synthetic.STEP_S["jax/scan-unroll"]
        return replace(record, samples={"steady": [ratio * s for s in record.samples["steady"]]})

    records = synthetic.run(synthetic.sweep(blocks=2, backend=["jax"]), change=close).records
    assert len(unsettled(records, 0.001)) >= 3
    assert unsettled(records, 0.9) == []
    # With more blocks it is known to be within the margin, whatever precision was asked for.
    records = synthetic.run(synthetic.sweep(blocks=10, backend=["jax"]), change=close).records
    assert unsettled(records, 0.001) == []


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
    assert not Floors.of(found.records).within("torch", "train", "steady").measured
    build([found])
