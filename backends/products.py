"""The bare matrix products of a case: its FLOPs by formula, and a runner that does nothing else.

A recurrent network cannot do less than these products on the same threads, so the time they take is
the limit that an implementation is held against. (A frequency cell could leave out one product with
zeros in a step; those that there are do it.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from backends.api import Case, Mode
from backends.bare import BareRunner
from backends.stack import Layer, layers


@dataclass(frozen=True, kw_only=True)
class Product:
    """[m, k] times [k, n], done `count` times one after the other."""

    m: int
    k: int
    n: int
    count: int

    @property
    def flops(self) -> int:
        return 2 * self.m * self.k * self.n * self.count


def products(case: Case, mode: Mode) -> list[Product]:
    """The products of one forward pass or one training step, in order.

    What does not depend on the recurrence is one large product: the inputs of all steps times W,
    and in training the gradients of W, U and of a layer's inputs (not of the first layer's: nobody
    asks for it). What does is T small ones. Padding counts: a padded implementation computes it.
    """
    stack = layers(case)
    result = [p for layer in stack for p in _forward(case, layer)]
    if mode == "train":
        result += [p for layer in reversed(stack) for p in _backward(case, layer)]
    return result


def _forward(case: Case, layer: Layer) -> Iterator[Product]:
    b, t = case.batch, case.seq_len
    for p in layer.cell.products(layer.inputs, layer.hidden):
        if p.hoisted:
            yield Product(m=b * t * p.times, k=p.k, n=p.n, count=1)
        else:
            yield Product(m=b, k=p.k, n=p.n, count=t * p.times)


def _backward(case: Case, layer: Layer) -> Iterator[Product]:
    b, t = case.batch, case.seq_len
    for p in layer.cell.products(layer.inputs, layer.hidden):
        if not p.hoisted:
            yield Product(m=b, k=p.n, n=p.k, count=t * p.times)
        elif layer.depth > 0:
            yield Product(m=b * t * p.times, k=p.n, n=p.k, count=1)
        yield Product(m=p.k, k=b * t * p.times, n=p.n, count=1)


@lru_cache(maxsize=1024)
def flops(case: Case, mode: Mode) -> int:
    """FLOPs of a case: 2 m k n a product; element-wise work (order H, not H^2) is not counted."""
    return sum(product.flops for product in products(case, mode))


#: What begins the reason for which there are no results of the products.
LIMIT = "products: the limit"


@dataclass(frozen=True, kw_only=True)
class Ops:
    """Operations that `ProductsRunner` needs: an array of a shape, a product into `out`."""

    array: Callable[[tuple[int, int], str], Any]
    matmul: Callable[[Any, Any, Any], Any]
    sync: Callable[[], None]


class ProductsRunner(BareRunner):
    """Does a case's matrix products and nothing else."""

    what = LIMIT

    def __init__(self, case: Case, mode: Mode, ops: Ops) -> None:
        self._ops = ops
        self._steps = [
            (
                ops.array((p.m, p.k), case.dtype),
                ops.array((p.k, p.n), case.dtype),
                ops.array((p.m, p.n), case.dtype),
                p.count,
            )
            for p in products(case, mode)
        ]

    def forward(self) -> None:
        matmul = self._ops.matmul
        for a, b, out, count in self._steps:
            for _ in range(count):
                matmul(a, b, out)

    def sync(self, out: object) -> None:
        self._ops.sync()

    def close(self) -> None:
        self._steps = []
