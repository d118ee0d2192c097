"""GPUs as their driver tells of them (NVML), without any framework and without using one.

Needs `pip install nvidia-ml-py` (extra `gpu`) and NVIDIA's driver; without either there is nothing
to tell. NVML counts GPUs by their place on the PCI bus, and so do workers (`CUDA_DEVICE_ORDER`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any

from backends.devices import gpu_name, gpu_number, is_gpu
from bench.watch import Gate, Lookout, Unwatched, Watch

try:
    import pynvml
except ImportError:
    pynvml = None


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU; what the driver does not tell is None."""

    device: str
    name: str
    driver: str
    memory_bytes: int | None
    #: The highest clock of its multiprocessors [MHz].
    clock_mhz: int | None
    #: What it may draw [W].
    power_limit_w: float | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def words(self) -> str:
        """The GPU in a line: its memory, its driver."""
        memory = "" if self.memory_bytes is None else f", {self.memory_bytes / 2**30:.0f} GiB"
        return f"{self.name}{memory}, driver {self.driver}"


def found() -> list[Gpu]:
    """The GPUs that the driver finds, in the order of the PCI bus; none without a driver."""
    with _opened() as nvml:
        if nvml is None:
            return []
        driver = _text(nvml.nvmlSystemGetDriverVersion())
        handles = map(nvml.nvmlDeviceGetHandleByIndex, range(nvml.nvmlDeviceGetCount()))
        return [Nvml(nvml, handle).describe(n, driver) for n, handle in enumerate(handles)]


@contextmanager
def _opened() -> Iterator[ModuleType | None]:
    """NVML, or None where it is not installed or finds no driver."""
    if pynvml is None:
        yield None
        return
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield None
        return
    try:
        yield pynvml
    finally:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


#: Bits of NVML's reasons for a lower clock that are a disturbance, in words.
_SLOWED = {
    "SwPowerCap": "power limit",
    "HwSlowdown": "hardware",
    "SwThermalSlowdown": "temperature",
    "HwThermalSlowdown": "temperature",
    "HwPowerBrakeSlowdown": "power brake",
}


class Nvml:
    """One GPU, asked while NVML is open. See `bench.watch.Driver`."""

    def __init__(self, nvml: ModuleType, handle: Any) -> None:
        self._nvml, self._handle = nvml, handle

    def _told(self, name: str, *arguments: object) -> Any:
        """Result of a driver's function; None if this GPU does not report it."""
        with suppress(self._nvml.NVMLError):
            return getattr(self._nvml, name)(self._handle, *arguments)
        return None

    def describe(self, number: int, driver: str) -> Gpu:
        """Describe the GPU of this number."""
        power = self._told("nvmlDeviceGetEnforcedPowerLimit")
        return Gpu(
            device=gpu_name(number),
            name=_text(self._told("nvmlDeviceGetName") or "a GPU without a name"),
            driver=driver,
            memory_bytes=self.total_bytes(),
            clock_mhz=self._told("nvmlDeviceGetMaxClockInfo", self._nvml.NVML_CLOCK_SM),
            power_limit_w=None if power is None else power / 1e3,
        )

    def total_bytes(self) -> int | None:
        """All the memory that it has, the driver's own part too."""
        found = self._told("nvmlDeviceGetMemoryInfo")
        return None if found is None else int(found.total)

    def clock_mhz(self) -> float | None:
        found = self._told("nvmlDeviceGetClockInfo", self._nvml.NVML_CLOCK_SM)
        return None if found is None else float(found)

    def slowed(self) -> set[str]:
        bits = self._told("nvmlDeviceGetCurrentClocksEventReasons") or 0
        named = {
            getattr(self._nvml, f"nvmlClocksEventReason{name}"): why
            for name, why in _SLOWED.items()
        }
        return {why for bit, why in named.items() if bits & bit}

    def used_bytes(self) -> float | None:
        found = self._told("nvmlDeviceGetMemoryInfo")
        return None if found is None else float(found.used)

    def processes(self) -> set[int] | None:
        found = self._told("nvmlDeviceGetComputeRunningProcesses")
        return None if found is None else {process.pid for process in found}


def watch(device: str) -> Unwatched:
    """Make the observer of a device under measurement: a `Watch` if a driver reports on it."""
    if pynvml is None or not is_gpu(device):
        return Unwatched()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return Unwatched()
    gpu = _gpu(pynvml, device)
    return Unwatched() if gpu is None else Watch(gpu)


def lookout(gate: Gate, devices: Iterable[str]) -> Lookout:
    """A gate of the host, and who looks at each of these devices."""
    return Lookout(gate, {device: watch(device) for device in devices})


def memory_bytes(device: str) -> int | None:
    """All the memory of a GPU; None for a CPU, and where the driver does not tell."""
    if not is_gpu(device):
        return None
    with _opened() as nvml:
        gpu = None if nvml is None else _gpu(nvml, device)
        return None if gpu is None else gpu.total_bytes()


def free_bytes(device: str) -> float | None:
    """The memory of a GPU that nobody uses; None for a CPU, and where the driver does not tell."""
    if not is_gpu(device):
        return None
    with _opened() as nvml:
        gpu = None if nvml is None else _gpu(nvml, device)
        if gpu is None:
            return None
        total, used = gpu.total_bytes(), gpu.used_bytes()
        return None if total is None or used is None else total - used


def _gpu(nvml: ModuleType, device: str) -> Nvml | None:
    """The GPU that frameworks call this; None where that cannot be told."""
    with suppress(nvml.NVMLError):
        handle = _handle(nvml, gpu_number(device))
        return None if handle is None else Nvml(nvml, handle)
    return None


def _handle(nvml: ModuleType, number: int) -> Any:
    """The GPU that frameworks call this; None where that cannot be told.

    They count what `CUDA_VISIBLE_DEVICES` leaves them, in its order, and `CUDA_DEVICE_ORDER` may
    be the caller's.
    """
    if os.environ.get("CUDA_DEVICE_ORDER", "PCI_BUS_ID") != "PCI_BUS_ID":
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return nvml.nvmlDeviceGetHandleByIndex(number)
    names = [name.strip() for name in visible.split(",")]
    if number >= len(names):
        return None
    if names[number].isdecimal():
        return nvml.nvmlDeviceGetHandleByIndex(int(names[number]))
    if names[number].startswith("GPU-"):
        return nvml.nvmlDeviceGetHandleByUUID(names[number])
    return None


def _text(value: str | bytes) -> str:
    """Older versions of the binding give bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value
