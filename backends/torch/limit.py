"""Reference arms: a case's products with torch.mm, and as many launches as it has steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from backends.api import Case, Mode, Stage
from backends.bare import LAUNCHES, BareRunner, launches
from backends.products import Ops, ProductsRunner
from backends.torch.runner import DTYPES, synchronize


class TorchProducts(ProductsRunner):
    """`ProductsRunner` with nothing recorded for a gradient."""

    @torch.inference_mode()
    def forward(self) -> None:
        super().forward()


def build_products(case: Case, mode: Mode, device: torch.device, _stage: Stage) -> TorchProducts:
    """The limit of a case: products into arrays that are there already."""

    def array(shape: tuple[int, int], dtype: str) -> Tensor:
        return torch.randn(shape, dtype=DTYPES[dtype], device=device)

    def matmul(a: Any, b: Any, out: Any) -> None:
        torch.mm(a, b, out=out)

    ops = Ops(array=array, matmul=matmul, sync=lambda: synchronize(device))
    return TorchProducts(case, mode, ops)


class TorchLaunches(BareRunner):
    """Additions to one element in place: an eager operation each, and nothing is allocated.

    One element, whatever the case: what is asked is how long a launch takes, and not its work.
    """

    what = LAUNCHES

    def __init__(self, count: int, device: torch.device) -> None:
        self._count = count
        self._device = device
        self._element = torch.zeros(1, device=device)

    @torch.inference_mode()
    def forward(self) -> None:
        element = self._element
        for _ in range(self._count):
            element.add_(1.0)

    def sync(self, out: object) -> None:
        synchronize(self._device)

    def close(self) -> None:
        del self._element


def build_launches(case: Case, mode: Mode, device: torch.device, _stage: Stage) -> TorchLaunches:
    """The floor of a case's eager loop."""
    return TorchLaunches(launches(case, mode), device)
