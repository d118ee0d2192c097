"""Failures have a row and a reason in a report; nothing is ranked that should not be."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.errors import UsageError
from bench.record import Record, Status
from bench.report import Report, build, markdown, write
from bench.store import Run, Store, read_run
from tests import synthetic
from tests.reading import broken_report, one, plain_report, rows, shown, table, terminal


@pytest.fixture(name="plain")
def _plain() -> Report:
    return plain_report()


@pytest.fixture(name="broken")
def _broken() -> Report:
    return broken_report()


def test_wrong_output_is_never_ranked_nor_timed(broken: Report) -> None:
    where = {"implementation": "jax/scan-unroll-8", "mode": "train"}
    assert rows(broken, "ranking", **where)["rank"].isna().all()
    assert rows(broken, "ranking", **where)["steady_s"].isna().all()
    assert rows(broken, "latency", **where)["time_to_first_s"].isna().all()
    assert rows(broken, "static-dynamic", **where)["steady_ratio"].isna().all()
    assert rows(broken, "memory", **where)["peak_bytes"].isna().all()
    number = broken.footnotes.index("outputs differ by 0.3") + 1
    assert set(shown(broken, "ranking", **where)["status"]) == {f"wrong output [{number}]"}
    # The other mode is another function.
    assert rows(broken, "ranking", implementation="jax/scan-unroll-8", mode="forward")["rank"].all()


def test_a_crash_in_one_block_leaves_the_others(broken: Report) -> None:
    where = {"implementation": "torch/scripted", "mode": "forward", "seq_len": 10}
    found = one(rows(broken, "latency", **where))
    assert (found["steady_status"], found["steady_blocks"], found["steady_planned"]) == (
        "crashed", 4, 5,
    )  # fmt: skip
    assert found["steady_s"] > 0
    assert one(shown(broken, "latency", **where))["status"].endswith(", 4 of 5")
    assert rows(broken, "ranking", **where)["rank"].isna().all()
    assert one(rows(broken, "static-dynamic", **where))["steady_ratio_blocks"] == 4


def test_capped_is_shown_with_its_reason(plain: Report) -> None:
    where = {"implementation": "torch/static", "seq_len": 50}
    for name in ("latency", "ranking", "memory", "outputs"):
        assert list(shown(plain, name, **where)["status"]) == ["capped [1]", "capped [2]"]
    pairs = list(shown(plain, "static-dynamic", **where)["status"])
    assert pairs == ["static capped [1]", "static capped [2]"]
    assert len(plain.footnotes) == 2
    for footnote, mode in zip(plain.footnotes, ("forward", "train"), strict=True):
        assert f"this sweep stops torch/static {mode} at T=10" in footnote
    assert "stops torch/static forward at T=10" in " ".join(terminal(plain).split())


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0, -1.0])
def test_a_record_with_a_bad_time_is_not_ranked(bad: float) -> None:
    def spoil(record: Record) -> Record:
        return replace(record, samples={"steady": [*record.samples["steady"][:3], bad]})

    change = synthetic.only("torch/fused", spoil, block=1, measure="steady", mode="forward")
    report = build([synthetic.run(change=change)])
    where = {"implementation": "torch/fused", "mode": "forward", "seq_len": 10}
    found = one(rows(report, "ranking", **where))
    assert pd.isna(found["rank"])
    assert (found["steady_status"], found["steady_blocks"]) == ("bad samples", 4)
    assert "block 1, steady: sample 3" in found["steady_reason"]
    assert (
        one(rows(report, "ranking", implementation="jax/static", mode="forward", seq_len=10))[
            "verdict"
        ]
        == "fastest"
    )


def test_a_record_without_the_samples_of_its_measure_is_not_believed() -> None:
    change = synthetic.only("torch/fused", lambda r: replace(r, samples={}), measure="cold")
    report = build([synthetic.run(change=change)])
    found = rows(report, "latency", implementation="torch/fused")
    assert set(found["cold_status"]) == {"bad samples"}
    assert found["time_to_first_s"].isna().all()


def test_every_planned_job_appears(plain: Report) -> None:
    """A run cut off: jobs without a record are rows, and the header says so."""
    whole = synthetic.run()
    lost = replace(
        whole,
        records=[r for r in whole.records if r.job.case.seq_len == 10 and r.block < 2],
        manifest={**whole.manifest, "finished": None, "status": "interrupted"},
        faults=["records.jsonl line 90: set aside (ValueError: checksum does not match)"],
    )
    report = build([lost])
    for name in ("latency", "ranking", "memory", "outputs", "static-dynamic"):
        assert len(table(report, name).frame) == len(table(plain, name).frame)
    gone = shown(report, "latency", implementation="jax/static", seq_len=50)
    assert set(gone["status"]) == {"interrupted [1]"}
    assert "--resume" in report.footnotes[0]
    kept = shown(report, "latency", implementation="jax/static", seq_len=10)
    assert set(kept["status"]) == {"2 of 5"}
    (summary,) = report.runs
    assert any(w.startswith("not finished (interrupted)") for w in summary.warnings)
    assert any("checksum" in warning for warning in summary.warnings)
    assert "interrupted" in summary.facts["jobs"]
    assert rows(report, "ranking", implementation="torch/fused", seq_len=10)["rank"].all()


def test_interrupted_blocks_say_nothing_against_the_others() -> None:
    change = synthetic.ends(Status.INTERRUPTED, "Ctrl-C")
    run = synthetic.run(change=lambda r: change(r) if r.block == 4 else r)
    found = build([run])
    assert (
        one(rows(found, "ranking", implementation="torch/fused", mode="train", seq_len=10))["rank"]
        == 1
    )


def test_one_block_has_no_interval() -> None:
    report = build([synthetic.run(synthetic.sweep(blocks=1))])
    found = one(
        rows(report, "static-dynamic", implementation="jax/static", mode="train", seq_len=10)
    )
    assert math.isnan(found["steady_ratio_low"])
    assert found["verdict"] == "cannot tell"
    shown_row = one(
        shown(report, "static-dynamic", implementation="jax/static", mode="train", seq_len=10)
    )
    assert shown_row["steady"] == "0.83 (no interval)"
    assert shown_row["break-even (calls)"] == "cannot tell"
    # Nor has any identical pair one, without which nobody of two frameworks is the fastest.
    ranking = table(report, "ranking").frame
    assert set(ranking["verdict"].dropna()) == {"cannot tell"}
    assert ranking["rank"].isna().all()
    assert set(table(report, "latency").display["range"]) == {"-"}
    assert "preliminary: fewer than 10 blocks (1)" in report.runs[0].warnings


def test_a_shorter_arm_is_paired_on_what_both_have() -> None:
    """The first 10 samples of an arm that stopped; the rest of the other's would say 100 times."""
    short = synthetic.only(
        "jax/static", lambda r: replace(r, samples={"steady": r.samples["steady"][:11]}),
        measure="steady",
    )  # fmt: skip
    slow = synthetic.only(
        "jax/dynamic",
        lambda r: replace(
            r,
            samples={
                "steady": [s * (1 if i < 10 else 100) for i, s in enumerate(r.samples["steady"])]
            },
        ),
        measure="steady",
    )
    report = build([synthetic.run(change=lambda r: short(slow(r)))])
    found = one(
        rows(report, "static-dynamic", implementation="jax/static", mode="train", seq_len=10)
    )
    assert found["steady_ratio"] == pytest.approx(5 / 6, 0.02)


def test_the_fastest_is_found_by_pairs_not_by_medians() -> None:
    """An arm that lacks the slow blocks has the lower median, and is not the faster one."""
    slow = synthetic.run(synthetic.sweep(seq_len=[10], mode=["forward"]))

    def change(record: Record) -> Record:
        scale = 3.0 if record.block < 3 else 1.0
        return replace(
            record, samples={k: [scale * s for s in v] for k, v in record.samples.items()}
        )

    gone = synthetic.only("jax/static", synthetic.ends(Status.INTERRUPTED, "Ctrl-C"))
    records = [change(r) for r in slow.records]
    records = [gone(r) if r.block < 3 else r for r in records]
    found = rows(build([replace(slow, records=records)]), "ranking")
    fastest, lucky = found.iloc[0], one(found[found["implementation"] == "jax/static"])
    assert (fastest["implementation"], fastest["verdict"]) == ("torch/fused", "fastest")
    assert lucky["steady_s"] < fastest["steady_s"]
    assert (lucky["verdict"], lucky["ratio_blocks"]) == ("slower", 2)
    assert lucky["ratio"] == pytest.approx(50 / 45, 0.02)


def test_a_partner_that_was_not_run_is_said() -> None:
    plan = synthetic.sweep(backend=["jax"])
    plan = replace(plan, axes=replace(plan.axes, strategy=("static",)))
    found = shown(build([synthetic.run(plan)]), "static-dynamic")
    assert set(found["status"]) == {"dynamic not in this run"}


@pytest.mark.parametrize(
    "manifest",
    [
        {"schema": 1},
        {"schema": 1, "sweep": None, "host": None, "backends": "?"},
        {"schema": 1, "sweep": {"axes": {"cell": ["lstm"]}, "sampling": {}}},
        {"schema": 1, "sweep": {"axes": [], "sampling": {}}},
    ],
)
def test_a_run_with_a_poor_manifest_is_still_reported(manifest: dict[str, Any]) -> None:
    report = build([replace(synthetic.run(), manifest=manifest)])
    assert len(table(report, "ranking").frame) == 32
    assert any("plan not readable" in warning for warning in report.runs[0].warnings)
    terminal(report)


def test_a_run_without_anything(tmp_path: Path) -> None:
    report = build([Run(folder=tmp_path, manifest={"schema": 1}, records=[], faults=[])])
    assert not report.tables
    assert "plan not readable" in terminal(report)
    assert len(write(report, tmp_path / "out")) == 3


def test_no_run_is_an_error() -> None:
    with pytest.raises(UsageError, match="no run"):
        build([])


def test_an_implementation_of_another_version_is_reported() -> None:
    def rename(record: Record) -> Record:
        return replace(record, job=replace(record.job, implementation="mxnet/static"))

    run = synthetic.run(change=synthetic.only("jax/static", rename))
    found = rows(build([run]), "ranking", implementation="mxnet/static")
    assert found["rank"].notna().all()
    assert found["kind"].isna().all()


def test_a_report_of_a_run_on_disk_is_the_same(tmp_path: Path) -> None:
    run = synthetic.run(synthetic.sweep(seq_len=[10], mode=["forward"], blocks=2))
    with Store.create(tmp_path / "run", run.manifest) as store:
        store.extend(run.records)
    read = build([read_run(tmp_path / "run")])
    assert markdown.render(read) == markdown.render(build([run]))


def test_the_plan_survives_json() -> None:
    """A manifest that went through a file gives the same plan (tuples come back as lists)."""
    run = synthetic.run()
    manifest = json.loads(json.dumps(run.manifest))
    assert synthetic.sweep().to_json() == run.manifest["sweep"]
    reports = [build([r]) for r in (run, replace(run, manifest=manifest))]
    assert markdown.render(reports[0]) == markdown.render(reports[1])
