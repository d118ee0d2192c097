"""PyTorch: what is known of it without importing it."""

from __future__ import annotations

from backends.api import BackendInfo, Strategy
from backends.torch.support import refusal


def environment(threads: int) -> dict[str, str]:
    """Thread counts of the pools that torch reads when it is imported.

    Inductor compiles in the process itself: it would otherwise start a pool of compile workers, one
    for each CPU of the host.
    """
    return {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": "1",
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
    }


INFO = BackendInfo(
    name="torch",
    module="backends.torch.adapter",
    extra="torch",
    requires=("torch",),
    environment=environment,
    refusal=refusal,
    preload=("torch",),
    compile_cache="TORCHINDUCTOR_CACHE_DIR",
    strategies=(
        Strategy(
            name="static",
            kind="static",
            title="the loop unrolled by torch.compile(fullgraph)",
            against="dynamic",
        ),
        Strategy(
            name="traced",
            kind="static",
            title="the loop unrolled by torch.jit.trace",
            against="dynamic",
        ),
        Strategy(
            name="graphed",
            kind="static",
            title="the eager loop captured once in a CUDA graph",
            against="dynamic",
            of_gpus=True,
        ),
        Strategy(name="dynamic", kind="dynamic", title="an eager Python loop over the cell"),
        Strategy(
            name="scripted",
            kind="dynamic",
            title="the loop under torch.jit.script",
            against="dynamic",
        ),
        Strategy(name="fused", kind="fused", title="nn.RNN, nn.LSTM, nn.GRU", against="dynamic"),
        Strategy(
            name="packed",
            kind="fused",
            title="the same over packed sequences, for full lengths too",
            against="dynamic",
        ),
        Strategy(name="products", kind="limit", title="the case's matrix products alone"),
        Strategy(
            name="launches",
            kind="launches",
            title="an eager addition to one element for each step: the floor of loops on a GPU",
        ),
    ),
)
