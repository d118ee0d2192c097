"""A backend that behaves as its strategy's name says: the real launcher has to survive it.

Loaded by workers through the variable `backends.EXTRA_VARIABLE`.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from backends.api import (
    BackendInfo,
    Batch,
    Case,
    Mode,
    Output,
    Runner,
    Stage,
    Strategy,
    Unsupported,
    Weights,
    unstaged,
)
from backends.reference.adapter import OracleRunner


class _Scripted(OracleRunner):
    """The oracle, which is right, until a script says otherwise."""

    calls = 0

    def forward(self) -> Output:
        self.calls += 1
        return super().forward()


class _Wrong(_Scripted):
    def forward(self) -> Output:
        out = super().forward()
        return Output(outputs=out.outputs + 0.5, state=out.state)

    def train(self) -> float:
        return super().train() + 0.5


class _Nan(_Scripted):
    def forward(self) -> Output:
        out = super().forward()
        return Output(outputs=out.outputs * np.nan, state=out.state)

    def train(self) -> float:
        return float("nan")


class _OnLoad(_Scripted):
    """Misbehaves when the weights arrive."""

    def __init__(self, case: Case, act: Callable[[], Any]) -> None:
        super().__init__(case)
        self._act = act

    def load(self, weights: Weights) -> None:
        super().load(weights)
        self._act()


class _OnCall(_Scripted):
    """Right in the checks, then misbehaves in the n-th call."""

    def __init__(self, case: Case, after: int, act: Callable[[], Any]) -> None:
        super().__init__(case)
        self._after, self._act = after, act

    def forward(self) -> Output:
        if self.calls >= self._after:
            self._act()
        return super().forward()


class _Memoises(_Scripted):
    """Computes once and hands the result out again, whatever is bound."""

    def forward(self) -> Output:
        if not self.calls:
            self._kept = super().forward()
        return self._kept


class _CarriesOn(_Scripted):
    """Starts each call from the state in which the one before ended."""

    def forward(self) -> Output:
        out = super().forward()
        self._batch = replace(self._batch, initial_state=out.state)
        return out

    def bind(self, batch: Batch) -> None:
        if not self.calls:
            super().bind(batch)


class _Slow(_Scripted):
    def forward(self) -> Output:
        time.sleep(0.01)
        return super().forward()


class _Allocates(_Scripted):
    """Holds 64 MB more than it needs."""

    def load(self, weights: Weights) -> None:
        super().load(weights)
        self._held = np.ones(64_000_000, np.uint8)


class _Noisy(_Scripted):
    def bind(self, batch: Batch) -> None:
        super().bind(batch)
        print("noise" * 20000)
        sys.stdout.flush()


def _raise(error: Exception) -> None:
    raise error


def _segv() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _hang() -> None:
    time.sleep(3600)


_SCRIPTS: Mapping[str, Callable[[Case], Runner]] = {
    "fine": _Scripted,
    "fine-too": _Scripted,
    "slow": _Slow,
    "allocates": _Allocates,
    "memoises": _Memoises,
    "carries-on": _CarriesOn,
    "noisy": _Noisy,
    "wrong": _Wrong,
    "nan": _Nan,
    "raises": lambda case: _OnLoad(case, lambda: _raise(RuntimeError("scripted failure"))),
    "segv": lambda case: _OnLoad(case, _segv),
    "exits": lambda case: _OnLoad(case, lambda: os._exit(7)),
    "exits-0": lambda case: _OnLoad(case, lambda: os._exit(0)),
    "hangs": lambda case: _OnLoad(case, _hang),
    "oom": lambda case: _OnLoad(case, lambda: _raise(MemoryError("scripted"))),
    "raises-late": lambda case: _OnCall(case, 4, lambda: _raise(RuntimeError("scripted late"))),
    "segv-late": lambda case: _OnCall(case, 4, _segv),
}


class ScriptedBackend:
    name = "scripted"

    def versions(self) -> Mapping[str, str]:
        return {"scripted": "1"}

    def threads(self) -> Mapping[str, int]:
        return {"scripted": 1}

    def devices(self) -> Mapping[str, str]:
        return {"cpu": "scripted"}

    def build(self, case: Case, strategy: str, mode: Mode, stage: Stage = unstaged) -> Runner:
        if strategy == "unsupported":
            raise Unsupported("scripted: this strategy expresses nothing")
        with stage("script"):
            return _SCRIPTS[strategy](case)


def create(threads: int) -> ScriptedBackend:
    return ScriptedBackend()


def environment(threads: int) -> dict[str, str]:
    return {"OPENBLAS_NUM_THREADS": "1"}


INFO = BackendInfo(
    name="scripted",
    # What is not there fails in the server or the worker, where a broken framework does.
    module="tests.absent" if os.environ.get("SCRIPTED_IMPORT_FAILS") else "tests.scripted",
    extra=None,
    requires=("numpy",),
    environment=environment,
    preload=("numpy",),
    strategies=tuple(
        Strategy(name=name, kind="static" if name == "fine-too" else "dynamic", title=name)
        for name in (*_SCRIPTS, "unsupported")
    ),
)
