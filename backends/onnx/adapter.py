"""ONNX Runtime behind the interface. Importing this runs no operation and starts no thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx
import onnxruntime

from backends.api import Batch, Case, Mode, Runner, Stage, Weights, require_device, unstaged
from backends.onnx import INFO
from backends.onnx.runner import OnnxRunner, session_options


class OnnxBackend:
    """ONNX Runtime whose sessions have a fixed number of threads."""

    name = "onnx"

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def versions(self) -> Mapping[str, str]:
        return {"onnxruntime": onnxruntime.__version__, "onnx": onnx.__version__}

    def threads(self) -> Mapping[str, int]:
        options = session_options(self._threads)
        return {
            "intra_op": options.intra_op_num_threads,
            "inter_op": options.inter_op_num_threads,
        }

    def devices(self) -> Mapping[str, str]:
        return {"cpu": "CPUExecutionProvider"}

    def lacking(self, device: str) -> str | None:
        return (
            None if device == "cpu" else f"device {device}: onnxruntime's CPU package runs on cpu"
        )

    def allocated(self, device: str, *, reset: bool = False) -> Mapping[str, float]:
        return {}

    def limit(self, device: str, limit_bytes: int) -> None:
        """There is no GPU to limit: `Unavailable`."""
        require_device(self, device)

    def timer(self, device: str) -> None:
        """ONNX Runtime computes on the CPU here."""

    def build(self, case: Case, strategy: str, mode: Mode, stage: Stage = unstaged) -> Runner:
        INFO.require(strategy, case, mode)
        require_device(self, case.device)
        return OnnxRunner(case, self._threads)

    def native(self, case: Case, strategy: str, weights: Weights, batch: Batch) -> None:
        """A model's operators read what is in it, in the order that ONNX defines."""

    def kernels(self, runner: Runner, device: str, call: Callable[[], None]) -> Mapping[str, int]:
        """ONNX Runtime profiles sessions that were made for it, and not the one that is timed."""
        return {}


def create(threads: int) -> OnnxBackend:
    """ONNX Runtime; each session gets a pool of `threads` threads of its own."""
    return OnnxBackend(threads)
