"""PyTorch: what is known of it without importing it."""

from __future__ import annotations

from backends.api import BackendInfo, Strategy


def environment(threads: int) -> dict[str, str]:
    """Thread counts of the pools that torch reads when it is imported."""
    return {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": "1",
    }


INFO = BackendInfo(
    name="torch",
    module="backends.torch.adapter",
    extra="torch",
    requires=("torch",),
    environment=environment,
    preload=("torch",),
    compile_cache="TORCHINDUCTOR_CACHE_DIR",
    strategies=(
        Strategy(
            name="static", kind="static", title="the loop unrolled by torch.compile(fullgraph)"
        ),
        Strategy(name="traced", kind="static", title="the loop unrolled by torch.jit.trace"),
        Strategy(name="dynamic", kind="dynamic", title="an eager Python loop over the cell"),
        Strategy(name="scripted", kind="dynamic", title="the loop under torch.jit.script"),
        Strategy(name="fused", kind="fused", title="nn.RNN, nn.LSTM, nn.GRU"),
        Strategy(name="products", kind="limit", title="the case's matrix products alone"),
    ),
)
