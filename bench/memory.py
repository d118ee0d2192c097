"""Peak memory of a phase: the host's, from the kernel's own high-water mark (Linux only); a GPU's.

`VmHWM` is reset, the phase runs, and the mark is read again: every page that was resident at once
counts, whoever allocated it, with nothing sampled and nothing slowed. Pages of files (the
framework's code, faulted in as it runs) are taken off: they are no cost of the implementation.

Many kernels count pages for each CPU by itself and add them up now and then: there a reading is off
by 0.2 to 0.3 MB, to either side, and what took next to nothing can read as less than nothing.

What is given from pages that the allocator holds free takes nothing of the kernel and is not seen.
They are returned when a meter is made, as far as glibc returns them (not the end of another
thread's arena): a memory job is the first in its process that builds and runs anything.

On a GPU the framework's allocator counts what its arrays take. What else lies there is not
in it: the driver's context, libraries and their kernels, and what the allocator holds in reserve.
The driver's account has that too (`bench.watch`).
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backends.api import Backend, Unavailable
from backends.devices import is_gpu

#: The value of a memory job on a GPU that is the peak of the host's memory.
HOST_PEAK = "host_peak_bytes"

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")

#: An allocation of this size is read back to see whether the method holds in this process.
KNOWN_BYTES = 64_000_000


@dataclass(frozen=True, kw_only=True)
class Resident:
    """Bytes of this process: resident now, its high-water mark, and the part that maps files."""

    now: int
    peak: int
    files: int


def resident() -> Resident:
    """Read the kernel's account of this process. Raises `Unavailable` where it has none."""
    values: dict[str, int] = {}
    try:
        for line in _STATUS.read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in ("VmRSS", "VmHWM", "RssFile"):
                values[name] = int(rest.split()[0]) * 1024
        return Resident(now=values["VmRSS"], peak=values["VmHWM"], files=values["RssFile"])
    except (OSError, KeyError) as error:
        raise Unavailable(f"peak memory: {_STATUS} does not tell ({error})") from error


def settle() -> None:
    """Return what is free to the kernel, so that a phase pays for all it takes."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def calibration_error() -> float | None:
    """Relative error of the reading of a known allocation, here and now; None on a silent host."""
    try:
        meter = PeakMeter()
    except Unavailable:
        return None
    known = np.ones(KNOWN_BYTES, np.uint8)
    return meter.read() / known.nbytes - 1


class PeakMeter:
    """Peaks of consecutive phases above what was resident when the meter was made."""

    def __init__(self) -> None:
        settle()
        self._base = resident()
        self._reset()

    @staticmethod
    def _reset() -> None:
        try:
            _CLEAR.write_text("5")
        except OSError as error:
            raise Unavailable(f"peak memory: {_CLEAR} cannot be written ({error})") from error

    def read(self) -> int:
        """Bytes at the peak since the last reading (or the start), file pages taken off."""
        end = resident()
        self._reset()
        return end.peak - self._base.now - (end.files - self._base.files)


class SilentMeter:
    """Of a job on a GPU, on a host that does not tell of its own memory."""

    def read(self) -> None:
        """Nothing."""


def host_meter(device: str) -> PeakMeter | SilentMeter:
    """Make the meter of host memory. Raises `Unavailable` if the host offers none."""
    try:
        return PeakMeter()
    except Unavailable:
        if is_gpu(device):
            return SilentMeter()
        raise


class DeviceMeter:
    """Meter of a GPU by its framework's allocator; reads nothing on a CPU."""

    def __init__(self, backend: Backend, device: str) -> None:
        self._backend, self._device = backend, device
        self._base = backend.allocated(device, reset=True).get("now")

    def read(self) -> float | None:
        """Bytes at the peak since the last reading (or the start); None where nobody tells.

        By an allocator that cannot start again: since the process began.
        """
        peak = self._backend.allocated(self._device, reset=True).get("peak")
        return None if peak is None or self._base is None else peak - self._base


def peaks(
    device: str, host: Sequence[float | None], on_device: Sequence[float | None]
) -> dict[str, float]:
    """The values of a memory job, from its peaks in building and running.

    Peaks are of the device that computes: of a GPU the host's is a value of its own, and who does
    not tell of either has none. Raises `Unavailable` where nobody tells.
    """
    here, there = _told(host), _told(on_device)
    if not is_gpu(device):
        return _named(here)
    if not here and not there:
        raise Unavailable("peak memory: neither the framework's allocator nor this host tells")
    return {**({HOST_PEAK: max(here)} if here else {}), **_named(there)}


def _told(found: Sequence[float | None]) -> list[float]:
    """The peaks of both phases, or none."""
    known = [peak for peak in found if peak is not None]
    return known if len(known) == len(found) else []


def _named(found: Sequence[float]) -> dict[str, float]:
    if not found:
        return {}
    build, run = found
    return {
        "build_peak_bytes": build,
        "run_peak_bytes": run,
        "peak_bytes": max(build, run),
    }
