"""JAX behind the interface. Importing this runs no operation and asks for no device."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib.metadata import version

import jax
from jax.extend.backend import clear_backends

from backends import install_line
from backends.api import Batch, Case, Mode, Runner, Stage, Weights, require_device, unstaged
from backends.devices import gpu_name, is_gpu, lacks_gpu
from backends.jax import INFO
from backends.jax.fused import fused, require_cuda
from backends.jax.kernels import kernels
from backends.jax.limit import BARE
from backends.jax.network import LOOPS, looped
from backends.jax.runner import JaxRunner
from backends.tf32 import Switch

#: A limit that was taken is the one asked for up to rounding.
_LIMIT_ERROR = 1e-3


def _found() -> dict[str, jax.Device]:
    """The devices of XLA's clients, which are started where they are not yet."""
    gpus = [device for device in jax.devices() if device.platform == "gpu"]
    found = {"cpu": jax.devices("cpu")[0]}
    return found | {gpu_name(number): device for number, device in enumerate(gpus)}


class JaxBackend:
    """JAX in one process."""

    name = "jax"

    def __init__(self) -> None:
        # Both dtypes live in one process. x64 only permits float64; every array of a float32 case
        # is made with its dtype.
        jax.config.update("jax_enable_x64", True)
        self._tf32 = Switch(_tf32)
        self._devices = _found()

    def versions(self) -> Mapping[str, str]:
        return {"jax": version("jax"), "jaxlib": version("jaxlib")}

    def threads(self) -> Mapping[str, int]:
        """Threads that XLA was given; JAX itself reports none.

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

    def limit(self, device: str, limit_bytes: int) -> None:
        """XLA's allocator is limited when its client is made, to a share of the GPU's memory.

        `XLA_CLIENT_MEM_FRACTION` is read once, before the first client: too early to ask one how
        much there is. So clients are made anew, by the option that overrides the variable. Without
        preallocation they take nothing, and the share is still the most that they take.
        """
        require_device(self, device)
        total = self._restarted(device, 1.0)
        taken = self._restarted(device, limit_bytes / total)
        if abs(taken / limit_bytes - 1) > _LIMIT_ERROR:
            raise RuntimeError(
                f"XLA's allocator is limited to {taken:,}, not {limit_bytes:,} bytes"
            )

    def _restarted(self, device: str, share: float) -> int:
        """Make XLA's clients again, with so much of a GPU's memory; the bytes that this is."""
        jax.config.update("jax_pjrt_client_create_options", {"memory_fraction": share})
        self._devices = {}  # nothing holds the earlier client
        clear_backends()
        self._devices = _found()
        told = (self._devices[device].memory_stats() or {}).get("bytes_limit")
        if told is None:
            raise RuntimeError("XLA's allocator does not tell its limit")
        return int(told)

    def timer(self, device: str) -> None:
        """JAX has no events of a stream."""

    def build(self, case: Case, strategy: str, mode: Mode, stage: Stage = unstaged) -> Runner:
        INFO.require(strategy, case, mode)
        require_device(self, case.device)
        self._tf32.require(case)
        device = self._devices[case.device]
        if strategy in BARE:
            return BARE[strategy](case, mode, device, stage)
        if strategy == "fused":
            require_cuda(case.device, device.client.platform_version)
            network = fused(case)
        else:
            network = looped(case, LOOPS[strategy])
        return JaxRunner(case, network, mode, device, stage)

    def native(self, case: Case, strategy: str, weights: Weights, batch: Batch) -> None:
        """JAX has no LSTM class; cuDNN's vector of weights has no order but its own."""

    def kernels(self, runner: Runner, device: str, call: Callable[[], None]) -> Mapping[str, int]:
        return kernels(device, call)


def _tf32(on: bool) -> None:
    """Let products of float32 be TF32; "highest" keeps that and bfloat16 out."""
    jax.config.update("jax_default_matmul_precision", "tensorfloat32" if on else "highest")


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
