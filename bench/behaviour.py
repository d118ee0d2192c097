"""Behaviour of an implementation, at any cost: one small experiment a fact.

A behaviour record's values are errors and differences (largest absolute ones), counts, and 1 or 0
for a yes or no; a name is absent where it does not apply. n_b is the length of sequence b, or T. In
mode "forward":

    parameters, weight_sets     scalars of the weights, and sets of them
    repeat_largest              outputs of two calls with the same inputs, one less the other
    padding_largest             outputs at t >= n_b
    held_error                  final state against the oracle's, which is that after n_b steps
    unlengthed_state_error      the same of a runner that is given no lengths
    unlengthed_output_error     outputs at t < n_b of that runner
    last_output_error           last output of each sequence against h of the top layer
    last_output_cell_error      and against c, which is something else
    output_count, state_count   of a bidirectional layer: widths H of its outputs, final states
    forward_end_error           its forward outputs at n_b - 1 against the forward final h
    backward_end_error          its backward outputs at 0 against the backward final h
    backward_last_difference    its backward outputs at n_b - 1 against the same: something else
    other_gru_error             outputs against the other GRU's of the same weights: something else
    gate_order_error            the framework's own class, packed in its own order of gates
    other_order_error           the same in another framework's order: something else
    moved_bias_difference       the bias in one of two vectors, or in the other
    dropped_digest              a number from every bit of what the class computes with dropout of
                                its own, drawn from a seed: other bits give another number
    undropped_digest            the same without dropout
    longer_refused              whether the framework refuses T + 1 steps of what was built for T
    longer_error                where it computes: outputs against the oracle's of T + 1

In mode "train": `parameters`, `weight_sets`, and what `bench.decay` finds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

import backends
from backends.api import Array, Output, State
from backends.data import make_batch
from backends.spec import Wrapper
from backends.stack import Layer, layers, weight_layers
from bench.decay import decay
from bench.expectation import compute_output
from bench.outputs import difference, parts_difference
from bench.subject import Subject

Values = dict[str, float]

#: An experiment on a subject that is built and loaded, and its outputs; {} where it is none for it.
Experiment = Callable[[Subject, Output], Values]

#: Characters of what a framework says that are kept.
LONGEST_SAID = 300


@dataclass(frozen=True, kw_only=True)
class Seen:
    """`values` by name, and in words what a framework said: "longer" where it refused T + 1."""

    values: Mapping[str, float]
    told: Mapping[str, str] = field(default_factory=dict)


def observe(subject: Subject) -> Seen:
    """All experiments on a subject that is built; leaves it with another batch.

    Of outputs or state in another shape than expected nothing more is asked.
    """
    values = _weights(subject)
    if subject.mode == "train":
        return Seen(values=values | decay(subject))
    subject.load()
    output = subject.output()
    if not _is_shaped(output, subject.expected.output):
        return Seen(values=values)
    for experiment in _EXPERIMENTS:
        values |= experiment(subject, output)
    # Last: what refuses may be left in any state.
    found, said = longer(subject)
    return Seen(values=values | found, told={"longer": said} if said else {})


def _weights(subject: Subject) -> Values:
    weights = subject.runner.weights()
    scalars = sum(np.asarray(array).size for blocks in weights for array in blocks.values())
    return {"parameters": float(scalars), "weight_sets": float(len(weights))}


def _is_shaped(output: Output, expected: Output) -> bool:
    def shapes(state: State) -> list[dict[str, tuple[int, ...]]]:
        return [{name: array.shape for name, array in layer.items()} for layer in state]

    return output.outputs.shape == expected.outputs.shape and shapes(output.state) == shapes(
        expected.state
    )


def _largest(values: Array) -> float:
    return float(np.abs(np.asarray(values, np.float64)).max(initial=0.0))


def _lengths(subject: Subject) -> Array:
    """n_b of each sequence [B]."""
    lengths = subject.batch.lengths
    return np.full(subject.case.batch, subject.case.seq_len) if lengths is None else lengths


def _alive(subject: Subject) -> Array:
    """Mask [B, T] of the steps t < n_b."""
    alive: Array = np.arange(subject.case.seq_len) < _lengths(subject)[:, None]
    return alive


def _at_end(subject: Subject, outputs: Array, state: Array) -> float:
    """Largest difference of outputs [B, T, n] at n_b - 1 and a state [B, n]; none of n_b = 0."""
    ends = _lengths(subject)
    some = np.flatnonzero(ends)
    return _largest(outputs[some, ends[some] - 1] - state[some])


def _repeat(subject: Subject, output: Output) -> Values:
    return {"repeat_largest": difference(subject.output().outputs, output.outputs).absolute}


def _padding(subject: Subject, output: Output) -> Values:
    if subject.batch.lengths is None:
        return {}
    return {
        "padding_largest": _largest(output.outputs[~_alive(subject)]),
        "held_error": parts_difference(output.state, subject.expected.output.state).absolute,
    }


def _unlengthed(subject: Subject, _output: Output) -> Values:
    """Compare a padded batch without lengths with the ragged one."""
    case = replace(subject.case, lengths="full")
    refused = backends.refusal(subject.implementation.name, case, "forward")
    if subject.batch.lengths is None or refused is not None:
        return {}
    unaware = subject.sibling(case)
    unaware.batch = replace(subject.batch, lengths=None)
    unaware.build()
    unaware.load()
    output, truth, alive = unaware.output(), subject.expected.output, _alive(subject)
    unaware.runner.close()
    return {
        "unlengthed_state_error": parts_difference(output.state, truth.state).absolute,
        "unlengthed_output_error": difference(output.outputs[alive], truth.outputs[alive]).absolute,
    }


def _outputs_state(layer: Layer) -> bool:
    """Whether a cell's output is the h of its state: no wrapper's is, and no grid has one."""
    return "h" in layer.state and not isinstance(layer.cell, Wrapper)


def _last_output(subject: Subject, output: Output) -> Values:
    top = layers(subject.case)[-1]
    if subject.case.direction != "forward" or not _outputs_state(top):
        return {}
    state = output.state[-1]
    found = {"last_output_error": _at_end(subject, output.outputs, state["h"])}
    if top.state.get("c") == top.outputs:
        found["last_output_cell_error"] = _at_end(subject, output.outputs, state["c"])
    return found


def _both_ways(subject: Subject, output: Output) -> Values:
    case, layer = subject.case, layers(subject.case)[0]
    if case.direction != "bidirectional" or case.layers > 1 or not _outputs_state(layer):
        return {}
    width = layer.outputs
    forth, back = output.outputs[:, :, :width], output.outputs[:, :, width:]
    forward_h, backward_h = (state["h"] for state in output.state)
    some = _lengths(subject) > 0
    return {
        "output_count": output.outputs.shape[2] / width,
        "state_count": float(len(output.state)),
        "forward_end_error": _at_end(subject, forth, forward_h),
        "backward_end_error": _largest(back[some, 0] - backward_h[some]),
        "backward_last_difference": _at_end(subject, back, backward_h),
    }


#: Each GRU and the other one.
_OTHER_GRU = {"gru": "gru-reset-after", "gru-reset-after": "gru"}


def _other_gru(subject: Subject, output: Output) -> Values:
    """Blocks that one has and the other lacks are left out, or zero."""
    if subject.case.cell not in _OTHER_GRU:
        return {}
    case = replace(subject.case, cell=_OTHER_GRU[subject.case.cell])
    weights = tuple(
        {name: blocks.get(name, np.zeros(shape)) for name, shape in layer.blocks.items()}
        for layer, blocks in zip(weight_layers(case), subject.weights, strict=True)
    )
    truth = compute_output(case, weights, subject.batch)
    return {"other_gru_error": difference(output.outputs, truth.outputs).absolute}


def _own_class(subject: Subject, _output: Output) -> Values:
    native, truth = subject.native(), subject.expected.output.outputs
    if native is None:
        return {}
    found = {
        "gate_order_error": difference(native.own_order, truth).absolute,
        "other_order_error": difference(native.other_order, truth).absolute,
    }
    if native.moved_bias is not None:
        moved = difference(native.moved_bias, native.own_order)
        found["moved_bias_difference"] = moved.absolute
    drawn = {"dropped": native.dropped, "undropped": native.undropped}
    digests = {f"{k}_digest": _digest(v) for k, v in drawn.items() if v is not None}
    return found | digests


def _digest(values: Array) -> float:
    """A whole number below 2^48 from all bits of an array."""
    digest = hashlib.sha256(np.ascontiguousarray(values).tobytes()).digest()
    return float(int.from_bytes(digest[:6], "big"))


_EXPERIMENTS: tuple[Experiment, ...] = (
    _repeat,
    _padding,
    _unlengthed,
    _last_output,
    _both_ways,
    _other_gru,
    _own_class,
)


def longer(subject: Subject) -> tuple[Values, str]:
    """One step more than it was built for: what comes of it, and what the framework says to it.

    This project's own check is left out (`Runner.feed`), so that whoever refuses is the framework.
    """
    case = replace(subject.case, seq_len=subject.case.seq_len + 1)
    batch = make_batch(case)
    try:
        subject.runner.feed(batch)
        output = subject.output()
    except MemoryError:
        raise  # says nothing of shapes
    except Exception as error:
        return {"longer_refused": 1.0}, said(error)
    truth = compute_output(case, subject.weights, batch)
    error_of = difference(output.outputs, truth.outputs).absolute
    return {"longer_refused": 0.0, "longer_error": error_of}, ""


def said(error: Exception) -> str:
    """An exception's type and first line, and its last one: some begin with where they were."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    ends = dict.fromkeys([*lines[:1], *lines[-1:]])
    text = " ... ".join(line[: LONGEST_SAID // 2] for line in ends)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
