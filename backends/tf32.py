"""TensorFloat-32 in the products of float32, which frameworks switch for a whole process."""

from __future__ import annotations

from collections.abc import Callable

from backends.api import Case, has_tf32


class Switch:
    """A framework's switch, off until a case wants it on."""

    def __init__(self, turn: Callable[[bool], None]) -> None:
        turn(False)
        self._turn = turn
        self._on: bool | None = None

    def require(self, case: Case) -> None:
        """Turn it as a case wants it.

        Raises `RuntimeError` where another case of this process has it the other way: both would
        compute as the last one wants.
        """
        if not has_tf32(case.dtype, case.device):
            return
        on = case.tf32 == "on"
        if self._on not in (None, on):
            raise RuntimeError(f"tf32 {case.tf32}: this process computes the other way")
        if on and self._on is None:
            self._turn(on)
        self._on = on
