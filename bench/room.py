"""Whether memory is left for one more worker: on the host, in its control group, on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import psutil

from bench import gpus, limits

#: One more worker may take so many times what the largest of those that live takes.
FACTOR = 1.5

#: This share of a memory stays free besides.
SPARE = 0.05


class Room:
    """Looks at memory while the workers of a block are started, one after the other."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._gpu_total = gpus.memory_bytes(device)
        self._gpu_free: list[float] = []

    def is_left(self, pids: Sequence[int]) -> bool:
        """Whether one more worker fits beside those that live, by what each of them takes."""
        return self._on_host(pids) and self._on_gpu()

    def _on_host(self, pids: Sequence[int]) -> bool:
        largest = max((_private_bytes(pid) for pid in pids), default=0)
        memory = psutil.virtual_memory()
        free, total = memory.available, memory.total
        limited = limits.headroom()
        if limited is not None and limited.free < free:
            free, total = limited.free, limited.total
        return free >= FACTOR * largest + SPARE * total

    def _on_gpu(self) -> bool:
        """By the most that the free memory fell from one worker to the next."""
        free = gpus.free_bytes(self._device)
        if free is None or self._gpu_total is None:
            return True
        self._gpu_free.append(free)
        falls = (a - b for a, b in zip(self._gpu_free, self._gpu_free[1:], strict=False))
        return free >= FACTOR * max(falls, default=0.0) + SPARE * self._gpu_total


def _private_bytes(pid: int) -> int:
    """Resident bytes of a process that no file is behind; 0 where it is gone."""
    with suppress(psutil.NoSuchProcess):
        info = psutil.Process(pid).memory_info()
        return int(info.rss - info.shared)
    return 0
