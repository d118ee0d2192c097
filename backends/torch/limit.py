"""The matrix products of a case with torch.mm, into arrays that are there already."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from backends.api import Case, Mode, Stage
from backends.products import Ops, ProductsRunner
from backends.torch.runner import DTYPES, synchronize


class TorchProducts(ProductsRunner):
    """`ProductsRunner` with nothing recorded for a gradient."""

    @torch.inference_mode()
    def forward(self) -> None:
        super().forward()


def build_products(case: Case, mode: Mode, device: torch.device, _stage: Stage) -> TorchProducts:
    """The limit of a case."""

    def array(shape: tuple[int, int], dtype: str) -> Tensor:
        return torch.randn(shape, dtype=DTYPES[dtype], device=device)

    def matmul(a: Any, b: Any, out: Any) -> None:
        torch.mm(a, b, out=out)

    ops = Ops(array=array, matmul=matmul, sync=lambda: synchronize(device))
    return TorchProducts(case, mode, ops)
