"""Implementations that do something else, one thing each, for the experiments to find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np

import backends
from backends.api import Batch, Case, Mode, Native, Output, Runner, Stage, Weights, unstaged
from backends.data import make_batch
from backends.reference.adapter import NumpyBackend, OracleRunner
from backends.reference.network import expected, forward
from bench.subject import Subject


class Planted(NumpyBackend):
    """NumPy, of which a runner of another class is built."""

    def __init__(self, runner: Callable[[Case], Runner], native: Native | None = None) -> None:
        super().__init__(threads=1)
        self._runner, self._native = runner, native

    def build(self, case: Case, strategy: str, mode: Mode, stage: Stage = unstaged) -> Runner:
        return self._runner(case)

    def native(self, case: Case, strategy: str, weights: Weights, batch: Batch) -> Any:
        return self._native


def subject_of(
    case: Case,
    runner: Callable[[Case], Runner] = OracleRunner,
    *,
    mode: Mode = "forward",
    native: Native | None = None,
) -> Subject:
    """A subject that is built and loaded, and knows what it must compute."""
    request = {"implementation": "reference/numpy", "case": asdict(case), "mode": mode}
    subject = Subject(Planted(runner, native), request)
    subject.expected = expected(case, subject.weights, subject.batch)
    subject.build()
    subject.load()
    return subject


def real_subject(backend: backends.Backend, implementation: str, case: Case, mode: Mode) -> Subject:
    """The same of an implementation that there is."""
    request = {"implementation": implementation, "case": asdict(case), "mode": mode}
    subject = Subject(backend, request)
    subject.expected = expected(case, subject.weights, subject.batch)
    subject.build()
    subject.load()
    return subject


class Drifts(OracleRunner):
    """Each call adds 0.25 more."""

    calls = 0

    def forward(self) -> Output:
        self.calls += 1
        out = super().forward()
        return replace(out, outputs=out.outputs + 0.25 * self.calls)


class OtherLast(OracleRunner):
    """Outputs are 0.5 off, and the state is not."""

    def forward(self) -> Output:
        out = super().forward()
        return replace(out, outputs=out.outputs + 0.5)


class Swapped(OracleRunner):
    """The backward outputs come first."""

    def forward(self) -> Output:
        out = super().forward()
        halves = np.split(out.outputs, 2, axis=2)
        return replace(out, outputs=np.concatenate(halves[::-1], axis=2))


class TimeFirst(OracleRunner):
    """Outputs [T, B, O]."""

    def forward(self) -> Output:
        out = super().forward()
        return replace(out, outputs=out.outputs.swapaxes(0, 1))


class ResetAfter(OracleRunner):
    """The other GRU, whatever is asked for."""

    def forward(self) -> Output:
        blocks = {**self._weights[0], "b_hc": np.zeros(self._case.hidden)}
        return forward(replace(self._case, cell="gru-reset-after"), (blocks,), self._batch)


class OneTime(OracleRunner):
    """Refuses another T in the call, and begins by saying where."""

    def forward(self) -> Output:
        steps, built = self._batch.x.shape[1], self._case.seq_len
        if steps != built:
            raise RuntimeError(f"in the loop:\n  at step 1\n{built} steps, got {steps}" + "!" * 999)
        return super().forward()


class RefusesFeed(OracleRunner):
    """Refuses another T when it is fed."""

    def feed(self, batch: Batch) -> None:
        if batch.x.shape[1] != self._case.seq_len:
            raise ValueError
        super().feed(batch)


class OutOfMemory(OracleRunner):
    """No shape's fault."""

    def forward(self) -> Output:
        if self._batch.x.shape[1] != self._case.seq_len:
            raise MemoryError
        return super().forward()


class FirstSteps(OracleRunner):
    """Computes the T steps that it was built for, and of more says nothing."""

    def forward(self) -> Output:
        batch, t = self._batch, self._case.seq_len
        first = replace(batch, x=batch.x[:, :t], targets=batch.targets[:, :t])
        return forward(self._case, self._weights, first)


class FromOtherBatch(OracleRunner):
    """Another batch's outputs where T is another."""

    def forward(self) -> Output:
        if self._batch.x.shape[1] == self._case.seq_len:
            return super().forward()
        longer = replace(self._case, seq_len=self._case.seq_len + 1, seed=1)
        return forward(longer, self._weights, make_batch(longer))


class Truncated(OracleRunner):
    """Gradients of the last two steps alone."""

    def train(self) -> float:
        batch, t = self._batch, self._case.seq_len
        before = replace(
            batch, x=batch.x[:, : t - 2], targets=batch.targets[:, : t - 2], initial_state=None
        )
        state = forward(self._case, self._weights, before).state
        last = replace(
            batch, x=batch.x[:, t - 2 :], targets=batch.targets[:, t - 2 :], initial_state=state
        )
        found = expected(self._case, self._weights, last)
        rate = batch.learning_rate * 2 / t
        self._weights = tuple(
            {k: layer[k] - rate * grad[k] for k in layer}
            for layer, grad in zip(self._weights, found.gradients, strict=True)
        )
        return found.loss
