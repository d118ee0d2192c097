"""Layouts of TensorFlow's variables, by their names, in order of creation.

A kernel has the rows of the inputs above those of the state, and the gates side by side: r and u in
the GRU; i, g, f and o in the LSTM, there called i, j, f, o.
"""

from __future__ import annotations

from collections.abc import Callable

from backends.layout import Fused, Layout, one
from backends.spec import (
    Attention,
    BasicLstm,
    BidirectionalGrid,
    Cell,
    Coupled,
    Grid,
    Gru,
    GruResetAfter,
    Lstm,
    Rnn,
    TimeFreq,
    Wrapper,
)
from backends.stack import Layer

_WU = ("W", "U")
_WUV = ("W", "U", "V")
_LSTM = ("i", "g", "f", "o")


def layout(layer: Layer) -> Layout:
    """The variables of a layer: a wrapper's own, then those of the cell that it is around."""
    own = own_layout(layer)
    if not isinstance(layer.cell, Wrapper):
        return own
    inner = layout(layer.inner())
    return {**own, **{f"cell/{name}": fused for name, fused in inner.items()}}


def own_layout(layer: Layer) -> Layout:
    """The variables of a layer without those of a wrapped cell."""
    own = _OWN.get(type(layer.cell))
    return {} if own is None else own(layer)


def _rnn(_layer: Layer) -> Layout:
    return {"kernel": Fused(_WU, ("h",)), "bias": one("b_h")}


def _lstm(layer: Layer) -> Layout:
    variables = {"kernel": Fused(_WU, _LSTM), "bias": Fused(("b",), _LSTM)}
    if layer.of(Lstm).peepholes:
        variables |= {f"w_{gate}_diag": one(f"p_{gate}") for gate in "fio"}
    return variables | ({"projection/kernel": one("Q_h")} if "Q_h" in layer.blocks else {})


def _gru(_layer: Layer) -> Layout:
    return {
        "gates/kernel": Fused(_WU, ("r", "u")),
        "gates/bias": Fused(("b",), ("r", "u")),
        "candidate/kernel": Fused(_WU, ("c",)),
        "candidate/bias": one("b_c"),
    }


def _gru_reset_after(_layer: Layer) -> Layout:
    return {
        "gates/kernel": Fused(_WU, ("r", "u")),
        "gates/bias": Fused(("b",), ("r", "u")),
        "candidate/input_projection/kernel": one("W_c"),
        "candidate/input_projection/bias": one("b_c"),
        "candidate/hidden_projection/kernel": one("U_c"),
        "candidate/hidden_projection/bias": one("b_hc"),
    }


#: Scopes of the layer normalisation in CoupledInputForgetGateLSTMCell.
NORMALISED = {"g": "transform", "f": "forget", "o": "output", "c": "state"}


def _coupled(layer: Layer) -> Layout:
    gates = ("g", "f", "o")
    variables = {"W": Fused(_WU, gates)}
    if layer.of(Coupled).layer_norm:
        for gate, scope in NORMALISED.items():
            variables |= {f"{scope}/{kind}": one(f"{kind}_{gate}") for kind in ("gamma", "beta")}
    else:
        variables |= {"B": Fused(("b",), gates)}
    if layer.of(Coupled).peepholes:
        variables |= {f"W_{gate.upper()}_diag": one(f"p_{gate}") for gate in "fo"}
    return variables | ({"W_P": one("Q_h")} if "Q_h" in layer.blocks else {})


def _time_freq(layer: Layer) -> Layout:
    variables = {"W": Fused(_WUV, _LSTM), "B": Fused(("b",), _LSTM)}
    if layer.of(TimeFreq).peepholes:
        variables |= {f"W_{gate.upper()}_diag": one(f"p_{gate}") for gate in "fio"}
    return variables


def _grid(layer: Layer) -> Layout:
    return _grid_variables(layer.of(Grid), layer.inputs)


def _bidirectional_grid(layer: Layer) -> Layout:
    one_way = _grid_variables(layer.of(BidirectionalGrid).grid, layer.inputs)
    return {
        f"{way}d/{name}": Fused(fused.kinds, tuple(f"{way}.{gate}" for gate in fused.gates))
        for way in ("fw", "bw")
        for name, fused in one_way.items()
    }


def _grid_variables(cell: Grid, inputs: int) -> dict[str, Fused]:
    """Of each part b: W_f_b, B_f_b, W_t_b, B_t_b, and peepholes, for instance W_I_diag_freqt_b."""
    ways = {"f": "freq", "t": "time"}
    variables: dict[str, Fused] = {}
    for scope in cell.sets(inputs):
        way, b = scope[0], scope[1:]
        gates = tuple(f"{scope}.{gate}" for gate in cell.gates)
        variables |= {f"W_{way}_{b}": Fused(_WUV, gates), f"B_{way}_{b}": Fused(("b",), gates)}
        if cell.peepholes:
            variables |= {
                f"W_{gate.upper()}_diag_{ways[way]}{at}_{b}": one(f"p_{scope}.{gate}.{at}")
                for gate in cell.gates
                if gate != "g"
                for at in "ft"
            }
    return variables


def _attention(_layer: Layer) -> Layout:
    """`attn_w` is the matrix [A, A] that TensorFlow 1 held as the filter of a convolution."""
    return {
        "kernel": Fused(("X", "A"), ("in",)),
        "bias": one("b_in"),
        "attention/attn_w": one("M_att"),
        "attention/attn_v": one("v_att"),
        "attention/kernel": one("Q_att"),
        "attention/bias": one("b_att"),
        "attn_output_projection/kernel": Fused(("Y", "A"), ("out",)),
        "attn_output_projection/bias": one("b_out"),
    }


_OWN: dict[type[Cell], Callable[[Layer], Layout]] = {
    Rnn: _rnn,
    Lstm: _lstm,
    BasicLstm: _lstm,
    Gru: _gru,
    GruResetAfter: _gru_reset_after,
    Coupled: _coupled,
    TimeFreq: _time_freq,
    Grid: _grid,
    BidirectionalGrid: _bidirectional_grid,
    Attention: _attention,
}
