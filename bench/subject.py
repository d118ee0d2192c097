"""One implementation of one case in one mode: built, loaded, called and held against the oracle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
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
from backends.data import make_batch, make_weights
from backends.devices import is_gpu
from bench import measure, outputs
from bench.axes import RIDING
from bench.expectation import read_expected
from bench.record import Status
from bench.rotation import copies


class Subject:
    """What a request names, with its data and what it must compute. Reads no clock itself.

    A request without `expected` can be run, not checked.
    """

    def __init__(self, backend: Backend, request: Mapping[str, Any]) -> None:
        self.implementation = backends.IMPLEMENTATIONS[request["implementation"]]
        self.case = Case(**request["case"])
        self.mode: Mode = request["mode"]
        self._request = request
        self.weights: Weights = make_weights(self.case)
        self.batch: Batch = make_batch(self.case)
        self._backend = backend
        self.runner: Runner

    @cached_property
    def expected(self) -> Expected:
        return read_expected(Path(self._request["expected"]))

    def build(self, stopwatch: measure.Stopwatch | None = None) -> None:
        stage = unstaged if stopwatch is None else stopwatch.stage
        strategy = self.implementation.strategy.name
        self.runner = self._backend.build(self.case, strategy, self.mode, stage)

    def sibling(self, case: Case) -> Subject:
        """The same implementation of another case, with that one's data: to be run, not checked."""
        return Subject(
            self._backend,
            {"implementation": self.implementation.name, "case": asdict(case), "mode": self.mode},
        )

    def native(self) -> Native | None:
        """What the framework's own class makes of the data."""
        strategy = self.implementation.strategy.name
        return self._backend.native(self.case, strategy, self.weights, self.batch)

    def load(self) -> None:
        self.runner.load(self.weights)
        self.runner.bind(self.batch)

    def rotate(self) -> None:
        """On a GPU, have the inputs in so many copies that no call finds its own in the cache."""
        number = copies(self.case, self.mode) if self.on_gpu else 0
        if number:
            self.runner.rotate(number)

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

    def check(self, first: Any) -> outputs.Check:
        """Compare with the oracle: what the first call left, and in training a probing step."""
        if self.implementation.kind in RIDING:
            return outputs.Check(differences={}, fault=None)
        if self.mode == "forward":
            output = self.runner.fetch(first)
            fault = outputs.other_dtype(self.case, output)
            if fault is not None:
                return outputs.Check(differences={}, fault=fault)
            return outputs.check_forward(self.case, output, self.expected)
        loss = self.runner.fetch_loss(first)
        fault = outputs.other_weights_dtype(self.case, self.runner.weights())
        if fault is not None:
            return outputs.Check(differences={}, fault=fault)
        probed, gradients = outputs.probe_gradients(self.runner, self.weights, self.batch)
        return outputs.check_train(self.case, [loss, probed], gradients, self.expected)

    def is_finite(self, out: Any) -> bool:
        """Whether the numbers that a call left are numbers: outputs and state, or the loss."""
        if self.mode == "train":
            return bool(np.isfinite(self.runner.fetch_loss(out)))
        fetched = self.runner.fetch(out)
        arrays = [fetched.outputs, *(array for layer in fetched.state for array in layer.values())]
        return all(bool(np.isfinite(array).all()) for array in arrays)

    def check_again(self) -> outputs.Check:
        """The check after the timing, by a call that another batch's call came before.

        What optimises late, keeps a result or carries its state on is right the first time only.
        """
        if self.implementation.kind in RIDING:
            return outputs.Check(differences={}, fault=None)
        self.load()
        self.runner.bind(replace(self.batch, x=-self.batch.x))
        other = self.call()
        self.runner.sync(other)
        if self.mode == "forward" and self.check(other).fault is None:
            return outputs.Check(differences={}, fault="outputs do not follow the batch")
        self.load()
        out = self.call()
        self.runner.sync(out)
        return self.check(out)

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
