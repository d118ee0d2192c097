"""A hard limit on what a process takes beyond what it has: a control group, else RLIMIT_AS.

A process that joins a group brings no pages along: what it touched before stays with the group in
which it did, so that the limit is on what comes. The kernel kills what goes beyond. RLIMIT_AS is
what every process may set; it counts addresses, those that are reserved and never touched too, so
that less fits in, and an allocation that goes beyond is refused instead. Linux only.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench import memory

#: What a record calls the limit where no group can be made.
ADDRESSES = "RLIMIT_AS"

_OWN_GROUPS = Path("/proc/self/cgroup")
_ROOT = Path("/sys/fs/cgroup")

#: A group in which a shell can start, to see whether it can be joined.
_TRIAL_BYTES = 64_000_000

#: A group can be removed when its last process is gone, which takes the kernel a moment.
_REMOVE_TRIES, _REMOVE_PAUSE_S = 100, 0.02


@dataclass(frozen=True, kw_only=True)
class Version:
    """File names of one version of control groups.

    `swap` is the file that keeps a group from swapping where the host has it: `no_swap` is written
    there, or, where that is None, the limit itself (it counts memory and swap together).
    """

    name: str
    limit: str
    no_limit: str
    swap: str
    no_swap: str | None
    events: str
    usage: str


V1 = Version(
    name="cgroup v1",
    limit="memory.limit_in_bytes",
    no_limit="-1",
    swap="memory.memsw.limit_in_bytes",
    no_swap=None,
    events="memory.oom_control",
    usage="memory.usage_in_bytes",
)
V2 = Version(
    name="cgroup v2",
    limit="memory.max",
    no_limit="max",
    swap="memory.swap.max",
    no_swap="0",
    events="memory.events",
    usage="memory.current",
)
_VERSIONS = {version.name: version for version in (V1, V2)}


@dataclass(frozen=True, kw_only=True)
class Place:
    """A folder in which groups of a version may be made."""

    version: Version
    folder: Path


@dataclass(frozen=True, kw_only=True)
class Group:
    """A control group. Whatever the kernel refuses raises `OSError`."""

    version: Version
    folder: Path

    def limit(self, limit_bytes: int) -> None:
        """Let its processes together take so many bytes, and none of them in swap."""
        no_swap = str(limit_bytes) if self.version.no_swap is None else self.version.no_swap
        # In this order: version 1 refuses less memory and swap together than memory.
        self._write(self.version.limit, str(limit_bytes))
        if (self.folder / self.version.swap).exists():
            self._write(self.version.swap, no_swap)

    def lift(self) -> None:
        """Take the limit off again."""
        if (self.folder / self.version.swap).exists():
            self._write(self.version.swap, self.version.no_limit)
        self._write(self.version.limit, self.version.no_limit)

    def join(self) -> None:
        """Move this process, all its threads, into the group."""
        self._write("cgroup.procs", "0")

    def kills(self) -> int:
        """Number of the group's processes that the kernel has killed for exceeding the limit."""
        for line in (self.folder / self.version.events).read_text().splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
        return 0

    def _write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)


def places(text: str, root: Path = _ROOT) -> list[Place]:
    """Folders in which groups with a memory limit might be made, by /proc/self/cgroup.

    Version 1 takes children of our own group. In version 2 a group that holds processes has no
    children with limits, unless it is the root: they are made beside it. In a container the path
    may be the host's, with what it names mounted at the root.
    """
    found: list[Place] = []
    for line in text.splitlines():
        _hierarchy, controllers, path = line.split(":", 2)
        inside = path.lstrip("/")
        if not controllers:
            for mount in (root, root / "unified"):  # alone; beside version 1
                own = mount / inside
                above = [own.parent] if inside else []
                found += [Place(version=V2, folder=folder) for folder in (own, *above)]
        elif "memory" in controllers.split(","):
            mount = root / "memory"
            folders = dict.fromkeys((mount / inside, mount))
            found += [Place(version=V1, folder=folder) for folder in folders]
    return found


@dataclass(frozen=True, kw_only=True)
class Headroom:
    """The memory of a control group: its limit, and the rest that is left [bytes]."""

    total: int
    free: int


def headroom() -> Headroom | None:
    """The least that is left in this process's groups; None where none has a limit."""
    found = []
    with suppress(OSError):
        for place in places(_OWN_GROUPS.read_text()):
            with suppress(OSError, ValueError):
                total = int((place.folder / place.version.limit).read_text())
                used = int((place.folder / place.version.usage).read_text())
                used -= _reclaimable(place)
                found.append(Headroom(total=total, free=total - used))
    return min(found, key=lambda room: room.free, default=None)


def _reclaimable(place: Place) -> int:
    """Bytes of a group that hold copies of files and are given back when they are needed."""
    for line in (place.folder / "memory.stat").read_text().splitlines():
        name, _, size = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file"):
            return int(size)
    return 0


@contextmanager
def group(place: Place, limit_bytes: int) -> Iterator[Group]:
    """A new group with a limit; at the end it is removed, and what is left in it is killed.

    Raises `OSError` where it cannot be made or limited.
    """
    made = Group(
        version=place.version, folder=Path(tempfile.mkdtemp(prefix="rnn-bench-", dir=place.folder))
    )
    try:
        made.limit(limit_bytes)
        yield made
    finally:
        _remove(made.folder)


def _remove(folder: Path) -> None:
    for _ in range(_REMOVE_TRIES):
        try:
            folder.rmdir()
        except OSError:  # busy
            for pid in (folder / "cgroup.procs").read_text().split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            time.sleep(_REMOVE_PAUSE_S)
        else:
            return
    # What the kernel still holds on to is left behind: no reason to lose what was measured.


def find_place() -> Place | None:
    """A place where groups can be made, limited and joined, or None: it is tried."""
    try:
        text = _OWN_GROUPS.read_text()
    except OSError:
        return None  # a kernel without control groups, or a sandbox that hides them
    return next((place for place in places(text) if _works(place)), None)


def _works(place: Place) -> bool:
    join = ["sh", "-c", 'echo 0 > "$0"']
    try:
        with group(place, _TRIAL_BYTES) as made:
            subprocess.run(
                [*join, str(made.folder / "cgroup.procs")], check=True, capture_output=True
            )
            made.kills()  # a sandbox may take a limit and keep no account of what it did
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def order(limit_bytes: int, made: Group | None) -> dict[str, Any]:
    """The limit as part of a message to a worker, which keeps to it by `enforced`."""
    if made is None:
        return {"bytes": limit_bytes, "by": ADDRESSES}
    return {"bytes": limit_bytes, "by": made.version.name, "folder": str(made.folder)}


@contextmanager
def enforced(ordered: Mapping[str, Any]) -> Iterator[None]:
    """Within the body this process takes no more than the ordered bytes beyond what it has now."""
    # Collecting garbage writes to pages that a fork shares with its parent: they become ours here.
    memory.settle()
    if ordered["by"] == ADDRESSES:
        with _addresses(ordered["bytes"]):
            yield
        return
    made = Group(version=_VERSIONS[ordered["by"]], folder=Path(ordered["folder"]))
    made.join()
    try:
        yield
    finally:
        made.lift()


@contextmanager
def _addresses(limit_bytes: int) -> Iterator[None]:
    before, most = resource.getrlimit(resource.RLIMIT_AS)
    wanted = psutil.Process().memory_info().vms + limit_bytes
    allowed = [limit for limit in (wanted, before) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(allowed), most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, most))
