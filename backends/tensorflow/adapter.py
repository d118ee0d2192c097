"""TensorFlow behind the interface."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib.metadata import version

import tensorflow as tf

from backends.api import Case, Mode, Runner, Stage, Unavailable, Unsupported, unstaged
from backends.tensorflow import block
from backends.tensorflow.block import BlockLstm
from backends.tensorflow.function import FunctionRunner
from backends.tensorflow.graph import GraphRunner
from backends.tensorflow.keras import KerasStack
from backends.tensorflow.rnn import DynamicRnn, StaticRnn, built_dynamic_rnn

_GRAPHS = {
    "static": partial(GraphRunner, network=StaticRnn, unrolled=True, control_flow_v2=False),
    "dynamic": partial(GraphRunner, network=DynamicRnn, unrolled=False, control_flow_v2=False),
    "dynamic-v2": partial(GraphRunner, network=DynamicRnn, unrolled=False, control_flow_v2=True),
    "fused": partial(GraphRunner, network=BlockLstm, unrolled=False, control_flow_v2=False),
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
    "xla": partial(FunctionRunner, network=built_dynamic_rnn, unrolled=False, jit_compile=True),
}

_STRATEGIES = (*_GRAPHS, *_FUNCTIONS)


class TensorflowBackend:
    """TensorFlow in this process, its two thread pools of `threads` each."""

    name = "tensorflow"

    def __init__(self, threads: int) -> None:
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
        for gpu in tf.config.list_physical_devices("GPU")[:1]:
            details = tf.config.experimental.get_device_details(gpu)
            found["gpu"] = details.get("device_name", gpu.name)
        return found

    def build(self, case: Case, strategy: str, mode: Mode, stage: Stage = unstaged) -> Runner:
        if strategy not in _STRATEGIES:
            raise Unsupported(f"strategy {strategy}: tensorflow has {', '.join(_STRATEGIES)}")
        if strategy == "fused":
            block.require(case)
        if case.device not in self.devices():
            raise Unavailable(
                f"device {case.device}: TensorFlow sees {', '.join(self.devices())} here; "
                "a GPU needs its driver and pip install 'tensorflow[and-cuda]'"
            )
        device = f"/{case.device}:0"
        if strategy in _GRAPHS:
            return _GRAPHS[strategy](case, mode, stage, device=device, config=self._config)
        return _FUNCTIONS[strategy](case, mode, stage, device=device)


def create(threads: int) -> TensorflowBackend:
    """The TensorFlow backend. Raises `RuntimeError` for a second number of threads in a process.

    Sessions and eager TensorFlow share the process's thread pools, which cannot be changed once an
    operation has run.
    """
    # The deprecated names are what is measured here, and log at every use.
    tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    # TF32 rounds a float32 product's factors to 10 bits: another function.
    tf.config.experimental.enable_tensor_float_32_execution(enabled=False)
    for gpu in tf.config.list_physical_devices("GPU"):
        # Other frameworks' workers share the GPU's memory.
        tf.config.experimental.set_memory_growth(gpu, enable=True)
    return TensorflowBackend(threads)
