"""The contract between the harness and every framework adapter.

Letters used in every shape of this project:

    B  batch            T  time steps        D  input features of the first layer
    H  hidden units     I  input features of a layer: D for the first, O for the others
    G  gates            L  layers            O  outputs of a layer: H for most cells
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import ml_dtypes  # noqa: F401 (gives NumPy the name "bfloat16")
import numpy.typing as npt

from backends.cells import CELLS
from backends.devices import ALLOWED, is_device, is_gpu
from backends.stack import MAX_LAYERS, layers

Array = npt.NDArray[Any]

Dtype = Literal["float32", "float64", "bfloat16", "float16"]

#: Whether products of float32 arrays may round their factors to TensorFloat-32, 10 bits for 23.
Tf32 = Literal["off", "on"]
Lengths = Literal["full", "ragged", "half"]
InitialState = Literal["zeros", "random"]
Mode = Literal["forward", "train"]

#: Which way a sequence is read. Bidirectional layers read it both ways, and each gets both outputs
#: of the one below side by side; two stacks are joined at the top alone.
Direction = Literal["forward", "bidirectional", "two-stacks"]

#: How time is carried. Every strategy of every backend is a variant of one of the first three;
#: `limit` marks the bare matrix products of a case, `launches` as many kernels that do next to
#: nothing as its steps are, and `oracle` the float64 reference.
Kind = Literal["static", "dynamic", "fused", "limit", "launches", "oracle"]

CELL_NAMES: tuple[str, ...] = tuple(CELLS)
MODES: tuple[Mode, ...] = get_args(Mode)


class Unsupported(Exception):
    """The implementation cannot express what was asked; the message says why, with the values."""


class Unavailable(Exception):
    """This host lacks something (a package, a device); the message says what and how to get it."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A computation, free of any framework.

    `cell` is a name of `backends.cells.CELLS`.
    `lengths` "ragged" gives each sequence its own length n_b <= T, the longest T, and "half" n_b <=
    T / 2: what a batch is that was padded to more than it needs. Outputs are 0 at t >= n_b and
    the state is held there. `forget_bias` is added to the LSTM's forget gate at run time and is no
    part of the weights. `device` is a name of `backends.devices`. `tf32` "on" lets a GPU's products
    of float32 arrays be TensorFloat-32; a process computes with it or without. `threads` is how
    many the process that computes it has, each on a CPU of its own.

    Raises `ValueError` for an unknown cell, for one that cannot have these sizes, and for TF32
    where there is none.
    """

    cell: str
    seq_len: int
    batch: int
    inputs: int
    hidden: int
    layers: int = 1
    lengths: Lengths = "full"
    dtype: Dtype = "float32"
    device: str = "cpu"
    initial_state: InitialState = "zeros"
    forget_bias: float = 1.0
    seed: int = 0
    direction: Direction = "forward"
    tf32: Tf32 = "off"
    threads: int = 1

    def __post_init__(self) -> None:
        if self.cell not in CELLS:
            raise ValueError(f"cell {self.cell!r}: must be one of {', '.join(CELLS)}")
        for name in ("seq_len", "batch", "inputs", "hidden", "layers", "threads"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"{name}={value}: must be 1 or more")
        if not is_device(self.device):
            raise ValueError(f"device {self.device!r}: must be {ALLOWED}")
        if self.layers > MAX_LAYERS:
            raise ValueError(f"layers={self.layers}: must be {MAX_LAYERS:,} or less")
        if self.tf32 == "on" and not has_tf32(self.dtype, self.device):
            raise ValueError(
                f"tf32 on: is of float32 on a GPU, not of {self.dtype} on {self.device}"
            )
        layers(self)


def has_tf32(dtype: str, device: str) -> bool:
    """Whether there is TensorFloat-32 for arrays of a dtype on a device."""
    return dtype == "float32" and is_gpu(device)


#: One layer's canonical blocks by name, `backends.spec.Cell.blocks`: for most cells "W_<gate>"
#: [I, H], "U_<gate>" [H, H], "b_<gate>" [H]. Row vectors: z = x W + h U + b.
LayerWeights = Mapping[str, Array]
#: One entry for each set of weights; `backends.stack.Layer.weights` says whose it is.
Weights = tuple[LayerWeights, ...]

#: One layer's state by name, `backends.spec.Cell.state`: "h" [B, H], "c" [B, H] for LSTM cells.
LayerState = Mapping[str, Array]
#: One entry for each of `backends.stack.layers`.
State = tuple[LayerState, ...]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The data of one call, in the case's dtype.

    `lengths` is None for full length. `initial_state` None means zeros. Behind the D features of x
    come the masks of dropout cells, `backends.stack.input_width` columns in all.
    """

    x: Array  # [B, T, D]
    targets: Array  # [B, T, O]
    lengths: Array | None  # [B] int32, 0 <= n_b <= T
    initial_state: State | None = None
    learning_rate: float = 0.01


@dataclass(frozen=True, kw_only=True)
class Output:
    """Outputs and final state as NumPy arrays."""

    outputs: Array  # [B, T, O]
    state: State  # a layer each


@dataclass(frozen=True, kw_only=True)
class Expected:
    """Everything that an implementation of a case is compared with, in float64.

    `gradients` is () where they were not asked for: a forward pass has none.
    """

    output: Output
    loss: float
    gradients: Weights


@dataclass(frozen=True, kw_only=True)
class Native:
    """Outputs [B, T, H] of a framework's own LSTM, its packed arrays filled by hand.

    With the gates in the framework's own order, and in that of another framework. `moved_bias` has
    all of the bias in the second of two bias vectors, where the other two have it in the first;
    None where the framework has but one. `dropped` [B, T, H] are those of two layers, in training,
    with the framework's own dropout between them, drawn on the case's device from the case's seed,
    which the weights are drawn from too, and `undropped` the same without it; None where the class
    has none.
    """

    own_order: Array
    other_order: Array
    moved_bias: Array | None = None
    dropped: Array | None = None
    undropped: Array | None = None


#: A named part of a build ("trace", "compile"); the harness hands in one that reads a clock.
Stage = Callable[[str], AbstractContextManager[None]]


def unstaged(_name: str) -> AbstractContextManager[None]:
    """The `Stage` for callers that do not time."""
    return nullcontext()


class Runner(Protocol):
    """One implementation of one case, built for one mode.

    Inputs, outputs and targets are batch-major for everybody; a framework that wants time first
    transposes inside `forward` and `train`. The loss is

        1 / (2 B T) * sum over b, t, o of (y - target)^2

    over all T steps, outputs past a length counting as the zeros that they are.
    """

    def load(self, weights: Weights) -> None:
        """Take canonical weights; on return they are resident on the device."""

    def bind(self, batch: Batch) -> None:
        """Take a batch; on return it is resident on the device.

        Raises `Unsupported` for a shape that this runner was not built for. This is `feed` after a
        check of this project's own.
        """

    def feed(self, batch: Batch) -> None:
        """Take a batch as `bind` does, without looking at its shape.

        What becomes of a shape that the program was not built for is the framework's to say: here
        or in the call it raises whatever it raises, or computes something.
        """

    def rotate(self, batches: Sequence[Batch]) -> None:
        """Take inputs, and in training targets, of one or more batches, for `advance` to go round.

        On return those of each batch are resident on the device, in memory of their own. Lengths,
        initial state and learning rate stay those of the batch that is bound, and the batches are
        of its shape. Until `advance` calls read the bound batch. A second `rotate` replaces the
        first, and what that one took is released; `bind` and `feed` end it, `load` does not. It is
        no part of a call, and costs little more than a copy of the batches.
        """

    def advance(self) -> None:
        """Let the next call read the next batch of `rotate`: the first, and behind the last again.

        No part of a call: on return nothing that it did is left for the call to wait for. Where
        there is no rotation it does nothing.
        """

    def forward(self) -> Any:
        """Enqueue the forward pass; outputs [B, T, O] and final state stay on the device.

        Only for mode "forward". The handle is valid until the next `forward`.
        """

    def train(self) -> Any:
        """Enqueue one full step: forward, loss, backward through time, SGD update of all weights.

        Only for mode "train". Returns a handle on the scalar loss, taken before the update.
        """

    def sync(self, out: Any) -> None:
        """Block until everything that the call behind `out` enqueued has been computed."""

    def fetch(self, out: Any) -> Output:
        """Copy a forward handle's results to the host. Never computes them again."""

    def fetch_loss(self, out: Any) -> float:
        """Copy a train handle's loss to the host. Never computes it again."""

    def weights(self) -> Weights:
        """The resident weights in canonical layout, as they are after the steps taken so far."""

    def program_size(self) -> Mapping[str, int]:
        """Size of the program where the framework has one ("nodes", "equations"), else empty."""

    def close(self) -> None:
        """Release what the runner holds."""


class DeviceTimer(Protocol):
    """The clock of a GPU, which marks what it is given between `start` and `stop`."""

    def start(self) -> None:
        """Enqueue the first mark."""

    def stop(self) -> None:
        """Enqueue the second mark."""

    def seconds(self) -> float:
        """Seconds from one mark to the other; only when all that was enqueued is computed."""


class Backend(Protocol):
    """One framework in one process, at one number of threads."""

    name: str

    def versions(self) -> Mapping[str, str]:
        """Versions of the packages whose code runs."""

    def threads(self) -> Mapping[str, int]:
        """Sizes of the framework's thread pools, as it reports them."""

    def devices(self) -> Mapping[str, str]:
        """Device name ("cpu", "gpu", "gpu:1") -> the framework's description, of what is there."""

    def lacking(self, device: str) -> str | None:
        """Reason why this framework cannot compute on a device, and what helps, or None."""

    def allocated(self, device: str, *, reset: bool = False) -> Mapping[str, float]:
        """Bytes that this process has on a GPU by its own allocator, `now` and at the `peak`.

        Empty for a CPU, and where the framework does not tell. `reset` starts the peak again from
        what is there now; one that cannot be started again is since the process began.
        """

    def limit(self, device: str, limit_bytes: int) -> None:
        """Let this framework's allocator take so many bytes of a GPU and no more, from now on.

        Called once, before anything is computed or put on the GPU. What goes beyond fails as it
        does where a GPU is full; more than the GPU has is no limit but its own. Raises
        `Unavailable` where the device is not there, `RuntimeError` where the limit was not taken.
        """

    def timer(self, device: str) -> DeviceTimer | None:
        """A clock of the GPU's own; None for a CPU, and where the framework has none."""

    def build(self, case: Case, strategy: str, mode: Mode, stage: Stage = unstaged) -> Runner:
        """Build a runner: graph, module or compiled program.

        Raises `Unsupported` with the reason of `BackendInfo.refusal` before any work where the
        strategy cannot express the case (`BackendInfo.require` does), and `Unavailable` where the
        host lacks the device.
        """

    def native(self, case: Case, strategy: str, weights: Weights, batch: Batch) -> Native | None:
        """Outputs of the framework's own LSTM class with weights that are packed by hand.

        None where the strategy is not that class, and for a case that is not one plain LSTM
        (`backends.native.plain_lstm`).
        """

    def kernels(self, runner: Runner, device: str, call: Callable[[], None]) -> Mapping[str, int]:
        """Kernels of a call on a device, by the framework's profiler: name -> number of times.

        `call` calls the runner, and returns when all is computed. On a GPU these are kernels and
        copies, on the CPU what the framework calls an operation, those that took longest first.
        Empty where no profiler can look at what was built. Raises whatever the profiler does, and
        `RuntimeError` where it saw nothing. It may stay attached to the process, so nothing is
        timed there afterwards.
        """


def require_device(backend: Backend, device: str) -> None:
    """Raise `Unavailable` where a backend cannot compute on a device here.

    All compute on the CPU: nothing is asked there, where a build is timed.
    """
    reason = None if device == "cpu" else backend.lacking(device)
    if reason is not None:
        raise Unavailable(reason)


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """One way of a backend to carry a cell over time, described without importing the framework.

    `against` names the dynamic strategy of the same backend that this one is compared with. What
    is `of_gpus` computes on a GPU alone: a sweep without one does not ask it.
    """

    name: str
    kind: Kind
    title: str
    against: str | None = None
    of_gpus: bool = False


def anything(_strategy: str, _case: Case, _mode: Mode) -> str | None:
    """The `refusal` of a backend whose strategies express every case."""
    return None


@dataclass(frozen=True, kw_only=True)
class BackendInfo:
    """Description of a backend that needs no import of its framework.

    `module` has `create(threads: int) -> Backend`. `requires` names the distributions that must be
    installed, `extra` this project's extra that installs them. `environment(threads)` gives the
    environment variables that must be set before the framework is imported.
    `refusal(strategy, case, mode)` gives the reason for which a strategy cannot express a case, or
    None; `build` raises `Unsupported` with that reason and no other. `preload` are the
    modules that a fork server imports (never running an operation). `compile_cache` names the
    environment variable of the folder in which the framework keeps compiled code between processes.
    """

    name: str
    module: str
    extra: str | None
    requires: tuple[str, ...]
    strategies: tuple[Strategy, ...]
    environment: Callable[[int], Mapping[str, str]]
    refusal: Callable[[str, Case, Mode], str | None] = anything
    preload: tuple[str, ...] = ()
    compile_cache: str | None = None

    def require(self, strategy: str, case: Case, mode: Mode) -> None:
        """Raise `Unsupported` for an unknown strategy, or a case that it cannot express."""
        names = [entry.name for entry in self.strategies]
        if strategy not in names:
            raise Unsupported(f"strategy {strategy}: {self.name} has {', '.join(names)}")
        reason = self.refusal(strategy, case, mode)
        if reason is not None:
            raise Unsupported(reason)


@dataclass(frozen=True, kw_only=True)
class Implementation:
    """A backend with one of its strategies, written `tensorflow/static`."""

    backend: str
    strategy: Strategy

    @property
    def name(self) -> str:
        return f"{self.backend}/{self.strategy.name}"

    @property
    def kind(self) -> Kind:
        return self.strategy.kind
