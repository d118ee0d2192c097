"""What this host is: the part of a run's manifest that makes its figures comparable."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import psutil

#: Packages whose version can move a figure.
_PACKAGES = frozenset(
    {"jax", "jaxlib", "keras", "numpy", "pandas", "scipy", "tensorflow", "tf-keras", "torch"}
)


def timestamp() -> str:
    """The time of day in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def available_cpus() -> list[int]:
    """CPUs that this process may run on."""
    return sorted(os.sched_getaffinity(0))


def load() -> float:
    """Processes that ran or waited to run, averaged over the last minute."""
    return os.getloadavg()[0]


def pressure() -> dict[str, float]:
    """Share of the last 10 s in which something waited for a CPU or memory; {} without PSI."""
    result: dict[str, float] = {}
    for resource in ("cpu", "memory", "io"):
        try:
            text = Path(f"/proc/pressure/{resource}").read_text()
        except OSError:
            continue  # kernels without pressure stall information
        result[resource] = float(text.split("avg10=")[1].split()[0])
    return result


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def describe() -> dict[str, Any]:
    """The host: CPU, memory, kernel, interpreter."""
    return {
        "hostname": platform.node(),
        "cpu": _cpu_model(),
        "cores": psutil.cpu_count(logical=True),
        "cpus_available": available_cpus(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "python": platform.python_version(),
        "virtual": "hypervisor" in _cpu_flags(),
    }


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.split()) for line in lines if line.startswith("flags")), set())


def commit() -> str | None:
    """The commit of this project's checkout, with a + where files differ; None without one."""
    folder = Path(__file__).parent.parent
    describe = ["git", "-C", str(folder), "describe", "--always", "--dirty=+", "--abbrev=12"]
    try:
        done = subprocess.run(describe, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None  # installed without git, or from a wheel
    return done.stdout.strip()


def versions() -> dict[str, str]:
    """Installed versions of the packages whose version can move a figure."""
    found = {str(d.metadata["Name"]).lower().replace("_", "-"): d.version for d in distributions()}
    return {name: found[name] for name in sorted(_PACKAGES & found.keys())}
