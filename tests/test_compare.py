"""Two runs: what is slower, of what one cannot tell, what is refused, and what a script sees."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from bench import cli
from bench.compare import Comparison, Row, compare
from bench.errors import UsageError
from bench.hosts import host_differences, other_differences
from bench.record import Measure, Record, Status
from bench.report import build, print_report
from bench.report import comparison as words
from bench.rules import Rule, parse_rules
from bench.store import Run, Store
from bench.sweep import Sweep
from tests import synthetic

STEADY: tuple[Measure, ...] = ("steady",)


def plan(blocks: int = 10) -> Sweep:
    """One case in one mode: eight implementations, two of them limits."""
    return synthetic.sweep(seq_len=(10,), mode=("forward",), blocks=blocks)


def drawn(seed: int, blocks: int = 10, **options: Any) -> Run:
    return synthetic.run(plan(blocks), seed=seed, **options)


def scaled(record: Record, factor: float) -> Record:
    """The record of something that takes `factor` times as much of everything."""
    samples = {phase: [factor * s for s in found] for phase, found in record.samples.items()}
    values = {n: factor * v if "bytes" in n else v for n, v in record.values.items()}
    return replace(record, samples=samples, values=values)


def beside(old: Run, factor: float, *, seed: int = 9, noise: float = 0.01) -> Run:
    """A run that took turns with `old`: it has the drift of each block, and noise of its own."""
    rng = np.random.default_rng(seed)
    records = [scaled(r, factor * math.exp(rng.normal(0.0, noise))) for r in old.records]
    return replace(old, records=records)


def in_session(run: Run, name: object = "a") -> Run:
    return replace(run, manifest={**run.manifest, "session": name})


def with_twins(run: Run, ratio: float, noise: float = 0.002, replica: int = 1) -> Run:
    """The run with an A/A twin of each dynamic implementation, which took `ratio` times as long.

    They take the place of those that it has.
    """
    rng = np.random.default_rng(3)
    jobs = [record for record in run.records if not record.job.replica]
    twins = [
        replace(
            scaled(record, ratio * math.exp(rng.normal(0.0, noise))),
            job=replace(record.job, replica=replica),
        )
        for record in jobs
        if record.job.implementation.endswith("/dynamic")
    ]
    return replace(run, records=[*jobs, *twins])


def row(found: Comparison, implementation: str, measure: Measure = "steady") -> Row:
    (only,) = [
        row
        for row in found.rows
        if (row.job.implementation, row.job.measure) == (implementation, measure)
    ]
    return only


def verdicts(rows: Iterable[Row]) -> set[str]:
    return {row.verdict for row in rows}


# What is found


def test_a_slowdown_of_everything_is_found_in_unpaired_runs() -> None:
    found = compare(drawn(1), drawn(2, pace=1.6), measures=STEADY)
    assert not found.paired
    assert verdicts(found.rows) == {"slower"}
    assert found.exit_status == 1
    ratio = row(found, "torch/dynamic").ratio
    assert ratio is not None
    assert ratio.low < 1.6 < ratio.high


def test_what_became_faster_is_no_failure() -> None:
    found = compare(drawn(1), drawn(2, pace=0.5), measures=STEADY)
    assert verdicts(found.rows) == {"faster"}
    assert found.exit_status == 0


def test_one_slower_job_among_many_is_the_one_that_is_named() -> None:
    old = drawn(1)
    new = beside(old, 1.0)
    slow = synthetic.only("jax/dynamic", lambda record: scaled(record, 1.2), measure="steady")
    new = replace(new, records=[slow(record) for record in new.records])
    found = compare(in_session(old), in_session(new))
    assert found.exit_status == 1
    assert [r.job.implementation for r in found.rows if r.verdict == "slower"] == ["jax/dynamic"]


def test_pairs_tell_what_two_samples_cannot() -> None:
    """10 % slower, on a host that drifts by 10 % from block to block."""
    old = drawn(1, blocks=5)
    new = beside(old, 1.1)
    apart = compare(old, new, measures=STEADY)
    assert (apart.paired, apart.exit_status) == (False, 3)
    assert verdicts(apart.rows) == {"cannot tell"}
    together = compare(in_session(old), in_session(new), measures=STEADY)
    assert (together.paired, together.exit_status) == (True, 1)
    assert verdicts(r for r in together.rows if r.gated) == {"slower"}


def test_equal_runs_in_pairs_are_not_slower() -> None:
    old = drawn(1)
    found = compare(in_session(old), in_session(beside(old, 1.0)), measures=STEADY)
    assert verdicts(found.rows) == {"not slower"}
    assert found.exit_status == 0


@pytest.mark.parametrize("sessions", [("a", "b"), ("a", None), (None, None), ("", ""), (1, 1)])
def test_only_one_named_session_pairs_runs(sessions: tuple[object, object]) -> None:
    old, new = drawn(1, blocks=2), drawn(2, blocks=2)
    found = compare(in_session(old, sessions[0]), in_session(new, sessions[1]))
    assert not found.paired


def test_pairs_are_by_round() -> None:
    """The host becomes three times as slow now and then, in both runs at once or in one of them."""
    speed = [1.0, 3.0]
    slower = [3.0, 3.0, 1.0, 3.0, 1.0, 3.0]

    def with_samples(samples: list[float]) -> Run:
        def change(record: Record) -> Record:
            return replace(record, samples={"steady": samples}) if record.samples else record

        run = in_session(drawn(1, blocks=2, change=change))
        return replace(run, records=[r for r in run.records if r.job.measure == "steady"])

    found = compare(with_samples(speed * 3), with_samples(slower), measures=STEADY)
    assert row(found, "torch/dynamic").ratio.ratio == pytest.approx(1.0)  # type: ignore[union-attr]
    fewer = compare(with_samples(speed * 3), with_samples(slower[:4]), measures=STEADY)
    # The rounds that both have: one three times as slow, and three that are equal.
    of_four = row(fewer, "torch/dynamic").ratio
    assert of_four is not None
    assert of_four.ratio == pytest.approx(1.0)
    assert fewer.rows


def test_samples_of_other_turns_are_no_pair() -> None:
    """A block that was measured again on one side was measured at another moment."""

    def in_turns(run: Run, again: int | None = None) -> Run:
        return replace(
            run,
            records=[
                replace(
                    scaled(r, 9.0 if r.block == again else 1.0),
                    attempt=int(r.block == again),
                )
                for r in run.records
            ],
        )

    old = in_session(drawn(1, blocks=5))
    new = beside(old, 1.5)
    ratio = row(compare(in_turns(old), in_turns(new, again=3)), "torch/dynamic").ratio
    assert ratio is not None
    assert ratio.blocks == 4
    assert ratio.ratio == pytest.approx(1.5, rel=0.05)
    lone = [r for r in new.records if r.block == 3]
    found = row(compare(in_turns(old), in_turns(replace(new, records=lone), again=3)), "jax/static")
    assert (found.ratio, found.verdict) == (None, "cannot tell")


def test_blocks_that_only_one_of_two_paired_runs_has_do_not_count() -> None:
    old = in_session(drawn(1, blocks=5))
    new = beside(old, 1.5)
    short = replace(new, records=[r for r in new.records if r.block < 3])
    ratio = row(compare(old, short), "torch/dynamic").ratio
    assert ratio is not None
    assert ratio.blocks == 3
    none_shared = replace(new, records=[replace(r, block=r.block + 90) for r in new.records])
    assert row(compare(old, none_shared), "torch/dynamic").ratio is None


# What is not found


def test_equal_runs_raise_no_alarm() -> None:
    """Runs of the same thing, unpaired, on a host that drifts by 10 % from block to block.

    The true ratio is 1, so the 2.5 % that the bound of a 95 % interval allows at 1.05 is far off.
    """
    runs = 100
    statuses = [
        compare(drawn(2 * seed, 5), drawn(2 * seed + 1, 5), measures=STEADY).exit_status
        for seed in range(runs)
    ]
    assert statuses.count(1) <= 0.025 * runs
    assert set(statuses) <= {0, 1, 3}


def test_a_slowdown_just_at_the_limit_raises_an_alarm_once_in_twenty_at_most() -> None:
    """The worst case that is still no slowdown beyond the limit, in pairs, jobs independent."""
    runs, old = 120, in_session(drawn(1, 5))
    alarms = [
        compare(old, beside(old, 1.05, seed=seed), measures=STEADY).exit_status == 1
        for seed in range(runs)
    ]
    # A chance of 2.5 % (the bound of a 95 % interval) and three standard errors.
    assert sum(alarms) <= runs * 0.025 + 3 * math.sqrt(runs * 0.025 * 0.975)


def test_many_jobs_are_a_family() -> None:
    """What is significant by itself need not be among 26: only the noise is in question."""
    old = in_session(synthetic.run(synthetic.sweep(blocks=4), seed=1))
    counts = [
        (found.exit_status, found.overruled)
        for found in (
            compare(old, beside(old, 1.05, seed=seed), measures=STEADY) for seed in range(12)
        )
    ]
    assert sum(overruled for _, overruled in counts) > 0
    assert [status for status, _ in counts].count(1) <= 2


def test_a_few_blocks_tell_nothing_and_the_status_says_so() -> None:
    one = compare(drawn(1, 1), drawn(2, 1, pace=3.0))
    assert verdicts(one.rows) == {"cannot tell"}
    assert one.exit_status == 3
    two = compare(drawn(1, 2), drawn(2, 2, pace=1.1), measures=STEADY)
    assert two.exit_status == 3


# The floor


def test_the_aa_twins_of_both_runs_set_the_floor_and_are_not_listed() -> None:
    old = drawn(1)
    new = beside(old, 1.0)
    quiet, loud = with_twins(old, 1.0), with_twins(new, 1.0, noise=0.05)
    found = compare(in_session(quiet), in_session(loud))
    assert all(r.job.replica == 0 for r in found.rows)
    assert len(found.rows) == len(compare(old, new).rows)
    floor = row(found, "torch/dynamic").floor
    assert floor.measured
    assert floor.wide
    assert row(found, "torch/static").floor == floor != row(found, "jax/static").floor
    assert verdicts(r for r in found.rows if r.floor.wide) == {"cannot tell"}


@pytest.mark.parametrize("broken", [0, 1])
def test_where_an_aa_pair_failed_one_cannot_tell(broken: int) -> None:
    old = drawn(1)
    pair = [old, beside(old, 2.0)]
    pair[broken] = with_twins(pair[broken], 1.03)
    found = compare(*(in_session(run) for run in pair), measures=STEADY)
    # Bare products have no twins of their own backend.
    assert verdicts(r for r in found.rows if r.gated) == {"cannot tell"}
    assert found.exit_status == 3


def test_a_second_worker_of_an_older_run_counts_for_every_backend() -> None:
    old = drawn(1)
    twins = with_twins(old, 1.0, noise=0.05, replica=2)
    only_jax = [r for r in twins.records if not (r.job.replica and "torch" in r.job.implementation)]
    found = compare(replace(twins, records=only_jax), drawn(2), measures=STEADY)
    assert all(r.floor.wide for r in found.rows)


# What cannot be compared


def test_a_job_that_fails_now_is_a_failure_whatever_the_times() -> None:
    old = in_session(drawn(1))
    for status in (
        *(Status.CRASHED, Status.WRONG_OUTPUT, Status.NAN, Status.OOM, Status.TIMEOUT),
        Status.IMPLAUSIBLE,
    ):
        change = synthetic.only("jax/static", synthetic.ends(status, "why"), measure="steady")
        new = replace(old, records=[change(record) for record in old.records])
        found = compare(old, new, measures=STEADY)
        assert found.exit_status == 1
        (job,) = found.unmatched
        assert (job.old, job.new, job.reason, job.effect) == ("ok", str(status), "why", "failure")
        # The other way round it is a repair.
        repaired = compare(new, old, measures=STEADY)
        assert repaired.exit_status == 0
        assert [job.effect for job in repaired.unmatched] == ["none"]


def test_a_job_that_failed_in_one_old_block_may_have_become_slower() -> None:
    new = in_session(drawn(1))
    change = synthetic.only(
        "jax/static", synthetic.ends(Status.CRASHED, "why"), measure="steady", block=3
    )
    old = replace(new, records=[change(record) for record in new.records])
    found = compare(old, new, measures=STEADY)
    assert [job.effect for job in found.unmatched] == ["cannot tell"]
    assert found.exit_status == 3


def test_samples_that_no_clock_reads_are_a_failure() -> None:
    def bad(record: Record) -> Record:
        return replace(record, samples={"steady": [*record.samples["steady"], math.nan]})

    old = in_session(drawn(1))
    change = synthetic.only("jax/static", bad, measure="steady", block=1)
    found = compare(old, replace(old, records=[change(r) for r in old.records]))
    assert [(job.new, job.effect) for job in found.unmatched] == [("bad samples", "failure")]


@pytest.mark.parametrize("status", [Status.UNAVAILABLE, Status.UNSUPPORTED, Status.INTERRUPTED])
def test_what_was_to_be_measured_and_was_not_leaves_one_undecided(status: Status) -> None:
    old = in_session(drawn(1))
    change = synthetic.only("jax/static", synthetic.ends(status, "why"), measure="steady")
    new = replace(old, records=[change(record) for record in old.records])
    found = compare(old, new, measures=STEADY)
    assert [job.effect for job in found.unmatched] == ["cannot tell"]
    assert found.exit_status == 3


def test_what_was_cut_off_in_the_old_run_leaves_one_undecided() -> None:
    new = in_session(drawn(1))
    change = synthetic.only("jax/static", synthetic.ends(Status.INTERRUPTED, "why"))
    old = replace(new, records=[change(record) for record in new.records])
    for later in (new, old):
        found = compare(old, later, measures=STEADY)
        assert [job.effect for job in found.unmatched] == ["cannot tell"]
        assert found.exit_status == 3
    capped = synthetic.only("jax/static", synthetic.ends(Status.CAPPED, "long"))
    left_out = replace(new, records=[capped(record) for record in new.records])
    assert compare(old, left_out, measures=STEADY).exit_status == 0


def test_what_a_plan_leaves_out_is_listed_and_not_counted() -> None:
    old = in_session(drawn(1))
    capped = synthetic.only("jax/static", synthetic.ends(Status.CAPPED, "long"), measure="steady")
    new = replace(old, records=[capped(record) for record in old.records])
    found = compare(old, new, measures=STEADY)
    assert [(job.new, job.effect) for job in found.unmatched] == [("capped", "none")]
    assert found.exit_status == 0
    fewer = synthetic.run(
        synthetic.sweep(seq_len=(10,), mode=("forward",), backend=("torch",), blocks=10), seed=1
    )
    only_old = compare(old, in_session(fewer), measures=STEADY)
    absent = {job.job.implementation: job for job in only_old.unmatched}
    assert absent.keys() == {"jax/static", "jax/dynamic", "jax/scan-unroll-8"}
    assert absent["jax/static"].new == "not planned"
    assert "not in the new run's plan" in absent["jax/static"].reason


def test_measures_that_ended_alike_share_a_row() -> None:
    crash = synthetic.only("jax/static", synthetic.ends(Status.CRASHED, "died"))
    found = compare(drawn(1, 3), drawn(2, 3, change=crash))
    assert [job.job.measure for job in found.unmatched] == ["steady", "cold", "memory"]
    (table,) = [t for t in words.build(found).tables if t.name == "not-compared"]
    assert table.display[["of", "new", "verdict", "reason"]].to_numpy().tolist() == [
        ["a call, first, peak", "crashed", "failure", "[1]"]
    ]


def test_what_neither_run_was_to_measure_is_not_listed() -> None:
    old = synthetic.run(synthetic.sweep(seq_len=(50,), mode=("forward",)), seed=1)
    assert compare(old, old).unmatched == []


def test_limits_do_not_count() -> None:
    old = in_session(drawn(1))
    slow = synthetic.only("torch/products", lambda record: scaled(record, 3.0))
    found = compare(old, replace(old, records=[slow(r) for r in old.records]), measures=STEADY)
    assert (row(found, "torch/products").verdict, found.exit_status) == ("slower", 0)
    assert "bare matrix products moved too (torch/products forward)" in words.to_json(found)


def test_launches_do_not_count_either() -> None:
    plan = synthetic.sweep(device=("gpu",), seq_len=(50,), mode=("forward",), blocks=10)
    old = in_session(synthetic.run(plan, seed=1))
    slow = synthetic.only("jax/launches", lambda record: scaled(record, 3.0))
    found = compare(old, replace(old, records=[slow(r) for r in old.records]), measures=STEADY)
    assert (row(found, "jax/launches").verdict, found.exit_status) == ("slower", 0)
    assert "bare launches moved too (jax/launches forward)" in words.to_json(found)
    assert "bare matrix products moved" not in words.to_json(found)


def test_nothing_that_counts_is_undecided() -> None:
    old = in_session(drawn(1))
    found = compare(old, old, rules=parse_rules(["larger-than-5%"]), measures=STEADY)
    assert found.exit_status == 3


def test_runs_without_a_common_job_are_refused() -> None:
    other = synthetic.run(synthetic.sweep(seq_len=(50,), mode=("forward",)))
    with pytest.raises(UsageError, match="have no job in common"):
        compare(drawn(1), other)


# Rules


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("slower-than-5%", Rule(word="slower", limit=0.05)),
        ("slower-than-2.5%", Rule(word="slower", limit=0.025)),
        ("larger-than-100%", Rule(word="larger", limit=1.0)),
    ],
)
def test_a_rule_is_read_and_written(text: str, rule: Rule) -> None:
    assert Rule.parse(text) == rule
    assert str(rule) == text


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "5%",
            "slower",
            "slower-than-5",
            "slower-than-%",
            "slower-than--5%",
            "faster-than-5%",
        ),
        *("slower-than-0%", "slower-than-0.0%", "slower-than-nan%", "slower than 5%", "larger-5%"),
        *("slower-than-5%x", "slower-than-1e3%", "SLOWER-THAN-5%", "slower-than-\u0665%"),
    ],
)
def test_a_rule_that_is_none_is_named(text: str) -> None:
    with pytest.raises(UsageError, match=r"fail-if .*must be slower-than-N% or larger-than-N%"):
        Rule.parse(text)


def test_rules_add_up_and_exclude_each_other() -> None:
    assert parse_rules([]) == (Rule(word="slower", limit=0.05),)
    both = parse_rules(["larger-than-20%", "slower-than-10%"])
    assert [rule.word for rule in both] == ["larger", "slower"]
    with pytest.raises(UsageError, match="slower-than: is given twice"):
        parse_rules(["slower-than-5%", "slower-than-10%"])


def test_memory_counts_where_a_rule_names_it() -> None:
    old = in_session(drawn(1))
    more = synthetic.only("jax/dynamic", lambda record: scaled(record, 4.0), measure="memory")
    new = replace(old, records=[more(record) for record in old.records])
    assert compare(old, new).exit_status == compare(old, old).exit_status != 1
    found = compare(old, new, rules=parse_rules(["larger-than-50%"]))
    assert found.exit_status == 1
    assert row(found, "jax/dynamic", "memory").verdict == "slower"
    assert words.verdict_text(row(found, "jax/dynamic", "memory")) == "larger"
    assert not row(found, "jax/dynamic").gated


def large(run: Run) -> Run:
    """With peaks that are far above the method's error."""
    scale = [scaled(r, 100.0) if r.job.measure == "memory" else r for r in run.records]
    return replace(run, records=scale)


@pytest.mark.parametrize("silent", [(True, True), (True, False), (False, True)])
def test_a_rule_about_memory_is_not_kept_where_a_host_does_not_tell(
    silent: tuple[bool, bool],
) -> None:
    told = large(in_session(drawn(1)))
    change = synthetic.ends(Status.UNAVAILABLE, "peak memory: no clear_refs")
    records = [change(r) if r.job.measure == "memory" else r for r in told.records]
    old, new = (replace(told, records=records) if quiet else told for quiet in silent)
    both = parse_rules(["larger-than-80%", "slower-than-50%"])
    assert compare(told, told, rules=both).exit_status == 0
    found = compare(old, new, rules=both)
    assert found.exit_status == 3
    assert {job.effect for job in found.unmatched} == {"cannot tell"}
    assert {job.job.measure for job in found.unmatched} == {"memory"}
    if silent == (True, True):
        assert compare(old, new, rules=parse_rules(["slower-than-50%"])).exit_status == 0


def test_a_framework_that_neither_run_has_breaks_no_rule_about_memory() -> None:
    told = large(in_session(drawn(1)))
    change = synthetic.ends(Status.UNAVAILABLE, "not installed")
    records = [change(r) if r.job.backend == "torch" else r for r in told.records]
    run = replace(told, records=records)
    found = compare(run, run, rules=parse_rules(["larger-than-80%", "slower-than-50%"]))
    assert (found.exit_status, found.unmatched) == (0, [])


def test_a_small_peak_must_change_by_more_than_the_methods_error() -> None:
    old = in_session(drawn(1))  # 2.6 MB, of which 0.3 are 11 %
    for factor, verdict in ((1.0, "cannot tell"), (1.1, "cannot tell"), (1.3, "slower")):
        more = synthetic.only("jax/dynamic", lambda r, f=factor: scaled(r, f), measure="memory")  # type: ignore[misc]
        new = replace(old, records=[more(record) for record in old.records])
        found = row(compare(old, new), "jax/dynamic", "memory")
        assert found.small
        assert found.verdict == verdict


def test_a_peak_that_reads_as_nothing_has_no_ratio() -> None:
    def nothing(record: Record) -> Record:
        return replace(record, values={"peak_bytes": 0.0})

    change = synthetic.only("jax/dynamic", nothing, measure="memory")
    found = compare(drawn(1), drawn(2, change=change))
    assert row(found, "jax/dynamic", "memory").ratio is None
    assert row(found, "jax/dynamic", "memory").verdict == "cannot tell"


# Hosts


def elsewhere(run: Run, **changes: object) -> Run:
    host = {**run.manifest["host"], **changes}
    return replace(run, manifest={**run.manifest, "host": host})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cpu": "Another"}, "cpu A CPU @ 2.50GHz / Another"),
        ({"cores": 8}, "cores 4 / 8"),
        ({"memory_bytes": 32_000_000_000}, "memory bytes 16000000000 / 32000000000"),
        ({"system": "Linux 6.2"}, "system Linux 6.1 / Linux 6.2"),
        ({"virtual": True}, "virtual none / True"),
    ],
)
def test_another_host_is_refused_unless_it_is_meant(changes: dict[str, object], said: str) -> None:
    old, new = drawn(1), elsewhere(drawn(2, pace=2.0), **changes)
    with pytest.raises(UsageError, match="hosts differ") as refusal:
        compare(old, new)
    assert said in str(refusal.value)
    assert "--across-hosts" in str(refusal.value)
    found = compare(old, new, across_hosts=True, measures=STEADY)
    assert found.hosts == [said]
    assert found.exit_status == 1


def test_start_is_compared_names_and_a_little_memory_are_not() -> None:
    manifest = synthetic.manifest(plan())
    assert host_differences(manifest, {**manifest, "start": "spawn"}) == ["start fork / spawn"]
    host = {**manifest["host"], "hostname": "there", "memory_bytes": 15_999_000_000}
    assert host_differences(manifest, {**manifest, "host": host}) == []
    assert host_differences({"host": 3}, {}) == []


def test_what_else_changed_is_told() -> None:
    old = synthetic.manifest(plan(), environment={"jax": {"XLA_FLAGS": "a"}}, commit="1")
    new = synthetic.manifest(
        plan(), environment={"jax": {"XLA_FLAGS": "b"}}, versions={"jax": "0.11.0"}, commit="2"
    )
    assert other_differences(old, new) == [
        *("commit 1 / 2", "jax 0.10.2 / 0.11.0", "torch 2.13.0 / none", "jax XLA_FLAGS a / b")
    ]
    assert other_differences(old, old) == []
    other_backend = {**old, "environment": {"torch": {"OMP_NUM_THREADS": "1"}}}
    assert other_differences(old, other_backend) == []


# The command


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Run], str]:
    """Writes a run into a folder of this name and returns its path."""
    monkeypatch.setattr("os.fsync", lambda _: None)

    def store(name: str, run: Run) -> str:
        folder = tmp_path / name
        written = Store.create(folder, {**run.manifest, "id": name})
        for record in run.records:
            written.append(record)
        return str(folder)

    return store


Stored = Callable[[str, Run], str]


def test_exit_statuses(stored: Stored, capsys: pytest.CaptureFixture[str]) -> None:
    old = in_session(drawn(1))
    a = stored("a", old)
    same, slow = stored("same", beside(old, 1.0)), stored("slow", beside(old, 1.5))
    few, there = stored("few", drawn(5, 1)), stored("there", elsewhere(old, cores=64))
    steady = ["--measure", "steady"]
    for arguments, status in (
        ([a, same, *steady], 0),
        ([a, slow, *steady], 1),
        ([a, slow, *steady, "--fail-if", "slower-than-60%"], 0),
        ([a, few, *steady], 3),
        ([a, there], 2),
        ([a, there, *steady, "--across-hosts"], 0),
        ([a, same, "--fail-if", "slower"], 2),
        ([a, same, "--measure", "heat"], 2),
        ([a, a], 2),
        ([a], 2),
        ([a, f"{a}-nowhere"], 2),
    ):
        assert cli.main(["compare", *arguments]) == status, arguments
        out, err = capsys.readouterr()
        assert (err.count("\n"), out) == (1, "") if status == 2 else err == ""


def test_a_refusal_is_one_line_that_names_the_difference(
    stored: Stored, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = stored("a", drawn(1, 2)), stored("b", elsewhere(drawn(2, 2), cores=64, cpu="X"))
    assert cli.main(["compare", a, b]) == 2
    assert capsys.readouterr().err == (
        "bench: error: hosts differ: cpu A CPU @ 2.50GHz / X; cores 4 / 64; "
        "--across-hosts compares them all the same\n"
    )


def test_help_documents_the_exit_statuses(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", "--help"]) == 0
    told = capsys.readouterr().out
    assert "Exit status:" in told
    assert all(f"\n    {status}    " in told for status in (0, 1, 2, 3))


def test_json_has_every_digit_and_nothing_else_on_stdout(
    stored: Stored, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = drawn(1, 1), drawn(2, 1)
    folders = stored("old", old), stored("new", new)
    assert cli.main(["compare", *folders, "--format", "json"]) == 3

    def none_but_numbers(token: str) -> float:
        raise AssertionError(token)

    data = json.loads(capsys.readouterr().out, parse_constant=none_but_numbers)
    assert (data["schema"], data["exit_status"], data["paired"]) == (1, 3, False)
    assert (data["old"]["id"], data["new"]["id"]) == ("old", "new")
    assert data["rules"] == ["slower-than-5%"]
    assert any("one after the other" in warning for warning in data["warnings"])
    found = {(r["implementation"], r["measure"]): r for r in data["rows"]}
    one = found["torch/dynamic", "steady"]
    medians = [
        float(np.median(r.samples["steady"]))
        for run in (old, new)
        for r in run.records
        if (r.job.arm, r.job.measure) == ("torch/dynamic", "steady")
    ]
    assert [one["old"], one["new"]] == medians
    assert one["ratio"] == pytest.approx(medians[1] / medians[0], rel=1e-12)
    assert (one["ratio_low"], one["how"], one["counts"]) == (None, "unpaired", True)
    assert not found["reference/products", "steady"]["counts"]


def test_csv_has_a_row_a_job(stored: Stored, capsys: pytest.CaptureFixture[str]) -> None:
    crash = synthetic.only("jax/static", synthetic.ends(Status.CRASHED, "died"))
    folders = stored("old", drawn(1, 3)), stored("new", drawn(2, 3, change=crash))
    assert cli.main(["compare", *folders, "--format", "csv"]) == 1
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    found = {(r["implementation"], r["measure"]): r for r in rows}
    assert len(found) == len(rows)
    assert found["jax/static", "steady"]["verdict"] == "failure"
    assert found["jax/static", "steady"]["reason"] == "died"
    assert float(found["torch/dynamic", "steady"]["ratio"]) > 0


def test_the_table_is_readable_at_100_columns(
    stored: Stored, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    crash = synthetic.only("jax/static", synthetic.ends(Status.CRASHED, "died [red]x[/red]"))
    slow = drawn(2, 4, pace=2.5, change=crash)
    folders = [stored("old", drawn(1, 4)), stored("new", slow)]
    assert cli.main(["compare", *folders]) == 1
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 100
    line = next(line for line in out.splitlines() if line.startswith("torch/dynamic  "))
    assert line.split()[-2:] == ["slower", "unpaired"]
    assert "] " in line
    assert "exit status 1" in out
    assert "died [red]x[/red]" in out
    assert "! unpaired: the runs were measured one after the other" in out


def test_every_row_and_the_header_say_that_hosts_differ(
    stored: Stored, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    old, new = drawn(1, 3), elsewhere(drawn(2, 3), cores=64)
    cli.main(["compare", stored("old", old), stored("new", new), "--across-hosts"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "new against old, across hosts"
    rows = [line for line in lines if line.startswith(("torch/", "jax/", "reference/"))]
    assert len(rows) == len(compare(old, new, across_hosts=True).rows)
    assert all(line.rstrip().endswith("across hosts") for line in rows)


def test_markdown(stored: Stored, capsys: pytest.CaptureFixture[str]) -> None:
    folders = stored("old", drawn(1, 4)), stored("new", drawn(2, 4, pace=2.5))
    assert cli.main(["compare", *folders, "--format", "markdown"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("# new against old\n")
    assert "| torch/dynamic" in out
    assert "**unpaired: the runs were measured one after the other." in out


def test_text_from_a_manifest_is_only_text() -> None:
    hostile = {"versions": {"jax": "\x1b[31m[red]1[/red]\n2"}}
    new = drawn(2, 2)
    found = compare(drawn(1, 2), replace(new, manifest={**new.manifest, **hostile}))
    console_text = io.StringIO()
    print_report(words.build(found), Console(file=console_text, width=100))
    assert "\x1b" not in console_text.getvalue()
    assert "[red]1[/red]" in console_text.getvalue()


def test_a_peak_that_is_not_calibrated_is_no_reason_to_fail() -> None:
    old = in_session(drawn(1))
    larger = synthetic.only("jax/dynamic", lambda record: scaled(record, 4.0), measure="memory")

    def spoilt(record: Record) -> Record:
        return replace(record, values={**record.values, "calibration_error": 0.2})

    off = synthetic.only("jax/dynamic", spoilt, measure="memory")
    rules = parse_rules(["larger-than-50%"])
    sound = replace(old, records=[larger(record) for record in old.records])
    assert compare(old, sound, rules=rules).exit_status == 1
    uncalibrated = replace(old, records=[off(larger(record)) for record in old.records])
    found = compare(old, uncalibrated, rules=rules)
    assert row(found, "jax/dynamic", "memory").verdict == "cannot tell"
    report = build([uncalibrated])
    (pairs,) = (table.display for table in report.tables if table.name == "static-dynamic")
    assert pairs["peak"].str.contains("not calibrated").any()


@pytest.mark.parametrize(("seconds", "said"), [(2e-7, False), (5e-6, True)])
def test_an_instrument_that_costs_too_much_is_said(seconds: float, said: bool) -> None:
    backends = {"jax": {"overhead": {"call_s": seconds}}}
    warnings = build([synthetic.run(backends=backends)]).runs[0].warnings
    assert any(text.startswith("overhead: the clock adds 5.0 µs") for text in warnings) == said
