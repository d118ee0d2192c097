"""What implementations do: each experiment against the oracle, a planted lie, and frameworks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backends
from backends.api import Case, Mode, Native
from backends.data import make_weights
from backends.reference.network import forward
from backends.stack import parameters
from bench import plan, report, selection
from bench.behaviour import LONGEST_SAID, observe
from bench.belief import doubt
from bench.decay import PULL, SEEDS, by_distance, decay, one_hot
from bench.errors import UsageError
from bench.outputs import probe_gradients
from bench.preset import load_preset
from bench.record import Job, Record, Status
from bench.run import failed
from bench.sampling import Sampling
from tests import faulty
from tests import planted_behaviours as planted
from tests.conftest import _backend  # one of each framework a process
from tests.planted_behaviours import subject_of
from tests.scripted_runs import execute, missing, of, sweep
from tests.support import on

FULL = Case(cell="lstm", seq_len=4, batch=3, inputs=3, hidden=5, dtype="float64")
RAGGED = replace(FULL, lengths="ragged", seed=3)
BOTH = replace(FULL, direction="bidirectional")
NO_TWINS = Sampling(
    blocks=0, cold_blocks=0, memory_blocks=0, behaviour_blocks=1, steady_s=0.1, warmup_s=0.1
)


def seen(case: Case, runner: Any = planted.OracleRunner, **options: Any) -> dict[str, float]:
    return dict(observe(subject_of(case, runner, **options)).values)


# --- experiments ----------------------------------------------------------------------------------


def test_the_oracle_does_what_it_should() -> None:
    found = seen(FULL)
    assert found.pop("last_output_cell_error") > 0.01
    assert found == {
        "parameters": parameters(FULL),
        "weight_sets": 1,
        "repeat_largest": 0,
        "last_output_error": 0,
        "longer_refused": 0,
        "longer_error": 0,
    }


def test_the_oracle_holds_the_state_and_without_lengths_does_not() -> None:
    found = seen(RAGGED)
    assert found["padding_largest"] == found["held_error"] == found["last_output_error"] == 0
    assert found["unlengthed_output_error"] == 0
    assert found["unlengthed_state_error"] > 0.01


def test_of_both_ways_each_output_ends_with_its_own_state() -> None:
    for case in (BOTH, replace(BOTH, lengths="ragged", seed=3)):
        found = seen(case)
        assert (found["output_count"], found["state_count"], found["weight_sets"]) == (2, 2, 2)
        assert found["forward_end_error"] == found["backward_end_error"] == 0
        assert found["backward_last_difference"] > 0.01
        assert "last_output_error" not in found
    assert "output_count" not in seen(replace(BOTH, layers=2))
    assert "output_count" not in seen(replace(BOTH, direction="two-stacks"))


@pytest.mark.parametrize(
    "cell", ["residual-lstm", "dropout-lstm", "attention-gru", "time-freq", "grid"]
)
def test_what_puts_out_something_else_than_its_state_is_not_asked(cell: str) -> None:
    found = seen(replace(FULL, cell=cell, inputs=4, hidden=4))
    assert not {"last_output_error", "last_output_cell_error"} & found.keys()


def test_a_cell_as_wide_as_its_projection_alone_has_a_cell_to_compare() -> None:
    found = seen(replace(FULL, cell="lstm-projection"))
    assert found["last_output_error"] == 0
    assert "last_output_cell_error" not in found
    assert "last_output_cell_error" not in seen(replace(FULL, cell="gru"))


@pytest.mark.parametrize(
    ("case", "runner", "name", "least"),
    [
        (FULL, planted.Drifts, "repeat_largest", 0.25),
        (FULL, planted.OtherLast, "last_output_error", 0.49),
        (RAGGED, planted.OtherLast, "padding_largest", 0.49),
        (RAGGED, faulty.RepeatedOutput, "padding_largest", 0.01),
        (RAGGED, faulty.PaddedState, "held_error", 0.01),
        (RAGGED, faulty.PaddedState, "last_output_error", 0.01),
        (RAGGED, planted.OtherLast, "unlengthed_output_error", 0.49),
        (BOTH, planted.Swapped, "forward_end_error", 0.01),
        (BOTH, planted.Swapped, "backward_end_error", 0.01),
        (FULL, planted.FirstSteps, "longer_error", math.inf),
        (FULL, planted.FromOtherBatch, "longer_error", 0.01),
    ],
)
def test_a_lie_is_found(case: Case, runner: Any, name: str, least: float) -> None:
    assert seen(case, runner)[name] >= least


def test_of_another_shape_nothing_more_is_asked() -> None:
    assert seen(FULL, planted.TimeFirst).keys() == {"parameters", "weight_sets"}


def test_which_gru_it_is() -> None:
    before, after = replace(FULL, cell="gru"), replace(FULL, cell="gru-reset-after")
    assert seen(before)["other_gru_error"] > 0.01
    assert seen(after)["other_gru_error"] > 0.01
    assert seen(before, planted.ResetAfter)["other_gru_error"] == 0
    assert "other_gru_error" not in seen(replace(FULL, cell="gru-relu"))


@pytest.mark.parametrize(
    ("runner", "says"),
    [(planted.OneTime, "RuntimeError: in the loop: ... 4 steps, got 5!!"),
     (planted.RefusesFeed, "ValueError")],
)  # fmt: skip
def test_who_refuses_says_so(runner: Any, says: str) -> None:
    found = observe(subject_of(FULL, runner))
    assert found.values["longer_refused"] == 1
    assert "longer_error" not in found.values
    assert found.told["longer"].startswith(says)
    assert len(found.told["longer"]) < LONGEST_SAID + 50


def test_too_little_memory_is_no_refusal() -> None:
    with pytest.raises(MemoryError):
        observe(subject_of(FULL, planted.OutOfMemory))


def test_the_order_of_gates_is_asked_of_who_has_one() -> None:
    truth = forward(FULL, make_weights(FULL), subject_of(FULL).batch).outputs
    native = Native(own_order=truth + 1e-9, other_order=truth + 1, moved_bias=truth)
    found = seen(FULL, native=native)
    assert found["gate_order_error"] == pytest.approx(1e-9)
    assert found["other_order_error"] == pytest.approx(1)
    assert found["moved_bias_difference"] == pytest.approx(1e-9)
    one_bias = seen(FULL, native=replace(native, moved_bias=None))
    assert "moved_bias_difference" not in one_bias
    assert "dropped_digest" not in found
    dropped = truth.astype(np.float32)
    digest = seen(FULL, native=replace(native, dropped=dropped))["dropped_digest"]
    assert digest == seen(FULL, native=replace(native, dropped=dropped.copy()))["dropped_digest"]
    dropped[-1, -1, -1] = np.nextafter(dropped[-1, -1, -1], np.float32(2))
    other = seen(FULL, native=replace(native, dropped=dropped))["dropped_digest"]
    assert 0 <= other < 2**48
    assert other.is_integer()
    assert other != digest


# --- gradients ------------------------------------------------------------------------------------

STEPS = replace(FULL, seq_len=6, hidden=3)


@pytest.mark.parametrize(
    "cell", ["rnn", "gru", "gru-reset-after", "lstm", "lstm-peephole", "coupled-layer-norm"]
)
def test_the_norms_are_of_the_last_output_by_each_input(cell: str) -> None:
    """Against central differences of v . y_T, in both layers of two."""
    case = replace(STEPS, cell=cell, inputs=6, batch=1, layers=2)
    weights = make_weights(case)
    batch = one_hot(case, weights)
    subject = subject_of(case, mode="train")
    norms = by_distance(weights, probe_gradients(subject.runner, weights, batch)[1])
    assert list(norms) == [1, 2, 4, 5]
    given = forward(case, weights, batch).outputs[0, -1]
    v = (given - batch.targets[0, -1]) / PULL
    assert np.linalg.norm(v) == pytest.approx(1)
    for distance, norm in norms.items():
        t = case.seq_len - 1 - distance
        slope = []
        for i in range(case.inputs):
            ends = []
            for step in (1e-5, -1e-5):
                x = batch.x.copy()
                x[0, t, i] += step
                ends.append(forward(case, weights, replace(batch, x=x)).outputs[0, -1] @ v)
            slope.append((ends[0] - ends[1]) / 2e-5)
        assert norm == pytest.approx(float(np.linalg.norm(slope)), rel=1e-5)


def test_the_values_of_an_lstm_are_by_forget_bias_seed_and_distance() -> None:
    found = decay(subject_of(replace(STEPS, dtype="float32"), mode="train"))
    assert found.pop("gradient_norm_error") == 0
    assert set(found) == {
        f"gradient_norm/b{bias}/s{seed}/d{distance}"
        for bias in (0, 1, 3)
        for seed in range(SEEDS)
        for distance in (1, 2, 4, 5)
    }
    assert all(norm > 0 for norm in found.values())
    middle = [
        np.median([found[f"gradient_norm/b{bias}/s{seed}/d5"] for seed in range(SEEDS)])
        for bias in (0, 1, 3)
    ]
    assert middle == sorted(middle)


def test_cells_without_a_forget_bias_have_none_and_others_no_norms() -> None:
    found = decay(subject_of(replace(STEPS, cell="gru"), mode="train"))
    assert len(found) == SEEDS * 4 + 1
    assert "gradient_norm/b-/s9/d4" in found
    for other in (
        replace(STEPS, direction="bidirectional"),
        replace(STEPS, cell="time-freq", inputs=4),
        replace(STEPS, cell="residual-gru", inputs=3),
        replace(STEPS, cell="lstm-shared", inputs=3, layers=2),
        replace(STEPS, seq_len=1),
    ):
        assert decay(subject_of(other, mode="train")) == {}
    assert decay(subject_of(replace(STEPS, cell="lstm-shared", inputs=3), mode="train"))


@pytest.mark.parametrize(
    ("runner", "least", "most"),
    [(faulty.NoUpdate, 1, 1), (faulty.DoubleUpdate, 1, 1), (planted.Truncated, 0.99, 1)],
)
def test_gradients_that_are_wrong_are_seen_to_be(runner: Any, least: float, most: float) -> None:
    case = replace(STEPS, cell="gru")
    found = decay(subject_of(case, runner, mode="train"))
    assert least <= found["gradient_norm_error"] <= most
    right = decay(subject_of(case, mode="train"))
    if runner is planted.Truncated:
        assert found["gradient_norm/b-/s0/d1"] == pytest.approx(right["gradient_norm/b-/s0/d1"])
        assert found["gradient_norm/b-/s0/d4"] == 0


def test_in_training_weights_are_counted_too() -> None:
    found = observe(subject_of(replace(STEPS, cell="gru"), mode="train")).values
    assert found["parameters"] == parameters(replace(STEPS, cell="gru"))
    assert "longer_refused" not in found


# --- runs -----------------------------------------------------------------------------------------

ALONE: dict[str, Any] = {"blocks": 0, "cold_blocks": 0, "memory_blocks": 0, "behaviour_blocks": 1}


@pytest.mark.usefixtures("scripted_backend")
@pytest.mark.parametrize("mode", ["forward", "train"])
def test_a_run_of_behaviours_alone(tmp_path: Path, mode: str) -> None:
    wanted = sweep("fine", "one-time", mode=mode, **ALONE)
    result = execute(tmp_path, wanted)
    assert missing(wanted, result) == []
    assert len(result.records) == 2
    assert {record.status for record in result.records} == {Status.OK}
    assert all(doubt(record) is None for record in result.records)
    fine, other = (of(result, name, "behaviour")[0] for name in ("fine", "one-time"))
    assert fine.values["parameters"] == parameters(fine.job.case)
    assert fine.samples == {}
    assert fine.worker["pid"] != other.worker["pid"]
    if mode == "forward":
        assert (fine.values["longer_refused"], other.values["longer_refused"]) == (0, 1)
        assert other.worker["longer"] == "ValueError: 3 steps, got 4"
        assert "longer" not in fine.worker
    else:
        assert fine.values["gradient_norm_error"] == 0
    built = report.build([result])
    assert built.runs[0].facts["jobs"] == "2 ok"
    assert built.runs[0].facts["blocks"] == "1 of 1 behaviour"
    assert not any("preliminary" in text for text in built.runs[0].warnings)


@pytest.mark.usefixtures("scripted_backend")
def test_failures_are_recorded_as_any_and_a_wrong_one_says_what_it_does(tmp_path: Path) -> None:
    names = ("fine", "wrong", "raises", "segv", "unsupported", "other-shape")
    wanted = sweep(*names, **ALONE)
    result = execute(tmp_path, wanted)
    assert missing(wanted, result) == []
    ends = {name: of(result, name, "behaviour")[0] for name in names}
    assert [str(ends[name].status) for name in names] == [
        *("ok", "wrong output", "crashed", "crashed", "unsupported", "wrong output"),
    ]
    assert ends["wrong"].values["last_output_error"] == pytest.approx(0.5)
    assert "scripted failure" in ends["raises"].reason
    assert len({record.job for record in failed(result)}) == 4


@pytest.mark.usefixtures("scripted_backend")
def test_behaviours_beside_the_others_have_no_twins_and_follow_failures(tmp_path: Path) -> None:
    wanted = sweep("fine", "nan", blocks=1, behaviour_blocks=1)
    result = execute(tmp_path, wanted)
    assert missing(wanted, result) == []
    behaviours = [r for r in result.records if r.job.measure == "behaviour"]
    assert [record.job.replica for record in behaviours] == [0, 0]
    assert of(result, "nan", "behaviour")[0].status == Status.NAN
    assert of(result, "nan", "behaviour")[0].values == {}


@pytest.mark.usefixtures("scripted_backend")
def test_a_run_of_cold_phases_alone(tmp_path: Path) -> None:
    wanted = sweep("fine", "fine-too", blocks=0, cold_blocks=2, memory_blocks=0)
    result = execute(tmp_path, wanted)
    assert missing(wanted, result) == []
    assert {record.job.measure for record in result.records} == {"cold"}
    built = report.build([result])
    assert {table.name for table in built.tables} >= {"latency", "static-dynamic"}
    assert any("preliminary" in text for text in built.runs[0].warnings)


def test_an_infinite_error_of_a_behaviour_is_believed() -> None:
    job = Job(implementation="a/b", case=FULL, mode="forward", measure="behaviour")
    record = Record(job=job, block=0, status=Status.OK, values={"longer_error": math.inf})
    assert doubt(record) is None
    assert Record.from_json(record.to_json()) == record
    memory = replace(record, job=replace(job, measure="memory"))
    assert doubt(memory) is not None


# --- what a sweep asks for ------------------------------------------------------------------------


def test_behaviours_are_measured_where_they_are_asked_for() -> None:
    assert NO_TWINS.counts() == {"behaviour": 1}
    assert replace(NO_TWINS, blocks=3).counts() == {"steady": 3, "behaviour": 1}
    assert "behaviour" not in load_preset("smoke").sampling.counts()


@pytest.mark.parametrize(
    "change",
    [{"behaviour_blocks": 0}, {"behaviour_blocks": -1}, {"behaviour_blocks": True},
     {"blocks": -1}, {"blocks": False}, {"precision": 0.1},
     {"behaviour_blocks": 0, "memory_blocks": 1}],
)  # fmt: skip
def test_no_steady_blocks_need_something_in_their_place(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        replace(NO_TWINS, **change)


def test_other_blocks_are_of_what_is_measured() -> None:
    assert NO_TWINS.but(blocks=3).counts() == {"behaviour": 3}
    assert replace(NO_TWINS, cold_blocks=2).but(blocks=5).counts() == {"cold": 5, "behaviour": 1}
    both = replace(NO_TWINS, blocks=2)
    assert both.but(blocks=4).counts() == {"steady": 4, "behaviour": 1}


LOOPED = {"tensorflow", "torch", "jax"}


@pytest.mark.parametrize(
    ("name", "backends"), [("claims-behaviour", {*LOOPED, "onnx"}), ("claims-gradients", LOOPED)]
)
def test_the_presets_measure_behaviours_and_nothing_else(name: str, backends: set[str]) -> None:
    chosen = selection.select(name, {})
    assert chosen.sampling.counts() == {"behaviour": 1}
    jobs = chosen.jobs("behaviour")
    assert not any(job.replica for job in jobs)
    assert plan.workers(chosen) == sum(chosen.runs(job) for job in jobs) > 0
    assert {job.backend for job in jobs} == backends


# --- frameworks -----------------------------------------------------------------------------------

SMALL = Case(cell="lstm", seq_len=4, batch=3, inputs=3, hidden=4)


@pytest.fixture
def behaviour() -> Callable[..., tuple[dict[str, float], str]]:
    """What an implementation does, and what it says to T + 1 steps."""

    def of_case(implementation: str, case: Case, mode: Mode = "forward") -> Any:
        entry = backends.IMPLEMENTATIONS[implementation]
        reason = backends.missing(entry.backend)
        if reason is not None:
            pytest.skip(reason)
        subject = planted.real_subject(_backend(entry.backend), implementation, case, mode)
        found = observe(subject)
        subject.runner.close()
        return dict(found.values), found.told.get("longer", "")

    return of_case


def _on(name: str, *values: object, slow: bool = False) -> object:
    return on(backends.IMPLEMENTATIONS[name], *values, slow=slow)


@pytest.mark.parametrize(
    ("implementation", "says"),
    [
        _on("tensorflow/static", "Cannot feed value of shape (3, 5, 3)"),
        _on("tensorflow/keras-unrolled", "ValueError: "),
        _on("torch/traced", "Expected 4 elements in a list but found 5"),
        _on("jax/static", "compiled with float32[3,4,3] and called with float32[3,5,3]"),
        _on("jax/dynamic", "compiled with float32[3,4,3] and called with float32[3,5,3]"),
    ],
)
def test_what_is_built_for_one_time_is_refused_another_by_its_framework(
    implementation: str, says: str, behaviour: Any
) -> None:
    for case in (SMALL, replace(SMALL, lengths="ragged", cell="gru")):
        found, said = behaviour(implementation, case)
        assert found["longer_refused"] == 1
        assert says in said
        assert "graph is built for" not in said  # this project's own words


@pytest.mark.parametrize(
    "implementation",
    [
        *map(_on, ("tensorflow/dynamic", "tensorflow/keras", "torch/dynamic", "torch/fused")),
        _on("torch/scripted"),
        _on("onnx/fused"),
        _on("torch/static", slow=True),  # compiles a second program
    ],
)
def test_what_is_built_for_any_time_computes_another(implementation: str, behaviour: Any) -> None:
    found, said = behaviour(implementation, replace(SMALL, cell="rnn", lengths="ragged"))
    assert found["longer_refused"] == 0
    assert found["longer_error"] < 1e-6
    assert said == ""
    assert found["padding_largest"] == found["repeat_largest"] == 0
    assert found["held_error"] < 1e-6
    assert found["unlengthed_state_error"] > 0.01
    assert max(found["unlengthed_output_error"], found["last_output_error"]) < 1e-6


@pytest.mark.parametrize(
    "implementation",
    [*map(_on, ("tensorflow/dynamic", "torch/fused", "jax/dynamic", "onnx/fused"))],
)
def test_both_ways_there_are_two_outputs_and_two_states(
    implementation: str, behaviour: Any
) -> None:
    found, _ = behaviour(
        implementation, replace(SMALL, direction="bidirectional", lengths="ragged")
    )
    assert (found["output_count"], found["state_count"]) == (2, 2)
    assert max(found["forward_end_error"], found["backward_end_error"]) < 1e-6
    assert found["backward_last_difference"] > 0.01


@pytest.mark.parametrize("cell", ["lstm", "basic-lstm"])
@pytest.mark.parametrize(
    "implementation", [*map(_on, ("tensorflow/dynamic", "tensorflow/keras", "torch/fused"))]
)
def test_the_gates_are_in_the_frameworks_order(
    implementation: str, cell: str, behaviour: Any
) -> None:
    found, _ = behaviour(implementation, replace(SMALL, cell=cell, forget_bias=0.5))
    assert found["gate_order_error"] < 1e-6
    assert found["other_order_error"] > 0.01
    assert found.get("moved_bias_difference", 0) < 1e-6
    assert ("moved_bias_difference" in found) is implementation.startswith("torch")
    assert ("dropped_digest" in found) is implementation.startswith("torch")


@pytest.mark.parametrize(
    "implementation", [*map(_on, ("tensorflow/dynamic", "torch/fused", "tensorflow/fused"))]
)
@pytest.mark.parametrize("other", [{"layers": 2}, {"lengths": "ragged"}, {"cell": "lstm-peephole"}])
def test_the_order_is_asked_of_one_plain_lstm(
    implementation: str, other: dict[str, Any], behaviour: Any
) -> None:
    case = replace(SMALL, **other)
    if backends.refusal(implementation, case, "forward") is None:
        assert "gate_order_error" not in behaviour(implementation, case)[0]


@pytest.mark.parametrize(
    ("implementation", "most"),
    [
        *(_on(name, 1e-12) for name in ("tensorflow/dynamic", "torch/dynamic", "torch/fused")),
        _on("jax/dynamic", 1e-12),
        _on("tensorflow/fused", 1e-4),  # BlockLSTM has no float64
    ],
)
def test_gradients_of_frameworks_decay_as_the_oracles(
    implementation: str, most: float, behaviour: Any
) -> None:
    found, _ = behaviour(implementation, replace(SMALL, seq_len=24, batch=1), "train")
    assert 0 <= found["gradient_norm_error"] < most
    assert found["gradient_norm/b0/s0/d23"] < found["gradient_norm/b3/s0/d23"]
