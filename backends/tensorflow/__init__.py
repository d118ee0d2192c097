"""TensorFlow: what is known of it without importing it."""

from __future__ import annotations

from backends.api import BackendInfo, Strategy
from backends.tensorflow.support import refusal


def environment(threads: int) -> dict[str, str]:
    """Legacy Keras serves the `rnn_cell` classes; the C++ log stays off the terminal."""
    return {
        "TF_USE_LEGACY_KERAS": "1",
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "OMP_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": "1",
    }


INFO = BackendInfo(
    name="tensorflow",
    module="backends.tensorflow.adapter",
    extra="tensorflow",
    requires=("tensorflow", "tf-keras", "keras"),
    environment=environment,
    refusal=refusal,
    preload=("tensorflow", "tf_keras", "keras"),
    strategies=(
        Strategy(
            name="static",
            kind="static",
            title="static_rnn in a Graph, control flow v1",
            against="dynamic",
        ),
        Strategy(name="dynamic", kind="dynamic", title="dynamic_rnn in a Graph, control flow v1"),
        Strategy(
            name="dynamic-v2",
            kind="dynamic",
            title="dynamic_rnn in a Graph, control flow v2",
            against="dynamic",
        ),
        Strategy(
            name="dynamic-time-major",
            kind="dynamic",
            title="dynamic_rnn, time_major=True: transposed once a call, not in every dynamic_rnn",
            against="dynamic",
        ),
        Strategy(
            name="dynamic-swap",
            kind="dynamic",
            title="dynamic_rnn, swap_memory=True: what the gradient needs waits in host memory",
            against="dynamic",
        ),
        Strategy(
            name="dynamic-parallel-1",
            kind="dynamic",
            title="dynamic_rnn, parallel_iterations=1: no two steps at a time",
            against="dynamic",
        ),
        Strategy(
            name="raw",
            kind="dynamic",
            title="raw_rnn, inputs and outputs in TensorArrays, control flow v1",
            against="dynamic",
        ),
        Strategy(
            name="state-saving",
            kind="static",
            title="static_state_saving_rnn, the final state saved in each call, control flow v1",
            against="dynamic",
        ),
        Strategy(
            name="static-block",
            kind="static",
            title="static_rnn of LSTMBlockCell or GRUBlockCell, a step in one op",
            against="dynamic-block",
        ),
        Strategy(
            name="dynamic-block",
            kind="dynamic",
            title="dynamic_rnn of LSTMBlockCell or GRUBlockCell, a step in one op",
            against="dynamic",
        ),
        Strategy(
            name="fused",
            kind="fused",
            title="BlockLSTM, the whole sequence in one op",
            against="dynamic",
        ),
        Strategy(
            name="fused-v2",
            kind="fused",
            title="BlockLSTMV2, the same with other gates' order and bias",
            against="dynamic",
        ),
        Strategy(
            name="cudnn",
            kind="fused",
            title="CudnnRNNV3: cuDNN's LSTM, GRU and RNN, all layers in one op",
            against="dynamic",
            of_gpus=True,
        ),
        Strategy(
            name="keras",
            kind="dynamic",
            title="tf.function over Keras layers, their loop",
            against="dynamic",
        ),
        Strategy(
            name="keras-unrolled",
            kind="static",
            title="tf.function over Keras layers, unroll=True",
            against="keras",
        ),
        Strategy(
            name="keras-cudnn",
            kind="fused",
            title="tf.function over Keras layers with cuDNN's kernel, their default",
            against="keras",
            of_gpus=True,
        ),
        Strategy(
            name="xla",
            kind="dynamic",
            title="dynamic_rnn under jit_compile=True",
            against="dynamic",
        ),
        Strategy(
            name="products",
            kind="limit",
            title="the case's matrix products alone, one after the other in a Graph (on a GPU)",
        ),
        Strategy(
            name="launches",
            kind="launches",
            title="a while_loop that adds to one element: the floor of loops on a GPU",
        ),
    ),
)
