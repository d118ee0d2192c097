"""A stand-in for a CUDA graph on a CPU: it records operations, with the tensors and the numbers.

As of a graph, what Python does around the operations is not in it, and every replay reads and
writes the same memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from backends.torch.graphed import WARM_UP_CALLS


class Recorded(TorchDispatchMode):
    """The operations of a call, and what each gave."""

    def __init__(self) -> None:
        super().__init__()
        self._done: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self._done.append((func, args, kwargs or {}, result))
        return result

    @torch.inference_mode()
    def replay(self) -> None:
        for func, args, kwargs, result in self._done:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                # What an operation in place gives, or one that gives a view, lies there already.
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)

    def reset(self) -> None:
        self._done.clear()

    def spoil(self) -> None:
        """NaN in all that was computed: a call that is captured computes nothing."""
        with torch.no_grad():
            for _, args, kwargs, result in self._done:
                given = {t.data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
                for tensor in tree_leaves(result):
                    if tensor.is_floating_point() and tensor.data_ptr() not in given:
                        tensor.detach().fill_(torch.nan)


def recorded(call: Callable[[], Any], _device: torch.device) -> tuple[Recorded, Any]:
    """In the place of `backends.torch.graphed.cuda_graph`."""
    for _ in range(WARM_UP_CALLS):
        call()
    graph = Recorded()
    with graph:
        out = call()
    return graph, out
