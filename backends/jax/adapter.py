"""JAX behind the interface. Importing this runs no operation and asks for no device."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib.metadata import version

import jax

from backends import install_line
from backends.api import Batch, Case, Mode, Runner, Stage, Weights, require_device, unstaged
from backends.devices import gpu_name, is_gpu, lacks_gpu
from backends.jax import INFO
from backends.jax.kernels import kernels
from backends.jax.network import LOOPS
from backends.jax.runner import JaxRunner


class JaxBackend:
    """JAX in one process."""

    name = "jax"

    def __init__(self) -> None:
        # Both dtypes live in one process. x64 only permits float64; every array of a float32 case
        # is made with its dtype. "highest" keeps TensorFloat-32 and bfloat16 out of the products.
        jax.config.update("jax_enable_x64", True)
        jax.config.update("jax_default_matmul_precision", "highest")
        gpus = [device for device in jax.devices() if device.platform == "gpu"]
        self._devices = {"cpu": jax.devices("cpu")[0]}
        self._devices |= {gpu_name(number): device for number, device in enumerate(gpus)}

    def versions(self) -> Mapping[str, str]:
        return {"jax": version("jax"), "jaxlib": version("jaxlib")}

    def threads(self) -> Mapping[str, int]:
        """What XLA was told; JAX itself reports nothing.

        XLA's CPU client sizes its pool once, when it is made: by PJRT_NPROC, else NPROC, else the
        CPUs of the affinity mask.
        """
        cpus = len(os.sched_getaffinity(0))
        told = os.environ.get("PJRT_NPROC") or os.environ.get("NPROC")
        return {"xla_pool": int(told) if told else cpus, "affinity_cpus": cpus}

    def devices(self) -> Mapping[str, str]:
        return {name: device.device_kind for name, device in self._devices.items()}

    def lacking(self, device: str) -> str | None:
        framework = f"JAX {version('jax')}"
        return lacks_gpu(device, framework, len(self._devices) - 1, install_line("gpu-jax"))

    def allocated(self, device: str, *, reset: bool = False) -> Mapping[str, float]:
        """XLA's allocator keeps the peak since the process began, and cannot start it again."""
        stats = (self._devices[device].memory_stats() or {}) if is_gpu(device) else {}
        names = {"now": "bytes_in_use", "peak": "peak_bytes_in_use"}
        return {name: stats[theirs] for name, theirs in names.items() if theirs in stats}

    def build(self, case: Case, strategy: str, mode: Mode, stage: Stage = unstaged) -> Runner:
        INFO.require(strategy, case, mode)
        require_device(self, case.device)
        return JaxRunner(case, LOOPS[strategy], mode, self._devices[case.device], stage)

    def native(self, case: Case, strategy: str, weights: Weights, batch: Batch) -> None:
        """JAX has no LSTM of its own."""

    def kernels(self, runner: Runner, device: str, call: Callable[[], None]) -> Mapping[str, int]:
        return kernels(device, call)


def create(threads: int) -> JaxBackend:
    """The JAX backend. It starts XLA's client: call it after a fork.

    Raises `RuntimeError` where the pool has another size than `threads`: the environment sets it,
    once a process.
    """
    backend = JaxBackend()
    pool = backend.threads()["xla_pool"]
    if pool != threads:
        raise RuntimeError(f"XLA's pool has {pool} threads, asked for {threads}: set PJRT_NPROC")
    return backend
