"""Which kernels and operators one call runs, by `torch.profiler`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from backends.devices import is_gpu
from backends.kernels import counted

#: Whose operators compute on the CPU: ATen's own, and those to which inductor hands products.
_OPERATORS = ("aten::", "mkldnn::", "mkl::")

#: Operators that only look at memory in another way, or get some.
_NO_WORK = frozenset(
    f"aten::{name}"
    for name in (
        *("as_strided", "broadcast_tensors", "chunk", "detach", "expand", "narrow", "permute"),
        *("reshape", "resolve_conj", "resolve_neg", "select", "slice", "split", "squeeze", "t"),
        *("transpose", "unbind", "unsafe_chunk", "unsafe_split", "unsqueeze", "view"),
        *("_reshape_alias", "_unsafe_view", "cudnn_is_acceptable", "empty", "empty_like"),
        *("empty_strided", "new_empty", "new_empty_strided", "resize_"),
    )
)


def kernels(device: str, call: Callable[[], None]) -> Mapping[str, int]:
    """See `backends.api.Backend`; of the CPU's operators also those that others call."""
    on_gpu = is_gpu(device)
    activity = ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU
    # Only one cycle is recorded; without this flag the profiler warns of it.
    with profile(activities=[activity], acc_events=True) as seen:
        call()
    events = seen.events()
    return counted(_device_events(events) if on_gpu else _operators(events), device)


def _device_events(events: Iterable[Any]) -> Iterable[tuple[str, float]]:
    """Kernels, copies and fills; a named region of code has a shadow on the device that is none."""
    for event in events:
        if event.device_type == DeviceType.CUDA and not event.is_user_annotation:
            yield event.name, event.time_range.elapsed_us()


def _operators(events: Iterable[Any]) -> Iterable[tuple[str, float]]:
    for event in events:
        if event.name.startswith(_OPERATORS) and event.name not in _NO_WORK:
            yield event.name, event.self_cpu_time_total
