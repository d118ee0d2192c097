"""What a strategy of JAX cannot express; imports no framework."""

from __future__ import annotations

from backends.api import Case, Mode
from backends.halves import half_refusal

#: Copies of the step in the body of a scan, each a strategy of its own.
UNROLL_FACTORS = (2, 4, 8, 16, 32)


def refusal(strategy: str, case: Case, mode: Mode) -> str | None:
    """Why a strategy cannot express a case in a mode, or None.

    All cells, directions and lengths are expressed by every strategy.
    """
    if strategy == "while" and mode == "train":
        return (
            f"strategy {strategy}, mode {mode}: "
            "reverse-mode differentiation through lax.while_loop does not exist"
        )
    return half_refusal(case, mode)
