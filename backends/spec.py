"""Specification of a cell, free of any framework: options, weights, state and products.

A class here is a cell with its options. What it computes is a function of the same name in lower
case in the `cells.py` of every framework and of the reference.

Letters as in `backends.api`, and R for the recurrent width: P where a cell projects, else H.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

Shape = tuple[int, ...]
Activation = Literal["tanh", "relu"]

#: A width: a number, or half of the hidden units.
Width = int | Literal["half"]


@dataclass(frozen=True, kw_only=True)
class StepProduct:
    """A product [B, k] x [k, n], done `times` times in a step of time.

    `hoisted` says that it does not depend on the recurrence: all steps at once can be one product.
    """

    k: int
    n: int
    times: int = 1
    hoisted: bool = False


@dataclass(frozen=True, kw_only=True)
class Cell(ABC):
    """One step of recurrence, for any number of inputs I and hidden units H."""

    @abstractmethod
    def blocks(self, inputs: int, hidden: int) -> dict[str, Shape]:
        """Canonical weights: name `<kind>_<gate>` -> shape, in the order in which they are drawn.

        Matrices multiply row vectors from the right: a pre-activation is x W + h U + b.
        """

    @abstractmethod
    def state(self, inputs: int, hidden: int) -> dict[str, int]:
        """Name -> width of each array [B, width] of the state, in TensorFlow's order."""

    @abstractmethod
    def outputs(self, inputs: int, hidden: int) -> int:
        """Width O of the output."""

    @abstractmethod
    def products(self, inputs: int, hidden: int) -> tuple[StepProduct, ...]:
        """The matrix products of one step, those that can be hoisted first."""

    def refusal(self, inputs: int, hidden: int) -> str | None:
        """Reason why the cell cannot have these sizes, or None."""
        return None

    @property
    def forgets(self) -> bool:
        """Whether the case's forget bias is added to what goes into the gates named "f"."""
        return False


def _gate_blocks(
    gates: Iterable[str], rows: dict[str, int], hidden: int, *, bias: bool = True
) -> dict[str, Shape]:
    """Per gate one matrix [rows, H] for each kind, then its bias [H]."""
    blocks: dict[str, Shape] = {}
    for gate in gates:
        blocks |= {f"{kind}_{gate}": (count, hidden) for kind, count in rows.items()}
        if bias:
            blocks[f"b_{gate}"] = (hidden,)
    return blocks


def _width(width: Width, hidden: int) -> int:
    return max(1, hidden // 2) if width == "half" else width


# --- basic cells ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Rnn(Cell):
    """Vanilla RNN: TensorFlow's BasicRNNCell."""

    activation: Activation = "tanh"

    def blocks(self, inputs: int, hidden: int) -> dict[str, Shape]:
        return _gate_blocks("h", {"W": inputs, "U": hidden}, hidden)

    def state(self, inputs: int, hidden: int) -> dict[str, int]:
        return {"h": hidden}

    def outputs(self, inputs: int, hidden: int) -> int:
        return hidden

    def products(self, inputs: int, hidden: int) -> tuple[StepProduct, ...]:
        return StepProduct(k=inputs, n=hidden, hoisted=True), StepProduct(k=hidden, n=hidden)


@dataclass(frozen=True, kw_only=True)
class Gru(Cell):
    """GRU with the reset before the product: TensorFlow's GRUCell."""

    activation: Activation = "tanh"

    def blocks(self, inputs: int, hidden: int) -> dict[str, Shape]:
        return _gate_blocks("ruc", {"W": inputs, "U": hidden}, hidden)

    def state(self, inputs: int, hidden: int) -> dict[str, int]:
        return {"h": hidden}

    def outputs(self, inputs: int, hidden: int) -> int:
        return hidden

    def products(self, inputs: int, hidden: int) -> tuple[StepProduct, ...]:
        # r must be there before r h can be multiplied: two recurrent products a step.
        return (
            StepProduct(k=inputs, n=3 * hidden, hoisted=True),
            StepProduct(k=hidden, n=2 * hidden),
            StepProduct(k=hidden, n=hidden),
        )


@dataclass(frozen=True, kw_only=True)
class GruResetAfter(Cell):
    """GRU with the reset after the product: nn.GRU, cuDNN, Keras' default."""

    def blocks(self, inputs: int, hidden: int) -> dict[str, Shape]:
        return {**_gate_blocks("ruc", {"W": inputs, "U": hidden}, hidden), "b_hc": (hidden,)}

    def state(self, inputs: int, hidden: int) -> dict[str, int]:
        return {"h": hidden}

    def outputs(self, inputs: int, hidden: int) -> int:
        return hidden

    def products(self, inputs: int, hidden: int) -> tuple[StepProduct, ...]:
        return (
            StepProduct(k=inputs, n=3 * hidden, hoisted=True),
            StepProduct(k=hidden, n=3 * hidden),
        )


@dataclass(frozen=True, kw_only=True)
class Projecting(Cell):
    """Common part of the LSTM and the coupled cell: a state (c, h); h may be projected to P."""

    projection: Width | None = None
    projection_clip: float | None = None

    @property
    def forgets(self) -> bool:
        return True

    def recurrent(self, hidden: int) -> int:
        """R: the width of h."""
        return hidden if self.projection is None else _width(self.projection, hidden)

    def state(self, inputs: int, hidden: int) -> dict[str, int]:
        return {"c": hidden, "h": self.recurrent(hidden)}

    def outputs(self, inputs: int, hidden: int) -> int:
        return self.recurrent(hidden)

    def refusal(self, inputs: int, hidden: int) -> str | None:
        if self.projection is None or self.recurrent(hidden) >= 1:
            return None
        return f"projection={self.projection}: must be 1 or more"

    def _projection_blocks(self, hidden: int) -> dict[str, Shape]:
        return {} if self.projection is None else {"Q_h": (hidden, self.recurrent(hidden))}

    def _products(self, inputs: int, hidden: int, gates: int) -> tuple[StepProduct, ...]:
        wide, narrow = gates * hidden, self.recurrent(hidden)
        projection = () if self.projection is None else (StepProduct(k=hidden, n=narrow),)
        return (
            StepProduct(k=inputs, n=wide, hoisted=True),
            StepProduct(k=narrow, n=wide),
            *projection,
        )


@dataclass(frozen=True, kw_only=True)
class Lstm(Projecting):
    """LSTM: TensorFlow's LSTMCell with its options."""

    peepholes: bool = False
    cell_clip: float | None = None
    activation: Activation = "tanh"

    def blocks(self, inputs: int, hidden: int) -> dict[str, Shape]:
        blocks = _gate_blocks("igfo", {"W": inputs, "U": self.recurrent(hidden)}, hidden)
        if self.peepholes:
            blocks |= {f"p_{gate}": (hidden,) for gate in "ifo"}
        return blocks | self._projection_blocks(hidden)

    def products(self, inputs: int, hidden: int) -> tuple[StepProduct, ...]:
        return self._products(inputs, hidden, gates=4)


@dataclass(frozen=True, kw_only=True)
class BasicLstm(Lstm):
    """The LSTM without options: TensorFlow's BasicLSTMCell."""


@dataclass(frozen=True, kw_only=True)
class Coupled(Projecting):
    """LSTM whose input gate is one minus its forget gate: CoupledInputForgetGateLSTMCell.

    With `layer_norm` the gates have no bias: the published cell makes one and does not add it.
    """

    peepholes: bool = False
    layer_norm: bool = False

    def blocks(self, inputs: int, hidden: int) -> dict[str, Shape]:
        rows = {"W": inputs, "U": self.recurrent(hidden)}
        blocks = _gate_blocks("gfo", rows, hidden, bias=not self.layer_norm)
        if self.layer_norm:
            names = (f"{kind}_{of}" for of in "gfoc" for kind in ("gamma", "beta"))
            blocks |= dict.fromkeys(names, (hidden,))
        if self.peepholes:
            blocks |= {f"p_{gate}": (hidden,) for gate in "fo"}
        return blocks | self._projection_blocks(hidden)

    def products(self, inputs: int, hidden: int) -> tuple[StepProduct, ...]:
        return self._products(inputs, hidden, gates=3)


# --- frequency cells ------------------------------------------------------------------------------


def _windows(start: int, end: int, size: int, skip: int) -> tuple[int, ...]:
    """Start of each window of `size` features, of those from `start` on and before `end`."""
    return tuple(range(start, end - size + 1, skip))


@dataclass(frozen=True, kw_only=True)
class Windowed(Cell):
    """Cell that reads windows of `feature_size` inputs, each `frequency_skip` after the last.

    A feature size of None is a quarter of the inputs, a skip of None the feature size.
    """

    feature_size: int | None = None
    frequency_skip: int | None = None
    peepholes: bool = False
    cell_clip: float | None = None

    @property
    def forgets(self) -> bool:
        return True

    def size(self, inputs: int) -> int:
        """Features S of a window."""
        return self.feature_size or max(1, inputs // 4)

    def skip(self, inputs: int) -> int:
        """Features from the start of a window to that of the next."""
        return self.frequency_skip or self.size(inputs)


@dataclass(frozen=True, kw_only=True)
class TimeFreq(Windowed):
    """One LSTM that goes over frequency within a step of time: TimeFreqLSTMCell."""

    def windows(self, inputs: int) -> tuple[int, ...]:
        """Start of each of the N windows."""
        return _windows(0, inputs, self.size(inputs), self.skip(inputs))

    def blocks(self, inputs: int, hidden: int) -> dict[str, Shape]:
        rows = {"W": self.size(inputs), "U": hidden, "V": hidden}
        blocks = _gate_blocks("igfo", rows, hidden)
        return blocks | ({f"p_{gate}": (hidden,) for gate in "ifo"} if self.peepholes else {})

    def state(self, inputs: int, hidden: int) -> dict[str, int]:
        return {f"{name}_{k}": hidden for k in range(len(self.windows(inputs))) for name in "cm"}

    def outputs(self, inputs: int, hidden: int) -> int:
        return hidden * len(self.windows(inputs))

    def products(self, inputs: int, hidden: int) -> tuple[StepProduct, ...]:
        n = len(self.windows(inputs))
        # What comes along frequency is 0 in the first window, and multiplied by everybody.
        return (
            StepProduct(k=self.size(inputs), n=4 * hidden, times=n, hoisted=True),
            StepProduct(k=2 * hidden, n=4 * hidden, times=n),
        )

    def refusal(self, inputs: int, hidden: int) -> str | None:
        if self.windows(inputs):
            return None
        return f"inputs={inputs}: narrower than a window of {self.size(inputs)} features"


@dataclass(frozen=True, kw_only=True)
class Grid(Windowed):
    """Two LSTMs, along frequency and along time, for each window: GridLSTMCell.

    `frequency_blocks` cuts the inputs into as many parts with weights of their own, or says where
    each part begins and ends.
    """

    frequency_blocks: int | tuple[tuple[int, int], ...] = 1
    shared: bool = False
    coupled: bool = False

    @property
    def gates(self) -> tuple[str, ...]:
        return ("i", "g", "o") if self.coupled else ("i", "g", "f", "o")

    @property
    def matrices(self) -> tuple[str, ...]:
        """The sets of weights of a part: for frequency "f", and for time "t" unless shared."""
        return ("f",) if self.shared else ("f", "t")

    def windows(self, inputs: int) -> tuple[tuple[int, ...], ...]:
        """Start of each window of each part."""
        if isinstance(self.frequency_blocks, int):
            n = self.frequency_blocks
            parts: Sequence[tuple[int, int]] = [
                (b * inputs // n, (b + 1) * inputs // n) for b in range(n)
            ]
        else:
            parts = self.frequency_blocks
        return tuple(_windows(*part, self.size(inputs), self.skip(inputs)) for part in parts)

    def sets(self, inputs: int) -> Iterator[str]:
        """Prefixes of the gates of each set of weights: "f0", "t0", "f1"..."""
        for b in range(len(self.windows(inputs))):
            yield from (f"{kind}{b}" for kind in self.matrices)

    def blocks(self, inputs: int, hidden: int) -> dict[str, Shape]:
        rows = {"W": self.size(inputs), "U": hidden, "V": hidden}
        blocks: dict[str, Shape] = {}
        for prefix in self.sets(inputs):
            blocks |= _gate_blocks((f"{prefix}.{gate}" for gate in self.gates), rows, hidden)
            if self.peepholes:
                looking = [gate for gate in self.gates if gate != "g"]
                blocks |= {f"p_{prefix}.{gate}.{at}": (hidden,) for gate in looking for at in "ft"}
        return blocks

    def state(self, inputs: int, hidden: int) -> dict[str, int]:
        return {
            f"{name}_{b}.{k}": hidden
            for b, windows in enumerate(self.windows(inputs))
            for k in range(len(windows))
            for name in "cm"
        }

    def outputs(self, inputs: int, hidden: int) -> int:
        return 2 * hidden * sum(len(windows) for windows in self.windows(inputs))

    def products(self, inputs: int, hidden: int) -> tuple[StepProduct, ...]:
        times = sum(len(windows) for windows in self.windows(inputs))
        n = len(self.matrices) * len(self.gates) * hidden
        return (
            StepProduct(k=self.size(inputs), n=n, times=times, hoisted=True),
            StepProduct(k=2 * hidden, n=n, times=times),
        )

    def refusal(self, inputs: int, hidden: int) -> str | None:
        if all(self.windows(inputs)):
            return None
        size = self.size(inputs)
        return f"inputs={inputs}: a part of them is narrower than a window of {size} features"


@dataclass(frozen=True, kw_only=True)
class BidirectionalGrid(Cell):
    """A grid over the windows, and another, with weights of its own, over them in reverse.

    BidirectionalGridLSTMCell. Of the second one all windows are shifted: by `offset` to the right
    over inputs with as many zeros behind them, or, for a negative offset, not shifted over inputs
    with as many zeros before them.
    """

    grid: Grid
    offset: int = 0

    @property
    def forgets(self) -> bool:
        return True

    def blocks(self, inputs: int, hidden: int) -> dict[str, Shape]:
        one = self.grid.blocks(inputs, hidden)
        return {prefixed(way, name): shape for way in ("fw", "bw") for name, shape in one.items()}

    def state(self, inputs: int, hidden: int) -> dict[str, int]:
        one = self.grid.state(inputs, hidden)
        return {prefixed(way, name): width for way in ("fw", "bw") for name, width in one.items()}

    def outputs(self, inputs: int, hidden: int) -> int:
        return 2 * self.grid.outputs(inputs, hidden)

    def products(self, inputs: int, hidden: int) -> tuple[StepProduct, ...]:
        return tuple(
            replace(product, times=2 * product.times)
            for product in self.grid.products(inputs, hidden)
        )

    def refusal(self, inputs: int, hidden: int) -> str | None:
        return self.grid.refusal(inputs, hidden)


def prefixed(prefix: str, name: str) -> str:
    """The name of a block or state with the gate in a scope: "W_f0.i" -> "W_fw.f0.i"."""
    kind, _, gate = name.partition("_")
    return f"{kind}_{prefix}.{gate}"


# --- wrappers -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Wrapper(Cell):
    """Cell around another cell, whose inputs, outputs or state it may change."""

    cell: Cell

    @property
    def forgets(self) -> bool:
        return self.cell.forgets

    def inner_inputs(self, inputs: int, hidden: int) -> int:
        """Inputs of the wrapped cell."""
        return inputs

    def blocks(self, inputs: int, hidden: int) -> dict[str, Shape]:
        return self.cell.blocks(inputs, hidden)

    def state(self, inputs: int, hidden: int) -> dict[str, int]:
        return self.cell.state(inputs, hidden)

    def outputs(self, inputs: int, hidden: int) -> int:
        return self.cell.outputs(inputs, hidden)

    def products(self, inputs: int, hidden: int) -> tuple[StepProduct, ...]:
        return self.cell.products(inputs, hidden)

    def refusal(self, inputs: int, hidden: int) -> str | None:
        if isinstance(self.cell, Dropout):
            return "dropout goes around other wrappers: its masks stand behind a layer's inputs"
        return self.cell.refusal(inputs, hidden)


@dataclass(frozen=True, kw_only=True)
class Residual(Wrapper):
    """y = x + cell(x): TensorFlow's ResidualWrapper."""

    def refusal(self, inputs: int, hidden: int) -> str | None:
        outputs = self.cell.outputs(inputs, hidden)
        if inputs != outputs:
            return f"a residual adds inputs to outputs, and got {inputs} and {outputs} of them"
        return super().refusal(inputs, hidden)


@dataclass(frozen=True, kw_only=True)
class Dropout(Wrapper):
    """Inputs, state and outputs times masks: TensorFlow's DropoutWrapper.

    A mask is 0, or 1 / keep with probability `keep`. Masks are data, drawn with the batch, so that
    everybody drops the same: they stand behind the features, one column an entry. With
    `variational` they are the same at every step and for every sequence. The state's c is kept
    whole, as in TensorFlow.
    """

    input_keep: float = 1.0
    state_keep: float = 1.0
    output_keep: float = 1.0
    variational: bool = False

    def masks(self, inputs: int, hidden: int) -> dict[str, tuple[int, float]]:
        """Dropped parts: "input", "state", "output" -> columns of its mask, keep probability."""
        state = self.cell.state(inputs, hidden)
        widths = {
            "input": (inputs, self.input_keep),
            "state": (sum(state[name] for name in self.dropped(state)), self.state_keep),
            "output": (self.cell.outputs(inputs, hidden), self.output_keep),
        }
        return {part: (width, keep) for part, (width, keep) in widths.items() if keep < 1}

    @staticmethod
    def dropped(state: Iterable[str]) -> list[str]:
        """The names of a state that are dropped."""
        return [name for name in state if name != "c"]


@dataclass(frozen=True, kw_only=True)
class Attention(Wrapper):
    """Attention over the last `window` outputs of a cell: AttentionCellWrapper.

    A = V = the cell's outputs, and the cell has as many inputs as the wrapper.
    """

    window: int

    def blocks(self, inputs: int, hidden: int) -> dict[str, Shape]:
        a = self.cell.outputs(inputs, hidden)
        query = sum(self.cell.state(inputs, hidden).values())
        return {
            "X_in": (inputs, inputs),
            "A_in": (a, inputs),
            "b_in": (inputs,),
            **self.cell.blocks(inputs, hidden),
            "M_att": (a, a),
            "v_att": (a,),
            "Q_att": (query, a),
            "b_att": (a,),
            "Y_out": (a, a),
            "A_out": (a, a),
            "b_out": (a,),
        }

    def state(self, inputs: int, hidden: int) -> dict[str, int]:
        a = self.cell.outputs(inputs, hidden)
        return {**self.cell.state(inputs, hidden), "attention": a, "window": self.window * a}

    def products(self, inputs: int, hidden: int) -> tuple[StepProduct, ...]:
        a = self.cell.outputs(inputs, hidden)
        query = sum(self.cell.state(inputs, hidden).values())
        # The cell's inputs hold what was attended to: no product of them can be hoisted. Of the
        # window one row is new in a step; the products of the others are known already.
        return (
            StepProduct(k=inputs, n=inputs, hoisted=True),
            StepProduct(k=a, n=inputs),
            *(replace(p, hoisted=False) for p in self.cell.products(inputs, hidden)),
            StepProduct(k=a, n=a),
            StepProduct(k=query, n=a),
            StepProduct(k=2 * a, n=a),
        )
