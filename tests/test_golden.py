"""TensorFlow 1's published cells against every implementation, through the public function."""

from __future__ import annotations

import re
from itertools import permutations

import numpy as np
import pytest

import backends
from backends.api import CELL_NAMES, Case, Expected, Implementation, Unsupported
from backends.cells import CELLS
from backends.layout import Fused
from backends.reference.network import forward
from backends.spec import Dropout
from backends.stack import Layer, layers
from bench.outputs import check_forward
from tests import golden
from tests.support import NETWORKS, SLOW_TO_BUILD, on

VECTORS = {name: golden.load(name) for name in golden.NAMES}


#: Other loops over the same cells: most vectors have one step.
SAME_CELLS = SLOW_TO_BUILD | {
    entry.name
    for entry in NETWORKS
    if entry.name.startswith(("jax/scan-unroll-", "jax/fori", "tensorflow/dynamic-"))
    and entry.name != "tensorflow/dynamic-block"
}


def pairs() -> list[object]:
    return [
        on(entry, name, name=name, slow=entry.name in SAME_CELLS and name != "lstm_all")
        for entry in NETWORKS
        for name in golden.NAMES
    ]


def assert_published(vector: golden.Vector, output: backends.Output) -> None:
    published = Expected(output=vector.output, loss=0.0, gradients=())
    fault = check_forward(vector.case, output, published).fault
    assert fault is None, fault


@pytest.mark.parametrize("name", golden.NAMES)
def test_the_oracle_is_as_published(name: str) -> None:
    vector = VECTORS[name]
    assert vector.case.dtype == "float64"
    assert_published(vector, forward(vector.case, vector.weights, vector.batch))


@pytest.mark.parametrize(("implementation", "name"), pairs())
def test_an_implementation_is_as_published(implementation: str, name: str) -> None:
    """In float64, or in float32 where an implementation has no float64."""
    entry: Implementation = backends.IMPLEMENTATIONS[implementation]
    if missing := backends.missing(entry.backend):
        pytest.skip(missing)
    vector = VECTORS[name]
    if backends.refusal(implementation, vector.case, "forward") is not None:
        vector = vector.cast("float32")
    reason = backends.refusal(implementation, vector.case, "forward")
    if reason is not None:
        with pytest.raises(Unsupported, match=f"^{re.escape(reason)}$"):
            backends.evaluate(implementation, vector.case, vector.weights, vector.batch)
        return
    assert_published(
        vector, backends.evaluate(implementation, vector.case, vector.weights, vector.batch)
    )


def test_every_kind_of_cell_has_a_vector() -> None:
    """But dropout, of which TensorFlow draws its own masks."""
    kinds = {type(cell) for v in VECTORS.values() for cell in CELLS[v.case.cell].cells}
    published = {type(cell) for name in CELL_NAMES for cell in CELLS[name].cells}
    assert kinds == published - {Dropout}


# --- the layout of the file -----------------------------------------------------------------------


def layer_of(cell: str) -> Layer:
    case = Case(cell=cell, seq_len=1, batch=1, inputs=2, hidden=3)
    return layers(case)[0]


def numbered(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=float).reshape(shape)


def test_a_kernel_has_the_inputs_above_the_state_and_the_gates_side_by_side() -> None:
    kernel, bias = numbered(2 + 3, 4 * 3), numbered(4 * 3)
    blocks = golden.canonical(layer_of("lstm"), {"kernel": kernel, "bias": bias})
    assert set(blocks) == {f"{kind}_{gate}" for kind in "WUb" for gate in "igfo"}
    np.testing.assert_array_equal(blocks["W_g"], kernel[:2, 3:6])
    np.testing.assert_array_equal(blocks["U_o"], kernel[2:, 9:])
    np.testing.assert_array_equal(blocks["b_f"], bias[6:9])
    fused = Fused(("W", "U"), ("i", "g", "f", "o"))
    np.testing.assert_array_equal(fused.pack(blocks), kernel)


def test_a_gru_has_its_candidate_apart() -> None:
    variables = {
        "gates/kernel": numbered(2 + 3, 2 * 3),
        "gates/bias": numbered(2 * 3),
        "candidate/kernel": -numbered(2 + 3, 3),
        "candidate/bias": -numbered(3),
    }
    blocks = golden.canonical(layer_of("gru"), variables)
    np.testing.assert_array_equal(blocks["U_u"], variables["gates/kernel"][2:, 3:])
    np.testing.assert_array_equal(blocks["W_c"], variables["candidate/kernel"][:2])
    np.testing.assert_array_equal(blocks["b_r"], variables["gates/bias"][:3])


def test_the_state_of_an_lstm_is_c_then_h() -> None:
    vector, entry = VECTORS["basic_lstm"], golden.entry("basic_lstm")
    (state,) = vector.output.state
    np.testing.assert_array_equal(state["c"], entry["new_state"][0])
    np.testing.assert_array_equal(state["h"], entry["new_state"][1])
    np.testing.assert_array_equal(state["h"], vector.output.outputs[:, 0])


@pytest.mark.parametrize("order", list(permutations("igfo"))[1:], ids="".join)
def test_a_permutation_of_the_gates_is_noticed(order: tuple[str, ...]) -> None:
    """Weights that are all alike, which published tests have, let most of these pass."""
    vector = VECTORS["basic_lstm"]
    (layer,) = vector.weights
    moved = dict(zip("igfo", order, strict=True))
    blocks = {f"U_{gate}": layer[f"U_{moved[gate]}"] for gate in "igfo"}
    output = forward(vector.case, ({**layer, **blocks},), vector.batch)
    published = Expected(output=vector.output, loss=0.0, gradients=())
    assert check_forward(vector.case, output, published).fault is not None
