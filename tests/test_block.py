"""How many rounds a block takes, and what it does where memory does not hold all its arms."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.api import Case
from bench import block, limits, room, stats
from bench.block import rounds_needed
from bench.ending import wait_until_asleep
from bench.evidence import groups_of
from bench.failures import steady_failures
from bench.measure import BURST_S, FEWEST_LONG_ROUNDS, FEWEST_ROUNDS, LONG_S
from bench.outcome import Outcome
from bench.record import Job, Record, Status
from bench.room import Room
from bench.store import Run
from tests.scripted_runs import execute, of, sweep

CASE = Case(cell="lstm", seq_len=3, batch=2, inputs=3, hidden=4)
JOB = Job(implementation="torch/dynamic", case=CASE, mode="forward", measure="steady")


def arm(samples: Sequence[float], call_s: float = 1e-3) -> Outcome:
    return Outcome(job=JOB, call_s=call_s, status=Status.OK, samples={"steady": list(samples)})


def test_no_arm_needs_no_round() -> None:
    assert rounds_needed([], 1.0) == 0


def test_rounds_begin_with_a_least_number_and_fewer_of_long_calls() -> None:
    assert rounds_needed([arm([]), arm([])], 0.01) == FEWEST_ROUNDS
    assert rounds_needed([arm([]), arm([], call_s=LONG_S)], 0.01) == FEWEST_LONG_ROUNDS


def test_arms_that_agree_need_no_more_rounds_and_noisy_ones_as_many_as_there_is_time() -> None:
    draw = random.Random(1)
    drift = [1.0 + 0.3 * draw.random() for _ in range(FEWEST_ROUNDS)]
    quiet = [arm([1e-3 * d for d in drift]), arm([2e-3 * d for d in drift])]
    assert rounds_needed(quiet, 10.0) == FEWEST_ROUNDS
    noisy = [*quiet, arm([1e-3 * math.exp(draw.gauss(0, 0.1)) for _ in drift])]
    assert rounds_needed(noisy, 1.0) == round(1.0 / BURST_S)


@given(
    st.lists(st.floats(1e-5, 1), min_size=1, max_size=6),
    st.floats(0.01, 2),
    st.integers(0, 100),
)
def test_rounds_are_bounded_by_time_whatever_the_samples(
    calls_s: list[float], seconds: float, seed: int
) -> None:
    draw = random.Random(seed)
    arms = [arm([s * math.exp(draw.gauss(0, 0.3)) for _ in range(9)], s) for s in calls_s]
    needed = rounds_needed(arms, seconds)
    fewest = FEWEST_LONG_ROUNDS if max(calls_s) >= LONG_S else FEWEST_ROUNDS
    round_s = sum(max(BURST_S, s) for s in calls_s)
    assert fewest <= needed <= max(fewest, seconds * len(arms) / round_s + 1e-6)


class ForSome(Room):
    """Memory for so many workers at once."""

    def __init__(self, most: int) -> None:
        self._most = most

    def is_left(self, pids: Sequence[int]) -> bool:
        return len(pids) < self._most


NAMES = ("fine", "slow", "fine-too", "persistent", "one-time")


@pytest.fixture
def grouped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scripted_backend: None) -> Run:
    monkeypatch.setattr(block, "Room", lambda _device: ForSome(4))
    return execute(tmp_path, sweep(*NAMES, blocks=3, cold_blocks=0, memory_blocks=0))


def by_group(run: Run) -> dict[tuple[int, int], list[Record]]:
    found: dict[tuple[int, int], list[Record]] = defaultdict(list)
    for record in run.records:
        assert record.status == Status.OK, record.reason
        found[record.pairing].append(record)
    return found


def test_where_memory_is_short_groups_share_an_arm_and_its_twin(grouped: Run) -> None:
    reference = grouped.records[0].worker["reference"]
    groups = by_group(grouped)
    assert len(groups) > 3
    for (_block, attempt), records in groups.items():
        arms = [(record.job.implementation, record.job.replica) for record in records]
        assert len(arms) == len(set(arms)) <= 4
        twins = {name for name, replica in arms if replica}
        assert any((name, 0) in arms for name in twins)
        if attempt:
            assert {(reference, 0), (reference, 1)} <= set(arms)
        assert len({len(record.samples["steady"]) for record in records}) == 1
    for number in range(3):
        seen = {r.job.implementation for r in grouped.records if r.block == number}
        assert seen >= {f"scripted/{name}" for name in NAMES}


def test_a_ratio_across_groups_goes_through_the_shared_arm(grouped: Run) -> None:
    (group,), faults = groups_of(grouped, "run")
    assert faults == []
    for name in NAMES[2:]:
        ratio = group.steady_ratio("scripted/slow", f"scripted/{name}")
        assert ratio is not None
        assert ratio.blocks == 3
        assert ratio.ratio > 3
    assert group.get("scripted/slow", "steady").outcome.counted == "3 of 3"


def test_a_linked_ratio_has_the_variance_of_both_groups() -> None:
    draw = random.Random(2)

    def arms(scale: float, attempt: int) -> dict[tuple[int, int], list[float]]:
        return {
            (n, attempt): [scale * math.exp(draw.gauss(0, 0.01)) for _ in range(9)]
            for n in range(8)
        }

    a, b = arms(3.0, 0), arms(2.0, 1)
    reference = {**arms(1.0, 0), **arms(1.0, 1)}
    assert stats.steady_ratio(a, b) is None
    linked = stats.steady_ratio(a, b, reference=reference)
    first, second = stats.steady_ratio(a, reference), stats.steady_ratio(b, reference)
    assert linked is not None
    assert first is not None
    assert second is not None
    assert linked.ratio == pytest.approx(first.ratio / second.ratio)
    assert linked.low < 1.5 < linked.high


def test_an_arm_that_has_no_room_beside_the_others_gets_another_group(
    tmp_path: Path, scripted_backend: None
) -> None:
    """It runs out of memory in every company, and is told so in the end."""
    plan = sweep("fine", "oom", "fine-too", blocks=1, cold_blocks=0, memory_blocks=0)
    result = execute(tmp_path, plan)
    (failed,) = of(result, "oom", "steady")
    assert failed.status == Status.OOM
    others = [r for r in result.records if r.job.implementation != "scripted/oom"]
    assert {record.status for record in others} == {Status.OK}


def test_an_arm_that_has_no_room_among_many_is_measured_beside_the_shared_one(
    tmp_path: Path, scripted_backend: None
) -> None:
    """All have room when they are built; it runs out when they are timed."""
    plan = sweep("fine", "crowded", "fine-too", "slow", blocks=2, cold_blocks=0, memory_blocks=0)
    result = execute(tmp_path, plan)
    found = of(result, "crowded", "steady")
    assert [record.status for record in found] == [Status.OK] * 2
    assert all(record.attempt for record in found)
    (group,), _ = groups_of(result, "run")
    ratio = group.steady_ratio("scripted/slow", "scripted/crowded")
    assert ratio is not None
    assert ratio.blocks == 2
    assert ratio.ratio > 1


def test_an_arm_that_has_room_by_itself_only_is_timed_and_compared_with_none(
    tmp_path: Path, scripted_backend: None
) -> None:
    plan = sweep("fine", "alone-only", "fine-too", blocks=2, cold_blocks=0, memory_blocks=0)
    result = execute(tmp_path, plan)
    assert [record.status for record in of(result, "alone-only", "steady")] == [Status.OK] * 2
    (group,), _ = groups_of(result, "run")
    assert group.steady_ratio("scripted/alone-only", "scripted/fine") is None
    assert group.steady_ratio("scripted/fine-too", "scripted/fine") is not None


def test_a_reference_that_fails_in_one_group_is_still_measured_in_other_ways() -> None:
    def left(attempt: int, status: Status) -> Record:
        return Record(job=JOB, block=0, attempt=attempt, status=status)

    ok, failed = left(0, Status.OK), left(1, Status.CRASHED)
    assert steady_failures([ok, failed], 0) == {}
    assert steady_failures([failed], 0) == {("torch/dynamic", CASE, "forward"): failed}
    assert steady_failures([failed], 1) == {}


def test_a_block_counts_once_however_many_turns_two_arms_shared_in_it() -> None:
    a = {(0, 0): [2.0] * 3, (0, 1): [2.2] * 3, (1, 0): [2.1] * 3}
    b = {key: [1.0] * 3 for key in a}
    ratio = stats.steady_ratio(a, b)
    assert ratio is not None
    assert ratio.blocks == 2
    assert ratio.ratio == pytest.approx(math.sqrt(math.sqrt(2.0 * 2.2) * 2.1))


def test_where_no_arm_has_room_each_ends_once_and_the_run_goes_on(
    tmp_path: Path, scripted_backend: None
) -> None:
    plan = sweep("oom", "exhausted", blocks=2, cold_blocks=0, memory_blocks=0)
    result = execute(tmp_path, plan)
    assert result.manifest["status"] == "finished"
    scripted = [r for r in result.records if r.job.backend == "scripted"]
    assert {record.status for record in scripted} == {Status.OOM}
    assert len({(r.job, r.block) for r in scripted}) == len(scripted)


def test_room_on_the_host_is_by_the_largest_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "headroom", lambda: limits.Headroom(total=1000, free=400))
    sizes = {1: 100, 2: 250}
    monkeypatch.setattr(room, "_private_bytes", sizes.__getitem__)
    assert Room("cpu").is_left([1])
    assert not Room("cpu").is_left([1, 2])


def test_room_on_a_gpu_is_by_the_largest_fall_of_its_free_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free = iter([8e9, 7e9, 4e9])
    monkeypatch.setattr("bench.gpus.memory_bytes", lambda _device: 8e9)
    monkeypatch.setattr("bench.gpus.free_bytes", lambda _device: next(free))
    memory = Room("gpu")
    assert memory.is_left([])
    assert memory.is_left([])
    assert not memory.is_left([])


@contextmanager
def process(code: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs this program, after it has said that it is there; killed at the end."""
    script = f"print(flush=True)\n{code}"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as started:
        try:
            assert started.stdout is not None
            started.stdout.readline()
            yield started
        finally:
            started.kill()


def test_a_process_that_rests_is_asleep_and_one_that_spins_is_not() -> None:
    with process("import time; time.sleep(600)") as resting:
        assert wait_until_asleep(resting.pid, 30)
    with process("while True: pass") as spinning:
        assert not wait_until_asleep(spinning.pid, 0.05)
    assert wait_until_asleep(spinning.pid)
