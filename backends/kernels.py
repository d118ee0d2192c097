"""Names from a framework's profiler, and the number of times each ran."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from backends.devices import is_gpu


class Span(NamedTuple):
    """An event of an XSpace, which is what the profilers of TensorFlow and JAX write.

    `operation` is the type of the operation or the HLO instruction that a host's thread ran, "" for
    whatever else it did. `duration` is in any unit.
    """

    plane: str
    line: str
    name: str
    operation: str
    duration: float


#: Instructions of XLA that do no more than run others.
_CONTROL = frozenset({"while", "call", "conditional"})

#: A traced function as an operation: what is in it is told besides.
_FUNCTION = "__inference_"

#: XLA numbers instructions that have one name, and on a GPU their kernels (`loop_add_fusion_3`).
_NUMBER = re.compile(r"(?:[._](?:\d+|clone|remat))+$")


def of_spans(spans: Iterable[Span], device: str) -> dict[str, int]:
    """Spans that ran on the device, see `counted`.

    On a GPU that is what its streams ran (XLA's `cupti_collector` calls a plane `/device:GPU:0` and
    its lines `Stream #7(Kernel)`; other lines of the plane repeat it by module or by operation), on
    the CPU what host threads ran as an operation.
    """
    return counted(_on_gpu(spans) if is_gpu(device) else _on_cpu(spans), device)


def _on_gpu(spans: Iterable[Span]) -> Iterable[tuple[str, float]]:
    for span in spans:
        if span.plane.startswith("/device:GPU:") and span.line.startswith("Stream #"):
            yield _NUMBER.sub("", span.name), span.duration


def _on_cpu(spans: Iterable[Span]) -> Iterable[tuple[str, float]]:
    for span in spans:
        name = _NUMBER.sub("", span.operation)
        if name and name not in _CONTROL and not name.startswith(_FUNCTION):
            yield name, span.duration


def counted(events: Iterable[tuple[str, float]], device: str) -> dict[str, int]:
    """Names and durations -> how often each name came, those that took longest first.

    Raises `RuntimeError` where there is none: what was called did run something.
    """
    counts: Counter[str] = Counter()
    took: Counter[str] = Counter()
    for name, duration in events:
        counts[name] += 1
        took[name] += duration  # type: ignore[assignment]  # a Counter adds any numbers
    if not counts:
        what = "no kernel: CUPTI is not there, or may not be used" if is_gpu(device) else "nothing"
        raise RuntimeError(f"device {device}: the profiler saw {what}")
    return {name: counts[name] for name in sorted(counts, key=lambda name: -took[name])}
