"""A backend that behaves as its strategy's name says: the real launcher has to survive it.

Loaded by workers through the variable `backends.EXTRA_VARIABLE`.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
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
    module="tests.scripted",
    extra=None,
    requires=("numpy",),
    environment=environment,
    preload=("numpy",),
    strategies=tuple(
        Strategy(name=name, kind="static" if name == "fine-too" else "dynamic", title=name)
        for name in (*_SCRIPTS, "unsupported")
    ),
)
