"""The scripts that measure the instrument, at tiny settings and with a backend that is scripted."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backends.api import Case
from bench import stats
from bench.errors import UsageError
from bench.evidence import groups_of
from bench.expectation import read_expected, write_expected
from bench.record import Record
from benchmarks import aa, instrument, launch_cost, overhead, power, time_to_verdict, warmup
from benchmarks.by_itself import IN_PHASES, elsewhere
from benchmarks.instrument import Share
from benchmarks.rivals import tools
from tests import synthetic

CASE = Case(cell="lstm", seq_len=3, batch=2, inputs=3, hidden=4)
SAMPLING = instrument.default_sampling(
    blocks=2, steady_s=0.01, warmup_s=0.001, warmup_calls=2, quiet_wait_s=0
)


def ratio(low: float, high: float, blocks: int = 5) -> stats.Ratio:
    return stats.Ratio(ratio=math.sqrt(low * high), low=low, high=high, blocks=blocks)


# Shares


@pytest.mark.parametrize(
    ("yes", "of", "low", "high"),
    [(0, 200, 0.0, 0.01828), (10, 200, 0.02423, 0.09002), (60, 60, 0.94038, 1.0)],
)
def test_a_share_has_its_exact_interval(yes: int, of: int, low: float, high: float) -> None:
    share = Share.of([True] * yes + [False] * (of - yes))
    assert (share.count, share.n) == (yes, of)
    assert (share.low, share.high) == (
        pytest.approx(low, abs=1e-5),
        pytest.approx(high, abs=1e-5),
    )


# Identical pairs


@pytest.mark.parametrize(("pairs", "sets"), [(200, 67), (6, 2), (1, 1), (18, 6), (19, 7)])
def test_rounds_hold_enough_settings_each_once(pairs: int, sets: int) -> None:
    found = list(aa.rounds(pairs, 3))
    assert sum(map(len, found)) == sets
    assert all(len(settings) == len(set(settings)) for settings in found)


@pytest.mark.usefixtures("scripted_backend")
def test_identical_pairs_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aa, "SHAPES", {"tiny": CASE})
    monkeypatch.setattr(aa, "SETTINGS", (("tiny", "forward"), ("tiny", "train")))
    out = tmp_path / "results" / "aa.json"
    rows = aa.measure(2, ["scripted/fine"], sampling=SAMPLING, load="none", out=out)
    assert [row["mode"] for row in rows] == ["forward", "train"]
    assert all(row["failure"] is None and len(row["log_ratios"]) == 2 for row in rows)
    assert all(row["different"] == (row["verdict"] != "cannot tell") for row in rows)
    written = json.loads(out.read_text())
    assert written["rows"] == rows
    assert written["settings"]["sampling"]["blocks"] == 2
    lines = aa.summary(rows)
    assert [line["n"] for line in lines if line["pairs"] == "all"] == [2]


@pytest.mark.usefixtures("scripted_backend")
def test_a_pair_that_fails_is_counted_and_not_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aa, "SHAPES", {"tiny": CASE})
    monkeypatch.setattr(aa, "SETTINGS", (("tiny", "forward"), ("tiny", "train")))
    names = ["scripted/fine", "scripted/wrong"]
    rows = aa.measure(1, names, sampling=SAMPLING, load="none", out=tmp_path / "aa.json")
    failures = {row["implementation"]: row["failure"] for row in rows}
    assert failures["scripted/fine"] is None
    assert "wrong output" in failures["scripted/wrong"]
    (line,) = (x for x in aa.summary(rows) if x["pairs"] == "all")
    assert (line["n"], line["failed"]) == (1, 1)


@pytest.mark.parametrize(
    ("low", "high", "beyond"),
    [
        (1.04, 1.2, False),
        (1.051, 1.2, True),
        (0.8, 0.96, False),
        (0.8, 0.95, True),
        (None, None, False),
    ],
)
def test_beyond_the_margin_is_the_whole_interval(
    low: float | None, high: float | None, beyond: bool
) -> None:
    assert aa.beyond_margin({"low": low, "high": high}) is beyond


# A planted slowdown


@pytest.mark.usefixtures("scripted_backend")
def test_what_is_planted_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty times the steps, each of them checked against what its own length must compute."""
    monkeypatch.setattr(power, "SETTINGS", ((2, "forward"),))
    monkeypatch.setattr(power, "PLANTED", {2: 40})
    sampling = replace(SAMPLING, blocks=3)
    rows = power.measure(1, ["scripted/fine"], sampling=sampling, out=tmp_path / "power.json")
    (row,) = rows
    assert (row["seq_len"], row["planted_seq_len"], row["flop_ratio"]) == (2, 40, 20)
    assert row["failure"] is None
    assert row["ratio"] > 2
    assert row["verdict"] == "slower"
    (line,) = (x for x in power.summary(rows) if x["trials"] == "all, 3 blocks")
    assert line["found"].startswith("1: 100.0 %")


def test_the_first_blocks_are_judged_by_themselves() -> None:
    """Four blocks that agree on 5 % more, and a fifth and sixth that do not."""
    row = {
        "framework": "torch",
        "mode": "forward",
        "seq_len": 40,
        "flop_ratio": 1.05,
        "failure": None,
        "log_ratios": [0.049, 0.050, 0.051, 0.050, -0.5, 0.6],
    }
    found = {line["trials"]: line["found"] for line in power.summary([row])}
    assert found["all, 4 blocks"].startswith("1:")
    assert found["all, 6 blocks"].startswith("0:")


# Time to a verdict


def test_the_clock_stops_at_the_first_narrow_interval() -> None:
    def ratios() -> Iterator[stats.Ratio]:
        yield ratio(0.9, 1.1)
        yield ratio(0.99, 1.01)
        raise AssertionError("measured on")

    done = time_to_verdict.until_narrow(ratios(), 0.02, 1e9)
    assert done["reached"]
    assert len(done["steps"]) == 2
    assert done["projected_s"] == done["seconds"] == done["steps"][-1]["seconds"] > 0


def test_who_is_not_there_in_time_is_stopped_and_projected() -> None:
    def ratios() -> Iterator[stats.Ratio]:
        while True:
            yield ratio(1 / 1.04, 1.04)

    done = time_to_verdict.until_narrow(ratios(), 0.02, 0.0)
    assert not done["reached"]
    assert len(done["steps"]) == 1
    assert done["projected_s"] == pytest.approx(4 * done["seconds"])
    shown = time_to_verdict.table_row({"tool": "x", **done}, ours_s=done["seconds"])
    assert shown["times ours"] == "4.0 (projected)"
    assert "times ours" not in time_to_verdict.table_row({"tool": "x", **done}, ours_s=None)


def test_one_unit_or_two_are_never_enough() -> None:
    assert not time_to_verdict.is_narrow(ratio(1.0, 1.001, blocks=2), 0.02)
    assert time_to_verdict.is_narrow(ratio(1.0, 1.001, blocks=3), 0.02)
    one = stats.ratio_of([0.1])
    done = time_to_verdict.until_narrow(iter([one]), 0.02, 1e9)
    assert (done["reached"], done["projected_s"]) == (False, None)


@pytest.mark.usefixtures("scripted_backend")
def test_ours_looks_again_until_it_is_told_to_stop() -> None:
    pair = tools.Pair(a="scripted/slow", b="scripted/fine", case=CASE, mode="forward")
    looks = time_to_verdict.by_blocks(pair, 2)
    found = [next(looks), next(looks)]
    looks.close()
    assert [look.blocks for look in found] == [2, 4]
    assert found[1].ratio > 3
    assert found[1].confidence == stats.look_confidence()


REFERENCE = tools.Pair(a="reference/numpy", b="reference/numpy", case=CASE, mode="forward")


def test_sessions_of_pytest_benchmark_are_the_units(tmp_path: Path) -> None:
    sessions = tools.by_pytest_benchmark(REFERENCE, tmp_path)
    found = [next(sessions), next(sessions)]
    assert [session.blocks for session in found] == [1, 2]
    assert 0.2 < found[1].ratio < 5


def test_processes_of_pyperf_are_the_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyperf")
    monkeypatch.setattr(tools, "PROCESSES", 2)
    chunks = tools.by_pyperf(REFERENCE, tmp_path)
    found = [next(chunks), next(chunks)]
    assert [chunk.blocks for chunk in found] == [2, 4]
    assert 0.2 < found[1].ratio < 5


def test_a_rival_that_is_absent_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(SystemExit) as exit_:
        instrument.run_script(tools.check_installed)
    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("error: pyperf: not installed: pip install pyperf")


# Starting workers


@pytest.mark.usefixtures("scripted_backend")
def test_a_child_is_the_same_bit_by_bit_until_a_bit_differs(tmp_path: Path) -> None:
    expected = {"forward": tmp_path / "forward.npz", "train": tmp_path / "train.npz"}
    for mode, path in expected.items():
        elsewhere("compute", launch_cost.job_of("scripted/fine", mode), path)
    rows = launch_cost.repetition("scripted/fine", 0, expected, tmp_path)
    assert [row["start"] for row in rows] == ["fork", "spawn"]
    assert launch_cost.failures(rows) == []
    for row in rows:
        for cold in row["cold"].values():
            assert cold["identical"]
            assert cold["child_s"] > sum(cold["phases_s"].values()) > 0
        assert len(row["steady"]) >= 8
    ratio = launch_cost.steady_ratio(rows, "scripted/fine")
    assert ratio is not None
    assert ratio.blocks == 1

    exact = read_expected(expected["forward"])
    outputs = exact.output.outputs.copy()
    outputs.flat[7] = np.nextafter(outputs.flat[7], np.inf)
    other = replace(exact, output=replace(exact.output, outputs=outputs))
    write_expected(expected["forward"], other)
    with instrument.team(["scripted"], tmp_path) as team:
        job = launch_cost.job_of("scripted/fine", "forward")
        cold = launch_cost.cold(team, job, expected["forward"])
    assert cold["failure"] is None
    assert not cold["identical"]


def test_the_parts_of_a_cold_job_are_named(tmp_path: Path) -> None:
    path = tmp_path / "expected.npz"
    job = launch_cost.job_of("reference/numpy", "train")
    assert elsewhere("compute", job, path) == {}
    found = elsewhere("profile", job, path)
    assert found.keys() >= {"__init__", "check"}
    assert found.keys() & set(IN_PHASES) == set()
    assert list(found.values()) == sorted(found.values(), reverse=True)


# Overhead


def test_overhead_is_read_in_every_worker(tmp_path: Path) -> None:
    rows = overhead.readings("reference", 2, tmp_path)
    assert [row["worker"] for row in rows] == [0, 1]
    assert all(row["failure"] is None and row["call_s"] > 0 for row in rows)
    assert [line["workers"] for line in overhead.summary(rows)] == ["2"]


def test_overhead_beyond_the_goal_is_said_to_be() -> None:
    rows = [{"framework": "torch", "failure": None, "call_s": s} for s in (1e-7, 3e-6)]
    (line,) = overhead.summary(rows)
    assert line["within the goal"] == "no"
    assert line["0.5 % at a call of [us]"] == "600"


# Options


@pytest.mark.parametrize(
    ("names", "said"),
    [("torch/dynamc", "did you mean torch/dynamic"), ("", "unknown implementation ''")],
)
def test_an_unknown_implementation_is_refused(names: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        instrument.implementations(names)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "", "\u0663"])
def test_a_count_is_a_whole_number(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = instrument.options("", "x")
    parser.add_argument("--n", type=instrument.count)
    with pytest.raises(SystemExit) as exit_:
        parser.parse_args([f"--n={text}"])
    assert exit_.value.code == 2
    assert "must be a whole number of 1 or more" in capsys.readouterr().err


def test_what_becomes_faster_within_its_block_is_seen() -> None:
    """Every call is 10 % faster in the second half of its block: no ratio is."""

    def warms_up(record: Record) -> Record:
        samples = record.samples.get("steady", [])
        half = len(samples) // 2
        changed = [*samples[:half], *(0.9 * sample for sample in samples[half:])]
        return replace(record, samples={**record.samples, "steady": changed}) if samples else record

    run = synthetic.run(synthetic.sweep(blocks=3), change=warms_up)
    rows = warmup.summary(warmup.changes(groups_of(run, "run")[0]))
    calls = {row["framework"]: float(row["median"].rstrip("%")) for row in rows[:3]}
    ratios = [float(row["median"].rstrip("%")) for row in rows if row["of"] == "a ratio"]
    assert all(-11 < change < -9 for change in calls.values())
    assert ratios
    assert all(abs(change) < 1 for change in ratios)
