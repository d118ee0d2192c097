"""Which kernels ran in one call: what is kept of a profile, and whose they are.

A record has it in `worker["kernels"]`: `{"total": 25, "names": 3, "longest": [[name, times], …]}`,
or a text that says why it is not known. Where the framework has no profiler it has neither.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench import strict
from bench.format import shortened

#: So many of the names that took longest are kept, besides one of each library that has none then.
MOST_NAMES = 10

#: Templates make names of thousands of characters.
LONGEST_NAME = 160

#: What is none of `LIBRARIES`: element-wise work, mostly, and whatever has another name by now.
OTHER = "other"

#: Whose kernel it is, by its name; the first one that fits. cuDNN's and cuBLAS's names are in no
#: documentation: these are names that profilers showed (`tests/test_kernels.py` has their sources).
LIBRARIES: Mapping[str, re.Pattern[str]] = {
    library: re.compile(pattern)
    for library, pattern in {
        "cuDNN persistent RNN": r"RNN_blockPersist|[pP]ersistRNN|RNN_persist",
        "cuDNN RNN": r"elemWiseRNNcell|(LSTM|GRU|RNN|GENERIC)_elementWise_",
        "oneDNN RNN": r"mkldnn_rnn_layer",
        "PyTorch's fused cell": r"(lstm|gru)_cell_(forward|backward)|_thnn_fused_",
        "TensorFlow's block kernel": r"Block(LSTM|GRU)|(LSTM|GRU)Block|\blstm_gates|\bconcat_xh\b",
        "Triton": r"^(triton_|__triton|(nested_)?gemm_fusion)",
        "cuDNN": r"cudnn",
        "cuBLAS or CUTLASS product": r"gemm|gemv|^nvjet|cutlass|cublas|splitK",
        "oneDNN product": r"^_Mkl\w*MatMul|^mkldnn::_linear",
        "YNNPACK": r"^ynn_fusion",
        "matrix product": r"^aten::(addmm|addmv|baddbmm|bmm|mm|mv)$|MatMul|^dot\b|^mkl::",
        "copy": r"^(\[CUDA )?[mM]em(cpy|set)",
    }.items()
}


#: Those of them that are an RNN of cuDNN.
CUDNN_RNN = frozenset({"cuDNN persistent RNN", "cuDNN RNN"})


def library(name: str) -> str:
    """Library of a kernel by its name; `OTHER` if the name does not say."""
    return next((whose for whose, known in LIBRARIES.items() if known.search(name)), OTHER)


@dataclass(frozen=True, kw_only=True)
class Ran:
    """Number of kernels that one call ran, number of their names, and the names that took longest.

    `longest` has each name with how often it ran, the longest first.
    """

    total: int
    names: int
    longest: Sequence[tuple[str, int]]

    @property
    def libraries(self) -> list[str]:
        """Libraries of the kernels, in the order of `LIBRARIES`; copies and others if alone."""
        found = {library(name) for name, _ in self.longest}
        known = [whose for whose in LIBRARIES if whose in found and whose != "copy"]
        return known or sorted(found)


def kept(found: Mapping[str, int]) -> dict[str, Any] | None:
    """Part of `backends.api.Backend.kernels` that a record stores; None if that is empty."""
    if not found:
        return None
    names = list(found)
    longest = names[:MOST_NAMES]
    seen = {library(name) for name in longest}
    for name in names[MOST_NAMES:]:
        if library(name) not in seen:
            seen.add(library(name))
            longest.append(name)
    return {
        "total": sum(found.values()),
        "names": len(found),
        "longest": [[shortened(name, LONGEST_NAME), found[name]] for name in longest],
    }


def read(value: object) -> Ran | str | None:
    """Read a record's `worker["kernels"]`: the kernels, or the reason why they are unknown.

    None where it has nothing, or something that is neither.
    """
    if isinstance(value, str):
        return strict.text(value, "kernels")
    try:
        given = strict.mapping(value, "kernels")
        return Ran(
            total=strict.whole(given.get("total"), "total", least=1),
            names=strict.whole(given.get("names"), "names", least=1),
            longest=[_entry(entry) for entry in strict.listed(given.get("longest"), "longest")],
        )
    except ValueError:
        return None


def _entry(value: object) -> tuple[str, int]:
    name, times = strict.listed(value, "an entry")
    return strict.text(name, "name"), strict.whole(times, "times", least=1)
