"""Reports of runs whose truth is known: the tables say what is true of the run."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd
import pytest

from backends import IMPLEMENTATIONS
from backends.products import flops
from bench.record import Record, Status
from bench.report import Report, build
from tests import synthetic
from tests.reading import one, plain_report, rows, shown, table, terminal


@pytest.fixture(name="plain")
def _plain() -> Report:
    return plain_report()


@pytest.mark.parametrize(
    ("a", "b"), [("torch/traced", "torch/dynamic"), ("jax/static", "jax/dynamic")]
)
@pytest.mark.parametrize("mode", ["forward", "train"])
def test_static_against_dynamic(plain: Report, a: str, b: str, mode: str) -> None:
    found = one(rows(plain, "static-dynamic", implementation=a, mode=mode, seq_len=50))
    truth = synthetic.STEP_S[a] / synthetic.STEP_S[b]
    assert found["against"] == b
    # An interval of 95 % may miss; one twice as wide may not.
    half = found["steady_ratio_high"] - found["steady_ratio_low"]
    assert abs(found["steady_ratio"] - truth) < half
    assert found["steady_ratio_blocks"] == 10
    assert found["verdict"] == "faster"
    (c_a, s_a), (c_b, s_b) = synthetic.FIRST_S[a], synthetic.FIRST_S[b]
    assert found["time_to_first_ratio"] == pytest.approx((c_a + 50 * s_a) / (c_b + 50 * s_b), 0.05)
    calls = (c_a + 50 * s_a - c_b - 50 * s_b) / (50 * synthetic.STEP_S[b] * (1 - truth))
    assert found["leads_at_first"] == "b"
    assert found["break_even_calls"] == pytest.approx(calls, 0.1)
    assert found["break_even_calls_low"] < calls < found["break_even_calls_high"]


def test_who_leads_in_both_is_named(plain: Report) -> None:
    found = shown(plain, "static-dynamic", implementation="torch/fused", mode="train")
    assert set(found["break-even (calls)"]) == {"never (a)"}


def test_static_pairs_come_first_and_every_declared_pair_is_there(plain: Report) -> None:
    found = rows(plain, "static-dynamic", mode="forward", seq_len=10)
    kinds = [IMPLEMENTATIONS[name].kind == "static" for name in found["implementation"]]
    assert kinds == sorted(kinds, reverse=True)
    strategies = {name: IMPLEMENTATIONS[name].strategy for name in synthetic.FIRST_S}
    declared = {name for name, s in strategies.items() if s.against and not s.of_gpus}
    assert set(found["implementation"]) == declared


def test_a_partner_is_a_dynamic_strategy_of_the_same_backend() -> None:
    for entry in IMPLEMENTATIONS.values():
        if entry.strategy.against is not None:
            partner = IMPLEMENTATIONS[f"{entry.backend}/{entry.strategy.against}"]
            assert partner.kind == "dynamic"
            assert partner != entry


def test_across_frameworks(plain: Report) -> None:
    found = rows(plain, "ranking", mode="forward", seq_len=10).reset_index()
    assert list(found["rank"]) == list(range(1, 9))
    fastest = found.iloc[0]
    assert (fastest["implementation"], fastest["verdict"]) == ("torch/fused", "fastest")
    for _, row in found.iterrows():
        truth = synthetic.STEP_S[row["implementation"]] / synthetic.STEP_S["torch/fused"]
        assert row["ratio"] == pytest.approx(truth, 0.02)
    assert not {"torch/products", "reference/products"} & set(found["implementation"])


def test_latency(plain: Report) -> None:
    found = one(rows(plain, "latency", implementation="jax/dynamic", mode="train", seq_len=50))
    seconds = found["steady_s"]
    assert seconds == pytest.approx(50 * 3 * synthetic.STEP_S["jax/dynamic"], 0.15)
    assert found["steady_s_low"] < seconds < found["steady_s_high"]
    assert found["sequences_per_s"] == pytest.approx(16 / seconds)
    assert found["steps_per_s"] == pytest.approx(16 * 50 / seconds)
    run = synthetic.run()
    case = next(r.job.case for r in run.records if r.job.case.seq_len == 50)
    assert found["flop_per_s"] == pytest.approx(flops(case, "train") / seconds)
    parts = found["build_s"] + found["load_s"] + found["first_s"]
    assert found["time_to_first_s"] == pytest.approx(parts, 0.05)
    assert found["create_s"] == pytest.approx(0.02)


def test_the_limit_is_the_fastest_library_and_paired(plain: Report) -> None:
    found = one(rows(plain, "latency", implementation="jax/dynamic", mode="forward", seq_len=50))
    assert found["limit"] == "torch/products"
    assert found["limit_share"] == pytest.approx(0.5, 0.02)
    # Workers differ by 10 % and more; a paired share does not.
    assert found["limit_share_high"] - found["limit_share_low"] < 0.02
    limit = shown(plain, "latency", implementation="torch/products", mode="forward", seq_len=50)
    assert one(limit)["implementation"] == "torch/products (limit)"


def test_on_a_gpu_the_floor_of_a_framework_stands_beside_the_limit(plain: Report) -> None:
    report = build([synthetic.run(synthetic.sweep(device=("gpu",), blocks=10))])
    for name in ("torch/dynamic", "torch/fused", "jax/dynamic"):
        found = one(rows(report, "latency", implementation=name, mode="train", seq_len=50))
        own = name.replace("dynamic", "launches").replace("fused", "launches")
        assert (found["limit"], found["launches"]) == ("jax/products", own)
        truth = synthetic.STEP_S[own] / synthetic.STEP_S[name]
        assert found["launch_share"] == pytest.approx(truth, 0.02)
        assert found["launch_share_high"] - found["launch_share_low"] < 0.02 * truth
        said = one(shown(report, "latency", implementation=name, mode="train", seq_len=50))
        shown_share = float(said["share of launches (%)"].partition(" ")[0])
        assert shown_share == pytest.approx(100 * found["launch_share"], 0.01)
    floor = one(rows(report, "latency", implementation="jax/launches", mode="train", seq_len=50))
    assert floor["steady_s"] == pytest.approx(50 * 3 * synthetic.STEP_S["jax/launches"], 0.15)
    # It does no products, and none of the case's sequences.
    for column in ("flop_per_s", "sequences_per_s", "steps_per_s", "limit_share"):
        assert math.isnan(floor[column]), column
    named = shown(report, "latency", implementation="jax/launches", mode="train", seq_len=50)
    assert one(named)["implementation"] == "jax/launches (floor of step-by-step loops)"
    for name in ("ranking", "outputs"):
        implementations = table(report, name).frame["implementation"]
        assert not implementations.str.contains("launches|products").any()
    plots = {plot.name: plot for plot in report.plots}
    share = plots["launch-share"].frame
    assert set(share["implementation"].str.partition("/")[0]) == {"torch", "jax"}
    for said in (
        table(report, "latency").caption,
        plots["latency"].caption,
        plots["launch-share"].caption,
    ):
        assert "step by step" in said
        assert "CUDA graph" in said
    # A run on a CPU says nothing of it.
    assert "launches" not in table(plain, "latency").caption
    assert not [c for c in table(plain, "latency").frame if "launch" in c]
    assert "launch-share" not in {plot.name for plot in plain.plots}


def test_without_a_floor_of_its_own_a_framework_has_no_share_of_it() -> None:
    plan = synthetic.sweep(device=("gpu",), seq_len=(10,), mode=("forward",))
    gone = synthetic.only("jax/launches", synthetic.ends(Status.UNAVAILABLE, "none"))
    report = build([synthetic.run(plan, change=gone)])
    found = {
        name: one(rows(report, "latency", implementation=name))["launch_share"]
        for name in ("jax/dynamic", "torch/dynamic")
    }
    assert math.isnan(found["jax/dynamic"])
    assert found["torch/dynamic"] == pytest.approx(20 / 140, 0.05)


def test_program_size_is_shown(plain: Report) -> None:
    found = shown(plain, "latency", implementation="jax/static", mode="forward", seq_len=50)
    assert one(found)["program"] == "350 nodes"


def test_fastest_first_and_cases_in_order(plain: Report) -> None:
    for name in ("latency", "ranking"):
        frame = table(plain, name).frame
        assert list(dict.fromkeys(zip(frame["seq_len"], frame["mode"], strict=True))) == [
            (10, "forward"), (10, "train"), (50, "forward"), (50, "train"),
        ]  # fmt: skip
        for _, group in frame.groupby(["seq_len", "mode"]):
            assert group["steady_s"].dropna().is_monotonic_increasing or name == "ranking"


def test_only_what_varies_is_a_column(plain: Report) -> None:
    assert table(plain, "latency").heads == ("T", "mode")
    assert "H=128" in plain.case
    assert "T=" not in plain.case
    assert "hidden" in table(plain, "latency").frame.columns


def test_small_and_uncalibrated_peaks_are_marked() -> None:
    def uncalibrated(record: Record) -> Record:
        return replace(record, values={**record.values, "calibration_error": 0.07})

    change = synthetic.only("jax/static", uncalibrated, measure="memory")
    report = build([synthetic.run(change=change)])
    notes = table(report, "memory").frame
    small = notes["peak_bytes"] < 8e6
    assert small.any()
    assert notes.loc[small, "note"].str.contains("small").all()
    assert not notes.loc[~small, "note"].str.contains("small").any()
    marked = notes["implementation"] == "jax/static"
    assert notes.loc[marked, "note"].str.contains(r"not calibrated \(\+7%\)").all()
    ratio = one(
        shown(report, "static-dynamic", implementation="jax/static", mode="forward", seq_len=10)
    )
    assert ratio["peak"].endswith(" small not calibrated")


def test_a_peak_of_nothing_gives_no_ratio() -> None:
    change = synthetic.only(
        "jax/static", lambda r: replace(r, values={"peak_bytes": -1e5}), measure="memory"
    )
    found = rows(
        build([synthetic.run(change=change)]), "static-dynamic", implementation="jax/static"
    )
    assert found["peak_ratio"].isna().all()


def test_the_largest_error_of_all_blocks_is_shown() -> None:
    def off(record: Record) -> Record:
        errors = {"outputs": {"absolute": 2e-3, "relative": math.inf}}
        return replace(record, status=Status.WRONG_OUTPUT, reason="off", errors=errors)

    change = synthetic.only("jax/static", off, mode="forward", block=3)
    report = build([synthetic.run(change=change)])
    found = table(report, "outputs").display
    first = found[(found["T"] == "10") & (found["mode"] == "forward")].iloc[0]
    assert first["implementation"] == "jax/static"
    assert first["outputs or loss"] == "2.0e-03 (inf)"


def test_two_runs_stand_side_by_side() -> None:
    one_run = synthetic.run()
    slower = synthetic.run(seed=5, pace=4.0, id="other")
    report = build([one_run, slower])
    assert [run.label for run in report.runs] == ["drawn", "other"]
    for found in report.tables:
        assert found.heads == (
            ("mode", "run") if found.name == "identical" else ("T", "mode", "run")
        )
        assert set(found.frame["run"]) == {"drawn", "other"}
    alone = build([one_run])
    for name in ("latency", "ranking", "static-dynamic"):
        mine = rows(report, name, run="drawn").reset_index(drop=True)
        pd.testing.assert_frame_equal(mine, table(alone, name).frame, check_like=True)
    assert "run other" in terminal(report)


def test_runs_of_one_name_are_told_apart() -> None:
    report = build([synthetic.run(), synthetic.run(seed=1)])
    assert [run.label for run in report.runs] == ["drawn (1)", "drawn (2)"]


def test_the_header(plain: Report) -> None:
    (summary,) = plain.runs
    assert summary.warnings == []
    assert summary.facts["host"] == (
        "here; A CPU @ 2.50GHz, 4 cores; 16 GB; Linux 6.1; Python 3.11.9"
    )
    assert summary.facts["blocks"] == "10 of 10 steady, 3 of 3 cold, 2 of 2 memory"
    assert summary.facts["jobs"] == "98 ok, 6 capped"
    assert summary.facts["backends"].endswith("jax: it crashed when asked")
