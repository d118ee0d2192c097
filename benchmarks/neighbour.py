"""Other load on the host while the instrument is measured: a process that spins."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

from bench import machine
from bench.run import chosen_cpus

Load = Literal["none", "other core", "same core"]

#: Seconds at work and at rest. On the core that is measured: 30 % of it, a second a period.
LOADS: Mapping[Load, tuple[float, float]] = {
    "none": (0.0, 1.0),
    "other core": (1.0, 0.0),
    "same core": (0.3, 0.7),
}

_SPIN = """\
import os, sys, time
cpu, parent, work_s, rest_s = int(sys.argv[1]), int(sys.argv[2]), *map(float, sys.argv[3:])
os.sched_setaffinity(0, {cpu})
while os.getppid() == parent:
    end = time.perf_counter() + work_s
    while time.perf_counter() < end:
        pass
    time.sleep(rest_s)
"""


@contextmanager
def at_work(load: Load) -> Iterator[None]:
    """Have a neighbour at work within the body."""
    work_s, rest_s = LOADS[load]
    if not work_s:
        yield
        return
    (measured,) = chosen_cpus(1)
    others = [cpu for cpu in machine.available_cpus() if cpu != measured]
    cpu = measured if load == "same core" or not others else others[-1]
    words = [str(cpu), str(os.getpid()), str(work_s), str(rest_s)]
    process = subprocess.Popen([sys.executable, "-c", _SPIN, *words])
    try:
        yield
    finally:
        process.kill()
        process.wait()
