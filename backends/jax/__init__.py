"""JAX: what is known of it without importing it."""

from __future__ import annotations

from backends.api import BackendInfo, Strategy
from backends.jax.support import UNROLL_FACTORS, refusal


def environment(threads: int) -> dict[str, str]:
    """XLA's pool size, no compile cache on disk, and no memory taken from a GPU in advance.

    With one thread Eigen's parallel kernels are off as well, so that no product is handed to a pool
    of one. The platform is not chosen here: the adapter picks the device that the case names.
    """
    return {
        "PJRT_NPROC": str(threads),
        "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=" + ("false" if threads == 1 else "true"),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        "OPENBLAS_NUM_THREADS": "1",
    }


INFO = BackendInfo(
    name="jax",
    module="backends.jax.adapter",
    extra="jax",
    requires=("jax", "jaxlib"),
    environment=environment,
    preload=("jax", "jax.numpy"),
    strategies=(
        Strategy(
            name="static",
            kind="static",
            title="the Python loop unrolled under jit",
            against="dynamic",
        ),
        Strategy(name="dynamic", kind="dynamic", title="lax.scan under jit"),
        *(
            Strategy(
                name=f"scan-unroll-{factor}",
                kind="dynamic",
                title=f"lax.scan, {factor} steps an iteration",
                against="dynamic",
            )
            for factor in UNROLL_FACTORS
        ),
        Strategy(
            name="fori",
            kind="dynamic",
            title="lax.fori_loop that writes the outputs into one array",
            against="dynamic",
        ),
        Strategy(
            name="while",
            kind="dynamic",
            title="lax.while_loop that ends with the longest sequence",
            against="dynamic",
        ),
        Strategy(
            name="fused",
            kind="fused",
            title="jax.experimental.rnn: cuDNN's LSTM",
            against="dynamic",
            of_gpus=True,
        ),
        Strategy(
            name="products",
            kind="limit",
            title="the case's matrix products alone, in loops under jit (on a GPU)",
        ),
        Strategy(
            name="launches",
            kind="launches",
            title="a loop under jit that adds to one element: the floor of loops on a GPU",
        ),
    ),
    refusal=refusal,
)
