"""Counters of the kernel: CPU time of CPUs and of this run, waiting for CPUs, quotas. Linux only.

The texts are parsed by pure functions. What a host does not tell (a kernel without pressure stall
information, a container that hides /proc/stat, no quota) is None, or left out: never a guess.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.measure import spin_probe

_STAT = Path("/proc/stat")
_PRESSURE = Path("/proc/pressure/cpu")
_OWN_CGROUPS = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")

#: Fields of a CPU's line in /proc/stat, after its name. Waiting for a disk (4) is idle; a guest's
#: time (8, 9) is in the user's (0) already.
_BUSY_FIELDS = (0, 1, 2, 5, 6)
_STEAL_FIELD = 7


@dataclass(frozen=True, kw_only=True)
class CpuTime:
    """Seconds of one CPU since the host started: busy, and taken by the hypervisor."""

    busy_s: float
    steal_s: float | None


def parse_stat(text: str, cpus: Container[int], ticks_per_s: int) -> dict[int, CpuTime]:
    """Times of those of the CPUs that have a line in this /proc/stat."""
    times: dict[int, CpuTime] = {}
    for line in text.splitlines():
        name, *fields = line.split() or [""]
        number = name.removeprefix("cpu")
        if name == number or not number.isdecimal() or int(number) not in cpus:
            continue
        spent = [int(field) / ticks_per_s for field in fields]
        times[int(number)] = CpuTime(
            busy_s=sum(spent[i] for i in _BUSY_FIELDS if i < len(spent)),
            steal_s=spent[_STEAL_FIELD] if len(spent) > _STEAL_FIELD else None,
        )
    return times


def parse_pressure(text: str) -> float | None:
    """Seconds in which some task waited for a CPU, of a pressure file; None without that line."""
    for line in text.splitlines():
        kind, *fields = line.split() or [""]
        if kind == "some":
            return int(dict(field.split("=") for field in fields)["total"]) / 1e6
    return None


def parse_throttled(text: str) -> float | None:
    """Seconds for which a CPU quota held a cgroup up, of its cpu.stat; None where it has none."""
    units = {"throttled_usec": 1e6, "throttled_time": 1e9}  # of cgroup v2, of v1
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name in units:
            return int(value) / units[name]
    return None


def cgroup_folders(text: str, root: Path = _CGROUPS) -> list[Path]:
    """Candidate folders of this process's cgroup CPU accounts, by its /proc/self/cgroup.

    In a container the path may be the host's, with what it names mounted at the root.
    """
    folders: list[Path] = []
    for line in text.splitlines():
        _hierarchy, controllers, path = line.split(":", 2)
        if not controllers:
            mounts = [root, root / "unified"]  # v2; beside v1
        elif "cpu" in controllers.split(","):
            mounts = [root / controllers, root / "cpu"]
        else:
            continue
        folders += [mount / inside for inside in (path.lstrip("/"), "") for mount in mounts]
    return folders


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The kernel's counters at one moment; None, or a CPU left out, is what this host lacks."""

    at_s: float
    #: Those of the CPUs that are watched.
    cpu: Mapping[int, CpuTime]
    #: CPU time of this process and its descendants, ended ones too.
    own_s: float | None
    #: Time in which some task of our cgroup (or, without it, of the host) waited for a CPU.
    pressure_s: float | None
    #: Time for which our cgroup's quota held us up, summed over CPUs.
    throttled_s: float | None


def own_cpu_s(cpus: Iterable[int]) -> float | None:
    """CPU seconds of this process and its descendants, those that have ended too.

    A descendant's time goes to its parent's account when that one reaps it, so nothing is lost or
    counted twice, however deep the tree. (What an orphan used is lost, and will seem others'.) A
    process that may not run on any of the CPUs does not count itself, only what it has reaped. One
    that may counts in full, though it ran elsewhere too: of ours that is the parent, which sleeps
    while a block runs. None where processes end faster than they can be counted.
    """
    wanted = set(cpus)
    root = psutil.Process()
    for _ in range(10):
        total = 0.0
        try:
            # Parents come before their children, so that none is seen in both accounts.
            for process in (root, *root.children(recursive=True)):
                times = process.cpu_times()
                total += times.children_user + times.children_system
                if wanted.intersection(process.cpu_affinity()):
                    total += times.user + times.system
        except psutil.NoSuchProcess:
            continue  # it ended meanwhile: its time is its parent's now
        return total
    return None


def _text(path: Path) -> str:
    """Content of a kernel file; "" if it is missing, or a sandbox hides it."""
    try:
        return path.read_text()
    except OSError:
        return ""


def _first(paths: Iterable[Path], parse: Callable[[str], float | None]) -> float | None:
    """Content of the first file that has any."""
    values = (parse(_text(path)) for path in paths)
    return next((value for value in values if value is not None), None)


class LinuxHost:
    """The machine that this process runs on."""

    def read(self, cpus: Sequence[int]) -> Reading:
        """The counters now."""
        folders = cgroup_folders(_text(_OWN_CGROUPS))
        return Reading(
            at_s=time.monotonic(),
            cpu=parse_stat(_text(_STAT), cpus, os.sysconf("SC_CLK_TCK")),
            own_s=own_cpu_s(cpus),
            pressure_s=_first([*(f / "cpu.pressure" for f in folders), _PRESSURE], parse_pressure),
            throttled_s=_first((f / "cpu.stat" for f in folders), parse_throttled),
        )

    def spin(self, cpus: Sequence[int]) -> float | None:
        """The worst `spin_probe` of the CPUs, each in turn; None where one is not open to us."""
        allowed = os.sched_getaffinity(0)
        worst = 1.0
        try:
            for cpu in cpus:
                os.sched_setaffinity(0, {cpu})
                worst = max(worst, spin_probe())
        except OSError:
            return None  # a CPU that is offline, or that a cpuset keeps from us
        finally:
            os.sched_setaffinity(0, allowed)
        return worst

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        time.sleep(seconds)


HOST = LinuxHost()
