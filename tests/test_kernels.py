"""Which kernels ran: names to libraries, what is kept, who is asked when, and where it is shown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.kernels import Span, counted, of_spans
from bench import block, store
from bench.kernels import LIBRARIES, LONGEST_NAME, MOST_NAMES, OTHER, Ran, kept, library, read
from bench.launch import OutOfTime, Worker
from bench.outcome import Outcome, look_at_kernels, request
from bench.record import Record, Status
from bench.report import build, markdown
from bench.worker import Worker as Child
from tests import synthetic
from tests.reading import NASTY, one, rows, shown, terminal
from tests.scripted_runs import execute, of, on_devices, sweep

#: Names that profilers showed, and whose they are, each below its source.
SEEN = {
    # nsys profiles of PyTorch's nn.LSTM and of cuDNN's standard algorithm: Artelnics/opennn,
    # benchmarks/reports/lstm.md
    "RNN_blockPersist_fp_LSTM_HMMA<__half, __half, float, 1, 128>": "cuDNN persistent RNN",
    "RNN_blockPersist_bp_LSTM_HMMA<__half, __half, float, 128>": "cuDNN persistent RNN",
    "elemWiseRNNcell<__nv_bfloat16, __nv_bfloat16, float, 2, 1>": "cuDNN RNN",
    "LSTM_elementWise_bp1<__nv_bfloat16, __nv_bfloat16, float>": "cuDNN RNN",
    "GENERIC_elementWise_bp2<__half, __half, float, 4, 2>": "cuDNN RNN",
    "nvjet_sm120_tst_mma_64x32x64_8_16x32x64_tmaAB_alignCD4_bz_TNNN": "cuBLAS or CUTLASS product",
    "cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_relu_bf16_64x64_32x6_tn_align8>": (
        "cuBLAS or CUTLASS product"
    ),
    "magma_sgemmEx_kernel<float, __nv_bfloat16, float>": "cuBLAS or CUTLASS product",
    "internal::gemvx::kernel<int, int, __nv_bfloat16>": "cuBLAS or CUTLASS product",
    "at::native::vectorized_elementwise_kernel<4, FillFunctor<float>>": OTHER,
    # An nvprof profile of cuDNN's LSTM: apache/systemds, pull request 856
    "void LSTM_elementWise_fp<double, double, double>(int, int, int, int)": "cuDNN RNN",
    "cudnn::detail::initstates(unsigned __int64, curandStateXORWOW*, int)": "cuDNN",
    "maxwell_dgemm_64x64_nn": "cuBLAS or CUTLASS product",
    # Profiles in issues: pytorch/pytorch 90204; kblomdahl/dream-go 25
    "turing_fp16_s1688gemm_fp16_128x128_ldg8_f2f_nn": "cuBLAS or CUTLASS product",
    "void splitKreduce_kernel<32, 16, int, __half, __half>": "cuBLAS or CUTLASS product",
    "void cudnn::detail::implicit_convolve_sgemm<float, float, int=128>": "cuDNN",
    "[CUDA memcpy DtoH]": "copy",
    "Memcpy DtoD (Device -> Device)": "copy",
    "Memset (Device)": "copy",
    # XLA's own kernels in PyTorch's profiler: pytorch/xla, pull requests 6152 and 6407
    "triton_gemm_dot_73": "Triton",
    "fusion_218": OTHER,
    # Where there is no cuDNN: pytorch/pytorch, aten/src/ATen/native/cuda/RNN.cu; tensorflow,
    # core/kernels/rnn/lstm_ops_gpu.cu.cc
    "void at::native::(anonymous namespace)::kernel::lstm_cell_forward<float, float, int, 1>": (
        "PyTorch's fused cell"
    ),
    "void tensorflow::functor::(anonymous namespace)::lstm_gates<float, true>": (
        "TensorFlow's block kernel"
    ),
    # What the frameworks say on a CPU, which the tests of each adapter look at
    "aten::mkldnn_rnn_layer_backward": "oneDNN RNN",
    "aten::lstm": OTHER,
    "aten::addmm": "matrix product",
    "aten::mse_loss": OTHER,
    "_MklNativeFusedMatMul": "oneDNN product",
    "_MklTranspose": OTHER,
    "MatMul": "matrix product",
    "BlockLSTMGrad": "TensorFlow's block kernel",
    "GRUBlockCell": "TensorFlow's block kernel",
    "ynn_fusion": "YNNPACK",
    "dot": "matrix product",
    "loop_add_fusion": OTHER,
}


@pytest.mark.parametrize(("name", "whose"), SEEN.items())
def test_a_name_tells_whose_kernel_it_is(name: str, whose: str) -> None:
    assert library(name) == whose


def test_every_library_has_a_name_that_was_seen() -> None:
    assert {library(name) for name in SEEN} == {*LIBRARIES, OTHER}


def test_libraries_are_told_without_copies_and_others_where_there_are_some() -> None:
    def libraries(*names: str) -> list[str]:
        return Ran(total=9, names=9, longest=[(name, 1) for name in names]).libraries

    assert libraries("fusion_218", "dot", "Memset (Device)", "elemWiseRNNcell<f>") == [
        "cuDNN RNN",
        "matrix product",
    ]
    assert libraries("fusion_218", "Memset (Device)") == ["copy", OTHER]
    assert libraries("fusion_218") == [OTHER]


@given(st.dictionaries(st.text(min_size=1), st.integers(1, 2**40), min_size=1, max_size=30))
def test_what_is_kept_is_read_as_it_was(found: dict[str, int]) -> None:
    record = json.loads(json.dumps(kept(found)))
    ran = read(record)
    assert isinstance(ran, Ran)
    assert (ran.total, ran.names) == (sum(found.values()), len(found))
    assert len(ran.longest) >= min(len(found), MOST_NAMES)
    assert [times for _, times in ran.longest[:MOST_NAMES]] == list(found.values())[:MOST_NAMES]
    assert all(len(name) <= LONGEST_NAME for name, _ in ran.longest)


def test_of_a_library_that_took_little_one_name_is_kept() -> None:
    found = {f"fusion_{n}": 1 for n in range(30)} | {"aten::mm": 7, "aten::bmm": 8, "dot": 9}
    record = kept(found)
    assert record is not None
    assert record["longest"][MOST_NAMES:] == [["aten::mm", 7]]
    assert record["names"] == 33
    assert kept({}) is None


@pytest.mark.parametrize(
    "value",
    [
        *(None, 3, [], {}, {"total": 3}, {"total": 3, "names": 1, "longest": "aten::mm"}),
        *({"total": 3, "names": 1, "longest": [entry]} for entry in (3, [], ["a"], ["a", 1, 2])),
        {"total": 3, "names": 1, "longest": [["a", -1]]},
        {"total": 3, "names": 1, "longest": [[1, 1]]},
        {"total": 0, "names": 1, "longest": []},
    ],
)
def test_what_nobody_wrote_is_not_read(value: object) -> None:
    assert read(value) is None


GPU_SPANS = [
    Span("/device:GPU:0", "Stream #7(Kernel)", "loop_add_fusion_3", "", 5.0),
    Span("/device:GPU:0", "Stream #7(Kernel)", "loop_add_fusion", "", 5.0),
    Span("/device:GPU:0", "Stream #7(Kernel)", "ampere_sgemm_128x32_tn", "", 30.0),
    Span("/device:GPU:0", "Stream #8(MemcpyD2D)", "MemcpyD2D", "", 1.0),
    # The same again, by operation and by module, and what the host did meanwhile.
    Span("/device:GPU:0", "XLA Ops", "loop_add_fusion.3", "loop_add_fusion.3", 50.0),
    Span("/device:GPU:0", "XLA Modules", "jit_run", "", 99.0),
    Span("/host:CPU", "python", "PjitFunction", "", 200.0),
    Span("/host:CPU", "tf_Compute/1", "a/MatMul:MatMul", "MatMul", 200.0),
]


def test_on_a_gpu_what_its_streams_ran_counts() -> None:
    found = of_spans(GPU_SPANS, "gpu:1")
    assert list(found.items()) == [
        ("ampere_sgemm_128x32_tn", 1),
        ("loop_add_fusion", 2),
        ("MemcpyD2D", 1),
    ]


def test_on_the_cpu_operations_count_and_not_what_only_runs_others() -> None:
    def span(name: str, duration: float) -> Span:
        return Span("/host:CPU", "tf_XLAEigen/1", name, name, duration)

    names = [("dot.12.clone", 2.0), ("while.3", 99.0), ("call", 99.0), ("", 99.0), ("dot", 3.0)]
    spans = [span(*entry) for entry in [*names, ("copy.1", 9.0), ("__inference_f_12", 99.0)]]
    assert list(of_spans([*spans, *GPU_SPANS[:4]], "cpu").items()) == [("copy", 1), ("dot", 2)]


@pytest.mark.parametrize(("device", "says"), [("gpu", "CUPTI"), ("cpu", "saw nothing")])
def test_a_profiler_that_saw_nothing_is_an_error(device: str, says: str) -> None:
    with pytest.raises(RuntimeError, match=f"device {device}: .*{says}"):
        counted([], device)


# ---- who is asked, and when


@pytest.mark.usefixtures("scripted_backend")
def test_each_arm_is_looked_at_once_after_all_that_is_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []
    ask = Worker.request

    def watched(self: Worker, message: Mapping[str, Any], *, limit_s: float) -> dict[str, Any]:
        asked.append((message["op"], self.pid))
        return ask(self, message, limit_s=limit_s)

    monkeypatch.setattr(Worker, "request", watched)
    result = execute(tmp_path, sweep("fine", "persistent", blocks=3))
    looked = [pid for op, pid in asked if op == "kernels"]
    steady = [r for r in result.records if r.job.measure == "steady" and r.block == 0]
    assert sorted(looked) == sorted(r.worker["pid"] for r in steady if not r.job.replica)
    for pid in looked:
        # It is the last thing that an arm is asked for.
        assert [op for op, other in asked if other == pid][-2:] == ["recheck", "kernels"]
    records = [record for record in result.records if "kernels" in record.worker]
    assert [(record.job.implementation, record.block) for record in records] == [
        ("scripted/persistent", 0)
    ]
    assert records[0].worker["kernels"] == {
        "total": 3,
        "names": 2,
        "longest": [
            ["void RNN_blockPersist_fp_LSTM<float, float, float, 1, 128>", 1],
            ["ampere_sgemm_128x32_tn", 2],
        ],
    }
    # As it was written, and as it is read from the file.
    again = store.read_run(result.folder).records
    assert [r.worker for r in again if "kernels" in r.worker] == [records[0].worker]


@pytest.mark.usefixtures("scripted_backend")
@pytest.mark.parametrize("how", ["segv", "hangs", "raises"])
def test_what_breaks_in_its_profiler_costs_nothing_but_itself(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block, "BURST_LIMIT_S", 2.0)
    name = f"{how}-in-profiler"
    result = execute(tmp_path, sweep(name, "persistent"))
    steady = [record for record in result.records if record.job.measure == "steady"]
    assert {record.status for record in steady} == {Status.OK}
    assert all(len(record.samples["steady"]) >= 8 for record in steady)
    why = of(result, name, "steady")[0].worker["kernels"]
    says = {"segv": "SIGSEGV", "hangs": "no answer to 'kernels' within 2 s", "raises": "scripted"}
    assert says[how] in why
    assert isinstance(of(result, "persistent", "steady")[0].worker["kernels"], dict)
    assert "kernels" not in of(result, name, "steady")[1].worker
    report = build([result])
    row = one(rows(report, "kernels", implementation=f"scripted/{name}"))
    assert says[how] in row["reason"]
    cells = one(shown(report, "kernels", implementation=f"scripted/{name}"))
    assert cells["library"].startswith("not known [")
    assert any(says[how] in text for text in report.footnotes)


def test_a_run_without_time_left_keeps_what_it_has_timed() -> None:
    class OutOfTimeWorker:
        def request(self, message: Mapping[str, Any], *, limit_s: float) -> dict[str, Any]:
            raise OutOfTime(f"no time is left for an answer to {message['op']!r}")

    job = next(iter(synthetic.sweep().jobs("steady")))
    outcome = Outcome(job=job, status=Status.OK, samples={"steady": [1.0]}, worker={"pid": 1})
    look_at_kernels(cast("Worker", OutOfTimeWorker()), outcome, limit_s=1.0)
    record = outcome.record(0)
    assert (record.status, record.samples) == (Status.OK, {"steady": [1.0]})
    assert "no time is left" in record.worker["kernels"]


@pytest.mark.usefixtures("scripted_backend")
def test_the_executable_that_was_timed_is_called_once_more(tmp_path: Path) -> None:
    child = Child("scripted", threads=1)
    job = next(job for job in sweep("persistent").jobs("steady") if not job.replica)
    expected = tmp_path / "expected.npz"
    oracle = {"op": "expect", "case": asdict(job.case), "mode": job.mode, "path": str(expected)}
    assert child.answer(oracle)["status"] == Status.OK
    assert child.answer(request("prepare", job, expected))["status"] == Status.OK
    timed: Any = child._ready().runner
    before = timed.calls
    reply = child.answer({"op": "kernels"})
    assert reply["kernels"]["total"] == 3
    assert timed.calls == before + 1


@pytest.mark.usefixtures("scripted_backend")
def test_on_a_gpu_the_table_says_whose_kernels_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = on_devices(tmp_path, sweep("persistent", "fine", blocks=1), monkeypatch, "gpu")
    report = build([result])
    assert one(shown(report, "kernels")) == {
        "mode": "forward",
        "implementation": "scripted/persistent",
        "library": "cuDNN persistent RNN, cuBLAS or CUTLASS product",
        "kernels": "3",
        "names": "2",
        "longest": "1 RNN_blockPersist_fp_LSTM<float, float, fl…, 2 ampere_sgemm_128x32_tn",
    }
    assert "cuDNN persistent RNN" in terminal(report, 140)


# ---- what is shown


def with_kernels(value: object, implementation: str = "torch/fused") -> synthetic.Change:
    def change(record: Record) -> Record:
        if record.job.measure != "steady" or record.block or record.job.replica:
            return record
        return replace(record, worker={**record.worker, "kernels": value})

    return synthetic.only(implementation, change)


def test_a_run_without_them_has_no_such_table() -> None:
    report = build([synthetic.run(synthetic.sweep())])
    assert "kernels" not in [table.name for table in report.tables]
    broken = build([synthetic.run(synthetic.sweep(), change=with_kernels({"total": "many"}))])
    assert "kernels" not in [table.name for table in broken.tables]


def test_names_from_a_file_are_text() -> None:
    value = {"total": 2, "names": 2, "longest": [[NASTY, 1], ["b|c", 1]]}
    report = build([synthetic.run(synthetic.sweep(seq_len=(10,)), change=with_kernels(value))])
    found = rows(report, "kernels")
    assert set(found["implementation"]) == {"torch/fused"}
    assert set(found["mode"]) == {"forward", "train"}
    assert set(found["library"]) == {OTHER}
    document = markdown.render(report)
    assert "<script>" not in document
    assert r"1 b\|c" in document
    assert "\x1b" not in terminal(report, 200)
