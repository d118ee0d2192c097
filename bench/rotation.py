"""How often the inputs of a case lie on a GPU, so that its cache flatters small cases less.

A loop that calls with the same batch again and again finds it in the L2 cache, where a batch of a
training set never is. So calls take turns over copies. Weights are the same in every call, as they
are in use.
"""

from __future__ import annotations

import math

import numpy as np

from backends.api import Case, Mode
from backends.stack import input_width, output_width

#: Copies are so large together [bytes]: above the L2 of any GPU (H100 50 MB, B200 126 MB).
ROTATED_BYTES = 256e6

#: More of them than this are not made: XLA notes the addresses of so many in what it captures
#: (`xla_cmd_buffer_trace_cache_size`) and would capture anew for others, within the call. Batches
#: below 3 MB may stay in a cache of 50 MB then.
MOST_COPIES = 16


def copies(case: Case, mode: Mode) -> int:
    """How many copies of the inputs, and in training of the targets, there are to be.

    None of what no cache holds anyway.
    """
    width = input_width(case) + (output_width(case) if mode == "train" else 0)
    size = case.batch * case.seq_len * width * np.dtype(case.dtype).itemsize
    if size >= ROTATED_BYTES:
        return 0
    return min(MOST_COPIES, 1 + math.ceil(ROTATED_BYTES / size))
