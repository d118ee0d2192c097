"""Errors of frameworks and libraries, as users have reported them, and what they are taken for."""

from __future__ import annotations

import pytest

from bench import oom
from bench.record import Status
from bench.worker import failure

#: Of a GPU's memory.
GPU = """
OutOfMemoryError: CUDA out of memory. Tried to allocate 146.00 MiB. GPU 0 has a total capacity of
RuntimeError: CUDA error: out of memory
AcceleratorError: CUDA error: out of memory
RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`
RuntimeError: cuDNN error: CUDNN_STATUS_ALLOC_FAILED
RuntimeError: cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED
RuntimeError: Triton Error [CUDA]: out of memory
JaxRuntimeError: RESOURCE_EXHAUSTED: Out of memory while trying to allocate 4770354232 bytes.
XlaRuntimeError: RESOURCE_EXHAUSTED: Failed to allocate request for 2.99GiB on device ordinal 0
RuntimeError: Resource exhausted: Failed to allocate request for 32.00MiB on device ordinal 0
XlaRuntimeError: INTERNAL: Failed to load CUBIN: CUDA_ERROR_OUT_OF_MEMORY: out of memory
ResourceExhaustedError: OOM when allocating tensor with shape[8] on GPU:0 by allocator GPU_0_bfc
ResourceExhaustedError: Graph execution error: Detected at node 'while' defined at (most recent
InternalError: failed to allocate memory [Op:Cast]
"""

#: Of the host's.
HOST = """
MemoryError: Unable to allocate 64.0 PiB for an array with shape (72057594037927936,)
RuntimeError: [enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory
RuntimeError: DefaultCPUAllocator: not enough memory: you tried to allocate 64 bytes.
RuntimeError: std::bad_alloc
OSError: [Errno 12] Cannot allocate memory
ImportError: libcudnn.so: failed to map segment from shared object
RuntimeError: cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED
ResourceExhaustedError: OOM when allocating tensor with shape[9] on CPU:0 by allocator cpu
ResourceExhaustedError: OOM when allocating tensor with shape[9] by allocator gpu_host_bfc
InternalError: failed to alloc 2147483648 bytes on host: CUDA_ERROR_OUT_OF_MEMORY: out of memory
"""

#: Of neither.
OTHER = """
OutOfResources: out of resource: shared memory, Required: 262144, Hardware limit: 232448.
RuntimeError: cuDNN error: CUDNN_STATUS_EXECUTION_FAILED
RuntimeError: CUDA error: an illegal memory access was encountered
JaxRuntimeError: INTERNAL: CUDA_ERROR_ILLEGAL_ADDRESS
UnknownError: Fail to find the dnn implementation. [Op:CudnnRNN]
InternalError: Failed to create session.
"""


def raised(message: str) -> BaseException:
    """An error of the class that a message begins with."""
    name, _, text = message.partition(": ")
    error: BaseException = type(name, (RuntimeError,), {})(text)
    return error


@pytest.mark.parametrize("message", GPU.split("\n")[1:-1])
def test_a_gpu_that_is_full_is_told_from_the_host(message: str) -> None:
    assert oom.ran_out(message)
    assert not oom.is_of_host(message)
    reply = failure(raised(f"{message}\nCUDA kernel errors might be reported later"))
    assert (reply["status"], reply["reason"]) == (Status.OOM, message)


@pytest.mark.parametrize("message", HOST.split("\n")[1:-1])
def test_so_is_the_host(message: str) -> None:
    assert oom.is_of_host(message)
    assert failure(raised(message))["status"] == Status.OOM


@pytest.mark.parametrize("message", OTHER.split("\n")[1:-1])
def test_what_fails_otherwise_is_no_question_of_memory(message: str) -> None:
    assert not oom.ran_out(message)
    assert failure(raised(message))["status"] == Status.CRASHED
