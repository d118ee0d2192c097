"""ONNX Runtime: what is known of it without importing it."""

from __future__ import annotations

from backends.api import BackendInfo, Strategy
from backends.onnx.support import refusal


def environment(_threads: int) -> dict[str, str]:
    """No upload from a measured process; its own threads are an option of each session.

    From 1.29 on, importing onnxruntime on Linux starts a thread that reports to its makers, and
    leaves an identifier of the host in the user's cache. Only this variable, set before the import,
    prevents that: a function of the library comes too late.
    """
    return {"OPENBLAS_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}


INFO = BackendInfo(
    name="onnx",
    module="backends.onnx.adapter",
    extra="onnx",
    requires=("onnxruntime", "onnx"),
    environment=environment,
    refusal=refusal,
    preload=("onnx", "onnxruntime"),
    strategies=(
        Strategy(name="fused", kind="fused", title="ONNX Runtime's RNN, GRU, LSTM operators"),
    ),
)
