"""What a strategy of JAX cannot express; imports no framework."""

from __future__ import annotations

from backends.api import Case, Mode
from backends.bare import refused_launches, refused_products

#: Copies of the step in the body of a scan, each a strategy of its own.
UNROLL_FACTORS = (2, 4, 8, 16, 32)


def refusal(strategy: str, case: Case, mode: Mode) -> str | None:
    """Why a strategy cannot express a case in a mode, or None.

    All cells, directions and lengths are expressed by every strategy; what rides along does so on
    GPUs only.
    """
    if strategy == "products":
        return refused_products(case)
    if strategy == "launches":
        return refused_launches(case)
    if strategy == "while" and mode == "train":
        return (
            f"strategy {strategy}, mode {mode}: "
            "reverse-mode differentiation through lax.while_loop does not exist"
        )
    return None
