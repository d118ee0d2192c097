"""A case compiled ahead of time for its shapes, with resident arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr
from jax.sharding import SingleDeviceSharding

from backends.api import Batch, Case, Mode, Output, Stage, Unsupported, Weights
from backends.data import check_batch, initial_state, rotated
from backends.jax.network import Network, train_program
from backends.stack import input_width, layers, output_width


class JaxRunner:
    """One case, one mode: weights, batch and learning rate are arguments of a compiled program.

    In training the weights are donated: the program writes the new ones over the old.
    """

    def __init__(self, case: Case, network: Network, mode: Mode, device: Any, stage: Stage) -> None:
        self._case = case
        self._network = network
        self._mode = mode
        self._device = device
        self._rotation: Iterator[Any] | None = None
        program, arguments = _program(case, network, mode, device)
        donated = (0,) if mode == "train" else ()
        with stage("trace"):
            self._traced = jax.jit(program, donate_argnums=donated).trace(*arguments)
        with stage("lower"):
            lowered = self._traced.lower()
        with stage("compile"):
            self._compiled = lowered.compile()

    def load(self, weights: Weights) -> None:
        self._weights = self._resident(self._network.pack(weights))

    def bind(self, batch: Batch) -> None:
        case = self._case
        check_batch(case, batch)
        for letter, built, got in zip(
            "BT", (case.batch, case.seq_len), batch.x.shape[:2], strict=True
        ):
            if got != built:
                raise Unsupported(f"program is compiled for {letter}={built}, got {letter}={got}")
        self.feed(batch)

    def feed(self, batch: Batch) -> None:
        case = self._case
        self._rotation = None
        self._bound = self._inputs = self._resident(rotated(batch, self._mode))
        self._constant = self._resident((batch.lengths, initial_state(case, batch)))
        rate = np.asarray(batch.learning_rate, case.dtype)
        self._rate = self._resident((rate,) if self._mode == "train" else ())

    def rotate(self, batches: Sequence[Batch]) -> None:
        """See `Runner`. What an earlier rotation has is released before there is more.

        A GPU's allocator can then give the same addresses again: for addresses that it has not
        noted (`xla_cmd_buffer_trace_cache_size`), XLA captures anew, within a call.
        """
        self._inputs, self._rotation = self._bound, None
        self._rotation = cycle(self._resident([rotated(batch, self._mode) for batch in batches]))

    def advance(self) -> None:
        if self._rotation is not None:
            self._inputs = next(self._rotation)

    def forward(self) -> Any:
        return self._call("forward")

    def train(self) -> Any:
        out = self._call("train")
        self._weights = out[1]
        return out

    def sync(self, out: Any) -> None:
        # The weights of an earlier handle are gone once another step has been given them; what that
        # call computed is then waited for by its loss, which is never donated.
        jax.block_until_ready([a for a in jax.tree.leaves(out) if not a.is_deleted()])

    def fetch(self, out: Any) -> Output:
        outputs, state = jax.tree.map(np.array, out)
        return Output(outputs=outputs, state=state)

    def fetch_loss(self, out: Any) -> float:
        return float(out[0])

    def weights(self) -> Weights:
        # A view would keep the device's buffer from being reused by the next step.
        return self._network.unpack(jax.tree.map(np.array, self._weights))

    def program_size(self) -> Mapping[str, int]:
        """Jaxpr equations (a loop's body once), instructions after XLA, and its scratch memory."""
        _header, *lines = self._compiled.as_text().splitlines()
        size = {
            "equations": _equations(self._traced.jaxpr.jaxpr),
            "instructions": sum(" = " in line for line in lines),
        }
        memory = self._compiled.memory_analysis()
        if memory is not None:
            size["temp_bytes"] = memory.temp_size_in_bytes
        return size

    def close(self) -> None:
        del self._traced, self._compiled
        self._weights = self._inputs = self._bound = self._constant = ()
        self._rotation = None

    def _call(self, mode: Mode) -> Any:
        if mode != self._mode:
            raise ValueError(f"built for mode {self._mode!r}, not for {mode!r}")
        x, *targets = self._inputs
        return self._compiled(self._weights, x, *self._constant, *targets, *self._rate)

    def _resident(self, tree: Any) -> Any:
        """Copies on the device: the caller may go on to change its own arrays.

        `device_put` alone keeps a view of an array that happens to be aligned to 64 bytes, with
        `may_alias=False` too (JAX 0.10.2): it is given a copy that nobody else has. A copy by
        `jnp.array` would compile a program for each shape, within the time to load.
        """
        private = jax.tree.map(lambda array: np.array(array, copy=True), tree)
        return jax.block_until_ready(jax.device_put(private, self._device))


def _program(case: Case, network: Network, mode: Mode, device: Any) -> tuple[Any, list[Any]]:
    """The function to compile, and its arguments as shapes."""
    placed = SingleDeviceSharding(device)

    def array(*shape: int, dtype: str = case.dtype) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=placed)

    b, t = case.batch, case.seq_len
    state = tuple(
        {name: array(b, width) for name, width in layer.state.items()} for layer in layers(case)
    )
    lengths = array(b, dtype="int32") if case.lengths != "full" else None
    arguments = [network.shaped(array), array(b, t, input_width(case)), lengths, state]
    if mode == "forward":
        return network.run, arguments
    return train_program(network), [*arguments, array(b, t, output_width(case)), array()]


def _equations(jaxpr: Jaxpr) -> int:
    """Equations of a jaxpr and of all those inside it."""
    total = 0
    for equation in jaxpr.eqns:
        total += 1
        for leaf in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr):
            if _is_jaxpr(leaf):
                total += _equations(leaf.jaxpr if isinstance(leaf, ClosedJaxpr) else leaf)
    return total


def _is_jaxpr(value: object) -> bool:
    return isinstance(value, (ClosedJaxpr, Jaxpr))
