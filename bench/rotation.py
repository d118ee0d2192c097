"""Number of batches that the calls of a burst go through.

Where each call reads another batch, nothing that is kept of one call serves the next: no result,
and on a GPU no inputs in its cache, in which a batch of a training set never is either. Weights are
the same in every call, as they are in use.
"""

from __future__ import annotations

import math

import numpy as np

from backends.api import Case, Mode
from backends.devices import is_gpu
from backends.stack import input_width, output_width

#: Never fewer than these, however large they are.
FEWEST = 4

#: Batches of a CPU are so large together at most [bytes]. They are made anew for each burst, twice:
#: where they are drawn and where the framework has them.
CPU_BYTES = 64e6

#: Batches of a GPU are so large together [bytes]: above the L2 of any (H100 50 MB, B200 126 MB).
GPU_BYTES = 256e6

#: More of them than this are not on a GPU: XLA notes the addresses of so many in what it captures
#: (`xla_cmd_buffer_trace_cache_size`) and would capture anew for others, within the call. Batches
#: below 3 MB may stay in a cache of 50 MB then.
MOST_ON_GPU = 16


def batches_needed(case: Case, mode: Mode, calls: int) -> int:
    """Batches of inputs, and in training of targets, for a burst of so many calls.

    On a CPU each call has one of its own, as far as `CPU_BYTES` allow. On a GPU they are as many as
    no cache holds, whatever the calls.
    """
    width = input_width(case) + (output_width(case) if mode == "train" else 0)
    size = case.batch * case.seq_len * width * np.dtype(case.dtype).itemsize
    if is_gpu(case.device):
        number = min(MOST_ON_GPU, 1 + math.ceil(GPU_BYTES / size))
    else:
        number = min(calls, int(CPU_BYTES / size))
    return max(FEWEST, number)
