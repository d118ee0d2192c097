"""nn.RNN, nn.LSTM, nn.GRU: the whole sequence in the library's own operator.

These have two biases a gate, which act as their sum except in the GRU's candidate. The canonical
bias is `bias_ih`; `bias_hh` is a constant (zero, and the forget bias in the LSTM), so that a step
of SGD moves the sum once and not twice. Only the candidate's part of the GRU's `bias_hh` is a
weight: b_hc, inside the reset product. Reset-before GRU is another function, which no weights of
nn.GRU give.

Layers that are alike are one module, which reads both ways where the case is bidirectional; others
(different cells, a residual, one cell as every layer) are a module each. Two stacks are two chains
of modules, the second over reversed sequences.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, islice, repeat
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from backends.api import Array, Case, LayerState, LayerWeights, Mode, Stage, State, Weights
from backends.layout import Fused
from backends.spec import GruResetAfter, Lstm, Residual, Rnn
from backends.stack import Layer, layers
from backends.torch.layout import forget_bias
from backends.torch.network import backwards, loss_of
from backends.torch.runner import DTYPES, TorchRunner, from_host, synchronize, to_host


def _gates(layer: Layer) -> tuple[str, ...]:
    """The gates in the order of a module's rows (PyTorch's documentation of each)."""
    if isinstance(layer.cell, Lstm):
        return ("i", "f", "g", "o")
    return ("r", "u", "c") if isinstance(layer.cell, GruResetAfter) else ("h",)


def _layout(layer: Layer) -> dict[str, Fused]:
    """The trained parameters of a layer: weights [G*H, I], [G*H, R] and [R, H], bias [G*H]."""
    gates = _gates(layer)
    arrays = {
        "weight_ih": Fused(("W",), gates, transposed=True),
        "weight_hh": Fused(("U",), gates, transposed=True),
        "bias_ih": Fused(("b",), gates),
    }
    if "Q_h" in layer.blocks:
        arrays["weight_hr"] = Fused(("Q",), ("h",), transposed=True)
    return arrays


def _module(layer: Layer, **options: Any) -> Any:
    """The module of a layer's cell."""
    cell, sizes = layer.cell, (layer.inputs, layer.hidden)
    if isinstance(cell, Rnn):
        return torch.nn.RNN(*sizes, nonlinearity=cell.activation, **options)
    if isinstance(cell, Lstm):
        if cell.projection is None:
            return torch.nn.LSTM(*sizes, **options)
        # On a CPU, without a gradient, nn.LSTM is oneDNN's, but not with a projection: it is then
        # torch's own loop, as in training. It says so once a process, in the first call of any.
        warnings.filterwarnings("ignore", "LSTM with projections is not supported with oneDNN")
        return torch.nn.LSTM(*sizes, proj_size=layer.outputs, **options)
    return torch.nn.GRU(*sizes, **options)


@dataclass(frozen=True)
class _Parameters:
    """One layer's parameters in a module, whose names end in `suffix`."""

    module: Any
    layer: Layer
    suffix: str

    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor = getattr(self.module, name + self.suffix)
        return tensor

    def load(self, blocks: LayerWeights) -> None:
        """Take canonical blocks."""
        arrays = {name: fused.pack(blocks) for name, fused in _layout(self.layer).items()}
        arrays["bias_hh"] = forget_bias(self.layer, Fused(("b",), _gates(self.layer)))
        if "b_hc" in blocks:
            arrays["bias_hh"][-self.layer.hidden :] = blocks["b_hc"]
        with torch.no_grad():
            for name, array in arrays.items():
                self[name].copy_(from_host(array))

    def blocks(self) -> LayerWeights:
        """The inverse of `load`."""
        found: dict[str, Array] = {}
        for name, fused in _layout(self.layer).items():
            found |= fused.unpack(to_host(self[name]), self.layer.blocks)
        if "b_hc" in self.layer.blocks:
            found["b_hc"] = to_host(self["bias_hh"])[-self.layer.hidden :]
        return found

    def trained(self) -> list[tuple[Tensor, int]]:
        """Arrays whose gradients are taken, and the first row that is updated.

        Of the GRU's bias_hh that is b_hc alone: the other rows would move r and u twice.
        """
        whole = [(self[name], 0) for name in _layout(self.layer)]
        last = [(self["bias_hh"], -self.layer.hidden)] if "b_hc" in self.layer.blocks else []
        return whole + last


class _Module:
    """Layers that are one module. Both directions of a depth are neighbours where there are two."""

    def __init__(
        self, case: Case, members: Sequence[Layer], mode: Mode, device: torch.device
    ) -> None:
        both = case.direction == "bidirectional"
        first = members[0]
        self.residual = isinstance(first.cell, Residual)
        plain = [layer.plain() for layer in members]
        self.state_names = tuple(reversed(first.state))
        self.directions = 2 if both else 1
        self.module = _module(
            plain[0],
            num_layers=len(members) // self.directions,
            bidirectional=both,
            batch_first=True,
            dtype=DTYPES[case.dtype],
            device=device,
        )
        self.module.train(mode == "train").requires_grad_(False)
        self.parameters = {
            layer.weights: _Parameters(
                self.module,
                layer,
                f"_l{layer.depth - first.depth}{'_reverse' if both and layer.reverse else ''}",
            )
            for layer in plain
        }

    def __call__(self, x: Any, state: tuple[Tensor, ...]) -> tuple[Any, tuple[Tensor, ...]]:
        """The module with the state as a tuple, which it wants and gives for the LSTM alone."""
        if len(state) > 1:
            values, final = self.module(x, state)
        else:
            values, h = self.module(x, state[0])
            final = (h,)
        return (self._plus(x, values) if self.residual else values), final

    def _plus(self, x: Any, values: Any) -> Any:
        """Values plus the inputs, each direction's."""
        if not isinstance(x, PackedSequence):
            return values + (x if self.directions == 1 else torch.cat([x, x], 2))
        inputs = x.data if self.directions == 1 else torch.cat([x.data, x.data], 1)
        return values._replace(data=values.data + inputs)


def _chains(case: Case) -> list[list[Sequence[Layer]]]:
    """The layers of each module, of one chain of modules or of two."""
    stack = layers(case)
    ways = [stack[0::2], stack[1::2]] if case.direction == "two-stacks" else [stack]
    return [_modules(way) for way in ways]


def _modules(way: Sequence[Layer]) -> list[Sequence[Layer]]:
    """All layers, where one module has them; else those of each depth."""
    alike = {(layer.cell, layer.hidden) for layer in way}
    own = {layer.weights for layer in way}
    if len(alike) == 1 and len(own) == len(way) and not isinstance(way[0].cell, Residual):
        return [way]
    return [list(row) for _, row in groupby(way, key=lambda layer: layer.depth)]


class FusedRunner(TorchRunner):
    """Modules of torch.nn; sequences are packed where they are ragged, once for all modules.

    With `packed` they are packed whatever their lengths.
    """

    def __init__(
        self, case: Case, mode: Mode, device: torch.device, *, packed: bool = False
    ) -> None:
        super().__init__(case, mode, device)
        self._packed = packed
        self._groups = _chains(case)
        made: dict[tuple[int, ...], _Module] = {}
        for group in chain.from_iterable(self._groups):
            if _places(group) not in made:
                made[_places(group)] = _Module(case, group, mode, device)
        self._modules = [[made[_places(group)] for group in groups] for groups in self._groups]
        by_place = {k: v for module in made.values() for k, v in module.parameters.items()}
        self._parameters = [by_place[place] for place in sorted(by_place)]
        self._trained = [pair for layer in self._parameters for pair in layer.trained()]
        self._leaves = [tensor for tensor, _ in self._trained]
        for tensor in self._leaves:
            tensor.requires_grad_(mode == "train")

    def load(self, weights: Weights) -> None:
        for parameters, blocks in zip(self._parameters, weights, strict=True):
            parameters.load(blocks)
        synchronize(self._device)

    def weights(self) -> Weights:
        return tuple(parameters.blocks() for parameters in self._parameters)

    def _updates(self, gradients: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        for (tensor, first), gradient in zip(self._trained, gradients, strict=True):
            # A slice of the whole would be an operation each, in every step.
            yield (tensor[first:], gradient[first:]) if first else (tensor, gradient)

    def _bind_state(self, state: State) -> None:
        """Of each module arrays [layers, B, width], h first; the canonical order has it last."""
        count = len(self._groups)
        self._state: list[list[tuple[Tensor, ...]]] = []
        for way, (groups, modules) in enumerate(zip(self._groups, self._modules, strict=True)):
            own = iter(state[way::count])
            self._state.append(
                [
                    self._stacked(module.state_names, list(islice(own, len(group))))
                    for group, module in zip(groups, modules, strict=True)
                ]
            )

    def _stacked(self, names: Sequence[str], states: Sequence[LayerState]) -> tuple[Tensor, ...]:
        return tuple(torch.stack([self._resident(each[name]) for each in states]) for name in names)

    def _bind_lengths(self, lengths: Array | None) -> None:
        # Packing wants the lengths on the host and refuses 0: an empty sequence runs one step, and
        # `_run` takes that back.
        self._lengths = self._ends = self._empty = None
        if lengths is not None:
            self._ends = torch.tensor(lengths, dtype=torch.int64, device=self._device)
            self._lengths = torch.tensor(lengths.clip(min=1), dtype=torch.int64)
            if (lengths == 0).any():
                self._empty = torch.tensor(lengths == 0, device=self._device).unsqueeze(1)  # [B, 1]
        elif self._packed:
            self._lengths = torch.full(self._x.shape[:1], self._x.shape[1], dtype=torch.int64)

    def _forward(self) -> tuple[Tensor, list[list[tuple[Tensor, ...]]]]:
        outputs, final = [], []
        for groups, modules, initial in zip(self._groups, self._modules, self._state, strict=True):
            # The second of two stacks; bidirectional modules turn round by themselves.
            turned = len(self._groups) == 2 and groups[0][0].reverse
            x = backwards(self._x, self._ends) if turned else self._x
            y, state = self._run(modules, x, initial)
            outputs.append(backwards(y, self._ends) if turned else y)
            final.append(state)
        return (outputs[0] if len(outputs) == 1 else torch.cat(outputs, 2)), final

    def _run(
        self, modules: Sequence[_Module], x: Tensor, initial: Sequence[tuple[Tensor, ...]]
    ) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
        """Outputs [B, T, O], 0 where a sequence has ended, and the modules' final states."""
        values: Any = x
        if self._lengths is not None:
            values = pack_padded_sequence(x, self._lengths, batch_first=True, enforce_sorted=False)
        final = []
        for module, start in zip(modules, initial, strict=True):
            values, state = module(values, start)
            if self._empty is not None:
                state = tuple(map(torch.where, repeat(self._empty), start, state))
            final.append(state)
        if self._lengths is None:
            return values, final
        # Without total_length, the steps after the longest sequence would be missing.
        outputs, _ = pad_packed_sequence(values, batch_first=True, total_length=x.shape[1])
        if self._empty is not None:
            outputs = torch.where(self._empty.unsqueeze(2), 0.0, outputs)
        return outputs, final

    def _loss(self) -> Tensor:
        outputs, _ = self._forward()
        return loss_of(outputs, self._targets)

    def _layer_states(self, state: Any) -> Sequence[Sequence[Tensor]]:
        chains = [
            [layer for module in modules for layer in zip(*reversed(module), strict=True)]
            for modules in state
        ]
        # Neighbours are the two directions of a depth: of two stacks, one of each in turn.
        return list(chain.from_iterable(zip(*chains, strict=True)))


def _places(group: Sequence[Layer]) -> tuple[int, ...]:
    """Identity of modules: whose weights they have."""
    return tuple(layer.weights for layer in group)


def build_fused(case: Case, mode: Mode, device: torch.device, _stage: Stage) -> FusedRunner:
    """Modules of torch.nn, which pack sequences where they are ragged."""
    return FusedRunner(case, mode, device)


def build_packed(case: Case, mode: Mode, device: torch.device, _stage: Stage) -> FusedRunner:
    """Modules of torch.nn, which pack sequences always."""
    return FusedRunner(case, mode, device, packed=True)
