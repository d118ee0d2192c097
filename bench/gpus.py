"""GPUs as their driver tells of them (NVML), without any framework and without using one.

Needs `pip install nvidia-ml-py` (extra `gpu`) and NVIDIA's driver; without either there is nothing
to tell. NVML counts GPUs by their place on the PCI bus, and so do workers (`CUDA_DEVICE_ORDER`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any

from backends.devices import gpu_name

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
        return [_read(nvml, number, driver) for number in range(nvml.nvmlDeviceGetCount())]


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


def _read(nvml: ModuleType, number: int, driver: str) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(number)

    def told(name: str, *arguments: object) -> Any:
        """What a function says; None where this GPU does not tell it."""
        with suppress(nvml.NVMLError):
            return getattr(nvml, name)(handle, *arguments)
        return None

    memory, power = told("nvmlDeviceGetMemoryInfo"), told("nvmlDeviceGetEnforcedPowerLimit")
    return Gpu(
        device=gpu_name(number),
        name=_text(told("nvmlDeviceGetName") or "a GPU without a name"),
        driver=driver,
        memory_bytes=None if memory is None else int(memory.total),
        clock_mhz=told("nvmlDeviceGetMaxClockInfo", nvml.NVML_CLOCK_SM),
        power_limit_w=None if power is None else power / 1e3,
    )


def _text(value: str | bytes) -> str:
    """Older versions of the binding give bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value
