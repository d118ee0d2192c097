"""Calls that the rivals time: the harness's own adapter, called as a script would call it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import backends
from backends.api import Case
from backends.data import make_batch, make_weights

#: Names the variable that says what is timed: {"a": ..., "b": ..., "case": {...}, "mode": ...}.
VARIABLE = "RNN_BENCH_RIVAL"


def call_of(side: str) -> Callable[[], None]:
    """Build side "a" or "b", call it once, and return what is to be timed."""
    pair = json.loads(os.environ[VARIABLE])
    backend, strategy = pair[side].split("/")
    case = Case(**pair["case"])
    runner = backends.create(backend, threads=1).build(case, strategy, pair["mode"])
    runner.load(make_weights(case))
    runner.bind(make_batch(case))
    step, sync = runner.forward if pair["mode"] == "forward" else runner.train, runner.sync

    def call() -> None:
        sync(step())

    call()
    return call
