"""The longest sequence within a limit of memory: the search, the limits, and what is said of it."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.api import Case
from bench import capacity, estimate, gpus, limits, plan, selection
from bench.capacity import FAILED, LARGEST, LIMIT, Found, Trial, is_close, search
from bench.cli import main
from bench.errors import UsageError
from bench.estimate import job_seconds, trials
from bench.evidence import groups_of
from bench.launch import Team
from bench.limits import V1, V2, Group, Place
from bench.record import Job, Record, Status
from bench.report import Report, build
from bench.sampling import Sampling
from bench.sources import ServerDied, WorkerDied
from bench.store import Run
from bench.sweep import Sweep
from tests import scripted, synthetic
from tests.reading import one, plain_report, rows, shown, table
from tests.scripted_runs import SAMPLING, execute, of, on_devices, sweep

MB = 1_000_000


# The search, with a memory that is a number.


def up_to(most: int, tried: list[int]) -> Callable[[int], Trial]:
    def attempt(seq_len: int) -> Trial:
        tried.append(seq_len)
        return Trial(fits=seq_len <= most, reason="too long")

    return attempt


@given(first=st.integers(1, 1000), most=st.integers(0, 1_000_000))
def test_the_largest_that_fits_is_found_to_five_percent(first: int, most: int) -> None:
    tried: list[int] = []
    found = search(first, None, up_to(most, tried))
    assert found.failed is not None
    assert found.largest <= most < found.failed
    assert is_close(found.largest, found.failed)
    assert (found.status, found.reason) == (Status.OK, f"T={found.failed:,}: too long")
    assert len(tried) == len(set(tried)) <= 40
    assert max(tried) <= max(first, 2 * most)


@given(first=st.integers(1, 50), more=st.integers(0, 500), most=st.integers(0, 1000))
def test_nothing_above_a_cap_is_tried(first: int, more: int, most: int) -> None:
    longest, tried = first + more, list[int]()
    found = search(first, longest, up_to(most, tried))
    assert max(tried) <= longest
    if most >= longest:
        assert (found.largest, found.failed) == (longest, None)
        assert "this sweep stops there" in found.reason
    else:
        assert found.failed is not None
        assert found.largest <= most < found.failed <= longest


def test_doubling_then_halving() -> None:
    tried: list[int] = []
    assert search(10, None, up_to(100, tried)).largest == 100
    assert tried == [10, 20, 40, 80, 160, 120, 100, 110, 105]


@pytest.mark.parametrize(
    ("at", "found"),
    [
        (10, Found(largest=0, failed=None, status=Status.TIMEOUT, reason="T=10: slow")),
        (40, Found(largest=20, failed=None, status=Status.TIMEOUT, reason="T=40: slow")),
        (120, Found(largest=80, failed=160, status=Status.TIMEOUT, reason="T=120: slow")),
    ],
)
def test_what_cannot_be_told_ends_the_search(at: int, found: Found) -> None:
    fits = up_to(100, [])

    def attempt(seq_len: int) -> Trial:
        if seq_len == at:
            return Trial(fits=None, status=Status.TIMEOUT, reason="slow")
        return fits(seq_len)

    assert search(10, None, attempt) == found


def test_the_data_that_nobody_can_do_without() -> None:
    case = Case(cell="lstm", seq_len=10, batch=4, inputs=3, hidden=5, dtype="float64")
    assert capacity.data_bytes(case) == 10 * 4 * (3 + 5) * 8


# Limits: where a group can be made, and what the kernel is told.


def test_where_groups_are_looked_for() -> None:
    root = Path("/sys/fs/cgroup")
    assert limits.places("0::/user.slice/shell.scope\n") == [
        Place(version=V2, folder=root / "user.slice/shell.scope"),
        Place(version=V2, folder=root / "user.slice"),
        Place(version=V2, folder=root / "unified/user.slice/shell.scope"),
        Place(version=V2, folder=root / "unified/user.slice"),
    ]
    assert limits.places("0::/\n") == [
        Place(version=V2, folder=root),
        Place(version=V2, folder=root / "unified"),
    ]
    assert limits.places("9:name=systemd:/\n4:cpuset,memory:/docker/1\n") == [
        Place(version=V1, folder=root / "memory/docker/1"),
        Place(version=V1, folder=root / "memory"),
    ]
    assert limits.places("3:cpu,cpuacct:/job\n") == []


class Kernel:
    """Folders that are control groups: whoever makes one finds its files in it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, files: Mapping[str, str]) -> None:
        def mkdtemp(*, prefix: str, dir: Path) -> str:  # noqa: A002
            folder = dir / f"{prefix}1"
            folder.mkdir()
            self.files = folder
            for name, text in files.items():
                (folder / name).write_text(text)
            return str(folder)

        def remove(folder: Path) -> None:
            assert folder == self.files
            self.removed = True

        self.removed = False
        monkeypatch.setattr(limits.tempfile, "mkdtemp", mkdtemp)
        monkeypatch.setattr(limits, "_remove", remove)

    def says(self, name: str) -> str:
        return (self.files / name).read_text()


V1_FILES = {"memory.limit_in_bytes": "-", "memory.memsw.limit_in_bytes": "-", "cgroup.procs": ""}
V2_FILES = {"memory.max": "max", "memory.swap.max": "max", "cgroup.procs": ""}
V1_EVENTS = "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"
V2_EVENTS = "low 0\nhigh 0\nmax 3\noom 1\noom_kill {}\noom_group_kill 9\n"


@pytest.mark.parametrize(
    ("version", "files", "events", "told", "lifted"),
    [
        (V1, V1_FILES, V1_EVENTS, ("64000000", "64000000"), "-1"),
        (V2, V2_FILES, V2_EVENTS, ("64000000", "0"), "max"),
    ],
    ids=["v1", "v2"],
)
def test_a_group_is_limited_joined_and_removed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    version: limits.Version,
    files: Mapping[str, str],
    events: str,
    told: tuple[str, str],
    lifted: str,
) -> None:
    kernel = Kernel(monkeypatch, {**files, version.events: events.format(0)})
    with limits.group(Place(version=version, folder=tmp_path), 64 * MB) as made:
        assert (kernel.says(version.limit), kernel.says(version.swap)) == told
        assert made.kills() == 0
        with limits.enforced(limits.order(64 * MB, made)):
            assert kernel.says("cgroup.procs") == "0"
        assert (kernel.says(version.limit), kernel.says(version.swap)) == (lifted, lifted)
        (made.folder / version.events).write_text(events.format(2))
        assert made.kills() == 2
        assert not kernel.removed
    assert kernel.removed


def test_a_host_without_an_account_of_swap_has_a_group_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Kernel(monkeypatch, {"memory.max": "max"})
    with limits.group(Place(version=V2, folder=tmp_path), 64 * MB) as made:
        assert kernel.says("memory.max") == "64000000"
        made.lift()
        assert kernel.says("memory.max") == "max"
    assert sorted(path.name for path in made.folder.iterdir()) == ["memory.max"]


def test_the_first_place_that_works_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a place that is not there stands one that lets itself be joined."""
    absent = Place(version=V1, folder=tmp_path / "absent")
    there = Place(version=V1, folder=tmp_path)
    Kernel(monkeypatch, {**V1_FILES, V1.events: V1_EVENTS.format(0)})
    monkeypatch.setattr(limits, "places", lambda text: [absent, there])
    assert limits.find_place() == there
    monkeypatch.setattr(limits, "places", lambda text: [absent])
    assert limits.find_place() is None
    monkeypatch.setattr(limits, "_OWN_GROUPS", tmp_path / "absent")
    assert limits.find_place() is None


def test_a_group_that_keeps_no_account_of_what_it_killed_does_not_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sandbox may take a limit and heed none."""
    Kernel(monkeypatch, V1_FILES)
    monkeypatch.setattr(limits, "places", lambda text: [Place(version=V1, folder=tmp_path)])
    assert limits.find_place() is None


def test_addresses_are_limited_and_given_back() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    with limits.enforced(limits.order(64 * MB, None)):
        np.ones(32 * MB, np.uint8)
        with pytest.raises(MemoryError):
            np.ones(96 * MB, np.uint8)
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    np.ones(96 * MB, np.uint8)


@pytest.fixture(name="place")
def _place() -> Place:
    place = limits.find_place()
    if place is None:
        pytest.skip("no control group with a limit of memory can be made here")
    return place


def test_a_group_kills_what_goes_beyond_and_leaves_nothing(place: Place) -> None:
    with limits.group(place, 64 * MB) as made:
        join = f"echo 0 > {made.folder}/cgroup.procs; exec "
        few, many = (f"head -c {size} /dev/zero | tail" for size in (16 * MB, 96 * MB))
        for command, kills in ((few, False), (many, True)):
            subprocess.run(["sh", "-c", join + f"sh -c '{command}' > /dev/null"], check=False)
            assert (made.kills() > 0) is kills
    assert not made.folder.exists()


def test_what_is_left_in_a_group_is_ended_with_it(place: Place) -> None:
    with limits.group(place, 64 * MB) as made:
        join = f"echo 0 > {made.folder}/cgroup.procs; exec sleep 60"
        left = subprocess.Popen(["sh", "-c", join])
        while not (made.folder / "cgroup.procs").read_text():
            assert left.poll() is None
    assert left.wait(10) == -9
    assert not made.folder.exists()


# Real workers: 1 MB a step, so that the answer is known.


@pytest.fixture(name="by", params=["group", "addresses"])
def _by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What enforces the limit; RLIMIT_AS where no group is to be found."""
    if request.param == "group":
        place: Place = request.getfixturevalue("place")
        return place.version.name
    monkeypatch.setattr(limits, "find_place", lambda: None)
    return limits.ADDRESSES


@pytest.mark.usefixtures("scripted_backend")
@pytest.mark.parametrize("mode", ["forward", "train"])
def test_one_megabyte_a_step(tmp_path: Path, by: str, mode: str) -> None:
    record = _found_by_itself(tmp_path, "grows", mode=mode)
    assert record.status == Status.OK
    largest, failed = record.values[LARGEST], record.values[FAILED]
    assert is_close(largest, failed)
    # The worker itself takes a little; the scripted one has the oracle in it.
    assert 52 <= largest <= 64
    assert record.values[LIMIT] == 64 * MB
    assert record.reason.startswith(f"T={failed:.0f}: ")
    assert record.worker["limited_by"] == by
    tried = {trial["seq_len"]: trial["fits"] for trial in record.worker["trials"]}
    assert list(tried)[:6] == [3, 6, 12, 24, 48, 96]
    assert all(fits is (seq_len <= largest) for seq_len, fits in tried.items())


@pytest.mark.usefixtures("scripted_backend")
def test_a_run_that_was_asked_has_a_record_and_keeps_to_its_caps(tmp_path: Path) -> None:
    plan = sweep("fine-too", blocks=1, memory_limit_bytes=64 * MB)
    plan = replace(plan, caps={"scripted/fine-too": {"forward": 11}})
    result = execute(tmp_path, plan)
    (record,) = of(result, "fine-too", "capacity")
    assert (record.status, record.values) == (Status.OK, {LARGEST: 11, LIMIT: 64 * MB})
    assert "T=11: it fits, and this sweep stops there" in record.reason
    assert record.worker["noise"]
    assert {record.status for record in result.records} == {Status.OK}


@pytest.mark.usefixtures("scripted_backend")
@pytest.mark.parametrize(
    ("strategy", "status", "reason"),
    [
        ("segv", Status.CRASHED, "killed by SIGSEGV"),
        ("raises", Status.CRASHED, "RuntimeError: scripted failure"),
        ("hangs", Status.TIMEOUT, "no answer to 'probe' within 1 s"),
        ("nan", Status.NAN, "not finite"),
        ("unsupported", Status.UNSUPPORTED, "expresses nothing"),
    ],
)
def test_what_never_runs_is_no_question_of_memory(
    tmp_path: Path, place: Place, strategy: str, status: Status, reason: str
) -> None:
    record = _found_by_itself(tmp_path, strategy, probe_limit_s=1.0)
    assert record.status == status
    assert record.reason.startswith("T=3: ")
    assert reason in record.reason
    assert record.values == {LIMIT: 64 * MB}


class Refused:
    """A team whose worker runs up to T=10 and then fails as it is told to."""

    def __init__(self, failure: dict[str, Any] | Exception) -> None:
        self._failure = failure
        self.pid = 1

    def worker(self, backend: str, threads: int, *, fresh_cache: bool) -> Refused:
        assert fresh_cache
        return self

    def request(self, message: Mapping[str, Any], *, limit_s: float) -> dict[str, Any]:
        if message["case"]["seq_len"] <= 10:
            return {"status": "ok", "reason": ""}
        if isinstance(self._failure, Exception):
            raise self._failure
        return self._failure

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


TRACEBACK = "Traceback:\n  File\nAbortedError: could not execute a primitive\n\t [[node]]\n"


@pytest.mark.usefixtures("scripted_backend")
@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (
            {"status": "crashed", "reason": TRACEBACK},
            "AbortedError: could not execute a primitive",
        ),
        (WorkerDied("killed by SIGABRT"), "killed by SIGABRT"),
    ],
    ids=["fails", "dies"],
)
def test_what_is_refused_memory_fails_in_many_ways(
    monkeypatch: pytest.MonkeyPatch, failure: dict[str, Any] | Exception, said: str
) -> None:
    """Under RLIMIT_AS it counts once something has run; a group kills, and anything else ends."""
    plan = sweep("fine", memory_limit_bytes=64 * MB)
    (job,) = plan.jobs("capacity")
    team: Any = Refused(failure)
    monkeypatch.setattr(limits, "find_place", lambda: None)
    refused = capacity.capacity(team, job, 0, plan, lambda: None)
    assert refused.values == {LARGEST: 10, FAILED: 11, LIMIT: 64 * MB}
    assert refused.reason == f"T=11: {said}"
    later = replace(job, case=replace(job.case, seq_len=20))
    never_ran = capacity.capacity(team, later, 0, plan, lambda: None)
    assert (never_ran.status, never_ran.values) == (Status.CRASHED, {LIMIT: 64 * MB})
    monkeypatch.setattr(limits, "find_place", lambda: Place(version=V1, folder=Path()))
    monkeypatch.setattr(capacity._Probe, "_group", lambda self: nullcontext(Unharmed()))
    ended = capacity.capacity(team, job, 0, plan, lambda: None)
    assert ended.values == {LARGEST: 6, LIMIT: 64 * MB}
    assert ended.reason == f"T=12: {said}"


class Unharmed(Group):
    """A group in which nobody was killed."""

    def __init__(self) -> None:
        super().__init__(version=V1, folder=Path())

    def kills(self) -> int:
        return 0


@pytest.mark.usefixtures("scripted_backend")
def test_a_trial_that_lost_its_server_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = sweep("fine", memory_limit_bytes=64 * MB)
    plan = replace(plan, caps={"scripted/fine": {"forward": 3}})
    (job,) = plan.jobs("capacity")
    monkeypatch.setattr(limits, "find_place", lambda: None)
    ends: list[Exception] = [ServerDied("gone")]

    class Once(Refused):
        def request(self, message: Mapping[str, Any], *, limit_s: float) -> dict[str, Any]:
            if ends:
                raise ends.pop()
            return {"status": "ok", "reason": ""}

    team: Any = Once({})
    assert capacity.capacity(team, job, 0, plan, lambda: None).values[LARGEST] == 3
    ends += [ServerDied("gone"), ServerDied("gone")]
    twice = capacity.capacity(team, job, 0, plan, lambda: None)
    assert (twice.status, twice.reason) == (Status.CRASHED, "T=3: gone")


@pytest.mark.usefixtures("scripted_backend")
def test_where_not_even_one_step_fits(tmp_path: Path) -> None:
    record = _found_by_itself(tmp_path, "oom")
    assert (record.status, record.values) == (Status.OK, {LARGEST: 0, FAILED: 1, LIMIT: 64 * MB})
    assert record.reason.startswith("T=1: MemoryError: ")


# On a GPU, which is scripted: the limit is its allocator's.


@pytest.fixture(name="gpu")
def _gpu(scripted_backend: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(scripted.DEVICES_VARIABLE, "cpu,gpu")


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("mode", ["forward", "train"])
def test_one_megabyte_a_step_of_a_gpu(tmp_path: Path, mode: str) -> None:
    record = _found_by_itself(tmp_path, "grows-on-gpu", mode=mode, device="gpu")
    assert record.status == Status.OK
    assert record.values == {LARGEST: 63, FAILED: 66, LIMIT: 64 * MB}
    said = "OutOfMemoryError: CUDA out of memory. Tried to allocate 62.94 MiB."
    assert record.reason == f"T=66: {said}"
    assert record.worker["limited_by"] == "scripted's allocator"
    tried = {trial["seq_len"]: trial["fits"] for trial in record.worker["trials"]}
    assert list(tried) == [3, 6, 12, 24, 48, 96, 72, 60, 66, 63]
    assert all(fits is (seq_len <= 64) for seq_len, fits in tried.items())


@pytest.mark.usefixtures("gpu")
def test_a_limit_of_a_gpu_is_none_of_the_host(tmp_path: Path) -> None:
    """1 MB of the host's memory a step, and none of the GPU's."""
    plan = sweep("grows", memory_limit_bytes=64 * MB)
    plan = replace(plan, caps={"scripted/grows": {"forward": 200}})
    record = _found_by_itself(tmp_path, "grows", device="gpu", plan=plan)
    assert record.values == {LARGEST: 200, LIMIT: 64 * MB}


@pytest.mark.usefixtures("gpu")
def test_host_memory_that_runs_out_says_nothing_of_a_gpu(tmp_path: Path) -> None:
    record = _found_by_itself(tmp_path, "oom", device="gpu")
    assert (record.status, record.values) == (Status.OOM, {LIMIT: 64 * MB})
    assert record.reason.startswith("T=3: MemoryError: ")


@pytest.mark.usefixtures("scripted_backend")
def test_on_a_gpu_only_what_says_that_it_was_refused_memory_counts() -> None:
    plan = sweep("fine", memory_limit_bytes=64 * MB)
    (job,) = plan.jobs("capacity")
    job = replace(job, case=replace(job.case, device="gpu:1"))
    for failure in ({"status": "crashed", "reason": TRACEBACK}, WorkerDied("killed by SIGABRT")):
        team: Any = Refused(failure)
        record = capacity.capacity(team, job, 0, plan, lambda: None)
        assert record.values == {LARGEST: 6, LIMIT: 64 * MB}
    team = Refused({"status": "oom", "reason": "RuntimeError: RESOURCE_EXHAUSTED: no"})
    found = capacity.capacity(team, job, 0, plan, lambda: None)
    assert found.values == {LARGEST: 10, FAILED: 11, LIMIT: 64 * MB}


@pytest.mark.usefixtures("scripted_backend")
def test_a_gpu_that_is_not_there_ends_the_search(tmp_path: Path) -> None:
    record = _found_by_itself(tmp_path, "fine", device="gpu")
    assert (record.status, record.values) == (Status.UNAVAILABLE, {LIMIT: 64 * MB})
    assert "T=3: device gpu: scripted 1 finds no GPU" in record.reason


@pytest.mark.usefixtures("scripted_backend")
def test_a_run_on_a_gpu_has_its_largest_t_in_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = sweep("fine", "grows-on-gpu", blocks=1, memory_limit_bytes=8 * MB)
    plan = replace(plan, caps={"scripted/fine": {"forward": 4}})
    found = on_devices(tmp_path, plan, monkeypatch, "gpu")
    (record,) = of(found, "grows-on-gpu", "capacity")
    assert (record.status, record.values[LARGEST], record.values[FAILED]) == ("ok", 8, 9)
    (capped,) = of(found, "fine", "capacity")
    assert capped.values[LARGEST] == 4


class Stop(Exception):
    pass


@pytest.mark.usefixtures("scripted_backend")
def test_a_run_that_is_stopped_starts_no_further_trial(tmp_path: Path) -> None:
    calls: list[None] = []

    def go_on() -> None:
        calls.append(None)
        if len(calls) == 3:
            raise Stop

    with pytest.raises(Stop):
        _found_by_itself(tmp_path, "grows", go_on=go_on)
    assert len(calls) == 3


def _found_by_itself(
    folder: Path,
    strategy: str,
    *,
    mode: str = "forward",
    device: str = "cpu",
    go_on: Callable[[], None] = lambda: None,
    plan: Sweep | None = None,
    **sampling: Any,
) -> Record:
    """A capacity job without the run around it, which would not come to it."""
    plan = plan or sweep(strategy, mode=mode, memory_limit_bytes=64 * MB, **sampling)
    (job,) = plan.jobs("capacity")
    job = replace(job, case=replace(job.case, device=device))
    with Team(
        ["scripted"],
        cpus=sorted(os.sched_getaffinity(0))[-1:],
        start="fork",
        log=folder / "workers.log",
        scratch=folder,
    ) as team:
        return capacity.capacity(team, job, 0, plan, go_on)


# The plan and what it costs.


def test_a_capacity_job_is_asked_for_and_begins_with_the_shortest_sequence() -> None:
    axes = {"seq_len": (50, 10), "mode": ("train",), "strategy": ("static", "dynamic")}
    asked = selection.select("smoke", axes, sampling={"memory_limit_bytes": MB})
    jobs = asked.jobs("capacity")
    assert [job.implementation for job in jobs] == [e.name for e in asked.implementations()]
    assert {(job.case.seq_len, job.mode, job.replica) for job in jobs} == {(10, "train", 0)}
    assert asked.sampling.counts()["capacity"] == 1
    assert Sweep.from_json(asked.to_json()).sampling == asked.sampling
    assert "capacity" not in selection.select("smoke", axes).sampling.counts()


@pytest.mark.parametrize("name", ["memory_limit_bytes", "probe_limit_s"])
@pytest.mark.parametrize("value", [0, -1, True, "1G", float("nan"), 2**63])
def test_a_sampling_that_limits_nothing_is_refused(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=name):
        replace(SAMPLING, **{name: value})


def _job(implementation: str) -> tuple[Job, Sampling]:
    sweep = selection.select(
        "smoke", {"mode": ("train",)}, sampling={"memory_limit_bytes": 300 * MB}
    )
    jobs = {job.implementation: job for job in sweep.jobs("capacity")}
    return jobs[implementation], sweep.sampling


def test_trials_are_estimated_as_the_search_makes_them() -> None:
    job, sampling = _job("torch/dynamic")
    took = trials(job, sampling, longest=None)
    assert 5 < len(took) < 40
    assert sum(took) == job_seconds(job, sampling)
    assert len(trials(job, sampling, longest=job.case.seq_len)) == 1
    larger = replace(sampling, memory_limit_bytes=3000 * MB)
    assert sum(trials(job, larger, longest=None)) > sum(took)
    # A trial that takes too long is the last one, and no longer than its limit.
    slow, _ = _job("torch/static")
    assert max(trials(slow, larger, longest=None)) <= sampling.probe_limit_s + 1


def run_cli(*arguments: str) -> int:
    return main(["run", "--preset", "smoke", "--dry-run", *arguments])


def test_the_dry_run_says_what_it_costs(capsys: pytest.CaptureFixture[str]) -> None:
    axes = ("--backend", "jax", "--mode", "train")
    assert run_cli(*axes) == 0
    plain = capsys.readouterr().out
    assert run_cli(*axes, "--memory-limit", "300M") == 0
    asked = capsys.readouterr().out
    assert "the longest T within 300 MB: about" in asked.replace("\n", " ")
    assert "2 capacity (1 x)" in asked.replace("\n", " ")
    assert "capacity" not in plain
    assert plan.workers(selection.select("smoke", {})) > 0


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1000K", MB),
        ("300M", 300 * MB),
        (" 2G ", 2000 * MB),
        ("1024KiB", 2**20),
        ("512MiB", 512 * 2**20),
        ("1.5GiB", 3 * 2**29),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert _size(text) == size


@pytest.mark.parametrize(
    "text", ["", "300", "0M", "-1M", "1T", "1MB", "1mib", "1 M", "M", "1e3M", "999K", "0.9M"]
)
def test_what_is_no_size_is_one_line(text: str) -> None:
    with pytest.raises(UsageError, match=r"memory-limit '.*': must be a size of 1M or more"):
        _size(text)


def _size(text: str) -> int | None:
    import click

    from bench.options import size

    return size(click.Context(click.Command("run")), click.Option(["--memory-limit"]), text)


def test_more_than_the_host_has_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("--memory-limit", "900000G") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "memory-limit 900,000,000M: this host has" in line


@pytest.mark.parametrize(
    ("told", "said"),
    [(81_000 * MB, None), (7_000 * MB, "memory-limit 8,000M: gpu:1 has 7,000M"), (None, None)],
)
def test_a_gpu_s_own_memory_bounds_its_limit(
    told: int | None, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host's does not, where no case is on it."""
    plan = synthetic.sweep()
    limited = replace(plan.sampling, memory_limit_bytes=8_000 * MB)
    plan = replace(plan, axes=replace(plan.axes, device=("gpu:1",)), sampling=limited)
    monkeypatch.setattr(gpus, "memory_bytes", {"gpu:1": told}.get)
    monkeypatch.setattr(capacity.psutil, "virtual_memory", lambda: SimpleNamespace(total=MB))
    if said is None:
        capacity.check_limit(plan)
        return
    with pytest.raises(UsageError, match=f"^{said}$"):
        capacity.check_limit(plan)


# Reports.


def _reported(*records: tuple[str, Status, dict[str, float], str]) -> tuple[Report, Run]:
    """A drawn run with capacity records of T=10 in training."""
    sweep = synthetic.sweep()
    sweep = replace(sweep, sampling=replace(sweep.sampling, memory_limit_bytes=300 * MB))
    run = synthetic.run(sweep)
    jobs = {job.implementation: job for job in sweep.jobs("capacity") if job.mode == "train"}
    found = [
        Record(job=jobs[name], block=0, status=status, values=values, reason=reason)
        for name, status, values, reason in records
    ]
    run = replace(run, records=[*run.records, *found])
    return build([run]), run


def _values(largest: int, failed: int | None) -> dict[str, float]:
    return {LARGEST: largest, LIMIT: 300 * MB} | ({FAILED: failed} if failed else {})


def _cells(report: Report, a: str) -> dict[int, str]:
    found = shown(report, "static-dynamic", implementation=a, mode="train")
    return {int(row["T"]): row["largest T (300 MB)"] for _, row in found.iterrows()}


def test_the_largest_lengths_stand_beside_the_ratios() -> None:
    report, _ = _reported(
        ("jax/static", Status.OK, _values(186, 190), "T=190: killed"),
        ("jax/dynamic", Status.OK, _values(2560, None), "T=5,120: no answer in 60 s"),
        ("jax/scan-unroll-8", Status.OK, _values(0, 1), "T=1: killed"),
        ("torch/traced", Status.OK, _values(80, 160), "T=120: no answer in 60 s"),
        ("torch/dynamic", Status.CRASHED, {}, "T=10: died"),
    )
    slow, gap = (1 + report.footnotes.index(f"T={t}: no answer in 60 s") for t in ("5,120", "120"))
    assert _cells(report, "jax/static") == {10: f"186 / at least 2,560 [{slow}]", 50: "- / -"}
    assert _cells(report, "jax/scan-unroll-8")[10] == f"none / at least 2,560 [{slow}]"
    died = 1 + report.footnotes.index("T=10: died")
    assert _cells(report, "torch/traced")[10] == f"at least 80 [{gap}] / crashed [{died}]"
    frame = one(
        rows(report, "static-dynamic", implementation="jax/static", mode="train", seq_len=10)
    )
    assert (frame[f"a_{LARGEST}"], frame[f"a_{FAILED}"], frame[f"a_{LIMIT}"]) == (186, 190, 3e8)
    assert frame[f"b_{LARGEST}"] == 2560
    assert np.isnan(frame[f"b_{FAILED}"])
    assert frame["b_capacity_reason"] == "T=5,120: no answer in 60 s"
    assert "Largest T" in table(report, "static-dynamic").caption


def test_a_run_that_was_not_asked_has_no_column() -> None:
    found = table(plain_report(), "static-dynamic")
    assert not [column for column in found.display if "largest" in column]
    assert "Largest T" not in found.caption
    assert found.frame[f"a_{LARGEST}"].isna().all()


def test_a_capacity_job_without_a_record_is_one_that_was_planned() -> None:
    report, run = _reported(("jax/static", Status.OK, _values(186, 190), ""))
    missing = [
        evidence
        for group in groups_of(run, "drawn")[0]
        for evidence in group.jobs.values()
        if evidence.job.measure == "capacity" and not evidence.records
    ]
    assert {evidence.outcome.status for evidence in missing} == {Status.INTERRUPTED}
    assert "interrupted" in _cells(report, "jax/static")[10]


@pytest.mark.parametrize(
    ("found", "largest", "status"),
    [
        (Found(largest=0, failed=100, status=Status.TIMEOUT, reason="slow"), None, Status.TIMEOUT),
        (Found(largest=0, failed=1, status=Status.OK, reason="killed"), 0, Status.OK),
        (Found(largest=80, failed=160, status=Status.TIMEOUT, reason="slow"), 80, Status.OK),
    ],
)
def test_that_no_t_runs_is_said_where_every_t_was_tried(
    found: Found, largest: int | None, status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity, "search", lambda *_: found)
    plan = synthetic.sweep(seq_len=(100,), mode=("train",))
    limited = replace(plan, sampling=replace(plan.sampling, memory_limit_bytes=300 * MB))
    job = limited.jobs("capacity")[0]
    record = capacity.capacity(None, job, 0, limited, lambda: None)  # type: ignore[arg-type]
    assert record.values.get(LARGEST) == largest
    assert record.status == status


@pytest.mark.parametrize(
    ("cell", "features"),
    [
        ("lstm", 8 + 8),
        ("lstm-projection", 8 + 4),
        # Four windows, two outputs each.
        ("grid", 8 + 8 * 8),
        # Masks of inputs, of h and of outputs are part of x.
        ("dropout-lstm", 8 + 3 * 8 + 8),
    ],
)
def test_data_are_as_wide_as_inputs_and_outputs_are(cell: str, features: int) -> None:
    case = Case(cell=cell, seq_len=3, batch=2, inputs=8, hidden=8)
    assert capacity.data_bytes(case) == 2 * 3 * features * 4


def test_a_wide_cell_is_expected_to_take_more() -> None:
    """In time, and in memory: a grid does four windows' work, and keeps their state."""
    jobs = [
        Job(
            implementation="jax/dynamic",
            case=Case(cell=cell, seq_len=100, batch=2, inputs=8, hidden=8),
            mode="train",
            measure="steady",
        )
        for cell in ("lstm", "grid")
    ]
    plain, wide = (estimate._call_seconds(job) for job in jobs)
    assert wide > 3 * plain
    plain, wide = (estimate._needed_bytes(job) for job in jobs)
    assert wide > 3 * plain
