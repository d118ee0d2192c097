"""PyTorch behind the interface. Importing this runs no operation and starts no thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from backends import install_line
from backends.api import (
    Batch,
    Case,
    Mode,
    Native,
    Runner,
    Stage,
    Weights,
    require_device,
    unstaged,
)
from backends.devices import gpu_name, gpu_number, is_gpu, lacks_gpu
from backends.tf32 import Switch
from backends.torch import INFO
from backends.torch.compiled import build_static
from backends.torch.fused import build_fused, build_packed
from backends.torch.graphed import build_graphed
from backends.torch.kernels import kernels
from backends.torch.limit import build_launches, build_products
from backends.torch.loop import build_dynamic
from backends.torch.native import native
from backends.torch.timer import EventTimer
from backends.torch.torchscript import build_scripted, build_traced

_BUILDERS: Mapping[str, Callable[[Case, Mode, torch.device, Stage], Runner]] = {
    "static": build_static,
    "traced": build_traced,
    "graphed": build_graphed,
    "dynamic": build_dynamic,
    "scripted": build_scripted,
    "fused": build_fused,
    "packed": build_packed,
    "products": build_products,
    "launches": build_launches,
}


class TorchBackend:
    """PyTorch at a fixed number of threads."""

    name = "torch"

    def __init__(self) -> None:
        self._tf32 = Switch(_tf32)

    def versions(self) -> Mapping[str, str]:
        found = {
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
        return {name: str(version) for name, version in found.items() if version is not None}

    def threads(self) -> Mapping[str, int]:
        return {
            "intra_op": torch.get_num_threads(),
            "inter_op": torch.get_num_interop_threads(),
        }

    def devices(self) -> Mapping[str, str]:
        devices = {"cpu": f"CPU, {torch.backends.cpu.get_cpu_capability()}"}
        for number in range(_gpus()):
            devices[gpu_name(number)] = _described(number)
        return devices

    def lacking(self, device: str) -> str | None:
        built = "" if torch.version.cuda else " (built without CUDA)"
        framework = f"torch {torch.__version__}{built}"
        return lacks_gpu(device, framework, _gpus(), install_line("gpu-torch"))

    def allocated(self, device: str, *, reset: bool = False) -> Mapping[str, float]:
        if not is_gpu(device):
            return {}
        place = _device(device)
        torch.cuda.synchronize(place)
        found = {
            "now": torch.cuda.memory_allocated(place),
            "peak": torch.cuda.max_memory_allocated(place),
        }
        if reset:
            torch.cuda.reset_peak_memory_stats(place)
        return found

    def limit(self, device: str, limit_bytes: int) -> None:
        """The caching allocator's limit is a share of the GPU, and on what it keeps in reserve too.

        cuDNN's and cuBLAS's workspaces are of that allocator.
        """
        require_device(self, device)
        place = _device(device)
        total = torch.cuda.get_device_properties(place).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit_bytes / total), place)

    def timer(self, device: str) -> EventTimer | None:
        return EventTimer(_device(device)) if is_gpu(device) else None

    def build(self, case: Case, strategy: str, mode: Mode, stage: Stage = unstaged) -> Runner:
        INFO.require(strategy, case, mode)
        require_device(self, case.device)
        self._tf32.require(case)
        return _BUILDERS[strategy](case, mode, _device(case.device), stage)

    def native(self, case: Case, strategy: str, weights: Weights, batch: Batch) -> Native | None:
        return native(case, strategy, weights, batch, _device(case.device))

    def kernels(self, runner: Runner, device: str, call: Callable[[], None]) -> Mapping[str, int]:
        return kernels(device, call)


def _gpus() -> int:
    """Number of GPUs that this build can use: a driver may be too old for it."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _device(name: str) -> torch.device:
    """The torch device of a case's."""
    return torch.device("cuda", gpu_number(name)) if is_gpu(name) else torch.device("cpu")


def _described(number: int) -> str:
    """A GPU in words. Asks the driver, and starts nothing on the GPU."""
    found = torch.cuda.get_device_properties(number)
    capability = f"compute capability {found.major}.{found.minor}"
    return f"{found.name}, {found.total_memory / 2**30:.0f} GiB, {capability}"


def _tf32(on: bool) -> None:
    """Let products of float32 be TF32, cuDNN's too, or keep them in full precision."""
    torch.set_float32_matmul_precision("high" if on else "highest")
    torch.backends.cudnn.allow_tf32 = on


def create(threads: int) -> TorchBackend:
    """PyTorch with pools of `threads` threads.

    The inter-operation pool can be set once a process: torch raises `RuntimeError` for another
    number later.
    """
    torch.set_num_threads(threads)
    if torch.get_num_interop_threads() != threads:
        torch.set_num_interop_threads(threads)
    return TorchBackend()
