"""The noise gate: captured kernel texts, a host that the test disturbs, and this one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import counters
from bench.counters import (
    HOST,
    CpuTime,
    Reading,
    cgroup_folders,
    own_cpu_s,
    parse_pressure,
    parse_stat,
    parse_throttled,
)
from bench.errors import UsageError
from bench.measure import SPIN_GAP_NS, spin_probe
from bench.noise import LIMITS, PATIENCE, WINDOW_S, Disturbance, Gate, Limits, between

STAT = """\
cpu  47732 3 9121 63246 408 7 85 26 11 0
cpu0 8103 1 1917 49938 207 2 18 8 11 0
cpu1 39628 2 7203 13308 201 5 67 18 0 0
cpu10 1 0 0 0 0 0 0 0 0 0
intr 221847 0 0 1 13
ctxt 289873
procs_running 2
"""
#: Kernels before 2.6.11 have no steal, before 2.5.41 no more than four fields.
STAT_WITHOUT_STEAL = "cpu  100 0 50 800 10 1 2\ncpu0 100 0 50 800 10 1 2\n"
STAT_OF_FOUR = "cpu  100 0 50 800\ncpu0 100 0 50 800\n"

PRESSURE = """\
some avg10=8.20 avg60=4.33 avg300=2.08 total=11509654
full avg10=0.00 avg60=0.00 avg300=0.00 total=7
"""

CPU_STAT_V2 = """\
usage_usec 5124000
user_usec 4000000
system_usec 1124000
nr_periods 120
nr_throttled 31
throttled_usec 1250000
"""
CPU_STAT_V1 = "nr_periods 120\nnr_throttled 31\nthrottled_time 1250000000\n"
CPU_STAT_OF_THE_ROOT = "usage_usec 5124000\nuser_usec 4000000\nsystem_usec 1124000\n"


def test_busy_time_has_interrupts_but_neither_idle_nor_disk_nor_a_guest_twice() -> None:
    times = parse_stat(STAT, [0], ticks_per_s=100)
    assert times == {
        0: CpuTime(busy_s=pytest.approx(81.03 + 0.01 + 19.17 + 0.02 + 0.18), steal_s=0.08)
    }


@pytest.mark.parametrize(
    ("cpus", "found"), [([1], [1]), ([1, 10], [1, 10]), ([7], []), ([0, 7], [0]), ([], [])]
)
def test_only_the_watched_cpus_are_read_and_only_those_that_there_are(
    cpus: list[int], found: list[int]
) -> None:
    assert sorted(parse_stat(STAT, cpus, ticks_per_s=100)) == found


@pytest.mark.parametrize(
    ("text", "busy_s"), [(STAT_WITHOUT_STEAL, 1.53), (STAT_OF_FOUR, 1.5)], ids=["steal", "irq"]
)
def test_an_old_kernel_does_not_tell_of_steal(text: str, busy_s: float) -> None:
    times = parse_stat(text, [0], ticks_per_s=100)
    assert times == {0: CpuTime(busy_s=pytest.approx(busy_s), steal_s=None)}


@pytest.mark.parametrize("text", ["", "\n", "cpu  1 2 3 4 5 6 7 8\n", "btime 17\n"])
def test_a_container_may_hide_the_cpus(text: str) -> None:
    assert parse_stat(text, [0], ticks_per_s=100) == {}


@pytest.mark.parametrize(
    ("text", "waited_s"),
    [(PRESSURE, 11.509654), ("some total=0\n", 0.0), ("", None), ("full total=3\n", None)],
)
def test_pressure_is_the_time_in_which_some_task_waited(text: str, waited_s: float | None) -> None:
    assert parse_pressure(text) == waited_s


@pytest.mark.parametrize(
    ("text", "throttled_s"),
    [(CPU_STAT_V2, 1.25), (CPU_STAT_V1, 1.25), (CPU_STAT_OF_THE_ROOT, None), ("", None)],
    ids=["v2", "v1", "root", "absent"],
)
def test_a_quota_is_read_of_both_cgroup_versions(text: str, throttled_s: float | None) -> None:
    assert parse_throttled(text) == throttled_s


@pytest.mark.parametrize(
    ("text", "account"),
    [
        ("0::/user.slice/app.scope\n", "user.slice/app.scope"),
        ("0::/\n", "."),
        ("0::/kubepods/pod1\n", "."),
        ("4:memory:/job\n3:cpu,cpuacct:/job\n1:name=systemd:/\n", "cpu,cpuacct/job"),
        ("3:cpuacct:/\n2:cpu:/docker/4f\n0::/\n", "cpu"),
        ("2:cpuacct:/job\n1:cpuset:/job\n", None),
        ("", None),
    ],
    ids=["v2", "v2-root", "v2-inside", "v1", "v1-inside", "no-controller", "none"],
)
def test_the_account_of_our_cgroup_is_found(tmp_path: Path, text: str, account: str | None) -> None:
    if account is not None:
        (tmp_path / account).mkdir(parents=True, exist_ok=True)
        (tmp_path / account / "cpu.stat").write_text(CPU_STAT_V2)
    files = (folder / "cpu.stat" for folder in cgroup_folders(text, tmp_path))
    first = next((path for path in files if path.exists()), None)
    assert first == (None if account is None else tmp_path / account / "cpu.stat")


def test_our_own_cgroup_comes_before_the_one_around_it(tmp_path: Path) -> None:
    folders = cgroup_folders("0::/mine\n", tmp_path)
    assert folders.index(tmp_path / "mine") < folders.index(tmp_path)


def test_a_host_that_tells_nothing_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("_STAT", "_PRESSURE", "_OWN_CGROUPS"):
        monkeypatch.setattr(counters, name, tmp_path / "absent")
    reading = HOST.read([0])
    assert (reading.cpu, reading.pressure_s, reading.throttled_s) == ({}, None, None)
    found = between(reading, replace(reading, at_s=reading.at_s + 1), None)
    assert found.missing() == [
        "others_share",
        "steal_share",
        "pressure_share",
        "throttled_share",
        "spin_slowdown",
    ]
    assert found.reasons(LIMITS, [0]) == []


NOTHING = Reading(
    at_s=100.0,
    cpu={0: CpuTime(busy_s=50.0, steal_s=1.0), 1: CpuTime(busy_s=70.0, steal_s=2.0)},
    own_s=30.0,
    pressure_s=5.0,
    throttled_s=0.5,
)


def test_shares_are_of_the_time_between_two_readings() -> None:
    after = Reading(
        at_s=110.0,
        cpu={0: CpuTime(busy_s=58.0, steal_s=1.0), 1: CpuTime(busy_s=71.0, steal_s=2.5)},
        own_s=37.0,
        pressure_s=8.0,
        throttled_s=1.5,
    )
    assert between(NOTHING, after, 1.25) == Disturbance(
        others_share=pytest.approx(0.2),
        steal_share=pytest.approx(0.05),
        pressure_share=pytest.approx(0.3),
        throttled_share=pytest.approx(0.1),
        spin_slowdown=1.25,
    )


def test_our_own_time_is_not_anothers_even_where_ticks_say_more_of_it_than_there_was() -> None:
    cpu = {0: CpuTime(busy_s=59.9, steal_s=1.0), 1: NOTHING.cpu[1]}
    after = replace(NOTHING, at_s=110.0, own_s=40.0, cpu=cpu)
    assert between(NOTHING, after, None).others_share == 0.0


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ({"cpu": {}}, ["others_share", "steal_share"]),
        ({"cpu": {0: CpuTime(busy_s=60.0, steal_s=None)}}, ["steal_share"]),
        ({"own_s": None}, ["others_share"]),
        ({"pressure_s": None}, ["pressure_share"]),
        ({"throttled_s": None}, ["throttled_share"]),
    ],
    ids=["no-cpus", "no-steal", "no-account", "no-psi", "no-quota"],
)
def test_what_one_reading_lacks_is_missing(change: dict[str, Any], missing: list[str]) -> None:
    after = replace(NOTHING, at_s=101.0)
    for pair in ((NOTHING, replace(after, **change)), (replace(NOTHING, **change), after)):
        assert between(*pair, 1.0).missing() == missing


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"others_share": 0.12}, "others took 12 % of CPUs 2, 3"),
        ({"steal_share": 0.2}, "the hypervisor took 20 % of CPUs 2, 3"),
        ({"others_share": None, "pressure_share": 0.9}, "tasks waited for a CPU 90 % of the time"),
        ({"throttled_share": 0.05}, "a quota held the run up 5 % of the time"),
        ({"spin_slowdown": 2.04}, "a busy loop on CPUs 2, 3 took 2.0 times its time"),
        ({"others_share": 0.1, "spin_slowdown": 1.01}, None),
        ({"pressure_share": 0.9}, None),  # of other CPUs, or of our own threads
    ],
)
def test_what_exceeds_its_limit_is_named(change: dict[str, Any], reason: str | None) -> None:
    quiet = between(NOTHING, replace(NOTHING, at_s=101.0), 1.0)
    found = replace(quiet, **change).reasons(Limits(others_share=0.1), [2, 3])
    assert found == ([] if reason is None else [reason])


Noise = Callable[[float], float]


@dataclass
class Disturbed:
    """A host of one CPU, of which others take a share that may change as time goes."""

    others: Noise = lambda now_s: 0.0
    spins: Iterator[float | None] = field(default_factory=lambda: repeat(1.0))
    now_s: float = 0.0
    busy_s: float = 0.0
    own_s: float = 0.0

    def read(self, cpus: Sequence[int]) -> Reading:
        assert cpus == [1]
        return Reading(
            at_s=self.now_s,
            cpu={1: CpuTime(busy_s=self.busy_s, steal_s=None)},
            own_s=self.own_s,
            pressure_s=None,
            throttled_s=None,
        )

    def spin(self, cpus: Sequence[int]) -> float | None:
        assert cpus == [1]
        return next(self.spins)

    def sleep(self, seconds: float) -> None:
        self.busy_s += seconds * self.others(self.now_s)
        self.now_s += seconds

    def work(self, seconds: float) -> None:
        """Our block runs, in what others leave."""
        own_s = seconds * (1 - self.others(self.now_s))
        self.own_s += own_s
        self.busy_s += own_s
        self.sleep(seconds)


def test_a_quiet_host_costs_one_window() -> None:
    host = Disturbed()
    verdict = Gate([1], host=host).wait()
    assert (verdict.quiet, verdict.waited_s, verdict.reasons) == (True, WINDOW_S, ())
    assert host.now_s == WINDOW_S


def test_a_gate_opens_when_the_noise_ends() -> None:
    host = Disturbed(others=lambda now_s: 1.0 if now_s < 7.1 else 0.0)
    verdict = Gate([1], host=host).wait()
    assert verdict.quiet
    assert 7.1 < verdict.waited_s <= 7.1 + 2 * WINDOW_S


def test_what_the_counters_miss_the_probe_finds() -> None:
    host = Disturbed(spins=chain([3.0, 3.0], repeat(1.0)))
    verdict = Gate([1], host=host).wait()
    assert (verdict.quiet, verdict.waited_s) == (True, 3 * WINDOW_S)


def test_a_gate_opens_in_the_end_and_says_why_it_would_not() -> None:
    host = Disturbed(others=lambda _now_s: 0.5)
    verdict = Gate([1], wait_s=10.0, host=host).wait()
    assert not verdict.quiet
    assert verdict.waited_s == pytest.approx(10.0, abs=WINDOW_S)
    assert verdict.reasons == ("others took 50 % of CPU 1",)


def test_a_host_that_is_never_quiet_does_not_hold_a_run_up_for_ever() -> None:
    host = Disturbed(others=lambda _now_s: 0.5)
    gate = Gate([1], wait_s=10.0, host=host)
    waits = [gate.wait().waited_s for _ in range(100)]
    assert waits == sorted(waits, reverse=True)
    assert waits[0] == pytest.approx(10.0, abs=WINDOW_S)
    assert waits[-1] == WINDOW_S
    assert sum(waits) < PATIENCE * 10.0 + 100 * 2 * WINDOW_S


def test_quiet_blocks_use_no_patience_up() -> None:
    host = Disturbed(others=lambda now_s: 0.5 if now_s >= 250.0 else 0.0)
    gate = Gate([1], wait_s=10.0, host=host)
    assert all(gate.wait().quiet for _ in range(1000))
    assert gate.wait().waited_s == pytest.approx(10.0, abs=WINDOW_S)


def test_no_patience_at_all_still_looks() -> None:
    verdict = Gate([1], wait_s=0.0, host=Disturbed(others=lambda _now_s: 0.5)).wait()
    assert (verdict.quiet, verdict.waited_s) == (False, WINDOW_S)


@pytest.mark.parametrize("wait_s", [-1.0, float("nan"), float("inf")])
def test_a_wait_must_be_a_time(wait_s: float) -> None:
    with pytest.raises(UsageError, match="must be 0 or more seconds"):
        Gate([1], wait_s=wait_s)


def test_a_block_that_has_the_cpu_for_itself_is_quiet() -> None:
    host = Disturbed()
    gate = Gate([1], host=host)
    gate.wait()
    gate.begin()
    host.work(5.0)
    assert gate.end() == {
        "quiet": True,
        "waited_s": WINDOW_S,
        "others_share": 0.0,
        "steal_share": None,
        "pressure_share": None,
        "throttled_share": None,
        "spin_slowdown": 1.0,
        "reasons": [],
        "missing": ["steal_share", "pressure_share", "throttled_share"],
    }


def test_a_label_tells_of_its_block_only() -> None:
    host = Disturbed(others=lambda now_s: 0.4 if now_s < 5.0 else 0.0)
    gate = Gate([1], host=host, wait_s=0.0)
    gate.wait()
    gate.begin()
    host.work(5.0)
    first = gate.end()
    gate.begin()
    host.work(5.0)
    second = gate.end()
    assert first["reasons"] == ["others took 40 % of CPU 1"]
    assert (second["quiet"], second["waited_s"], second["others_share"]) == (True, 0.0, 0.0)


@pytest.mark.parametrize("spins", [(1.0, 4.0), (4.0, 1.0), (None, 4.0), (4.0, None)])
def test_the_worse_probe_of_before_and_after_counts(spins: tuple[float | None, ...]) -> None:
    gate = Gate([1], host=Disturbed(spins=iter(spins)))
    gate.begin()
    label = gate.end()
    assert (label["quiet"], label["spin_slowdown"]) == (False, 4.0)


@pytest.mark.parametrize("cycles", [0, 1])
def test_a_block_ends_once(cycles: int) -> None:
    gate = Gate([1], host=Disturbed())
    for _ in range(cycles):
        gate.begin()
        gate.end()
    with pytest.raises(RuntimeError, match="not begun"):
        gate.end()


def readings() -> st.SearchStrategy[Reading]:
    seconds = st.floats(0, 1e9)
    known = st.none() | seconds
    return st.builds(
        Reading,
        at_s=seconds,
        cpu=st.dictionaries(
            st.integers(0, 3), st.builds(CpuTime, busy_s=seconds, steal_s=known), max_size=3
        ),
        own_s=known,
        pressure_s=known,
        throttled_s=known,
    )


@given(readings(), readings(), st.none() | st.floats(1, 1e3))
def test_no_pair_of_readings_breaks_a_label(
    before: Reading, after: Reading, spin: float | None
) -> None:
    found = between(before, after, spin)
    shares = [x for x in vars(found).values() if x is not None]
    assert all(x >= 0 for x in shares)
    json.dumps(vars(found), allow_nan=False)
    assert len(found.reasons(LIMITS, [0])) <= len(shares)


def ticking(gaps_ns: Sequence[int]) -> Callable[[], int]:
    """A clock that is read so long after the reading before."""
    now_ns, rest = 0, iter(gaps_ns)

    def read() -> int:
        nonlocal now_ns
        now_ns += next(rest)
        return now_ns

    return read


def test_a_probe_of_an_undisturbed_cpu_is_one() -> None:
    assert spin_probe(1e-6, ticking([0, *[100] * 10])) == 1.0


def test_a_probe_counts_what_another_task_took() -> None:
    ours = [SPIN_GAP_NS] * 50
    theirs = [SPIN_GAP_NS + 1_000_000] * 2
    assert spin_probe(3e-3, ticking([0, *ours, *theirs])) == pytest.approx(3.04 / 1.04)


def test_a_probe_may_lose_all_its_time_at_once() -> None:
    assert spin_probe(5e-3, ticking([0, 10_000_000])) == 10_000_000 / SPIN_GAP_NS


BURN = """
import sys, time
print("burning", flush=True)
end = time.thread_time() + float(sys.argv[1])
while time.thread_time() < end:
    pass
"""

#: Starts the program that it is told to, pinned, and ends it when its input ends. Whose it is then:
#: "ours" waits for it, as a fork server does for its workers; of "others" it is an orphan at once.
SERVER = """
import os, subprocess, sys
cpu, whose, program, seconds = sys.argv[1:]
os.sched_setaffinity(0, {int(cpu)})
child = subprocess.Popen([sys.executable, "-c", program, seconds], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
if whose == "others":
    os._exit(0)
child.stdout.read()
print("ended", flush=True)
child.wait()
print("reaped", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def cpu() -> int:
    """One that this process may run on."""
    return max(os.sched_getaffinity(0))


@contextmanager
def server(cpu: int, whose: str, seconds: float) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """A server whose child burns so many seconds of CPU time; the child's process id."""
    if whose == "others" and os.getpid() == 1:
        pytest.skip("an orphan is ours where this is the first process of a container")
    command = [sys.executable, "-c", SERVER, str(cpu), whose, BURN, str(seconds)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        if whose == "others":
            process.wait()
        try:
            yield child, process
        finally:
            if seconds > 1:
                os.kill(child, signal.SIGKILL)
            process.communicate()


def others_now(cpu: int, seconds: float = 0.5) -> float:
    before = HOST.read([cpu])
    time.sleep(seconds)
    share = between(before, HOST.read([cpu]), None).others_share
    if share is None:
        pytest.skip(f"/proc/stat does not tell of CPU {cpu}")
    return share


def test_a_process_on_the_same_cpu_takes_a_share_of_it(cpu: int) -> None:
    without = others_now(cpu)
    if without > 0.9:
        pytest.skip(f"others take {without:.0%} of CPU {cpu} already")
    with server(cpu, "others", 60):
        assert others_now(cpu) > without


def test_the_same_process_is_no_other_if_it_is_ours(cpu: int) -> None:
    """Either fills the CPU with what else there is, so this holds on a busy host too."""
    with server(cpu, "others", 60):
        others = others_now(cpu)
    with server(cpu, "ours", 60):
        ours = others_now(cpu)
    assert ours < others


def test_time_of_a_grandchild_stays_ours_while_it_runs_and_when_it_has_ended(cpu: int) -> None:
    at_first = own_cpu_s([cpu])
    with server(cpu, "ours", 0.5) as (_child, process):
        assert process.stdout is not None
        used = []
        for word in ("ended", "reaped"):
            assert process.stdout.readline() == f"{word}\n"
            used.append(own_cpu_s([cpu]))
    used.append(own_cpu_s([cpu]))
    assert at_first is not None
    for now in used:
        assert now is not None
        assert now - at_first > 0.45


def test_a_process_that_may_not_run_there_takes_nothing_there(cpu: int) -> None:
    nowhere = 1 << 12
    with server(cpu, "ours", 60):
        before, before_there = own_cpu_s([nowhere]), own_cpu_s([cpu])
        time.sleep(0.3)
        assert own_cpu_s([nowhere]) == before
        after_there = own_cpu_s([cpu])
    assert before_there is not None
    assert after_there is not None
    assert after_there > before_there


def test_processes_that_end_faster_than_they_are_counted_leave_no_account(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def gone(_self: psutil.Process) -> None:
        raise psutil.NoSuchProcess(1)

    monkeypatch.setattr(psutil.Process, "cpu_times", gone)
    assert own_cpu_s([0]) is None


def test_a_probe_leaves_this_process_where_it_may_run(cpu: int) -> None:
    allowed = os.sched_getaffinity(0)
    slowdown = HOST.spin([cpu])
    assert slowdown is not None
    assert slowdown >= 1
    assert HOST.spin([cpu, 1 << 12]) is None  # there is no such CPU
    assert os.sched_getaffinity(0) == allowed


def test_this_host_gets_a_label_that_json_can_hold(cpu: int) -> None:
    gate = Gate([cpu], wait_s=0.0)
    verdict = gate.wait()
    assert verdict.quiet == (not verdict.reasons)
    gate.begin()
    label = gate.end()
    assert label["waited_s"] >= WINDOW_S
    assert label["quiet"] == (not label["reasons"])
    assert json.loads(json.dumps(label, allow_nan=False)) == label
