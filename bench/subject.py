"""One implementation of one case in one mode: built, loaded, called, compared with the oracle."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import backends
from backends.api import (
    Backend,
    Batch,
    Case,
    Expected,
    Mode,
    Native,
    Output,
    Runner,
    Weights,
    unstaged,
)
from backends.data import make_batch, make_weights, varied_batches
from backends.devices import is_gpu
from bench import measure, outputs
from bench.axes import RIDING
from bench.expectation import path_of, read_expected
from bench.record import Status
from bench.rotation import batches_needed


class Subject:
    """Subject of a request, with its data and its expected results. Reads no clock itself.

    A request without `expected` can be run, not checked.
    """

    def __init__(self, backend: Backend, request: Mapping[str, Any]) -> None:
        self.implementation = backends.IMPLEMENTATIONS[request["implementation"]]
        self.case = Case(**request["case"])
        self.mode: Mode = request["mode"]
        self._request = request
        self.weights: Weights = make_weights(self.case)
        self.batch: Batch = make_batch(self.case)
        self._values = np.random.default_rng([self.case.seed, os.getpid()])
        self._backend = backend
        self.runner: Runner

    @cached_property
    def expected(self) -> Expected:
        return self._read(0)

    @cached_property
    def second_expected(self) -> Expected:
        return self._read(1)

    def _read(self, number: int) -> Expected:
        return read_expected(path_of(Path(self._request["expected"]), number))

    def build(self, stopwatch: measure.Stopwatch | None = None) -> None:
        stage = unstaged if stopwatch is None else stopwatch.stage
        strategy = self.implementation.strategy.name
        self.runner = self._backend.build(self.case, strategy, self.mode, stage)

    def sibling(self, case: Case) -> Subject:
        """This implementation of another case, with that one's data: to be run, not checked."""
        return Subject(
            self._backend,
            {"implementation": self.implementation.name, "case": asdict(case), "mode": self.mode},
        )

    def native(self) -> Native | None:
        """Result of the framework's own class for the data."""
        strategy = self.implementation.strategy.name
        return self._backend.native(self.case, strategy, self.weights, self.batch)

    def load(self) -> None:
        self.runner.load(self.weights)
        self.runner.bind(self.batch)

    @property
    def on_gpu(self) -> bool:
        return is_gpu(self.case.device)

    def call(self) -> Any:
        return self.runner.forward() if self.mode == "forward" else self.runner.train()

    def output(self) -> Output:
        """Outputs and final state of one forward call."""
        out = self.runner.forward()
        self.runner.sync(out)
        return self.runner.fetch(out)

    def renew(self, calls: int) -> int:
        """Have inputs whose values are new to this process for so many calls; how many there are.

        Calls beyond that number read them again, in the same order.
        """
        number = batches_needed(self.case, self.mode, calls)
        self.runner.rotate(varied_batches(self.case, self.batch, self._values, number))
        return number

    def check(self, first: Any = None) -> outputs.Check:
        """Compare with the oracle: what the first call left, and calls on each of two batches.

        The calls read the batches in a rotation, as those that are timed do. Leaves the runner
        with its weights and its first batch.
        """
        if self.implementation.kind in RIDING:
            return outputs.Check(differences={}, fault=None)
        checks = [] if first is None else [self._check_first(first)]
        if not checks or checks[0].fault is None:
            checks += self._check_rotated()
        return outputs.worst_of(checks)

    def _check_first(self, first: Any) -> outputs.Check:
        """Compare what a call on the first batch left."""
        if self.mode == "forward":
            return self._check_output(self.runner.fetch(first), self.expected)
        fault = outputs.other_weights_dtype(self.case, self.runner.weights())
        if fault is not None:
            return outputs.Check(differences={}, fault=fault)
        loss = self.runner.fetch_loss(first)
        return outputs.check_loss(self.case, loss, self.expected)

    def _check_rotated(self) -> list[outputs.Check]:
        """Compare each of two batches, one after the other."""
        batches = [self.batch, make_batch(self.case, 1)]
        truths = [self.expected, self.second_expected]
        if self.mode == "train":
            probes = outputs.probe_rotated(self.runner, self.weights, batches)
            return [
                outputs.check_train(self.case, loss, gradients, truth)
                for (loss, gradients), truth in zip(probes, truths, strict=True)
            ]
        self.load()
        self.runner.rotate(batches)
        checks = []
        for truth in truths:
            self.runner.advance()
            out = self.runner.forward()
            self.runner.sync(out)
            checks.append(self._check_output(self.runner.fetch(out), truth))
        self.load()
        return checks

    def _check_output(self, output: Output, truth: Expected) -> outputs.Check:
        fault = outputs.other_dtype(self.case, output)
        if fault is not None:
            return outputs.Check(differences={}, fault=fault)
        return outputs.check_forward(self.case, output, truth)

    def is_finite(self, out: Any) -> bool:
        """Whether the numbers that a call left are numbers: outputs and state, or the loss."""
        if self.mode == "train":
            return bool(np.isfinite(self.runner.fetch_loss(out)))
        fetched = self.runner.fetch(out)
        arrays = [fetched.outputs, *(array for layer in fetched.state for array in layer.values())]
        return all(bool(np.isfinite(array).all()) for array in arrays)

    def program(self) -> dict[str, float]:
        return {f"program_{name}": n for name, n in self.runner.program_size().items()}


def verdict(check: outputs.Check) -> dict[str, Any]:
    """A check as status, reason and errors."""
    errors = {part: vars(error) for part, error in check.differences.items()}
    if check.fault is None:
        return {"status": Status.OK, "reason": "", "errors": errors}
    nan = any(np.isnan(error["absolute"]) for error in errors.values())
    status = Status.NAN if nan else Status.WRONG_OUTPUT
    return {"status": status, "reason": check.fault, "errors": errors}
