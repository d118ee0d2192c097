"""JAX: what is known of it without importing it."""

from __future__ import annotations

from backends.api import BackendInfo, Strategy


def environment(threads: int) -> dict[str, str]:
    """XLA sizes its pool by the CPUs that it may run on; with one, Eigen's own threads are off."""
    return {
        "JAX_PLATFORMS": "cpu",
        "OMP_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": "1",
        "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=" + ("false" if threads == 1 else "true"),
    }


INFO = BackendInfo(
    name="jax",
    module="backends.jax.adapter",
    extra="jax",
    requires=("jax", "jaxlib"),
    environment=environment,
    preload=("jax", "jax.numpy"),
    strategies=(
        Strategy(name="static", kind="static", title="the Python loop unrolled under jit"),
        Strategy(name="dynamic", kind="dynamic", title="lax.scan under jit"),
        Strategy(name="scan-unroll", kind="dynamic", title="lax.scan, 8 steps an iteration"),
    ),
)
