"""NumPy: the float64 oracle, and the matrix products of a case as a limit."""

from __future__ import annotations

from backends.api import BackendInfo, Strategy


def environment(_threads: int) -> dict[str, str]:
    """OpenBLAS starts with one thread, so that a fork server has one; the adapter sets the rest."""
    return {"OPENBLAS_NUM_THREADS": "1"}


INFO = BackendInfo(
    name="reference",
    module="backends.reference.adapter",
    extra=None,
    requires=("numpy", "autograd"),
    environment=environment,
    preload=("numpy", "autograd", "threadpoolctl"),
    strategies=(
        Strategy(name="numpy", kind="oracle", title="NumPy, float64, slow and obvious"),
        Strategy(name="products", kind="limit", title="the case's matrix products alone (NumPy)"),
    ),
)
