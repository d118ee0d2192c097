"""NumPy behind the interface: the oracle as an implementation, and the products of a case."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from itertools import cycle

import numpy as np
from threadpoolctl import ThreadpoolController

from backends.api import (
    Array,
    Batch,
    Case,
    Expected,
    Mode,
    Output,
    Runner,
    Stage,
    Weights,
    require_device,
    unstaged,
)
from backends.data import check_batch
from backends.products import Ops, ProductsRunner
from backends.reference import INFO
from backends.reference.network import expected, forward


class OracleRunner:
    """The float64 reference behind the interface; slow, and never ranked."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._rotation: Iterator[tuple[Array, Array]] | None = None

    def load(self, weights: Weights) -> None:
        self._weights = weights

    def bind(self, batch: Batch) -> None:
        check_batch(self._case, batch)
        self.feed(batch)

    def feed(self, batch: Batch) -> None:
        self._rotation = None
        self._bound = self._batch = batch

    def rotate(self, batches: Sequence[Batch]) -> None:
        self._batch = self._bound
        self._rotation = cycle([(batch.x.copy(), batch.targets.copy()) for batch in batches])

    def advance(self) -> None:
        if self._rotation is not None:
            x, targets = next(self._rotation)
            self._batch = replace(self._bound, x=x, targets=targets)

    def forward(self) -> Output:
        return forward(self._case, self._weights, self._batch)

    def train(self) -> float:
        result: Expected = expected(self._case, self._weights, self._batch)
        rate = self._batch.learning_rate
        self._weights = tuple(
            {k: (layer[k] - rate * grad[k]).astype(layer[k].dtype) for k in layer}
            for layer, grad in zip(self._weights, result.gradients, strict=True)
        )
        return result.loss

    def sync(self, out: object) -> None:
        pass

    def fetch(self, out: Output) -> Output:
        """Results rounded to the case's dtype."""
        dtype = self._case.dtype
        return Output(
            outputs=out.outputs.astype(dtype),
            state=tuple({k: v.astype(dtype) for k, v in layer.items()} for layer in out.state),
        )

    def fetch_loss(self, out: float) -> float:
        return out

    def weights(self) -> Weights:
        return self._weights

    def program_size(self) -> Mapping[str, int]:
        return {}

    def close(self) -> None:
        pass


class NumpyBackend:
    """NumPy at a fixed number of BLAS threads."""

    name = "reference"

    def __init__(self, threads: int) -> None:
        self._blas = ThreadpoolController()
        self._limit = self._blas.limit(limits=threads, user_api="blas")

    def versions(self) -> Mapping[str, str]:
        return {name: version(name) for name in ("numpy", "autograd")}

    def threads(self) -> Mapping[str, int]:
        return {str(pool["internal_api"]): int(pool["num_threads"]) for pool in self._blas.info()}

    def devices(self) -> Mapping[str, str]:
        return {"cpu": "NumPy"}

    def lacking(self, device: str) -> str | None:
        return None if device == "cpu" else f"device {device}: NumPy runs on cpu"

    def allocated(self, device: str, *, reset: bool = False) -> Mapping[str, float]:
        return {}

    def limit(self, device: str, limit_bytes: int) -> None:
        """There is no GPU to limit: `Unavailable`."""
        require_device(self, device)

    def timer(self, device: str) -> None:
        """NumPy computes on the CPU."""

    def build(self, case: Case, strategy: str, mode: Mode, stage: Stage = unstaged) -> Runner:
        INFO.require(strategy, case, mode)
        require_device(self, case.device)
        if strategy == "numpy":
            return OracleRunner(case)
        return ProductsRunner(case, mode, _NUMPY_OPS)

    def native(self, case: Case, strategy: str, weights: Weights, batch: Batch) -> None:
        """NumPy has no LSTM of its own."""

    def kernels(self, runner: Runner, device: str, call: Callable[[], None]) -> Mapping[str, int]:
        """NumPy has no profiler."""
        return {}


def _array(shape: tuple[int, int], dtype: str) -> Array:
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def _matmul(a: Array, b: Array, out: Array) -> None:
    np.matmul(a, b, out=out)


_NUMPY_OPS = Ops(array=_array, matmul=_matmul, sync=lambda: None)


def create(threads: int) -> NumpyBackend:
    """The NumPy backend; BLAS keeps to `threads` threads."""
    return NumpyBackend(threads)
