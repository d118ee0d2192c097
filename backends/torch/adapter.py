"""PyTorch behind the interface. Importing this runs no operation and starts no thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from backends.api import (
    Batch,
    Case,
    Mode,
    Native,
    Runner,
    Stage,
    Unavailable,
    Weights,
    unstaged,
)
from backends.torch import INFO
from backends.torch.compiled import build_static
from backends.torch.fused import build_fused, build_packed
from backends.torch.limit import build_products
from backends.torch.loop import build_dynamic
from backends.torch.native import native
from backends.torch.torchscript import build_scripted, build_traced

_BUILDERS: Mapping[str, Callable[[Case, Mode, torch.device, Stage], Runner]] = {
    "static": build_static,
    "traced": build_traced,
    "dynamic": build_dynamic,
    "scripted": build_scripted,
    "fused": build_fused,
    "packed": build_packed,
    "products": build_products,
}


class TorchBackend:
    """PyTorch at a fixed number of threads."""

    name = "torch"

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
        if torch.cuda.is_available():
            devices["gpu"] = torch.cuda.get_device_name()
        return devices

    def build(self, case: Case, strategy: str, mode: Mode, stage: Stage = unstaged) -> Runner:
        INFO.require(strategy, case, mode)
        return _BUILDERS[strategy](case, mode, _device(case.device), stage)

    def native(self, case: Case, strategy: str, weights: Weights, batch: Batch) -> Native | None:
        return native(case, strategy, weights, batch)


def _device(name: str) -> torch.device:
    """The torch device of a case's. Raises `Unavailable` for one that is not here."""
    if name == "cpu":
        return torch.device("cpu")
    if name != "gpu":
        raise Unavailable(f"device {name}: torch runs on cpu and gpu")
    if not torch.cuda.is_available():
        raise Unavailable(f"device gpu: torch {torch.__version__} finds no CUDA device")
    return torch.device("cuda", torch.cuda.current_device())


def create(threads: int) -> TorchBackend:
    """PyTorch with pools of `threads` threads and float32 products in full precision (no TF32).

    The inter-operation pool can be set once a process: torch raises `RuntimeError` for another
    number later.
    """
    torch.set_num_threads(threads)
    if torch.get_num_interop_threads() != threads:
        torch.set_num_interop_threads(threads)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    return TorchBackend()
