"""What each cell is made of: gates, state and where its equations come from. No framework.

Equations are in `docs/cells.md` and, executable, in `backends/reference/cells.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from backends.api import Case, CellName


@dataclass(frozen=True, kw_only=True)
class CellSpec:
    """The shape of a cell's weights and state.

    `gates` is the canonical order of the weight blocks; `state` the names of the state arrays, the
    one that is also the output last.
    """

    name: CellName
    title: str
    gates: tuple[str, ...]
    state: tuple[str, ...]
    extra_biases: tuple[str, ...] = ()

    def parameters(self, case: Case) -> int:
        """Number of trainable values of the case, one effective bias a gate."""
        g, h = len(self.gates), case.hidden
        return sum(
            (case.layer_inputs(layer) + h) * g * h + (g + len(self.extra_biases)) * h
            for layer in range(case.layers)
        )


_LSTM_GATES = ("i", "g", "f", "o")

CELLS: dict[CellName, CellSpec] = {
    spec.name: spec
    for spec in (
        CellSpec(
            name="rnn",
            title="vanilla RNN, tanh (TensorFlow BasicRNNCell)",
            gates=("h",),
            state=("h",),
        ),
        CellSpec(
            name="basic-lstm",
            title="LSTM with a forget bias (TensorFlow BasicLSTMCell)",
            gates=_LSTM_GATES,
            state=("c", "h"),
        ),
        CellSpec(
            name="lstm",
            title="LSTM (TensorFlow LSTMCell; same equations, another class)",
            gates=_LSTM_GATES,
            state=("c", "h"),
        ),
        CellSpec(
            name="gru",
            title="GRU, reset before the product (TensorFlow GRUCell)",
            gates=("r", "u", "c"),
            state=("h",),
        ),
        CellSpec(
            name="gru-reset-after",
            title="GRU, reset after the product (torch nn.GRU, cuDNN, Keras default)",
            gates=("r", "u", "c"),
            state=("h",),
            extra_biases=("b_hc",),
        ),
    )
}
