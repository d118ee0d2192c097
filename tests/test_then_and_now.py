"""Published figures: what a preset holds of them, what is refused, and the table beside a run."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends import IMPLEMENTATIONS, refusal
from bench import published, stats
from bench.errors import UsageError
from bench.preset import load_preset, preset_names, source_of
from bench.published import Pair, Source
from bench.record import Job, Record, Status
from bench.report import Report, build
from bench.report.then_and_now import said_of
from bench.sweep import Sweep
from tests import synthetic
from tests.reading import one, rows, shown, table, terminal
from tests.test_sweep_axes import VALID, toml

PUBLISHED = [name for name in preset_names() if source_of(name) is not None]


def source(preset: str) -> Source:
    found = source_of(preset)
    assert found is not None
    return found


def pair(preset: str, a: str, **figure: object) -> Pair:
    """The pair of an implementation; `figure` names attributes of its figure or of its case."""

    def fits(over: Any) -> bool:
        return all(getattr(over, k, getattr(over.case, k, None)) == v for k, v in figure.items())

    (found,) = (p for p in source(preset).pairs() if p.a.name == a and fits(p.over))
    return found


# --- the figures ----------------------------------------------------------------------------------


def test_these_presets_have_published_figures() -> None:
    assert [
        *("braun-bidirectional", "braun-ce-long", "braun-ce-short", "deepbench-train"),
        *("lample-128", "lample-32"),
    ] == PUBLISHED
    assert source_of("default") is None
    assert source_of("no such preset") is None
    assert source_of("../presets/lample-32") is None
    assert source_of("lample-32.toml") is None


@pytest.mark.parametrize("preset", PUBLISHED)
def test_what_runs_a_figure_today_exists_and_expresses_its_case(preset: str) -> None:
    sweep = load_preset(preset)
    for entry in source(preset).published:
        assert entry.figures
        if entry.implementation is None:
            assert entry.note
            continue
        assert entry.implementation in IMPLEMENTATIONS
        for figure in entry.figures:
            assert refusal(entry.implementation, figure.case, figure.mode) is None
            jobs = sweep.jobs("steady" if figure.quantity == "steady" else "cold")
            (job,) = (
                job
                for job in jobs
                if (job.implementation, job.case, job.mode, job.replica)
                == (entry.implementation, figure.case, figure.mode, 0)
            )
            assert sweep.runs(job), "capped"


@pytest.mark.parametrize("preset", PUBLISHED)
def test_the_source_is_named_and_what_differs_is_said(preset: str) -> None:
    found = source(preset)
    assert found.url.startswith("https://")
    assert 2014 < found.year < 2026
    assert len(found.differs) >= 4
    assert found.name in load_preset(preset).title


@pytest.mark.parametrize("preset", PUBLISHED)
def test_there_are_twins_for_every_verdict(preset: str) -> None:
    """Without one of each framework nothing could be said across frameworks."""
    sweep = load_preset(preset)
    twins = {(twin.backend, twin.mode) for twin in sweep.twins("steady")}
    wanted = {(e.backend, mode) for e in sweep.implementations() for mode in sweep.modes()}
    assert len(twins) > 0
    assert twins <= wanted


# By hand, from the tables as they were published.
@pytest.mark.parametrize(
    ("preset", "a", "figure", "ratio"),
    [
        ("braun-ce-short", "PyTorch cuDNNLSTM", {}, 0.23404),  # 11 / 47 ms
        ("braun-ce-short", "TensorFlow LSTMBlockFusedCell", {}, 0.34043),  # 16 / 47
        ("braun-ce-long", "TensorFlow LSTMBlockCell, dynamic_rnn", {}, 0.89648),  # 433 / 483
        ("braun-bidirectional", "TensorFlow cuDNNLSTM", {}, 0.14313),  # 528 / 3689
        # 289.6 / 820.0 us, 0.03 / 3.91 s, 112.4 / 238.1 us
        (
            "lample-32",
            "Theano scan",
            {"hidden": 128, "mode": "train", "quantity": "steady"},
            0.35317,
        ),
        ("lample-32", "Torch7", {"hidden": 128, "quantity": "setup"}, 0.0076726),
        ("lample-128", "Torch7", {"hidden": 1024, "mode": "forward"}, 0.47207),
        # (1.10 + 0.94 + 0.17) / 1.10 and (6.70 + 5.80 + 0.61) / 6.70 ms
        ("deepbench-train", "cuDNN LSTM", {"hidden": 512}, 2.00909),
        ("deepbench-train", "cuDNN LSTM", {"hidden": 256, "seq_len": 150}, 1.95672),
    ],
)
def test_published_ratios(preset: str, a: str, figure: dict[str, object], ratio: float) -> None:
    assert pair(preset, a, **figure).ratio == pytest.approx(ratio, rel=2e-5)


def test_everything_is_held_against_the_baseline_alone() -> None:
    found = source("lample-32").pairs()
    assert {p.b.implementation for p in found} == {"tensorflow/static"}
    # Two libraries at three sizes in two modes, and the setup of both.
    assert len(found) == 2 * 3 * (2 + 1)
    modes = source("deepbench-train").pairs()
    assert {(p.over.mode, p.under.mode, p.a.name == p.b.name) for p in modes} == {
        ("train", "forward", True)
    }


# --- what is refused ------------------------------------------------------------------------------

FIGURE: Mapping[str, Any] = {
    "mode": "train",
    "quantity": "steady",
    "value": 2,
    "unit": "ms",
    "cell": "lstm",
    "seq_len": 5,
}
SOURCE: Mapping[str, Any] = {
    "name": "Somebody 2017",
    "title": "A table",
    "url": "https://example.org",
    "year": 2017,
    "hardware": "a GPU",
    "software": "JAX 0",
    "differs": ["all of it"],
    "baseline": "scan",
}


def document() -> dict[str, Any]:
    """A preset with two implementations, each with one figure."""
    return {
        **copy.deepcopy({name: dict(entries) for name, entries in VALID.items()}),
        "source": dict(SOURCE),
        "published": [
            {"name": "loop", "implementation": "jax/static", "figures": [dict(FIGURE)]},
            {"name": "scan", "implementation": "jax/dynamic", "figures": [dict(FIGURE)]},
        ],
    }


def write(path: Path, data: Mapping[str, Any]) -> str:
    lists = {"published": "[" + ", ".join(map(toml, data["published"])) + "]"}
    text = "".join(f"{json.dumps(k)} = {lists.get(k) or toml(v)}\n" for k, v in data.items())
    path.write_text(text)
    return str(path)


def test_the_helper_writes_what_the_loader_reads(tmp_path: Path) -> None:
    assert load_preset(write(tmp_path / "mine.toml", document())).axes.hidden == (32,)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("source",), {}, r"\[source\] lacks name"),
        (("source", "year"), "2017", r"\[source\], year is '2017', must be a whole number"),
        (("source", "colour"), "red", r"unknown key in \[source\] 'colour'.*allowed: name"),
        (("source", "differs"), "all", "differs is 'all', must be a list"),
        (("source", "differs"), ["x" * 300], "differs is 'x.*must be printable text of 1 to 200"),
        (("source", "baseline"), "scam", r"unknown baseline of \[source\] 'scam' \(did you mean"),
        (("source", "baseline_mode"), "train", "must have one of baseline, baseline_mode"),
        (("published",), [1], r"\[\[published\]\] is 1, must be an object"),
        (("published", 0, "name"), "", "name is '', must be printable text"),
        (("published", 0, "name"), "scan", "published scan: is there 2 times"),
        (
            ("published", 0, "implementation"),
            "jax/statik",
            "unknown implementation of published loop 'jax/statik'.*did you mean jax/static",
        ),
        (("published", 0, "implementation"), "torch/fused", "allowed: jax/static, jax/dynamic"),
        (("published", 0, "implementation"), "jax/dynamic", "is the baseline's, must be another"),
        (("published", 0, "descends"), 1, "descends is 1, must be true or false"),
        (("published", 0, "descends"), True, "published loop: lacks a note"),
        (("published", 0, "figures"), [], "published loop: has no figures"),
        (("published", 0, "figures"), [FIGURE] * 2, "has 2 figures of train steady of one case"),
        (("published", 0, "figures", 0, "mode"), "test", "mode is 'test', must be one of forward"),
        (
            ("published", 0, "figures", 0, "quantity"),
            "speed",
            "quantity is 'speed', must be one of steady, setup",
        ),
        (("published", 0, "figures", 0, "unit"), "h", "unit is 'h', must be one of s, ms, us"),
        (("published", 0, "figures", 0, "unit"), "s", "unit 's' of train steady: must be .*'ms'"),
        (("published", 0, "figures", 0, "value"), 0, "value is 0, must be finite and above 0"),
        (("published", 0, "figures", 0, "value"), "NaN", "value is 'NaN', must be finite"),
        (("published", 0, "figures", 0, "value"), [], r"value is \[\], must be finite"),
        (("published", 0, "figures", 0, "value"), [1, -1], r"value is \[1, -1\], must be finite"),
        (("published", 0, "figures", 0, "value"), True, "value is True, must be a number"),
        (("published", 0, "figures", 0, "seq_len"), 7, "seq_len=7 selects 0 of the preset's 4"),
        (("published", 0, "figures", 0, "seq_len"), 5.0, "seq_len=5.0 selects 0"),
        (("published", 0, "figures", 0, "batch"), True, "batch=True, seq_len=5 selects 0"),
        (("published", 0, "figures", 0, "device"), "cpu", "unknown key in .* 'device'"),
        (("published", 0, "figures", 0, "mode"), "forward", "loop: forward steady 2 has no basel"),
        (("published", 0, "figures", 0, "cell"), "gru", "has no baseline; scan must have a figure"),
    ],
)
def test_what_is_no_figure_is_refused_in_a_line(
    tmp_path: Path, place: tuple[str | int, ...], value: object, said: str
) -> None:
    data = document()
    inner: Any = data
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    with pytest.raises(UsageError, match=said) as refused:
        load_preset(write(tmp_path / "mine.toml", data))
    assert "\n" not in str(refused.value)


def test_a_selector_must_leave_one_case(tmp_path: Path) -> None:
    data = document()
    del data["published"][0]["figures"][0]["seq_len"]
    with pytest.raises(UsageError, match="cell='lstm' selects 2 of the preset's 4 cases, must be"):
        load_preset(write(tmp_path / "mine.toml", data))


def test_who_has_no_counterpart_says_why_and_is_no_baseline(tmp_path: Path) -> None:
    data = document()
    del data["published"][1]["implementation"]
    with pytest.raises(UsageError, match="published scan: lacks a note"):
        load_preset(write(tmp_path / "mine.toml", data))
    data["published"][1]["note"] = "gone"
    with pytest.raises(UsageError, match=r"unknown baseline of \[source\] 'scan'.*allowed: loop"):
        load_preset(write(tmp_path / "mine.toml", data))


def test_a_setup_needs_cold_blocks(tmp_path: Path) -> None:
    data = document()
    data["sampling"]["cold_blocks"] = 0
    data["published"][0]["figures"][0]["quantity"] = "setup"
    with pytest.raises(UsageError, match="'setup' needs cold_blocks of 1 or more"):
        load_preset(write(tmp_path / "mine.toml", data))


@pytest.mark.parametrize("lacking", ["source", "published"])
def test_neither_is_there_without_the_other(tmp_path: Path, lacking: str) -> None:
    data = {**document(), lacking: {}}
    path = tmp_path / "mine.toml"
    write(path, {"published": [], **data} if lacking == "source" else {**data, "published": []})
    with pytest.raises(UsageError):
        load_preset(str(path))


# --- in words -------------------------------------------------------------------------------------


def ratio(low: float, high: float) -> stats.Ratio:
    return stats.Ratio(ratio=(low * high) ** 0.5, low=low, high=high, blocks=5)


@pytest.mark.parametrize(
    ("then", "now", "said"),
    [
        (0.5, ratio(0.45, 0.55), "as published"),
        (0.5, ratio(0.3, 0.4), "same order"),
        (0.5, ratio(0.6, 0.7), "same order"),
        (0.5, ratio(1.2, 1.3), "order reversed"),
        (2.0, ratio(0.7, 0.8), "order reversed"),
        (2.0, ratio(2.5, 3.0), "same order"),
        (0.5, ratio(0.98, 1.02), "equivalent now"),
        # It was ahead, and nobody is now, as far as one can tell.
        (0.5, ratio(0.8, 1.2), "order open now"),
        (2.0, ratio(0.8, 1.2), "order open now"),
        # There was no order to lose.
        (1.04, ratio(0.8, 1.03), "cannot tell"),
        # A difference of 0.3 % that has no interval is no order.
        (1.003, ratio(0.7, 0.8), "apart now"),
        (0.98, ratio(0.7, 0.8), "apart now"),
        (0.5, replace(ratio(0.5, 0.5), low=float("nan"), high=float("nan")), "cannot tell"),
        (0.5, None, "cannot tell"),
    ],
)
def test_words(then: float, now: stats.Ratio | None, said: str) -> None:
    assert said_of(then, now, stats.UNMEASURED) == said
    for floor in (stats.Floor(failed=True), stats.Floor(missing=True)):
        assert said_of(then, now, floor) == "cannot tell"


@pytest.mark.parametrize(
    ("then", "now", "said"),
    [
        ((0.4, 0.5), ratio(0.43, 0.6), "as published"),
        ((0.4, 0.5), ratio(0.47, 0.49), "as published"),
        ((0.4, 0.5), ratio(0.47, 0.6), "cannot tell"),
        ((0.4, 0.5), ratio(0.499, 0.6), "cannot tell"),
        ((0.4, 0.5), ratio(0.52, 0.6), "same order"),
        ((0.4, 0.5), ratio(0.8, 1.2), "order open now"),
        ((0.92, 0.96), ratio(0.99, 1.03), "equivalent now"),
        # At one end of what was rounded there was an order, at the other there was none.
        ((0.92, 0.96), ratio(0.98, 1.1), "cannot tell"),
        ((0.92, 0.96), ratio(1.2, 1.3), "cannot tell"),
        ((0.9, 1.1), ratio(1.2, 1.3), "cannot tell"),
        ((0.97, 1.03), ratio(1.2, 1.3), "apart now"),
    ],
)
def test_a_word_holds_for_all_that_a_figure_was_rounded_from(
    then: tuple[float, float], now: stats.Ratio, said: str
) -> None:
    middle = (then[0] * then[1]) ** 0.5
    assert said_of(middle, now, stats.UNMEASURED, then) == said
    turned = stats.Ratio(ratio=1 / now.ratio, low=1 / now.high, high=1 / now.low, blocks=5)
    assert said_of(1 / middle, turned, stats.UNMEASURED, (1 / then[1], 1 / then[0])) == said


@pytest.mark.parametrize(
    ("preset", "a", "figure", "least", "most"),
    [
        # 44 over 47 ms.
        ("braun-ce-short", "TensorFlow LSTMBlockCell, dynamic_rnn", {}, 43.5 / 47.5, 44.5 / 46.5),
        # 0.03 over 3.91 s.
        ("lample-32", "Torch7", {"quantity": "setup", "hidden": 128}, 0.025 / 3.915, 0.035 / 3.905),
        # 1.10 (read as 1.1) + 0.94 + 0.17 over 1.10 ms.
        ("deepbench-train", "cuDNN LSTM", {"hidden": 512}, 2.15 / 1.15, 2.27 / 1.05),
    ],
)
def test_what_figures_may_have_been_rounded_from(
    preset: str, a: str, figure: dict[str, object], least: float, most: float
) -> None:
    assert pair(preset, a, **figure).bounds == pytest.approx((least, most))


@given(numbers=st.lists(st.integers(1, 10**6) | st.floats(1e-6, 1e6), min_size=1, max_size=3))
def test_what_a_figure_may_have_been_is_above_nothing(numbers: list[float]) -> None:
    value, rounding = published._value(numbers, "value")
    assert value == sum(numbers)
    assert 0 < rounding <= value / 2


@pytest.mark.parametrize(("bound", "said"), [(0.2, "order open now"), (0.4, "cannot tell")])
def test_a_change_below_the_floor_is_none(bound: float, said: str) -> None:
    floor = stats.Floor(value=bound, bound=bound)
    assert said_of(1.4, ratio(1.02, 1.1), floor) == said


# --- the table ------------------------------------------------------------------------------------

BASE = 100e-6

#: Steady times over those of the baseline, so that every word comes up.
BRAUN: Mapping[str, float] = {
    "tensorflow/dynamic": 1.0,
    "tensorflow/dynamic-block": 1.0,
    "tensorflow/fused": 0.5 * 16 / 47,
    "torch/fused": 11 / 47,
    "torch/dynamic": 1.5,
}
LAMPLE: Mapping[str, float] = {
    "tensorflow/static": 1.0,
    "tensorflow/dynamic": 1.1,
    "torch/dynamic": 0.3,
    "jax/dynamic": 1.4,
}


@pytest.fixture(name="times", params=[BRAUN])
def _times(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    times = {name: BASE * by for name, by in request.param.items()}
    monkeypatch.setattr(synthetic, "STEP_S", {**synthetic.STEP_S, **times})
    tensorflow = {"tensorflow/static": (2.0, 0.0), "tensorflow/dynamic": (0.3, 0.0)}
    monkeypatch.setattr(synthetic, "FIRST_S", {**synthetic.FIRST_S, **tensorflow})


def plan(preset: str, blocks: int = 10, **axes: tuple[object, ...]) -> Sweep:
    sweep = load_preset(preset)
    return replace(
        sweep, axes=replace(sweep.axes, **axes), sampling=replace(sweep.sampling, blocks=blocks)
    )


def braun(change: synthetic.Change = lambda record: record, **options: Any) -> Report:
    return build([synthetic.run(plan("braun-ce-short", **options), change=change)])


def said(report: Report, **where: object) -> str:
    return str(one(rows(report, "then-and-now", **where))["said"])


@pytest.mark.usefixtures("times")
def test_braun_then_and_now() -> None:
    report = braun()
    found = rows(report, "then-and-now")
    assert list(found["said"]) == [
        *("no counterpart", "as published", "same order", "no counterpart"),
        *("order reversed", "equivalent now"),
    ]
    row = one(found[found["a"] == "TensorFlow LSTMBlockFusedCell"])
    assert (row["implementation"], row["against"]) == ("tensorflow/fused", "tensorflow/dynamic")
    assert row["then"] == pytest.approx(16 / 47)
    assert row["now"] == pytest.approx(8 / 47, rel=0.01)
    assert row["now_low"] < 8 / 47 < row["now_high"]
    assert row["now_blocks"] == 10
    assert row["change"] == pytest.approx(0.5, rel=0.01)
    assert row["change_low"] == pytest.approx(row["now_low"] / row["then"])
    assert not row["includes_published"]


@pytest.mark.usefixtures("times")
def test_what_is_read_says_source_mapping_and_differences() -> None:
    report = braun()
    caption = table(report, "then-and-now").caption
    for text in ("arxiv.org/abs/1806.01818", "GTX 1080", "Adam", "cross-entropy", "95 %"):
        assert text in caption
    shown_row = one(shown(report, "then-and-now", a="TensorFlow cuDNNLSTM"))
    assert shown_row["then"] == "0.21"
    assert (shown_row["now"], shown_row["change"]) == ("-", "-")
    assert shown_row["status"].startswith("no counterpart [")
    assert any(note.startswith("TensorFlow cuDNNLSTM: cuDNN is") for note in report.footnotes)
    basic = one(shown(report, "then-and-now", a="PyTorch LSTMCell-basic"))
    assert basic["today"] == "torch/dynamic / tensorflow/dynamic"
    assert basic["status"].startswith("descendant [")
    fused = one(shown(report, "then-and-now", a="TensorFlow LSTMBlockCell, dynamic_rnn"))
    assert fused["status"] == "ok"
    assert "Then and now" in terminal(report)


@pytest.mark.usefixtures("times")
def test_where_the_floor_across_frameworks_fails_one_cannot_tell() -> None:
    def second(record: Record) -> Record:
        if not record.job.replica or record.job.backend != "tensorflow":
            return record
        return replace(record, samples={"steady": [1.3 * s for s in record.samples["steady"]]})

    report = braun(second)
    assert said(report, a="PyTorch cuDNNLSTM") == "cannot tell"
    assert said(report, a="PyTorch LSTMCell-basic") == "cannot tell"
    assert said(report, a="TensorFlow LSTMBlockFusedCell") == "cannot tell"


@pytest.mark.usefixtures("times")
def test_one_block_tells_nothing() -> None:
    found = rows(braun(blocks=1), "then-and-now")
    assert set(found["said"]) == {"cannot tell", "no counterpart"}


@pytest.mark.usefixtures("times")
def test_what_failed_or_was_not_asked_for_has_no_ratio() -> None:
    crash = synthetic.only("tensorflow/fused", synthetic.ends(Status.CRASHED, "SIGSEGV"))
    row = one(shown(braun(crash), "then-and-now", a="TensorFlow LSTMBlockFusedCell"))
    assert (row["now"], row["today it is"]) == ("-", "cannot tell")
    assert "tensorflow/fused crashed [" in row["status"]
    narrow = braun(backend=("tensorflow",))
    row = one(shown(narrow, "then-and-now", a="PyTorch cuDNNLSTM"))
    assert (row["now"], row["today it is"]) == ("-", "cannot tell")
    assert "torch/fused not in this run" in row["status"]


@pytest.mark.usefixtures("times")
def test_other_cases_and_other_sweeps_have_no_such_table() -> None:
    def names(sweep: Sweep) -> list[str]:
        return [found.name for found in build([synthetic.run(sweep)]).tables]

    assert "then-and-now" in names(plan("braun-ce-short", blocks=2))
    assert "then-and-now" not in names(plan("braun-ce-short", blocks=2, hidden=(64,)))
    assert "then-and-now" not in names(synthetic.sweep(blocks=2))
    other = replace(plan("braun-ce-short", blocks=2), name="mine")
    assert "then-and-now" not in names(other)


@pytest.mark.usefixtures("times")
def test_another_device_is_compared_too() -> None:
    """The source's was another machine's anyway."""
    report = build([synthetic.run(plan("braun-ce-short", device=("gpu",)))])
    assert said(report, a="PyTorch cuDNNLSTM") == "as published"


@pytest.mark.parametrize("times", [LAMPLE], indirect=True)
@pytest.mark.usefixtures("times")
def test_lample_across_three_frameworks_and_the_setup() -> None:
    report = build([synthetic.run(plan("lample-32"))])
    found = rows(report, "then-and-now")
    assert len(found) == 18
    assert set(found["against"]) == {"tensorflow/static"}
    scan = found[found["a"] == "Theano scan"]
    assert set(scan["implementation"]) == {"jax/dynamic"}
    assert set(scan[scan["quantity"] == "steady"]["said"]) == {"order reversed"}
    setup = found[(found["quantity"] == "setup") & (found["a"] == "Torch7")]
    assert list(setup["hidden"]) == [128, 512, 1024]
    assert list(setup["mode"]) == ["train"] * 3
    assert set(setup["now_blocks"]) == {load_preset("lample-32").sampling.cold_blocks}
    assert list(setup["now"]) == pytest.approx([0.01] * 3, rel=0.02)
    small = one(setup[setup["hidden"] == 128])
    label = one(shown(report, "then-and-now", a="Torch7", quantity="setup", hidden=128))["a / b"]
    assert label == "Torch7 / TensorFlow static_rnn, setup"
    assert small["then"] == pytest.approx(0.03 / 3.91)
    assert (small["a_published"], small["b_published"], small["unit"]) == (0.03, 3.91, "s")


def test_deepbench_is_a_ratio_of_two_modes_and_unpaired() -> None:
    run = synthetic.run(plan("deepbench-train"))
    report = build([run])
    found = rows(report, "then-and-now")
    assert set(found["mode"]) == {"train"}
    assert set(found["against_mode"]) == {"forward"}
    row = one(found[found["hidden"] == 512])
    assert row["then"] == pytest.approx(2.21 / 1.10)
    medians: dict[str, list[float]] = {"train": [], "forward": []}
    for record in run.records:
        job = record.job
        if job.implementation == "torch/fused" and job.case.hidden == 512 and not job.replica:
            middle = sorted(record.samples["steady"])
            medians[job.mode].append((middle[19] + middle[20]) / 2)
    expected = stats.unpaired_ratio(medians["train"], medians["forward"])
    assert row["now"] == pytest.approx(expected.ratio)
    assert (row["now_low"], row["now_high"]) == pytest.approx((expected.low, expected.high))
    assert row["said"] == "same order"
    shown_row = one(shown(report, "then-and-now", hidden=512))
    assert shown_row["a / b"] == "cuDNN LSTM, train / forward"
    assert shown_row["today"] == "torch/fused"


def without(preset: str, is_gone: Callable[[Job], bool]) -> Report:
    run = synthetic.run(plan(preset))
    return build([replace(run, records=[r for r in run.records if not is_gone(r.job)])])


@pytest.mark.parametrize("times", [LAMPLE], indirect=True)
@pytest.mark.usefixtures("times")
def test_setups_of_two_frameworks_need_identical_pairs() -> None:
    report = without("lample-32", lambda job: job.measure == "cold" and job.replica > 0)
    setups = rows(report, "then-and-now", quantity="setup")
    assert set(setups["said"]) == {"cannot tell"}


def test_two_modes_need_identical_pairs() -> None:
    """How far two processes differ is not known without them."""
    assert set(rows(without("deepbench-train", lambda _: False), "then-and-now")["said"]) == {
        "same order"
    }
    report = without("deepbench-train", lambda job: job.replica > 0)
    assert set(rows(report, "then-and-now")["said"]) == {"cannot tell"}


def test_deepbench_without_the_other_mode_has_no_ratio() -> None:
    report = build([synthetic.run(plan("deepbench-train", blocks=2, mode=("train",)))])
    assert set(rows(report, "then-and-now")["said"]) == {"cannot tell"}
    assert set(rows(report, "then-and-now")["now_blocks"]) == {0}


@pytest.mark.usefixtures("times")
def test_two_runs_stand_side_by_side() -> None:
    first, second = (synthetic.run(plan("braun-ce-short"), seed=n, id=f"run{n}") for n in (1, 2))
    found = table(build([first, second]), "then-and-now")
    assert len(found.frame) == 2 * 6
    assert found.caption.count("arxiv.org") == 1
