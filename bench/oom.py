"""Messages of frameworks and libraries that ran out of memory, by whose memory it was.

Texts are errors with the name of their class before them, and are read without regard to case.
"""

from __future__ import annotations

#: The host's memory, whatever the device: Python, C++, torch's CPU allocator, the kernel, cuDNN;
#: last TensorFlow's allocators of plain and of pinned host memory, and the driver's of the latter.
_OF_HOST = (
    *("not enough memory", "can't allocate memory", "cannot allocate memory", "std::bad_alloc"),
    *("failed to map segment", "host_allocation_failed"),
    *("by allocator cpu", "_host_bfc", "bytes on host"),
)

#: The memory of the device that computes, a GPU's or the host's: the frameworks' allocators, the
#: driver, and what cuDNN, cuBLAS and cuSOLVER allocate themselves. A kernel that asks for more
#: shared memory than a multiprocessor has ("out of resource") is something else.
_OF_DEVICE = (
    *("out of memory", "resource_exhausted", "resourceexhaustederror", "oom when allocating"),
    *("failed to allocate memory", "failed to allocate request", "cuda_error_out_of_memory"),
    *("cudaerrormemoryallocation", "device_allocation_failed"),
    *("cudnn_status_alloc_failed", "cublas_status_alloc_failed", "cusolver_status_alloc_failed"),
)


def ran_out(message: str) -> bool:
    """Whether an error says that memory ran out."""
    text = message.casefold()
    return is_of_host(message) or any(word in text for word in _OF_DEVICE)


def is_of_host(message: str) -> bool:
    """Whether it was the host's memory, even where the device is a GPU."""
    text = message.casefold()
    return text.startswith("memoryerror") or any(word in text for word in _OF_HOST)
