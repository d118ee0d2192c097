"""Runners with one planted fault each: what the checks must reject.

All are the oracle, which is right, with one method wrong. The first five have been met in real
benchmarks; a comparison of outputs alone sees none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle
from typing import Any

import numpy as np

from backends.api import Batch, Case, Output, Weights
from backends.reference.adapter import OracleRunner
from backends.reference.network import expected, forward


class Pruned(OracleRunner):
    """A graph whose fetch computes: the call itself does nothing."""

    def forward(self) -> Any:
        return self._weights, self._batch

    def fetch(self, out: Any) -> Output:
        return forward(self._case, *out)


class LastStep(Pruned):
    """A graph pruned to what the last step needs of its own inputs."""

    def forward(self) -> Any:
        batch = self._batch
        last = replace(batch, x=batch.x[:, -1:], targets=batch.targets[:, -1:], lengths=None)
        forward(replace(self._case, seq_len=1, lengths="full"), self._weights, last)
        return super().forward()


class Recomputing(OracleRunner):
    """A fetch that runs again, on what is bound by then."""

    def fetch(self, out: Output) -> Output:
        return forward(self._case, self._weights, self._batch)


class ConstantWeights(OracleRunner):
    """A program that closed over the first weights."""

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        self._closed = False

    def load(self, weights: Weights) -> None:
        if not self._closed:
            super().load(weights)
        self._closed = True


class ConstantLengths(OracleRunner):
    """A program that closed over the first batch's lengths."""

    def bind(self, batch: Batch) -> None:
        first = getattr(self, "_batch", batch)
        super().bind(replace(batch, lengths=first.lengths))


class KeepsLast(OracleRunner):
    """A program that keeps its last result until another batch is bound."""

    def feed(self, batch: Batch) -> None:
        super().feed(batch)
        self._kept: Output | None = None

    def forward(self) -> Output:
        self._kept = self._kept or super().forward()
        return self._kept


class KeepsViews(OracleRunner):
    """A rotation over the caller's own arrays."""

    def rotate(self, batches: Sequence[Batch]) -> None:
        super().rotate(batches)
        self._rotation = cycle([(batch.x, batch.targets) for batch in batches])


class KeepsTargets(OracleRunner):
    """A rotation of inputs, in which targets stay those of the batch that is bound."""

    def advance(self) -> None:
        super().advance()
        self._batch = replace(self._batch, targets=self._bound.targets)


class NoUpdate(OracleRunner):
    """Gradients are computed and not applied."""

    def train(self) -> float:
        return expected(self._case, self._weights, self._batch).loss


class DoubleUpdate(OracleRunner):
    """The gradients are applied twice."""

    def train(self) -> float:
        batch = self._batch
        self._batch = replace(batch, learning_rate=2 * batch.learning_rate)
        loss = super().train()
        self._batch = batch
        return loss


class ConstantRate(OracleRunner):
    """A program that closed over the first learning rate."""

    def bind(self, batch: Batch) -> None:
        first = getattr(self, "_batch", batch)
        super().bind(replace(batch, learning_rate=first.learning_rate))


class LossAfterUpdate(OracleRunner):
    """The loss is that of the new weights."""

    def train(self) -> float:
        super().train()
        return expected(self._case, self._weights, self._batch).loss


class FrozenBias(OracleRunner):
    """One kind of weight is not trained."""

    def train(self) -> float:
        before = self._weights
        loss = super().train()
        self._weights = tuple(
            {name: old[name] if name.startswith("b_") else new[name] for name in new}
            for old, new in zip(before, self._weights, strict=True)
        )
        return loss


class PaddedState(OracleRunner):
    """The final state is that after T steps, padding included."""

    def forward(self) -> Output:
        full = replace(self._case, lengths="full")
        padded = forward(full, self._weights, replace(self._batch, lengths=None))
        return replace(super().forward(), state=padded.state)


class RepeatedOutput(OracleRunner):
    """Outputs past a length repeat the last one, as a masked Keras layer's do."""

    def forward(self) -> Output:
        output, lengths = super().forward(), self._batch.lengths
        if lengths is None:
            return output
        last = np.minimum(np.arange(output.outputs.shape[1]), np.maximum(lengths[:, None] - 1, 0))
        repeated = np.take_along_axis(output.outputs, last[:, :, None], axis=1)
        return replace(output, outputs=repeated)


class AlwaysFromZeros(OracleRunner):
    """A program that starts every call from zeros."""

    def bind(self, batch: Batch) -> None:
        super().bind(replace(batch, initial_state=None))


class Wider(OracleRunner):
    """All that a case in float32 asks for, in float64."""

    def load(self, weights: Weights) -> None:
        super().load(tuple({k: v.astype("float64") for k, v in w.items()} for w in weights))

    def fetch(self, out: Output) -> Output:
        return out
