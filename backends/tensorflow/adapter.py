"""TensorFlow behind the interface."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version

import tensorflow as tf

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
from backends.tensorflow import INFO
from backends.tensorflow.block import BlockLstm, BlockLstmV2
from backends.tensorflow.blockcells import make_block_cell
from backends.tensorflow.cells import make_cell
from backends.tensorflow.cudnn import build_cudnn
from backends.tensorflow.function import FunctionRunner
from backends.tensorflow.graph import GraphRunner
from backends.tensorflow.keras import KerasStack
from backends.tensorflow.kernels import kernels
from backends.tensorflow.limit import BARE
from backends.tensorflow.native import native
from backends.tensorflow.network import Network
from backends.tensorflow.rnn import (
    DynamicRnn,
    RawRnn,
    StateSavingRnn,
    StaticRnn,
    built_dynamic_rnn,
)
from backends.tf32 import Switch


def _graph(
    network: Callable[[Case], Network], *, unrolled: bool = False, v2: bool = False
) -> Callable[..., Runner]:
    return partial(GraphRunner, network=network, unrolled=unrolled, control_flow_v2=v2)


_block_cells = partial(make_cell, basic=make_block_cell)

_GRAPHS: dict[str, Callable[..., Runner]] = {
    "static": _graph(StaticRnn, unrolled=True),
    "dynamic": _graph(DynamicRnn),
    "dynamic-v2": _graph(DynamicRnn, v2=True),
    "dynamic-time-major": _graph(partial(DynamicRnn, time_major=True)),
    # Control flow v2 drops it without a word.
    "dynamic-swap": _graph(partial(DynamicRnn, swap_memory=True)),
    "dynamic-parallel-1": _graph(partial(DynamicRnn, parallel_iterations=1)),
    "raw": _graph(RawRnn),
    "state-saving": _graph(StateSavingRnn, unrolled=True),
    "static-block": _graph(partial(StaticRnn, make=_block_cells), unrolled=True),
    "dynamic-block": _graph(partial(DynamicRnn, make=_block_cells)),
    "fused": _graph(BlockLstm),
    "fused-v2": _graph(BlockLstmV2),
    "cudnn": build_cudnn,
}

_FUNCTIONS = {
    "keras": partial(
        FunctionRunner,
        network=partial(KerasStack, unroll=False),
        unrolled=False,
        jit_compile=False,
    ),
    "keras-unrolled": partial(
        FunctionRunner, network=partial(KerasStack, unroll=True), unrolled=True, jit_compile=False
    ),
    "keras-cudnn": partial(
        FunctionRunner,
        network=partial(KerasStack, unroll=False, cudnn=True),
        unrolled=False,
        jit_compile=False,
    ),
    "xla": partial(FunctionRunner, network=built_dynamic_rnn, unrolled=False, jit_compile=True),
}


#: TensorFlow counts the memory of logical devices in whole ones of these.
_MEBIBYTE = 2**20

_VirtualDevices = tf.compat.v1.GPUOptions.Experimental.VirtualDevices


class TensorflowBackend:
    """TensorFlow in this process, its two thread pools of `threads` each."""

    name = "tensorflow"

    def __init__(self, threads: int) -> None:
        self._tf32 = Switch(tf.config.experimental.enable_tensor_float_32_execution)
        self._config = tf.compat.v1.ConfigProto(
            intra_op_parallelism_threads=threads,
            inter_op_parallelism_threads=threads,
            # Shapes and loop counters are int32, which few operations take on a GPU.
            allow_soft_placement=True,
            gpu_options=tf.compat.v1.GPUOptions(allow_growth=True),
        )

    def versions(self) -> Mapping[str, str]:
        return {name: version(name) for name in ("tensorflow", "tf-keras", "keras")}

    def threads(self) -> Mapping[str, int]:
        threading = tf.config.threading
        return {
            "intra_op": threading.get_intra_op_parallelism_threads(),
            "inter_op": threading.get_inter_op_parallelism_threads(),
        }

    def devices(self) -> Mapping[str, str]:
        found = {"cpu": tf.config.list_physical_devices("CPU")[0].name}
        for number, gpu in enumerate(tf.config.list_physical_devices("GPU")):
            found[gpu_name(number)] = _described(gpu)
        return found

    def lacking(self, device: str) -> str | None:
        built = "" if tf.test.is_built_with_cuda() else " (built without CUDA)"
        framework = f"TensorFlow {version('tensorflow')}{built}"
        found = len(tf.config.list_physical_devices("GPU"))
        return lacks_gpu(device, framework, found, install_line("gpu-tensorflow"))

    def allocated(self, device: str, *, reset: bool = False) -> Mapping[str, float]:
        if not is_gpu(device):
            return {}
        name = f"GPU:{gpu_number(device)}"
        stats = tf.config.experimental.get_memory_info(name)
        if reset:
            tf.config.experimental.reset_memory_stats(name)
        return {"now": stats["current"], "peak": stats["peak"]}

    def limit(self, device: str, limit_bytes: int) -> None:
        """The GPU becomes a logical one of that size, for sessions and for eager TensorFlow.

        Whichever of the two comes first makes the allocator that both use. Eager TensorFlow lets no
        logical GPU grow, and would take all of it at once; the variable lets it.
        """
        require_device(self, device)
        os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
        gpus = tf.config.list_physical_devices("GPU")
        chosen, size = gpus[gpu_number(device)], limit_bytes // _MEBIBYTE
        tf.config.set_logical_device_configuration(
            chosen, [tf.config.LogicalDeviceConfiguration(memory_limit=size)]
        )
        # One entry a GPU; an empty one leaves its GPU whole.
        self._config.gpu_options.experimental.virtual_devices.extend(
            _VirtualDevices(memory_limit_mb=[size] if gpu == chosen else []) for gpu in gpus
        )

    def timer(self, device: str) -> None:
        """TensorFlow has no events of a stream."""

    def build(self, case: Case, strategy: str, mode: Mode, stage: Stage = unstaged) -> Runner:
        INFO.require(strategy, case, mode)
        require_device(self, case.device)
        self._tf32.require(case)
        device = f"/gpu:{gpu_number(case.device)}" if is_gpu(case.device) else "/cpu:0"
        if strategy in BARE:
            return BARE[strategy](case, mode, stage, device=device, config=self._config)
        if strategy in _GRAPHS:
            return _GRAPHS[strategy](case, mode, stage, device=device, config=self._config)
        return _FUNCTIONS[strategy](case, mode, stage, device=device)

    def native(self, case: Case, strategy: str, weights: Weights, batch: Batch) -> Native | None:
        return native(case, strategy, weights, batch)

    def kernels(self, runner: Runner, device: str, call: Callable[[], None]) -> Mapping[str, int]:
        return kernels(runner, device, call)


def _described(gpu: tf.config.PhysicalDevice) -> str:
    """A GPU in words. Asks the driver, and starts nothing on the GPU."""
    details = tf.config.experimental.get_device_details(gpu)
    major, minor = details.get("compute_capability", ("?", "?"))
    return f"{details.get('device_name', gpu.name)}, compute capability {major}.{minor}"


def create(threads: int) -> TensorflowBackend:
    """The TensorFlow backend. Raises `RuntimeError` for a second number of threads in a process.

    Sessions and eager TensorFlow share the process's thread pools, which cannot be changed once an
    operation has run.
    """
    # The deprecated names are what is measured here, and log at every use.
    tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    for gpu in tf.config.list_physical_devices("GPU"):
        # Other frameworks' workers share the GPU's memory.
        tf.config.experimental.set_memory_growth(gpu, enable=True)
    return TensorflowBackend(threads)
