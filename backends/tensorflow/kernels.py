"""Which kernels and operations one call runs, by `tf.profiler` and by a session's own trace."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tensorflow as tf

from backends.api import Runner
from backends.devices import is_gpu
from backends.kernels import Span, counted, of_spans
from backends.tensorflow.graph import GraphRunner

#: TensorFlow's own copy of the message that its profiler writes. It is no part of the public API:
#: a version without it cannot say what ran, and everything else of it goes on.
_XPLANE = "tensorflow.tsl.profiler.protobuf.xplane_pb2"

#: Nodes that hand on what they are given.
_NO_WORK = frozenset(
    (
        *("Const", "Enter", "Exit", "Identity", "IdentityN", "LoopCond", "Merge", "NextIteration"),
        *("NoOp", "Shape", "Switch", "VarHandleOp"),
    )
)


def kernels(runner: Runner, device: str, call: Callable[[], None]) -> Mapping[str, int]:
    """See `backends.api.Backend`; on the CPU types of operations, or XLA's instructions.

    There the profiler leaves out what an executor has found to be cheap, after some hundred calls
    even products. A session has a trace of its own that leaves out nothing; a function has none.
    """
    if isinstance(runner, GraphRunner) and not is_gpu(device):
        return counted(_nodes(runner.traced()), device)
    space = import_module(_XPLANE).XSpace()
    options = tf.profiler.experimental.ProfilerOptions(python_tracer_level=0)
    with TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder, options=options):
            call()
        (path,) = Path(folder).rglob("*.xplane.pb")
        space.ParseFromString(path.read_bytes())
    return of_spans(_spans(space), device)


def _nodes(stats: Any) -> Iterable[tuple[str, float]]:
    """Types and durations of what ran; a label is `rnn/MatMul = MatMul(rnn/concat, kernel)`."""
    for device in stats.dev_stats:
        for node in device.node_stats:
            kind = node.timeline_label.partition(" = ")[2].partition("(")[0]
            if kind and kind not in _NO_WORK:
                yield kind, node.op_end_rel_nanos - node.op_start_rel_nanos


def _spans(space: Any) -> Iterable[Span]:
    for plane in space.planes:
        hlo = {number for number, stat in plane.stat_metadata.items() if stat.name == "hlo_op"}
        for line in plane.lines:
            for event in line.events:
                told = plane.event_metadata[event.metadata_id]
                is_instruction = any(stat.metadata_id in hlo for stat in event.stats)
                # An operation is `rnn/lstm_cell/MatMul:MatMul`, and displayed as its type.
                operation = told.name if is_instruction else told.display_name
                yield Span(plane.name, line.name, told.name, operation, event.duration_ps)
