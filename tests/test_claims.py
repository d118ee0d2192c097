"""Verdicts on claims, from runs of worlds in which they hold and of worlds in which they do not."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from bench import stats
from bench.claims.gradients import gradient_norms
from bench.claims.judge import judge
from bench.claims.model import Verdict
from bench.claims.registry import CLAIMS
from bench.preset import load_preset, preset_names
from bench.record import Job, Record, Status
from bench.store import Run
from tests import synthetic
from tests.worlds import World, always, changed, times

Does = Callable[[Job], Mapping[str, float]]


def verdict(identity: str, *runs: Run) -> Verdict:
    return {found.id: found for found in judge(runs)}[identity]


def deciding(identity: str, world: World, **changes: object) -> list[Run]:
    """A world's runs of all sweeps that decide a claim."""
    return [world.run(preset, **changes) for preset in CLAIMS[identity].presets]


def strategy(job: Job) -> str:
    return job.implementation.split("/")[1]


def at(**by_strategy: float) -> World:
    """A world in which a call takes as many hundredths of a second as is said."""
    return World(steady=lambda job: 1e-2 * times(job, **by_strategy))


def growing(static: float, dynamic: float = 0.0) -> World:
    """Building takes 0.1 s and so much more a step; in training three times of that."""

    def build(job: Job) -> float:
        step = static if strategy(job) in ("static", "traced") else dynamic
        return (0.1 + step * job.case.seq_len) * (3 if job.mode == "train" else 1)

    return World(build=build)


def quick(static: float) -> World:
    """The static one grows, and takes no longer than the dynamic one at the longest T of 80."""

    def build(job: Job) -> float:
        length = job.case.seq_len if strategy(job) in ("static", "traced") else 80
        return 0.1 + static * length

    return World(build=build)


def flattening() -> World:
    """The unrolled program takes longer with T, and a later step less than an earlier one."""

    def build(job: Job) -> float:
        unrolled = strategy(job) == "static"
        return 0.1 + (0.3 * math.sqrt(job.case.seq_len) if unrolled else 0.0)

    return World(build=build, noise=0.002)


def by_length(factor: float, *, static: float = 1.0) -> World:
    """Steady times in which a sequence twice as long takes `factor` as much, or `static`."""

    def steady(job: Job) -> float:
        growth = static if strategy(job) == "static" else factor
        return 1e-2 * (growth if job.case.lengths == "ragged" else 1.0)

    return World(steady=steady)


def sizes(large: float, small: float) -> World:
    """What dynamic takes over static for large and for small networks."""

    def steady(job: Job) -> float:
        if strategy(job) != "dynamic":
            return 1e-2
        return 1e-2 * (large if job.case.batch >= 64 else small)

    return World(steady=steady)


def cells(lstm: float) -> World:
    return World(steady=lambda job: 1e-2 * (lstm if job.case.cell == "lstm" else 1.0))


def memory(dynamic: float, scratch: float) -> World:
    def peak(job: Job) -> float:
        return 1e8 * times(job, dynamic=dynamic)

    def values(job: Job) -> dict[str, float]:
        return {"program_temp_bytes": 1e6 * times(job, dynamic=scratch)}

    return World(peak=peak, values=values, noise=0.002)


#: What implementations do where every claim on behaviour is true.
def well_behaved(job: Job) -> dict[str, float]:
    case, kind = job.case, strategy(job)
    if job.mode == "train":
        return gradients(job)
    does = {
        "longer_refused": 1.0 if kind in ("static", "traced") else 0.0,
        "parameters": 544.0 * (1 if case.cell == "lstm-shared" else case.layers),
        "weight_sets": 1.0 if case.cell == "lstm-shared" else float(case.layers),
        "repeat_largest": 0.0,
        "last_output_error": 0.0,
        "other_gru_error": 0.2,
        "gate_order_error": 1e-7,
        "other_order_error": 0.3,
        "moved_bias_difference": 1e-8,
        "forward_end_error": 0.0,
        "backward_end_error": 0.0,
        "backward_last_difference": 0.5,
    }
    if kind not in ("static", "traced"):
        does["longer_error"] = 2e-7
    if case.lengths != "full":
        does |= {"padding_largest": 0.0, "held_error": 1e-7, "unlengthed_state_error": 0.4}
    return does


#: By cell and forget bias: what is left of a gradient a step.
KEPT = {("rnn", "-"): 0.8, ("gru", "-"): 0.97, ("lstm", "0"): 0.9, ("lstm", "1"): 0.95}
KEPT |= {("lstm", "3"): 0.99}


def gradients(job: Job, kept: Mapping[tuple[str, str], float] = KEPT) -> dict[str, float]:
    return {
        f"gradient_norm/b{bias}/s{seed}/d{distance}": (1 + 0.05 * seed) * left**distance
        for (cell, bias), left in kept.items()
        if cell == job.case.cell
        for seed in range(10)
        for distance in (1, 2, 4, 8, 16, 32, 63)
    }


def but(changes: Mapping[str, float]) -> Does:
    """The same with other values, wherever there are such."""

    def does(job: Job) -> dict[str, float]:
        found = well_behaved(job)
        return found | {name: value for name, value in changes.items() if name in found}

    return does


#: Claim, the preset that decides it, a world in which it holds, and some in which it does not.
WORLDS: list[tuple[str, str, World, list[World]]] = [
    (
        "T1",
        "claims-build",
        growing(0.01),
        # Neither grows; both do; the static one grows too little; it grows, and is quick.
        [growing(0.0), growing(0.01, 0.01), growing(0.0008), quick(0.01)],
    ),
    ("T4", "claims-loops", at(dynamic=0.9), [at(dynamic=1.2), sizes(0.9, 1.3)]),
    ("T7", "claims-cells", cells(1.4), [cells(1.0), cells(1.1)]),
    ("T8", "claims-block", at(dynamic_block=0.8, static_block=0.9), [at(dynamic_block=1.2)]),
    ("I2", "claims-loops", sizes(1.02, 1.3), [sizes(1.4, 1.3), sizes(1.02, 0.9)]),
    (
        "I4",
        "claims-unrolled",
        World(build=always(300.0)),
        [World(build=always(20.0)), World(build=always(45.0))],
    ),
    (
        "I5",
        "claims-lengths",
        by_length(1.0, static=1.9),
        [by_length(1.9, static=1.9), by_length(1.0)],
    ),
    ("I6", "claims-keras", at(keras=7.0), [at(keras=2.0), at()]),
    ("I9", "claims-tiny", at(dynamic=6.0), [at(dynamic=2.0), at(dynamic=0.9)]),
    ("I10", "claims-build", growing(0.01), [growing(0.0), growing(0.01, 0.01), flattening()]),
    ("I11", "claims-build", memory(1.0, 1.5), [memory(1.5, 0.9)]),
    ("I14", "claims-packed", at(packed=9.0), [at(packed=3.0), at()]),
    ("T2", "claims-behaviour", World(does=well_behaved), [
        World(does=but({"longer_refused": 0.0})),
        World(does=but({"longer_refused": 1.0})),
        World(does=but({"longer_error": 0.1})),
    ]),
    ("T3", "claims-behaviour", World(does=well_behaved), [
        World(does=but({"padding_largest": 1e-9})),
        World(does=but({"held_error": 1e-3})),
    ]),
    ("T6", "claims-behaviour", World(does=well_behaved), [
        World(does=but({"unlengthed_state_error": 1e-6})),
    ]),
    ("T9", "claims-behaviour", World(does=well_behaved), [
        World(does=but({"parameters": 544.0})),
        World(does=but({"weight_sets": 2.0})),
    ]),
    ("T11", "claims-behaviour", World(does=well_behaved), [
        World(does=but({"backward_end_error": 0.1})),
        World(does=but({"backward_last_difference": 0.0})),
        World(does=but({"forward_end_error": 0.1})),
    ]),
    ("T12", "claims-behaviour", World(does=well_behaved), [
        World(does=but({"last_output_error": 0.1})),
    ]),
    ("I15", "claims-behaviour", World(does=well_behaved), [
        World(does=but({"other_gru_error": 1e-7})),
    ]),
    ("I16", "claims-behaviour", World(does=well_behaved), [
        World(does=but({"gate_order_error": 0.1})),
        World(does=but({"other_order_error": 1e-7})),
        World(does=but({"moved_bias_difference": 0.1})),
    ]),
    ("T10", "claims-gradients", World(does=well_behaved), [
        World(does=lambda job: gradients(job, KEPT | {("gru", "-"): 0.8})),
        World(does=lambda job: gradients(job, KEPT | {("rnn", "-"): 0.99})),
        World(does=lambda job: gradients(job, KEPT | {("lstm", "3"): 0.9})),
    ]),
]  # fmt: skip

IDS = [claim for claim, *_ in WORLDS]


@pytest.mark.parametrize(("identity", "preset", "true", "untrue"), WORLDS, ids=IDS)
def test_a_claim_holds_where_it_is_true_and_is_refuted_where_not(
    identity: str, preset: str, true: World, untrue: list[World]
) -> None:
    held = verdict(identity, *deciding(identity, true))
    assert (held.answer, held.region.get("refuted")) == ("holds", None), held.reason
    for world in untrue:
        found = verdict(identity, *deciding(identity, world))
        assert found.answer == "refuted", found.reason
        assert found.deciding is not None
        assert found.deciding.answer == "refuted"


@pytest.mark.parametrize(("identity", "preset", "true", "untrue"), WORLDS, ids=IDS)
def test_nothing_is_said_of_a_run_that_left_nothing(
    identity: str, preset: str, true: World, untrue: list[World]
) -> None:
    run = true.run(preset)
    crashed = changed(run, lambda r: replace(r, status=Status.CRASHED, samples={}, values={}))
    found = verdict(identity, crashed)
    answers = {finding.answer for finding in found.findings}
    counted = identity == "T7"  # FLOPs and parameters need no run
    assert answers == ({"no data", "holds"} if counted else {"no data"})
    assert found.answer == ("inconclusive" if counted else "no data")


TIMED = [world for world in WORLDS if world[1] not in ("claims-behaviour", "claims-gradients")]


@pytest.mark.parametrize(
    ("identity", "preset", "true", "untrue"), TIMED, ids=[c for c, *_ in TIMED]
)
def test_one_block_shows_nothing_but_facts(
    identity: str, preset: str, true: World, untrue: list[World]
) -> None:
    run = true.run(preset)
    single = replace(run, records=[record for record in run.records if record.block == 0])
    found = verdict(identity, single)
    sampled = [f for f in found.findings if f.blocks == 1]
    assert sampled
    assert all(f.answer == "inconclusive" for f in sampled)


def test_every_claim_is_registered_with_a_preset_that_exists() -> None:
    assert list(CLAIMS) == [f"T{n}" for n in range(1, 14)] + [f"I{n}" for n in range(1, 19)]
    for claim in CLAIMS.values():
        assert claim.presets
        assert set(claim.presets) <= set(preset_names())
        assert claim.hypothesis
        assert claim.scope


def test_every_claim_that_a_cpu_decides_is_tested_in_worlds_here() -> None:
    tested = {*IDS, "T5", "T13", "I13"}
    assert tested == {claim.id for claim in CLAIMS.values() if not claim.gpu}


def scaling(wide: float, narrow: float) -> tuple[World, World]:
    """One thread and two: what the second makes of many short sequences and of few long ones."""

    def steady(job: Job) -> float:
        return 2e-2 if job.case.seq_len == 128 else 1e-2

    def faster(job: Job) -> float:
        return steady(job) / (narrow if job.case.seq_len == 128 else wide)

    return World(steady=steady), World(steady=faster)


def t13(wide: float, narrow: float) -> Verdict:
    one, two = scaling(wide, narrow)
    runs = one.run("claims-time-one"), two.run("claims-time")
    return verdict("T13", *runs)


def test_more_threads_that_do_more_for_many_short_sequences_show_t13() -> None:
    found = t13(1.7, 1.1)
    assert found.answer == "holds"
    assert found.deciding is not None
    assert found.deciding.effect == pytest.approx(1.7 / 1.1, rel=0.02)


@pytest.mark.parametrize("gains", [(1.7, 1.7), (1.0, 1.0), (1.1, 1.7)])
def test_equal_gains_do_not_show_that_time_was_parallelised(gains: tuple[float, float]) -> None:
    found = t13(*gains)
    assert found.answer == "inconclusive"
    counted = [f for f in found.findings if f.where.get("threads") == "2"]
    assert {f.answer for f in counted} == {"inconclusive"}
    assert all("do not show" in f.reason for f in counted)


def test_long_sequences_that_take_longer_show_nothing_by_themselves() -> None:
    """Each step has its overhead on one thread, too."""
    one, two = scaling(1.7, 1.1)
    single = verdict("T13", one.run("claims-time-one"))
    assert (single.answer, single.reason[:26]) == ("no data", "one thread decides nothing")
    double = verdict("T13", two.run("claims-time"))
    assert (double.answer, double.reason[:25]) == ("no data", "nothing to compare with: ")


def test_runs_of_other_thread_counts_are_one_host_and_other_places() -> None:
    one, two = scaling(1.7, 1.1)
    runs = one.run("claims-time-one"), two.run("claims-time")
    verdicts = judge(runs, ["one", "two"])
    assert len(verdicts) == len(CLAIMS)
    found = next(v for v in verdicts if v.id == "T13")
    assert {(f.run, f.where.get("threads"), f.answer) for f in found.findings} == {
        ("one", None, "no data"),
        ("two", "2", "holds"),
    }


def test_t13_does_not_hold_where_a_strategy_was_not_measured_on_two_threads() -> None:
    one, two = scaling(1.7, 1.1)
    plan = load_preset("claims-time")
    fewer = replace(plan, axes=replace(plan.axes, backend=("torch",), strategy=("fused",)))
    runs = one.run("claims-time-one"), two.run(fewer)
    found = verdict("T13", *runs)
    assert found.answer == "inconclusive"
    assert "more lack data" in found.reason


def test_t13_takes_both_cases_on_one_thread_from_one_run() -> None:
    one, two = scaling(1.7, 1.1)
    plan = load_preset("claims-time-one")
    half = replace(plan, more=())
    other = World(steady=lambda _job: 1e-4).run(half, id="other")
    runs = one.run(plan), two.run("claims-time"), other
    found = next(v for v in judge(runs, ["one", "two", "other"]) if v.id == "T13")
    told = [f for f in found.findings if f.where.get("threads") == "2"]
    assert {round(f.effect, 1) for f in told} == {1.5}
    assert len(told) == len({f.place for f in told})


def test_what_is_found_on_a_gpu_is_in_the_region_of_what_a_cpu_decides() -> None:
    plan = load_preset("claims-loops")
    more = tuple(replace(axes, device=("gpu",)) for axes in plan.more)
    on_gpu = replace(plan, axes=replace(plan.axes, device=("gpu",)), more=more)
    gpus = [{"name": "a GPU"}]
    slow = at(dynamic=2.0).run(on_gpu, id="on-gpu")
    slow.manifest["host"]["gpus"] = gpus
    verdicts = judge([*deciding("T4", at(dynamic=0.6)), slow])
    assert len(verdicts) == len(CLAIMS)  # one host, whether or not a run was on its GPU
    found = next(v for v in verdicts if v.id == "T4")
    assert found.answer == "holds", found.reason
    assert "gpu" in found.region["refuted"]


def test_a_place_on_other_threads_is_one_that_was_to_be_measured() -> None:
    on_two = verdict("T4", *deciding("T4", at(dynamic=0.8), threads=2))
    assert on_two.answer == "holds"


def test_whatever_sweep_asks_a_claim_is_among_those_that_decide_it() -> None:
    """Or the verdict would depend on which other claims were measured beside it."""
    for preset in preset_names():
        if not preset.startswith("claims-"):
            continue
        for found in judge([at().run(preset)]):
            claim = CLAIMS[found.id]
            asked = [f for f in found.findings if claim.counts(f.where)]
            assert not asked or preset in claim.presets, (preset, claim.id)


def test_without_a_gpu_the_claims_of_one_say_so() -> None:
    verdicts = judge([at().run("claims-loops")])
    found = {v.id: (v.answer, v.reason) for v in verdicts if CLAIMS[v.id].gpu}
    identities = ["I1", "I3", "I7", "I8", "I12", "I17", "I18"]
    assert found == dict.fromkeys(identities, ("no data", "needs a GPU"))


def test_no_benefit_needs_time_and_memory_and_either_refutes_it() -> None:
    *calls, peaks = deciding("T5", memory(1.0, 1.0))
    assert peaks.manifest["id"] == "claims-build"
    assert verdict("T5", *calls, peaks).answer == "holds"
    smaller = verdict("T5", *calls, memory(1.3, 1.0).run("claims-build"))
    assert smaller.answer == "refuted"
    assert smaller.deciding is not None
    assert smaller.deciding.where["quantity"] == "peak memory"
    assert verdict("T5", at(dynamic=1.3).run("claims-loops"), *calls[1:], peaks).answer == "refuted"


def test_a_host_that_does_not_tell_of_memory_excuses_nothing() -> None:
    """Half of the claim is about peaks: without them it does not hold, whatever the times are."""
    *calls, peaks = deciding("T5", memory(1.0, 1.0))
    silent = synthetic.ends(Status.UNAVAILABLE, "peak memory: no clear_refs")
    untold = changed(peaks, lambda r: silent(r) if r.job.measure == "memory" else r)
    assert verdict("T5", *calls, untold).answer == "inconclusive"
    # A framework that is not there at all is no part of the question.
    others = [
        changed(run, lambda r: silent(r) if r.job.backend == "torch" else r)
        for run in (*calls, peaks)
    ]
    assert verdict("T5", *others).answer == "holds"


def test_a_claim_does_not_hold_where_a_part_of_its_evidence_lacks() -> None:
    found = verdict("T5", at().run("claims-loops"))
    assert found.answer == "inconclusive"
    assert "more lack data" in found.reason
    run = at(dynamic=0.9).run("claims-loops")
    short = replace(run, records=[r for r in run.records if r.job.case.seq_len == 10])
    assert verdict("T4", short).answer == "inconclusive"


def test_peaks_below_eight_megabytes_are_not_compared() -> None:
    world = World(peak=lambda job: 2e6 * times(job, dynamic=3.0))
    found = verdict("T5", world.run("claims-build"))
    peaks = [f for f in found.findings if f.where["quantity"] == "peak memory"]
    assert {f.answer for f in peaks} == {"no data"}
    assert all("below 8 MB" in f.reason or "capped" in f.reason for f in peaks)


def test_compiling_1024_steps_is_judged_where_a_run_has_it() -> None:
    slower = at(static=1.2)
    half = verdict("I13", slower.run("claims-compile"))
    assert half.answer == "inconclusive"
    assert "no run has T = 1024" in {f.reason for f in half.findings}
    assert verdict("I13", at(static=0.8).run("claims-compile")).answer == "refuted"
    sweep = load_preset("claims-compile")
    axes = replace(sweep.axes, seq_len=(64, 1024))
    long = replace(sweep, axes=axes, sampling=replace(sweep.sampling, cold_blocks=5))
    for seconds, answer in ((2000.0, "holds"), (300.0, "refuted")):
        assert verdict("I13", replace(slower, build=always(seconds)).run(long)).answer == answer


def test_the_verdict_on_the_tutorial_is_on_tensorflow_and_the_others_are_in_the_region() -> None:
    def steady(job: Job) -> float:
        return 1e-2 * (1.3 if job.implementation == "jax/dynamic" else 1.0)

    found = verdict("T4", *deciding("T4", World(steady=steady)))
    assert found.answer == "holds"
    assert "jax static forward" in found.region["refuted"]
    assert {"tensorflow static forward", "tensorflow static train"} <= set(
        found.region["holds"].split("; ")
    )


def test_a_region_names_the_shapes_where_an_answer_is_not_the_only_one() -> None:
    found = verdict("T4", sizes(0.9, 1.3).run("claims-loops"))
    assert "tensorflow static forward at T=50 B=64 layers=2 H=128" in found.region["holds"]
    assert "T=150 B=16 layers=1 H=64" in found.region["refuted"]


def test_a_failed_identical_pair_withholds_what_rests_on_it() -> None:
    def twin(record: Record) -> Record:
        if not record.job.replica or record.job.backend != "tensorflow":
            return record
        return replace(record, samples={"steady": [s * 1.5 for s in record.samples["steady"]]})

    found = verdict("T4", changed(at(dynamic=2.0).run("claims-loops"), twin))
    assert found.answer == "inconclusive"
    assert found.deciding is not None
    assert found.deciding.reason == "its identical pair failed, or is missing"


def test_a_wrong_output_is_no_evidence() -> None:
    def wrong(record: Record) -> Record:
        if record.job.implementation != "tensorflow/dynamic":
            return record
        return replace(record, status=Status.WRONG_OUTPUT, reason="outputs differ", samples={})

    found = verdict("T4", changed(at(dynamic=0.5).run("claims-loops"), wrong))
    assert found.answer == "no data"
    assert "wrong output" in found.reason


def test_two_runs_that_contradict_each_other_are_inconclusive_there() -> None:
    one, other = at(dynamic=1.2).run("claims-loops"), at(dynamic=0.8).run("claims-loops")
    found = verdict("T4", one, replace(other, manifest={**other.manifest, "id": "other"}))
    assert found.answer == "inconclusive"
    assert {f.reason for f in found.findings if f.answer == "inconclusive"} == {
        "two runs of this host contradict each other"
    }


def test_hosts_are_judged_side_by_side_and_never_together() -> None:
    here = at(dynamic=1.2).run("claims-loops")
    host = {**here.manifest["host"], "cpu": "Another CPU"}
    there = at(dynamic=0.8).run("claims-loops", host=host, id="there")
    found = [v for v in judge([here, there], ["here", "there"]) if v.id == "T4"]
    assert [(v.host, v.answer) for v in found] == [("here", "refuted"), ("there", "inconclusive")]
    answers = [{f.answer for f in v.findings if f.blocks} for v in found]
    assert answers == [{"refuted"}, {"holds"}]


def test_all_claims_are_corrected_for_together_whichever_is_asked() -> None:
    alone = verdict("T8", at(dynamic_block=0.9, static_block=0.9).run("claims-block"))
    beside = verdict(
        "T8",
        at(dynamic_block=0.9, static_block=0.9).run("claims-block"),
        at(dynamic=1.0).run("claims-loops"),
    )
    least = [min(f.adjusted_p for f in found.findings) for found in (alone, beside)]
    assert least[0] < least[1]


def test_what_is_barely_shown_alone_is_not_among_many() -> None:
    world = World(steady=lambda job: 1e-2 * times(job, dynamic=1.065), noise=0.008)
    found = verdict("T4", world.run("claims-loops"))
    raw = [f for f in found.findings if f.p < stats.ALPHA]
    assert any(f.answer == "inconclusive" for f in raw)
    assert all(f.adjusted_p > stats.ALPHA for f in raw if f.answer == "inconclusive")


def test_slopes_of_building_are_those_of_the_world() -> None:
    found = verdict("T1", growing(0.01).run("claims-build"))
    forward = next(
        f
        for f in found.findings
        if f.where["phase"] == "forward" and f.rows[0] == "tensorflow/static"
    )
    (line,) = [text for text in forward.arithmetic if text.startswith("tensorflow/static, build:")]
    slope = float(line.split(": ")[1].split(" ")[0])
    assert slope == pytest.approx(10.0, rel=0.05)
    assert "ms a step" in line


def test_a_value_that_is_only_called_like_a_gradient_is_passed_over() -> None:
    values = {
        "gradient_norm/b1/s0/d3": 0.5,
        "gradient_norm/b1/s0/dx": 1.0,
        "gradient_norm/b1/sx/d3": 1.0,
        "gradient_norm/b1/s0": 1.0,
        "gradient_norm_error": 1.0,
    }
    assert gradient_norms(values) == {"1": {0: {3: 0.5}}}


def test_the_presets_of_claims_ask_what_they_are_for() -> None:
    for claim in CLAIMS.values():
        for preset in claim.presets:
            sweep = load_preset(preset)
            assert ("gpu" in sweep.axes.device) == claim.gpu


def lengths_that_train(swap: float, static: float, *open_ended: str) -> World:
    """Hundreds of steps; nothing is known of longer ones for those whose search time ended."""

    def does(job: Job) -> dict[str, float]:
        largest = 100.0 * times(job, dynamic_swap=swap, static=static)
        found = {"largest_seq_len": largest, "smallest_failed_seq_len": largest + 1}
        if job.implementation.split("/")[1] in open_ended:
            del found["smallest_failed_seq_len"]
        return found

    return World(does=does)


GPU_WORLDS: list[tuple[str, World, World]] = [
    ("I1", at(dynamic=2.6), at(dynamic=1.2)),
    ("I3", lengths_that_train(3.0, 1.0), lengths_that_train(1.0, 1.0)),
    (
        "I7",
        World(steady=lambda job: 1e-2 * times(job, dynamic=3.0), build=always(300.0)),
        World(steady=lambda job: 1e-2 * times(job, dynamic=3.0), build=always(20.0)),
    ),
    ("I8", at(dynamic=14.0, fori=5.0), at(dynamic=14.0, fori=2.0)),
    ("I12", at(fused=0.2), at(fused=0.6)),
    ("I18", at(fused=1.4), at(fused=0.5)),
]


@pytest.mark.parametrize(
    ("identity", "true", "untrue"), GPU_WORLDS, ids=[c for c, *_ in GPU_WORLDS]
)
def test_the_gpu_s_claims_decide_themselves_where_there_is_one(
    identity: str, true: World, untrue: World
) -> None:
    (preset,) = CLAIMS[identity].presets
    assert verdict(identity, true.run(preset)).answer == "holds"
    assert verdict(identity, untrue.run(preset)).answer == "refuted"


@pytest.mark.parametrize(
    ("world", "answer"),
    [
        (lengths_that_train(3.0, 1.0, "static"), "no data"),  # building it took too long
        (lengths_that_train(3.0, 1.0, "dynamic-swap"), "holds"),
        (lengths_that_train(1.0, 3.0, "dynamic-swap"), "no data"),
        (lengths_that_train(1.0, 3.0, "static"), "refuted"),
        (lengths_that_train(1.0, 1.0, "static", "dynamic-swap"), "no data"),
        (lengths_that_train(3.0, 0.0), "holds"),
    ],
)
def test_a_search_that_memory_did_not_end_says_nothing_of_longer_sequences(
    world: World, answer: str
) -> None:
    assert verdict("I3", world.run("claims-gpu-memory")).answer == answer


def test_dropout_from_a_seed_is_of_all_processes_or_differs() -> None:
    digests = {"dropped_digest": 5.0, "undropped_digest": 4.0}
    run = World(does=lambda _job: digests).run("claims-gpu-dropout")
    assert verdict("I17", run).answer == "refuted"

    def once(name: str) -> Run:
        found = [
            replace(record, values={**digests, name: 6.0}) if record.block == 7 else record
            for record in run.records
        ]
        return replace(run, records=found)

    assert verdict("I17", once("undropped_digest")).answer == "no data"
    found = verdict("I17", once("dropped_digest"))
    assert found.answer == "holds"
    assert found.deciding is not None
    assert found.deciding.effect == 2
    assert "2 different results of 10 processes" in found.deciding.statement
    one = replace(run, records=[r for r in run.records if r.block == 0])
    assert verdict("I17", one).answer == "no data"


@pytest.mark.parametrize(("identity", "name"), [("I12", "jax/fused"), ("I18", "torch/fused")])
@pytest.mark.parametrize(
    ("ran", "answers"),
    [
        ("void cutlass::Kernel<cutlass_80_simt_sgemm>", False),
        ("RNN_blockPersist_fp_LSTM", True),
        ("LSTM_elementWise_fp", True),
        (None, True),
    ],
)
def test_what_is_said_of_cudnn_is_said_of_its_kernel(
    identity: str, name: str, ran: str | None, answers: bool
) -> None:
    """Where it is on record that another one ran; where nothing is, the name is believed."""
    run = at(fused=0.2 if identity == "I12" else 1.4).run("claims-gpu")
    kernels = {"kernels": {"total": 3, "names": 1, "longest": [[ran, 3]]}} if ran else {}
    records = [
        replace(record, worker=kernels)
        if record.job.implementation == name and record.block == 0
        else record
        for record in run.records
    ]
    found = verdict(identity, replace(run, records=records))
    assert found.answer == ("holds" if answers else "no data")
    assert answers or {f.reason for f in found.findings} == {f"{name} did not run cuDNN's RNN"}


def test_a_gpu_s_figures_are_no_cpu_s() -> None:
    gpu, cpu = at(dynamic=2.6).run("claims-gpu"), at().run("claims-loops")
    found = verdict("T4", gpu, cpu)
    assert {f.where.get("device") for f in found.findings if f.answer == "refuted"} == {"gpu"}
    assert {f.where.get("device") for f in found.findings if f.answer == "holds"} == {None}


def test_the_fact_that_stands_beside_a_verdict_is_the_one_nearest_to_its_bound() -> None:
    def does(job: Job) -> dict[str, float]:
        found = well_behaved(job)
        if "held_error" in found and job.case.cell == "lstm" and job.mode == "forward":
            found["held_error"] = 3e-7
        return found

    found = verdict("T3", World(does=does).run("claims-behaviour"))
    assert found.answer == "holds"
    assert found.deciding is not None
    assert (found.deciding.where["cell"], found.deciding.effect) == ("lstm", 3e-7)
