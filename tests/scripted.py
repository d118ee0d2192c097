"""A backend that behaves as its strategy's name says: the real launcher has to survive it.

Loaded by workers through the variable `backends.EXTRA_VARIABLE`. `FAULTS` says of each strategy
that misbehaves what it does, and how its jobs must end.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import psutil

from backends.api import (
    BackendInfo,
    Batch,
    Case,
    Kind,
    Mode,
    Runner,
    Stage,
    Strategy,
    Unavailable,
    Unsupported,
    Weights,
    require_device,
    unstaged,
)
from backends.bare import refused_launches
from backends.devices import lacks_gpu
from tests.scripted_runners import (
    RAN,
    Allocates,
    Bare,
    CarriesOn,
    Grows,
    HangsInExit,
    InProfiler,
    InTurn,
    KeepsLast,
    KeepsProduct,
    LargeReply,
    Memoises,
    Nan,
    Noisy,
    OnCall,
    OnDevice,
    OneTime,
    OnLoad,
    OtherDtype,
    OtherShape,
    Persistent,
    Remembers,
    Scripted,
    Skips,
    Slow,
    Wrong,
    hang,
)

#: The module that workers import as the framework: another one may fail, or never end.
MODULE_VARIABLE = "SCRIPTED_MODULE"

#: What the backend finds: "cpu,gpu,gpu:1".
DEVICES_VARIABLE = "SCRIPTED_DEVICES"


def _raise(error: BaseException) -> NoReturn:
    raise error


def _raise_error() -> NoReturn:
    raise RuntimeError("scripted failure")


def _exit() -> NoReturn:
    os._exit(7)


def _signal(number: signal.Signals) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def _killed_from_outside() -> None:
    subprocess.run(["kill", "-KILL", str(os.getpid())], check=False)
    hang()


def _kill_server() -> None:
    server = psutil.Process(os.getppid())
    if "--serve" in server.cmdline():  # else it is whoever measures
        server.kill()
        hang()


def _out_of_memory() -> None:
    np.ones(1 << 56, np.uint8)


def _exhausted() -> None:
    raise RuntimeError("RESOURCE_EXHAUSTED: failed to allocate 64 bytes")


def _leave_child(*, session: bool = False) -> None:
    subprocess.Popen(["sleep", "3600"], start_new_session=session)


def _leave_session() -> None:
    _leave_child(session=True)


def _fork_child() -> None:
    """A child without a program of its own has everything open that its parent has."""
    if os.fork() == 0:
        hang()


def _then_exit(act: Callable[[], None]) -> Callable[[], None]:
    def both() -> None:
        act()
        _exit()

    return both


def _close_channel() -> None:
    """What turns itself into a daemon closes all that it has open."""
    os.closerange(3, 256)
    hang()


class Fault(NamedTuple):
    """What a strategy does, and how its jobs must end: the status, and words of the reason."""

    name: str
    what: str
    status: str
    says: str
    script: Callable[[Case], Runner]


def _load(act: Callable[[], Any]) -> Callable[[Case], Runner]:
    return lambda case: OnLoad(case, act)


def _call(after: int, act: Callable[[], Any]) -> Callable[[Case], Runner]:
    return lambda case: OnCall(case, after, act)


def _turn(act: Callable[[], Any]) -> Callable[[Case], Runner]:
    return lambda case: InTurn(case, act)


_SEGV = _signal(signal.SIGSEGV)
_OK, _WRONG, _NAN, _OOM = "ok", "wrong output", "nan", "oom"
_CRASHED, _TIMEOUT = "crashed", "timeout"
_UNSUPPORTED, _UNAVAILABLE = "unsupported", "unavailable"
_IN_PREPARE, _IN_TURN = "no answer to 'prepare' within", "no answer to 'burst' within"
_SIGKILL = "killed by SIGKILL, as the kernel does where memory runs out"

# fmt: off
_COMPUTES = (
    Fault("wrong", "outputs off by 0.5", _WRONG, "outputs differ by 0.5", Wrong),
    Fault("nan", "outputs are NaN", _NAN, "outputs: not finite", Nan),
    Fault("other-shape", "outputs are [T, B, H]", _WRONG, "another shape", OtherShape),
    Fault("other-dtype", "outputs of the other dtype", _WRONG, "are float32, not", OtherDtype),
    Fault("memoises", "hands the first result out again", _WRONG,
          "batch 3: outputs differ", Memoises),
    Fault("keeps-last", "keeps its result until a batch is bound", _WRONG,
          "batch 3: outputs differ", KeepsLast),
    Fault("carries-on", "starts from the last call's state", _WRONG, "outputs differ", CarriesOn),
    Fault("unsupported", "refuses the case", _UNSUPPORTED, "expresses nothing",
          lambda case: _raise(Unsupported("scripted: this strategy expresses nothing"))),
    Fault("unavailable", "misses a GPU", _UNAVAILABLE, "device gpu: not found",
          lambda case: _raise(Unavailable("device gpu: not found"))),
    Fault("says-nothing", "refuses without a word", _UNSUPPORTED, "Unsupported: ",
          lambda case: _raise(Unsupported())),
)
_DIES = (
    Fault("raises", "raises", _CRASHED, "RuntimeError: scripted", _load(_raise_error)),
    Fault("quits", "calls sys.exit(3)", _CRASHED, "SystemExit: 3", _load(lambda: sys.exit(3))),
    Fault("segv", "SIGSEGV", _CRASHED, "killed by SIGSEGV", _load(_SEGV)),
    Fault("exits", "os._exit(7)", _CRASHED, "exit status 7", _load(_exit)),
    Fault("exits-0", "ends well without a result", _CRASHED, "exit status 0",
          _load(lambda: os._exit(0))),
    Fault("killed", "SIGKILL from outside", _CRASHED, _SIGKILL, _load(_killed_from_outside)),
    Fault("oom", "asks for 64 PB", _OOM, "Unable to allocate 64.0 PiB", _load(_out_of_memory)),
    Fault("exhausted", "RESOURCE_EXHAUSTED", _OOM, "RESOURCE_EXHAUSTED", _load(_exhausted)),
    Fault("raises-warm", "raises while it is warmed", _CRASHED, "scripted", _call(3, _raise_error)),
    Fault("segv-warm", "SIGSEGV while it is warmed", _CRASHED, "SIGSEGV", _call(3, _SEGV)),
    Fault("raises-in-turn", "raises in a turn", _CRASHED, "scripted", _turn(_raise_error)),
    Fault("segv-in-turn", "SIGSEGV in a turn", _CRASHED, "SIGSEGV", _turn(_SEGV)),
    Fault("exits-in-turn", "os._exit(7) in a turn", _CRASHED, "exit status 7", _turn(_exit)),
    Fault("killed-in-turn", "SIGKILL from outside in a turn", _CRASHED, _SIGKILL,
          _turn(_killed_from_outside)),
    Fault("kills-server", "kills its fork server in a turn", _CRASHED, "with its fork server",
          _turn(_kill_server)),
    Fault("oom-in-turn", "asks for 64 PB in a turn", _OOM, "Unable to", _turn(_out_of_memory)),
)
_HANGS = (
    Fault("hangs-in-build", "hangs in build", _TIMEOUT, _IN_PREPARE, lambda case: hang()),
    Fault("hangs", "hangs while weights are loaded", _TIMEOUT, _IN_PREPARE, _load(hang)),
    Fault("hangs-in-first", "hangs in the first call", _TIMEOUT, _IN_PREPARE, _call(0, hang)),
    Fault("stops", "SIGSTOP", _TIMEOUT, _IN_PREPARE, _load(_signal(signal.SIGSTOP))),
    Fault("hangs-in-turn", "hangs in a turn", _TIMEOUT, _IN_TURN, _turn(hang)),
    Fault("hangs-in-exit", "stays after its last result", _OK, "", HangsInExit),
    Fault("closes-channel", "closes its channel, and stays", _CRASHED, "broke off during 'prepare'",
          _load(_close_channel)),
)
_LEAVES = (
    Fault("leaves-child", "leaves `sleep 3600`, ends well", _OK, "", _load(_leave_child)),
    Fault("leaves-session", "the same, in its own session", _OK, "", _load(_leave_session)),
    Fault("child-and-exit", "leaves `sleep 3600`, dies", _CRASHED, "exit status 7",
          _load(_then_exit(_leave_child))),
    Fault("session-and-exit", "the same, in its own session", _CRASHED, "exit status 7",
          _load(_then_exit(_leave_session))),
    Fault("fork-and-exit", "leaves a fork of itself, dies", _CRASHED, "exit status 7",
          _load(_then_exit(_fork_child))),
)
_SAYS = (
    Fault("noisy", "megabytes on stdout and stderr", _OK, "", Noisy),
    Fault("large-reply", "an answer of half a megabyte", _OK, "", LargeReply),
    Fault("huge-message", "an exception of 50 MB", _CRASHED, "characters cut",
          _load(lambda: _raise(RuntimeError("scripted" * 6_250_000)))),
)
# fmt: on

FAULTS = (*_COMPUTES, *_DIES, *_HANGS, *_LEAVES, *_SAYS)


class ScriptedGpu:
    """The memory of a GPU: some runners take some, and give it back."""

    now = 1e9  # what somebody else's arrays take
    peak = now
    limit = math.inf

    def take(self, size: float) -> None:
        """Raises what torch does where there is not so much."""
        if self.now + size > self.limit:
            raise OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size / 2**20:.2f} MiB.")
        self.now += size
        self.peak = max(self.peak, self.now)

    def told(self, *, reset: bool) -> dict[str, float]:
        found = {"now": self.now, "peak": self.peak}
        if reset:
            self.peak = self.now
        return found


class OutOfMemoryError(RuntimeError):
    """As torch calls it."""


GPU = ScriptedGpu()


class TakesGpuMemory(Scripted):
    """30 MB when it is loaded, and 50 MB more while it is called."""

    def load(self, weights: Weights) -> None:
        GPU.take(30e6)
        super().load(weights)

    def forward(self) -> Any:
        GPU.take(50e6)
        GPU.take(-50e6)
        return super().forward()


class GrowsOnGpu(Scripted):
    """Takes 1 MB of the GPU for each step of time in every call."""

    def forward(self) -> Any:
        with self._room():
            return super().forward()

    def train(self) -> Any:
        with self._room():
            return super().train()

    @contextmanager
    def _room(self) -> Iterator[None]:
        GPU.take(self._case.seq_len * 1e6)
        yield
        GPU.take(self._case.seq_len * -1e6)


class Rotates(Scripted):
    """Refuses a call on the batch of the call before, and values of an earlier burst.

    The check's two batches come again, and a check has a call without a rotation.
    """

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        self._fresh, self._bare = False, 0
        self._seen: Counter[bytes] = Counter()

    def bind(self, batch: Batch) -> None:
        super().bind(batch)
        self._bare, self._rotating = 0, False

    def rotate(self, batches: Sequence[Batch]) -> None:
        super().rotate(batches)
        self._rotating = True
        if len(batches) > 2:
            self._seen.update(batch.x.tobytes() for batch in batches)
            assert max(self._seen.values()) == 1, "values came a second time"

    def advance(self) -> None:
        super().advance()
        self._fresh = True

    def forward(self) -> Any:
        if self._rotating and not self._fresh:
            raise RuntimeError("a batch was read twice")
        self._bare += not self._rotating
        if self._bare > 1:
            raise RuntimeError(f"{self._bare} calls on the batch that is bound")
        self._fresh = False
        return super().forward()


class Crowded(Scripted):
    """Has no memory while its server has more workers than these."""

    def __init__(self, case: Case, most: int) -> None:
        super().__init__(case)
        self._most = most

    def forward(self) -> Any:
        server = os.getppid()
        if len(Path(f"/proc/{server}/task/{server}/children").read_text().split()) > self._most:
            _out_of_memory()
        return super().forward()


class ScriptedTimer:
    """A GPU's clock by which each call takes 0.25 ms, and which is read after both marks."""

    def __init__(self) -> None:
        self._marks = 0

    def start(self) -> None:
        self._marks = 1

    def stop(self) -> None:
        self._marks += 1

    def seconds(self) -> float:
        assert self._marks == 2
        return 2.5e-4


_SCRIPTS: Mapping[str, Callable[[Case], Runner]] = {
    "fine": Scripted,
    "fine-too": Scripted,
    "rotates": Rotates,
    "slow": Slow,
    "crowded": lambda case: Crowded(case, 3),
    "alone-only": lambda case: Crowded(case, 1),
    "allocates": Allocates,
    "takes-gpu-memory": TakesGpuMemory,
    "grows-on-gpu": GrowsOnGpu,
    "segv-on-device": lambda case: OnDevice(case, _SEGV),
    "hangs-on-device": lambda case: OnDevice(case, hang),
    "raises-on-device": lambda case: OnDevice(case, _raise_error),
    "skips": Skips,
    "remembers-two": lambda case: Remembers(case, 2),
    "remembers-all": lambda case: Remembers(case, 1 << 30),
    "keeps-product": KeepsProduct,
    "persistent": Persistent,
    "segv-in-profiler": lambda case: InProfiler(case, _SEGV),
    "hangs-in-profiler": lambda case: InProfiler(case, hang),
    "raises-in-profiler": lambda case: InProfiler(case, _raise_error),
    "grows": Grows,
    "one-time": OneTime,
    "products": lambda case: Bare(),
    "launches": lambda case: Bare(),
    **{fault.name: fault.script for fault in FAULTS},
}


#: What is no implementation, and rides along.
_RIDING: Mapping[str, Kind] = {"products": "limit", "launches": "launches"}


def _devices() -> list[str]:
    return os.environ.get(DEVICES_VARIABLE, "cpu").split(",")


class ScriptedBackend:
    name = "scripted"

    def versions(self) -> Mapping[str, str]:
        return {"scripted": "1"}

    def threads(self) -> Mapping[str, int]:
        return {"scripted": 1}

    def devices(self) -> Mapping[str, str]:
        return dict.fromkeys(_devices(), "scripted")

    def lacking(self, device: str) -> str | None:
        return lacks_gpu(device, "scripted 1", len(_devices()) - 1, "pip install scripted")

    def allocated(self, device: str, *, reset: bool = False) -> Mapping[str, float]:
        return GPU.told(reset=reset) if device in _devices()[1:] else {}

    def limit(self, device: str, limit_bytes: int) -> None:
        """Beyond what somebody else's arrays take, which is another allocator's."""
        require_device(self, device)
        GPU.limit = GPU.now + limit_bytes

    def timer(self, device: str) -> ScriptedTimer | None:
        return ScriptedTimer() if device in _devices()[1:] else None

    def build(self, case: Case, strategy: str, mode: Mode, stage: Stage = unstaged) -> Runner:
        require_device(self, case.device)
        with stage("script"):
            return _SCRIPTS[strategy](case)

    def native(self, case: Case, strategy: str, weights: Weights, batch: Batch) -> None:
        """No class of its own."""

    def kernels(self, runner: Runner, device: str, call: Callable[[], None]) -> Mapping[str, int]:
        RAN.clear()
        call()
        return Counter(RAN)


def create(threads: int) -> ScriptedBackend:
    return ScriptedBackend()


def environment(threads: int) -> dict[str, str]:
    return {"OPENBLAS_NUM_THREADS": "1"}


def refusal(strategy: str, case: Case, _mode: Mode) -> str | None:
    """What rides along does so on the GPU only, as JAX's and TensorFlow's does."""
    return refused_launches(case) if strategy in _RIDING else None


INFO = BackendInfo(
    name="scripted",
    # What is not there fails in the server or the worker, where a broken framework does.
    module=os.environ.get(MODULE_VARIABLE, "tests.scripted"),
    extra=None,
    requires=("numpy",),
    environment=environment,
    preload=("numpy",),
    refusal=refusal,
    strategies=tuple(
        Strategy(name=name, kind="static", title=name, against="fine")
        if name == "fine-too"
        else Strategy(name=name, kind="dynamic", title=name)
        for name in _SCRIPTS
        if name not in _RIDING
    )
    + tuple(Strategy(name=name, kind=kind, title=name) for name, kind in _RIDING.items()),
)
