"""Runners of the scripted backend: the oracle, which is right, with one thing done otherwise."""

from __future__ import annotations

import atexit
import gc
import inspect
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np

from backends.api import Batch, Case, Output, Weights
from backends.bare import BareRunner
from backends.reference.adapter import OracleRunner


class Scripted(OracleRunner):
    """The oracle, which is right, until a script says otherwise."""

    calls = 0

    def forward(self) -> Output:
        self.calls += 1
        time.sleep(float(os.environ.get("SCRIPTED_DELAY_S", "0")))
        return super().forward()

    def fetch(self, out: Output) -> Output:
        """In the case's dtype; the oracle computes in float64, whatever is asked for."""
        return _as_dtype(out, self._case.dtype)


def _as_dtype(out: Output, dtype: str) -> Output:
    state = tuple({k: v.astype(dtype, copy=False) for k, v in s.items()} for s in out.state)
    return Output(outputs=out.outputs.astype(dtype, copy=False), state=state)


class Bare(BareRunner):
    """What rides along: it has nothing to check, and says so when it is asked for it."""

    what = "scripted: what rides along"

    def forward(self) -> None:
        pass

    def sync(self, out: object) -> None:
        pass

    def close(self) -> None:
        pass


#: Seconds of the work that a runner with a memory leaves out where it can.
REMEMBERED_S = 4e-3


class OtherShape(Scripted):
    """Time first, as some frameworks have it."""

    def fetch(self, out: Output) -> Output:
        return replace(super().fetch(out), outputs=out.outputs.swapaxes(0, 1))


class OtherDtype(Scripted):
    """Right in every digit that it has, and not what was asked for."""

    def fetch(self, out: Output) -> Output:
        return _as_dtype(out, {"float32": "float64", "float64": "float32"}[self._case.dtype])


class Wrong(Scripted):
    def forward(self) -> Output:
        out = super().forward()
        return Output(outputs=out.outputs + 0.5, state=out.state)

    def train(self) -> float:
        return super().train() + 0.5


class Nan(Scripted):
    def forward(self) -> Output:
        out = super().forward()
        return Output(outputs=out.outputs * np.nan, state=out.state)

    def train(self) -> float:
        return float("nan")


class OnLoad(Scripted):
    """Misbehaves when the weights arrive."""

    def __init__(self, case: Case, act: Callable[[], Any]) -> None:
        super().__init__(case)
        self._act = act

    def load(self, weights: Weights) -> None:
        super().load(weights)
        self._act()


class OnCall(Scripted):
    """Right in the calls before, then misbehaves in the n-th one."""

    def __init__(self, case: Case, after: int, act: Callable[[], Any]) -> None:
        super().__init__(case)
        self._after, self._act = after, act

    def forward(self) -> Output:
        if self.calls >= self._after:
            self._act()
        return super().forward()


class InTurn(Scripted):
    """Right in the check and while it is warmed, then misbehaves when it is timed."""

    def __init__(self, case: Case, act: Callable[[], Any]) -> None:
        super().__init__(case)
        self._act = act

    def forward(self) -> Output:
        # The collector is off in a turn, and before it is not.
        if self.calls and not gc.isenabled():
            self._act()
        return super().forward()


class OnDevice(InTurn):
    """Right in bursts, too; misbehaves when it is timed by the GPU's clock."""

    def forward(self) -> Output:
        if any(frame.function == "by_device" for frame in inspect.stack(context=0)):
            return super().forward()
        return Scripted.forward(self)


class Skips(Scripted):
    """Computes for the check and while it is warmed; a burst gets the last result at once."""

    def forward(self) -> Output:
        if self.calls and not gc.isenabled():
            return self._last
        self._last = super().forward()
        return self._last


#: What the scripted profiler sees: runners say here what they run.
RAN: list[str] = []


class Persistent(Scripted):
    """Says that it runs a vendor's kernel; the name is of no framework that is here."""

    def forward(self) -> Output:
        RAN.extend(["void RNN_blockPersist_fp_LSTM<float, float, float, 1, 128>", *_PRODUCTS])
        return super().forward()


_PRODUCTS = ["ampere_sgemm_128x32_tn"] * 2


class InProfiler(InTurn):
    """Right whenever it is timed or checked; misbehaves when it is profiled."""

    def forward(self) -> Output:
        if any(frame.function == "kernels" for frame in inspect.stack(context=0)):
            self._act()
        return Scripted.forward(self)


class Memoises(Scripted):
    """Computes once and hands the result out again, whatever is bound."""

    def forward(self) -> Output:
        if not self.calls:
            self._kept = super().forward()
        return self._kept


class KeepsLast(Scripted):
    """Keeps its last result until another batch is bound."""

    def feed(self, batch: Batch) -> None:
        super().feed(batch)
        self._kept: Output | None = None

    def forward(self) -> Output:
        if self._kept is None:
            self._kept = super().forward()
        return self._kept


class Remembers(Scripted):
    """Keeps results by the values of their inputs, so many at most; a result takes 4 ms."""

    def __init__(self, case: Case, most: int) -> None:
        super().__init__(case)
        self._most = most
        self._kept: dict[bytes, Output] = {}

    def forward(self) -> Output:
        key = self._batch.x.tobytes()
        if key not in self._kept:
            time.sleep(REMEMBERED_S)
            self._kept[key] = super().forward()
            if len(self._kept) > self._most:
                del self._kept[next(iter(self._kept))]
        return self._kept[key]


class KeepsProduct(Scripted):
    """Keeps the input product of a batch until another one is read; it takes 4 ms."""

    _product = b""

    def forward(self) -> Output:
        if self._product != self._batch.x.tobytes():
            time.sleep(REMEMBERED_S)
            self._product = self._batch.x.tobytes()
        return super().forward()


class CarriesOn(Scripted):
    """Starts each call from the state in which the one before ended."""

    def forward(self) -> Output:
        if self.calls:
            self._batch = replace(self._batch, initial_state=self._state)
        out = super().forward()
        self._state = out.state
        return out


class Slow(Scripted):
    def forward(self) -> Output:
        time.sleep(0.01)
        return super().forward()


class Allocates(Scripted):
    """Holds 64 MB more than it needs."""

    def load(self, weights: Weights) -> None:
        super().load(weights)
        self._held = np.ones(64_000_000, np.uint8)


class Grows(Scripted):
    """Takes 1 MB for each step of time in every call; a forward pass hands all of it out."""

    def forward(self) -> Output:
        out = super().forward()
        room = np.ones(self._case.seq_len * 1_000_000 // 8)
        outputs = room[: out.outputs.size].reshape(out.outputs.shape)
        outputs[...] = out.outputs
        return Output(outputs=outputs, state=out.state)

    def train(self) -> float:
        room = np.ones(self._case.seq_len * 1_000_000 // 8)
        return super().train() + 0.0 * float(room[0])


class OneTime(Scripted):
    """Refuses another T than it was built for."""

    def feed(self, batch: Batch) -> None:
        if batch.x.shape[1] != self._case.seq_len:
            raise ValueError(f"{self._case.seq_len} steps, got {batch.x.shape[1]}")
        super().feed(batch)


def hang() -> NoReturn:
    while True:
        time.sleep(3600)


class Noisy(Scripted):
    """Megabytes on both streams, through Python and past it."""

    def bind(self, batch: Batch) -> None:
        super().bind(batch)
        for stream in (sys.stdout, sys.stderr):
            print("noise" * 200_000, file=stream, flush=True)
            os.write(stream.fileno(), b"\x00\xff\r\x1b[2J" * 200_000)


class LargeReply(Scripted):
    """A program with more parts than a socket's buffer holds."""

    def program_size(self) -> Mapping[str, int]:
        return {f"part {number}": number for number in range(20_000)}


class HangsInExit(Scripted):
    """Keeps its process after the last result: a thread, an exit handler, what frees it."""

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        atexit.register(hang)
        threading.Thread(target=hang).start()

    def close(self) -> None:
        hang()

    def __del__(self) -> None:
        if self.calls > 10:  # has been timed: all that is asked of it has been answered
            hang()
