"""nn.RNN, nn.LSTM, nn.GRU: the whole sequence in the library's own operator.

These have two biases a gate, which act as their sum except in the GRU's candidate. The canonical
bias is `bias_ih`; `bias_hh` is a constant (zero, and the forget bias in the LSTM), so that a step
of SGD moves the sum once and not twice. Only the candidate's part of the GRU's `bias_hh` is a
weight: b_hc, inside the reset product. Reset-before GRU is another function, which no weights of
nn.GRU give.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from backends.api import (
    Array,
    Case,
    CellName,
    LayerWeights,
    Mode,
    Stage,
    State,
    Unsupported,
    Weights,
)
from backends.cells import CELLS as SPECS
from backends.data import fuse, split
from backends.torch.cells import forget_bias
from backends.torch.network import loss_of
from backends.torch.runner import DTYPES, TorchRunner, synchronize, to_host

#: Module, and the gates in the order of its rows (PyTorch's documentation of each).
_MODULES: dict[CellName, tuple[Any, tuple[str, ...]]] = {
    "rnn": (torch.nn.RNN, ("h",)),
    "basic-lstm": (torch.nn.LSTM, ("i", "f", "g", "o")),
    "lstm": (torch.nn.LSTM, ("i", "f", "g", "o")),
    "gru-reset-after": (torch.nn.GRU, ("r", "u", "c")),
}


class FusedRunner(TorchRunner):
    """A module of torch.nn, all layers inside."""

    def __init__(self, case: Case, mode: Mode, device: torch.device) -> None:
        super().__init__(case, mode, device)
        module, self._gates = _MODULES[case.cell]
        self._spec = SPECS[case.cell]
        self._module = module(
            case.inputs,
            case.hidden,
            case.layers,
            batch_first=True,
            dtype=DTYPES[case.dtype],
            device=device,
        )
        self._module.train(mode == "train").requires_grad_(False)
        trained = ["weight_ih", "weight_hh", "bias_ih"]
        if self._spec.extra_biases:
            trained.append("bias_hh")
        self._trained = [(name, layer) for layer in range(case.layers) for name in trained]
        self._leaves = [self._parameter(name, layer) for name, layer in self._trained]
        for tensor in self._leaves:
            tensor.requires_grad_(mode == "train")

    def load(self, weights: Weights) -> None:
        with torch.no_grad():
            for index, layer in enumerate(weights):
                for name, array in self._pack(layer).items():
                    self._parameter(name, index).copy_(self._resident(array))
        synchronize(self._device)

    def weights(self) -> Weights:
        return tuple(self._unpack(layer) for layer in range(self._case.layers))

    def _parameter(self, name: str, layer: int) -> Any:
        return getattr(self._module, f"{name}_l{layer}")

    def _pack(self, layer: LayerWeights) -> dict[str, Array]:
        """The parameters of one layer: weights [G*H, I] and [G*H, H], biases [G*H]."""
        bias_hh = forget_bias(self._case, self._gates)
        for name in self._spec.extra_biases:
            bias_hh[-self._case.hidden :] = layer[name]
        return {
            "weight_ih": fuse(layer, "W", self._gates).T,
            "weight_hh": fuse(layer, "U", self._gates).T,
            "bias_ih": fuse(layer, "b", self._gates),
            "bias_hh": bias_hh,
        }

    def _unpack(self, index: int) -> LayerWeights:
        def read(name: str) -> Array:
            return to_host(self._parameter(name, index))

        b_hc = read("bias_hh")[-self._case.hidden :]
        return {
            **split(read("weight_ih").T, "W", self._gates),
            **split(read("weight_hh").T, "U", self._gates),
            **split(read("bias_ih"), "b", self._gates),
            **dict.fromkeys(self._spec.extra_biases, b_hc),
        }

    def _updates(self, gradients: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        h = self._case.hidden
        for (name, _), tensor, gradient in zip(self._trained, self._leaves, gradients, strict=True):
            if name == "bias_hh":  # b_hc alone: the other rows would move r and u twice
                yield tensor[-h:], gradient[-h:]
            else:
                yield tensor, gradient

    def _bind_state(self, state: State) -> None:
        # [L, B, H] each, h first; the canonical order has it last.
        self._state = tuple(
            torch.stack([self._resident(layer[name]) for layer in state])
            for name in reversed(self._spec.state)
        )

    def _bind_lengths(self, lengths: Array | None) -> None:
        # Packing wants the lengths on the host and refuses 0: an empty sequence runs one step, and
        # `_forward` takes that back.
        self._lengths = self._empty = None
        if lengths is not None:
            self._lengths = torch.tensor(lengths.clip(min=1), dtype=torch.int64)
            if (lengths == 0).any():
                self._empty = torch.tensor(lengths == 0, device=self._device).unsqueeze(1)  # [B, 1]

    def _forward(self) -> tuple[Tensor, tuple[Tensor, ...]]:
        if self._lengths is None:
            return self._call(self._x)
        packed = pack_padded_sequence(
            self._x, self._lengths, batch_first=True, enforce_sorted=False
        )
        values, state = self._call(packed)
        # Without total_length, the steps after the longest sequence would be missing.
        outputs, _ = pad_packed_sequence(values, batch_first=True, total_length=self._x.shape[1])
        if self._empty is not None:
            outputs = torch.where(self._empty.unsqueeze(2), 0.0, outputs)
            state = tuple(map(torch.where, repeat(self._empty), self._state, state))
        return outputs, state

    def _call(self, x: Any) -> tuple[Any, tuple[Tensor, ...]]:
        """The module with the state as a tuple, which it wants and gives for the LSTM alone."""
        if len(self._state) > 1:
            return self._module(x, self._state)
        values, h = self._module(x, self._state[0])
        return values, (h,)

    def _loss(self) -> Tensor:
        outputs, _ = self._forward()
        return loss_of(outputs, self._targets)

    def _layer_states(self, state: Any) -> Sequence[Sequence[Tensor]]:
        return list(zip(*reversed(state), strict=True))


def build_fused(case: Case, mode: Mode, device: torch.device, _stage: Stage) -> FusedRunner:
    """A module of torch.nn. Raises `Unsupported` for the GRU that it has not."""
    if case.cell not in _MODULES:
        raise Unsupported(
            f"cell {case.cell}: nn.GRU applies the reset gate after the product, another function"
        )
    return FusedRunner(case, mode, device)
