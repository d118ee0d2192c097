"""Description of this host: the part of a run's manifest that makes its figures comparable."""

from __future__ import annotations

import os
import platform
import subprocess
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any

import psutil

from backends import BACKENDS

#: Packages whose version can move a figure.
_PACKAGES = frozenset(
    {"jaxlib", "numpy", "pandas", "scipy"}.union(*(info.requires for info in BACKENDS.values()))
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


def describe() -> dict[str, Any]:
    """The host: CPU, memory, kernel, interpreter.

    A hypervisor may call every CPU of a maker by one name: family, model and stepping tell them
    apart, as do the vector instructions that libraries choose their kernels by, and the caches.
    """
    cpu = _cpu()
    flags = set(cpu.get("flags", cpu.get("Features", "")).split())
    return {
        "hostname": platform.node(),
        "cpu": cpu.get("model name") or platform.processor(),
        "cpu_model": "/".join(cpu.get(name, "") for name in ("cpu family", "model", "stepping")),
        "vectors": sorted(flag for flag in flags if flag.startswith(_VECTORS)),
        "caches": _caches(),
        "cores": psutil.cpu_count(logical=True),
        "cpus_available": available_cpus(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "python": platform.python_version(),
        "virtual": "hypervisor" in flags,
    }


#: How the names of vector instructions begin, on x86 and on ARM.
_VECTORS = ("avx", "amx", "fma", "asimd", "sve", "bf16", "i8mm")


def _cpu(path: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """Fields of the first CPU by the kernel; {} if there are none."""
    try:
        first = path.read_text(errors="replace").strip().partition("\n\n")[0]
    except OSError:
        return {}
    fields = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in fields}


def _caches(folder: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> dict[str, str]:
    """Sizes of a CPU's caches: `{"L1 Data": "32K", "L2 Unified": "1024K"}`."""
    found = {}
    for index in sorted(folder.glob("index*")):
        with suppress(OSError):
            level, kind, size = (
                (index / name).read_text().strip() for name in ("level", "type", "size")
            )
            found[f"L{level} {kind}"] = size
    return found


def commit() -> str | None:
    """The commit of this project's checkout, with a + where files differ; None without one."""
    folder = Path(__file__).parent.parent
    describe = ["git", "-C", str(folder), "describe", "--always", "--dirty=+", "--abbrev=12"]
    try:
        done = subprocess.run(describe, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None  # installed without git, or from a wheel
    return done.stdout.strip()


def project_version() -> str:
    """The installed version of this project; "" where it runs without being installed."""
    try:
        return version("rnn-bench")
    except PackageNotFoundError:
        return ""


def versions() -> dict[str, str]:
    """Installed versions of the packages whose version can move a figure."""
    found = {str(d.metadata["Name"]).lower().replace("_", "-"): d.version for d in distributions()}
    return {name: found[name] for name in sorted(_PACKAGES & found.keys())}
