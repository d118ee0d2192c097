"""CUDA events: marks in the stream, with the time at which the GPU came to them."""

from __future__ import annotations

import torch


class EventTimer:
    """Two events on the stream that a device's calls are enqueued on."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.current_stream(device)
        self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]

    def start(self) -> None:
        self._events[0].record(self._stream)

    def stop(self) -> None:
        self._events[1].record(self._stream)

    def seconds(self) -> float:
        # In milliseconds, to half a microsecond (torch.cuda.Event's documentation of it).
        return float(self._events[0].elapsed_time(self._events[1])) / 1e3
