"""Names of devices: "cpu", "gpu" for the first GPU, "gpu:1" for the second, and so on."""

from __future__ import annotations

import re

_GPU = re.compile(r"gpu(?::([1-9][0-9]?))?")

#: What a device may be called, in words.
ALLOWED = "cpu, gpu, or gpu:1 for the second GPU, and so on"


def is_device(name: str) -> bool:
    """Whether a name is one of a device."""
    return name == "cpu" or _GPU.fullmatch(name) is not None


def is_gpu(device: str) -> bool:
    """Whether a device is a GPU."""
    return _GPU.fullmatch(device) is not None


def gpu_number(device: str) -> int:
    """`gpu:1` -> 1, `gpu` -> 0. Raises `ValueError` for what is no GPU."""
    found = _GPU.fullmatch(device)
    if found is None:
        raise ValueError(f"device {device!r}: is no GPU")
    return int(found[1] or 0)


def gpu_name(number: int) -> str:
    """The contrary: 0 -> `gpu`, 1 -> `gpu:1`."""
    return f"gpu:{number}" if number else "gpu"


def lacks_gpu(device: str, framework: str, found: int, install: str) -> str | None:
    """Reason why a framework with so many GPUs has none of this name, and what helps, or None.

    `install` is the line that installs a build of the framework for GPUs. None for the CPU, too.
    """
    if not is_gpu(device) or gpu_number(device) < found:
        return None
    if found:
        there = ", ".join(gpu_name(number) for number in range(found))
        return f"device {device}: {framework} finds {there}"
    return (
        f"device {device}: {framework} finds no GPU; it needs one with its driver, and a build for "
        f"it: {install}"
    )
