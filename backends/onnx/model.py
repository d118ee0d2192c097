"""A case as an ONNX model: its layers are operators one after the other.

Inputs, lengths and initial state are inputs of the graph. Weights are initialisers, as in every
model that is deployed: a session packs them for its products when it is made, where those of an
input are packed again in every call. Values between layers are time-major, [T, B, I].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from backends.api import Array, Case
from backends.onnx.cells import make_operator
from backends.stack import Layer, input_width, layers, output_width

#: Of the operators' last version, which every release of the last years reads.
_OPSET, _IR = 22, 10

#: The layers of one operator: one, or both directions of a depth.
Group = tuple[Layer, ...]


def groups(case: Case) -> tuple[Group, ...]:
    """The operators of a case, in the order of its layers."""
    stack = layers(case)
    count = 2 if case.direction == "bidirectional" else 1
    return tuple(stack[at : at + count] for at in range(0, len(stack), count))


def weight_groups(case: Case) -> dict[str, Group]:
    """Suffix of the names of a set of arrays -> the first operator that has it."""
    found: dict[str, Group] = {}
    for group in groups(case):
        found.setdefault(suffix(group), group)
    return found


def suffix(group: Group) -> str:
    """Suffix of an operator's weights: their places in `backends.api.Weights`."""
    return "_".join(str(layer.weights) for layer in group)


def state_names(group: Group, number: int) -> list[str]:
    """The graph's inputs with the initial state of the operator `number`, in ONNX's order."""
    return [f"{name}{number}" for name in ("h", "c") if name in group[0].state]


class _Graph:
    """Nodes, constants, inputs and outputs, in the order in which they are added."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []

    def add(self, kind: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        """A node with one output; its name."""
        name = out or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def constant(self, value: Any, dtype: str = "int64") -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(value, dtype), name))
        return name

    def input(self, name: str, *shape: int | str, element: int = TensorProto.FLOAT) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, element, shape))
        return name

    def output(self, name: str, *shape: int | str) -> None:
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))


def write(case: Case, weights: Mapping[str, Array]) -> Any:
    """The `ModelProto` of a forward pass, of any B and T.

    `weights` are the operators' W, R, B and P, each name with the `suffix` of its operator. Inputs:
    "x" [B, T, D], "lengths" [B] where ragged, and of each operator its state. Outputs: "outputs"
    [B, T, O], and the final state as "<input>_final" [directions, B, H].
    """
    graph = _Graph()
    x = graph.add("Transpose", graph.input("x", "B", "T", input_width(case)), perm=(1, 0, 2))
    lengths = ""
    if case.lengths != "full":
        lengths = graph.input("lengths", "B", element=TensorProto.INT32)
    for name, value in weights.items():
        graph.constants.append(numpy_helper.from_array(value, name))
    tops = [x, x] if case.direction == "two-stacks" else [x]
    for number, group in enumerate(groups(case)):
        way = number % len(tops)
        tops[way] = _layer(graph, group, number, tops[way], lengths)
    top = tops[0] if len(tops) == 1 else graph.add("Concat", *tops, axis=2)
    graph.add("Transpose", top, out="outputs", perm=(1, 0, 2))
    graph.output("outputs", "B", "T", output_width(case))
    whole = helper.make_graph(
        graph.nodes, "rnn", graph.inputs, graph.outputs, initializer=graph.constants
    )
    model = helper.make_model(
        whole, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR
    )
    onnx.checker.check_model(model)
    return model


def _layer(graph: _Graph, group: Group, number: int, x: str, lengths: str) -> str:
    """One operator: outputs [T, B, directions * H] of x [T, B, I]; its state goes in and out."""
    first = group[0]
    operator, name = make_operator(first), suffix(group)
    states = [graph.input(s, len(group), "B", first.hidden) for s in state_names(group, number)]
    inputs = [x, f"W{name}", f"R{name}", f"B{name}", lengths, *states]
    if operator.peepholes:
        inputs.append(f"P{name}")
    direction = "bidirectional" if len(group) == 2 else "reverse" if first.reverse else "forward"
    values = f"y{number}"
    finals = [f"{state}_{'computed' if lengths else 'final'}" for state in states]
    node = helper.make_node(
        operator.kind,
        inputs,
        [values, *finals],
        hidden_size=first.hidden,
        direction=direction,
        activations=operator.activations * len(group),
        **dict(operator.attributes),
    )
    graph.nodes.append(node)
    for state, final in zip(states, finals, strict=True):
        if lengths:
            _keep_where_empty(graph, lengths, state, final)
        graph.output(f"{state}_final", len(group), "B", first.hidden)
    if operator.residual:
        values = _add_inputs(graph, x, values, lengths)
    return _side_by_side(graph, values, len(group))


def _keep_where_empty(graph: _Graph, lengths: str, state: str, computed: str) -> None:
    """The operators give zeros as the final state of an empty sequence: it is the initial one."""
    some = graph.add("Greater", lengths, graph.constant(0, "int32"))
    some = graph.add("Unsqueeze", some, graph.constant([0, 2]))  # [1, B, 1]
    graph.add("Where", some, computed, state, out=f"{state}_final")


def _add_inputs(graph: _Graph, x: str, values: str, lengths: str) -> str:
    """[T, directions, B, H] plus x; 0 past a sequence's length, where the inputs are not."""
    total = graph.add("Add", values, graph.add("Unsqueeze", x, graph.constant([1])))
    if not lengths:
        return total
    steps = graph.add("Squeeze", graph.add("Shape", x, start=0, end=1))
    times = graph.add("Range", graph.constant(0), steps, graph.constant(1))
    times = graph.add("Unsqueeze", times, graph.constant([1]))
    alive = graph.add("Less", times, graph.add("Cast", lengths, to=TensorProto.INT64))  # [T, B]
    alive = graph.add("Unsqueeze", alive, graph.constant([1, 3]))
    return graph.add("Where", alive, total, graph.constant(0.0, "float32"))


def _side_by_side(graph: _Graph, values: str, directions: int) -> str:
    """[T, directions, B, H] -> [T, B, directions * H]."""
    if directions == 1:
        return graph.add("Squeeze", values, graph.constant([1]))
    turned = graph.add("Transpose", values, perm=(0, 2, 1, 3))
    return graph.add("Reshape", turned, graph.constant([0, 0, -1]))
