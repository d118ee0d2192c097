"""The registry of cells: a name for a cell with its options, and what a stack of layers is made of.

Equations are in `docs/cells.md` and, executable, in `backends/reference/cells.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from backends.spec import (
    Attention,
    BasicLstm,
    BidirectionalGrid,
    Cell,
    Coupled,
    Dropout,
    Grid,
    Gru,
    GruResetAfter,
    Lstm,
    Residual,
    Rnn,
    TimeFreq,
)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A name that a case can have.

    Layer l is `cells[l % len(cells)]`, of `hidden[l % len(hidden)]` units; None means the case's.
    `shared` says that all layers are one object, with one set of weights.
    """

    title: str
    cells: tuple[Cell, ...]
    hidden: tuple[int | None, ...] = (None,)
    shared: bool = False


def _one(title: str, cell: Cell) -> Entry:
    """All layers alike."""
    return Entry(title=title, cells=(cell,))


_CLIP = 0.25

CELLS: dict[str, Entry] = {
    "rnn": _one("vanilla RNN, tanh (TensorFlow BasicRNNCell)", Rnn()),
    "rnn-relu": _one("vanilla RNN, relu", Rnn(activation="relu")),
    "basic-lstm": _one("LSTM with a forget bias (TensorFlow BasicLSTMCell)", BasicLstm()),
    "lstm": _one("LSTM (TensorFlow LSTMCell; same equations, another class)", Lstm()),
    "lstm-relu": _one("LSTM with relu in place of both tanh", Lstm(activation="relu")),
    "lstm-peephole": _one("LSTM whose gates see the cell", Lstm(peepholes=True)),
    "lstm-clip": _one(f"LSTM, cell clipped at {_CLIP}", Lstm(cell_clip=_CLIP)),
    "lstm-projection": _one("LSTM, output projected to half", Lstm(projection="half")),
    "lstm-projection-clip": _one(
        "LSTM, output projected to half and clipped at 0.1",
        Lstm(projection="half", projection_clip=0.1),
    ),
    "lstm-full": _one(
        "LSTM with peepholes, both clips and projection",
        Lstm(peepholes=True, cell_clip=_CLIP, projection="half", projection_clip=0.1),
    ),
    "gru": _one("GRU, reset before the product (TensorFlow GRUCell)", Gru()),
    "gru-relu": _one("GRU, reset before the product, relu", Gru(activation="relu")),
    "gru-reset-after": _one(
        "GRU, reset after the product (torch nn.GRU, cuDNN, Keras default)", GruResetAfter()
    ),
    "coupled": _one("CoupledInputForgetGateLSTMCell: i = 1 - f", Coupled()),
    "coupled-layer-norm": _one(
        "the same with peepholes and layer normalisation", Coupled(peepholes=True, layer_norm=True)
    ),
    "coupled-full": _one(
        "the same with peepholes, projection and its clip",
        Coupled(peepholes=True, projection="half", projection_clip=0.1),
    ),
    "time-freq": _one("TimeFreqLSTMCell: one LSTM over frequency in a step", TimeFreq()),
    "time-freq-peephole": _one(
        "the same with peepholes and cell clip", TimeFreq(peepholes=True, cell_clip=_CLIP)
    ),
    "grid": _one("GridLSTMCell: an LSTM along frequency and one along time", Grid()),
    "grid-shared": _one("the same, one set of weights for both", Grid(shared=True)),
    "grid-coupled": _one("GridLSTMCell, i = 1 - f", Grid(coupled=True)),
    "grid-peephole": _one(
        "GridLSTMCell with peepholes and cell clip", Grid(peepholes=True, cell_clip=_CLIP)
    ),
    "grid-blocks": _one(
        "GridLSTMCell over two halves of the inputs, each with its weights",
        Grid(frequency_blocks=2),
    ),
    "bidirectional-grid": _one(
        "BidirectionalGridLSTMCell: the windows forth and back",
        BidirectionalGrid(grid=Grid(), offset=1),
    ),
    "attention-lstm": _one(
        "AttentionCellWrapper around the LSTM, window 4", Attention(cell=BasicLstm(), window=4)
    ),
    "attention-gru": _one(
        "AttentionCellWrapper around the GRU, window 4", Attention(cell=Gru(), window=4)
    ),
    "residual-lstm": _one("ResidualWrapper around the LSTM", Residual(cell=Lstm())),
    "residual-gru": _one("ResidualWrapper around the GRU", Residual(cell=Gru())),
    "dropout-lstm": _one(
        "DropoutWrapper around the LSTM: inputs, state and outputs, masks given",
        Dropout(cell=Lstm(), input_keep=0.8, state_keep=0.9, output_keep=0.7),
    ),
    "dropout-variational": _one(
        "the same, variational: one mask for all steps and sequences",
        Dropout(cell=Lstm(), input_keep=0.8, state_keep=0.9, output_keep=0.7, variational=True),
    ),
    "lstm-shared": Entry(
        title="[cell] * n: one LSTM object as every layer", cells=(Lstm(),), shared=True
    ),
    "mixed": Entry(
        title="layers of different cells in turn: LSTM with projection, GRU, vanilla RNN",
        cells=(Lstm(projection="half"), Gru(), Rnn()),
    ),
}
