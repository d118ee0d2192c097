"""A job computed without the harness, and a fresh interpreter to do such things in."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import backends
from backends.api import Case, LayerState, Mode, Output
from backends.data import make_batch, make_weights
from backends.reference.network import Expected
from bench import outputs
from bench.expectation import write_expected


def by_itself(implementation: str, case: Case, mode: Mode, path: Path) -> None:
    """Compute in this process, without the harness, and write it as what is expected."""
    backend, strategy = implementation.split("/")
    weights, batch = make_weights(case), make_batch(case)
    runner = backends.create(backend, threads=1).build(case, strategy, mode)
    runner.load(weights)
    runner.bind(batch)
    nothing: tuple[LayerState, ...] = tuple({} for _ in range(case.layers))
    if mode == "forward":
        out = runner.forward()
        runner.sync(out)
        found = Expected(output=runner.fetch(out), loss=0.0, gradients=nothing)
    else:
        loss, gradients = outputs.probe_gradients(runner, weights, batch)
        unasked = Output(outputs=np.zeros(0), state=nothing)
        found = Expected(output=unasked, loss=loss, gradients=gradients)
    write_expected(path, found)


def elsewhere(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a function in a fresh interpreter."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(function, *arguments).result()
