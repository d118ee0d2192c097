"""NumPy: the float64 oracle, and the matrix products of a case as a limit."""

from __future__ import annotations

from backends.api import BackendInfo, Case, Mode, Strategy
from backends.halves import half_refusal


def environment(_threads: int) -> dict[str, str]:
    """OpenBLAS starts with one thread, so that a fork server has one; the adapter sets the rest."""
    return {"OPENBLAS_NUM_THREADS": "1"}


def refusal(strategy: str, case: Case, mode: Mode) -> str | None:
    """BLAS has no half types: NumPy's own loops for them are no limit of anything."""
    if strategy == "products" and case.dtype in ("bfloat16", "float16"):
        return f"dtype {case.dtype}: NumPy's products are BLAS's, which has float32 and float64"
    return half_refusal(case, mode)


INFO = BackendInfo(
    name="reference",
    module="backends.reference.adapter",
    extra=None,
    requires=("numpy", "autograd"),
    environment=environment,
    refusal=refusal,
    preload=("numpy", "autograd", "threadpoolctl"),
    strategies=(
        Strategy(name="numpy", kind="oracle", title="NumPy, float64, slow and obvious"),
        Strategy(name="products", kind="limit", title="the case's matrix products alone (NumPy)"),
    ),
)
