"""Whether the host was quiet, and what disturbed a block where it was not.

A block starts when its CPUs have been quiet over a short window, or after a while anyway; what
disturbed it is on its record. The evidence: what the kernel counted from one reading to the next,
and how long a busy loop takes on those CPUs before the block and after it. A probe that the host
does not have is not judged, and is named as missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from bench.counters import HOST, Reading
from bench.errors import UsageError

#: A host is looked at over windows of this length until one is quiet.
WINDOW_S = 0.25

#: All waits of a run together last at most so many times `wait_s`, however noisy the host stays.
PATIENCE = 3.0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of a quiet host. One tick of 10 ms is 4 % of a window: one tick of disturbance passes.

    Seen on one CPU of a virtual machine, beside tasks that run for 5 or 10 ms of every 50 and tasks
    that never sleep:

    ===============================  ============  ===========  ============  =============
    ..                               others        steal        pressure      slowdown
    ===============================  ============  ===========  ============  =============
    window of 0.25 s, nothing else   0 to 0.04     0 to 0.04    0 to 0.01     1.00 to 1.13
    a task of 10 %                   0.04 to 0.16  0            0 to 0.03     1.0 to 1.9
    a task of 20 %                   0.16 to 0.28  0            0 to 0.07     1.0 to 4.2
    a task of 100 %                  0.94 to 1.03  0            0.01 to 0.23  1.0 to 7.4
    block, nothing else              0 to 0.07     0            0.03 to 0.14  1.00 to 1.11
    block, beside a task of 100 %    0.44 to 0.51  0 to 0.01    0.52 to 0.99  1.0 to 4.4
    ===============================  ============  ===========  ============  =============

    The middle of the slowdown beside a task of 100 % is 3.3; near 1 it is where the probe was
    scheduled first, so that the probe accuses but never acquits. Pressure was the host's: a window
    has little of it, since only those who wait make any, and they are ours. A quota of the cgroup
    was not met; whatever it takes is a stall of tens of ms.
    """

    others_share: float = 0.10
    steal_share: float = 0.05
    pressure_share: float = 0.25
    throttled_share: float = 0.01
    spin_slowdown: float = 1.5


LIMITS = Limits()


@dataclass(frozen=True, kw_only=True)
class Disturbance:
    """Disturbance of a time span; shares are of the elapsed time of one CPU, None if unknown."""

    #: Busy time of the watched CPUs that was not ours, summed: one late thread delays all.
    others_share: float | None
    #: Of the CPU that lost most.
    steal_share: float | None
    pressure_share: float | None
    throttled_share: float | None
    spin_slowdown: float | None

    def missing(self) -> list[str]:
        """Names of what could not be judged."""
        return [name for name, value in asdict(self).items() if value is None]

    def reasons(self, limits: Limits, cpus: Iterable[int]) -> list[str]:
        """Exceeded limits, in words; empty if the host was quiet.

        Pressure tells of every CPU that the cgroup or the host has, and of our own threads that
        wait for one another. So it is judged only where others' time is not known.
        """
        names = [str(cpu) for cpu in cpus]
        where = f"CPU{'s' if len(names) > 1 else ''} {', '.join(names)}"
        texts: dict[str, Callable[[float], str]] = {
            "others_share": lambda x: f"others took {x * 100:.0f} % of {where}",
            "steal_share": lambda x: f"the hypervisor took {x * 100:.0f} % of {where}",
            "pressure_share": lambda x: f"tasks waited for a CPU {x * 100:.0f} % of the time",
            "throttled_share": lambda x: f"a quota held the run up {x * 100:.0f} % of the time",
            "spin_slowdown": lambda x: f"a busy loop on {where} took {x:.1f} times its time",
        }
        if self.others_share is not None:
            del texts["pressure_share"]
        found, allowed = asdict(self), asdict(limits)
        return [
            text(found[name])
            for name, text in texts.items()
            if found[name] is not None and found[name] > allowed[name]
        ]


def between(before: Reading, after: Reading, spin_slowdown: float | None) -> Disturbance:
    """Disturbance between two readings of the counters."""
    elapsed_s = max(after.at_s - before.at_s, 1e-9)

    def share(start: float | None, end: float | None) -> float | None:
        if start is None or end is None:
            return None
        return max(0.0, end - start) / elapsed_s

    cpus = sorted(before.cpu.keys() & after.cpu.keys())
    others = None
    if cpus and before.own_s is not None and after.own_s is not None:
        others = share(
            sum(before.cpu[cpu].busy_s for cpu in cpus) - before.own_s,
            sum(after.cpu[cpu].busy_s for cpu in cpus) - after.own_s,
        )
    steal = [share(before.cpu[cpu].steal_s, after.cpu[cpu].steal_s) for cpu in cpus]
    return Disturbance(
        others_share=others,
        steal_share=max((x for x in steal if x is not None), default=None),
        pressure_share=share(before.pressure_s, after.pressure_s),
        throttled_share=share(before.throttled_s, after.throttled_s),
        spin_slowdown=spin_slowdown,
    )


class Host(Protocol):
    """Readings that a gate takes of the machine."""

    def read(self, cpus: Sequence[int]) -> Reading:
        """The counters now."""

    def spin(self, cpus: Sequence[int]) -> float | None:
        """The worst `spin_probe` of the CPUs; None where this process may not run on them."""

    def sleep(self, seconds: float) -> None:
        """Let time pass."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Result of a wait: quiet, or the disturbance of its last window."""

    quiet: bool
    waited_s: float
    reasons: tuple[str, ...]


class Gate:
    """Lets a block start when its CPUs are quiet, and says what disturbed it.

    A wait lasts one window on a quiet host and `wait_s` on a noisy one. All waits of a gate draw on
    one account of `PATIENCE * wait_s`, each at most its `PATIENCE`-th part: on a host that is never
    quiet the waits become shorter and a run ends. (60 s, 40 s, 27 s ... of 60 s; 3 min in all.)
    """

    def __init__(
        self,
        cpus: Sequence[int],
        *,
        wait_s: float = 60.0,
        limits: Limits = LIMITS,
        host: Host = HOST,
    ) -> None:
        if not 0 <= wait_s < float("inf"):
            raise UsageError(f"wait {wait_s}: must be 0 or more seconds")
        self._cpus = list(cpus)
        self._limits = limits
        self._host = host
        self._left_s = PATIENCE * wait_s
        self._waited_s = 0.0
        self._begun: tuple[Reading, float | None] | None = None

    def wait(self) -> Verdict:
        """Block until a window was quiet or patience is at its end; at least one window."""
        allowed_s = self._left_s / PATIENCE
        first = before = self._host.read(self._cpus)
        while True:
            self._host.sleep(WINDOW_S)
            # The probe is between the windows: it is busy time of its own.
            after = self._host.read(self._cpus)
            found = between(before, after, self._host.spin(self._cpus))
            reasons = found.reasons(self._limits, self._cpus)
            waited_s = after.at_s - first.at_s
            if not reasons or waited_s >= allowed_s:
                break
            before = self._host.read(self._cpus)
        # A run of many quiet blocks must not use patience up.
        self._left_s = max(0.0, self._left_s - max(0.0, waited_s - WINDOW_S))
        self._waited_s = waited_s
        return Verdict(quiet=not reasons, waited_s=waited_s, reasons=tuple(reasons))

    def begin(self) -> None:
        """A block starts."""
        spin = self._host.spin(self._cpus)
        self._begun = self._host.read(self._cpus), spin

    def end(self) -> dict[str, Any]:
        """A block has ended, its workers too: what disturbed it, ready for JSON.

        Shares and the slowdown are null where they are named in "missing". "waited_s" is what the
        last `wait` took, if it was for this block. Raises `RuntimeError` without a `begin`.
        """
        if self._begun is None:
            raise RuntimeError("end of a block that has not begun")
        before, spin = self._begun
        after = self._host.read(self._cpus)
        spins = [x for x in (spin, self._host.spin(self._cpus)) if x is not None]
        found = between(before, after, max(spins, default=None))
        reasons = found.reasons(self._limits, self._cpus)
        label = {
            "quiet": not reasons,
            "waited_s": self._waited_s,
            **asdict(found),
            "reasons": reasons,
            "missing": found.missing(),
        }
        self._begun, self._waited_s = None, 0.0
        return label
