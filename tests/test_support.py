"""The matrix of cells and implementations: what is said of it is what is so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import backends
from backends.api import CELL_NAMES, Case, Unsupported
from bench import cli, support

PAGE = Path(__file__).parents[1] / "docs" / "support.md"
CASE = Case(cell="lstm", seq_len=2, batch=2, inputs=8, hidden=8)


def test_the_page_is_what_the_implementations_say(capsys: pytest.CaptureFixture[str]) -> None:
    """Written by `python -m bench list --cells --markdown > docs/support.md`."""
    assert cli.main(["list", "--cells", "--markdown"]) == 0
    assert capsys.readouterr().out == PAGE.read_text(encoding="utf-8")


def test_every_cell_has_a_row_and_every_number_a_reason() -> None:
    for section in PAGE.read_text(encoding="utf-8").split("\n## ")[1:-1]:
        lines = section.splitlines()
        rows = [line.split("|")[1:-1] for line in lines if line.startswith("| ")]
        assert [row[0].strip() for row in rows[1:]] == list(support.rows())
        used = {word for row in rows[1:] for cell in row[1:] for word in cell.split()}
        numbers = {line.partition(". ")[0] for line in lines if line[:1].isdigit()}
        assert used - {"yes"} == numbers
        assert all(cell.strip() for row in rows[1:] for cell in row)


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_static_and_dynamic_of_every_framework_compute_it(cell: str) -> None:
    for backend in ("tensorflow", "torch", "jax", "reference"):
        for strategy in ("numpy",) if backend == "reference" else ("static", "dynamic"):
            assert support.support(f"{backend}/{strategy}", replace(CASE, cell=cell)) == (
                support.Support(some=True, refused=())
            )


def test_a_refusal_of_some_cases_is_said_beside_the_yes() -> None:
    found = support.support("tensorflow/fused", CASE)
    assert found.some
    assert found.refused == ("dtype float64: BlockLSTM has float32 and float16",)
    on_a_gpu = support.support("tensorflow/cudnn", CASE)
    assert on_a_gpu.some
    assert on_a_gpu.refused == ("device cpu: cuDNN is for a GPU alone",)
    none = support.support("tensorflow/fused", replace(CASE, cell="gru"))
    assert not none.some


@pytest.mark.parametrize(
    ("backend", "cell", "said"),
    [
        ("jax", "lstm", "all*"),
        ("torch", "lstm", "all*"),
        ("jax", "gru", "all but fused*"),
        ("onnx", "gru", "all*"),
        ("onnx", "grid", "none"),
        ("torch", "grid", "all but fused, packed*"),
        ("tensorflow", "gru", "all but fused, fused-v2, cudnn, keras-cudnn*"),
    ],
)
def test_a_row_is_summed_up(backend: str, cell: str, said: str) -> None:
    assert support.summary(backend, replace(CASE, cell=cell)) == said


def test_markdown_is_of_the_cells(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "--presets", "--markdown"]) == 2
    assert capsys.readouterr().err == "bench: error: markdown: goes with --cells\n"


@pytest.mark.parametrize("info", backends.BACKENDS.values(), ids=lambda info: info.name)
def test_an_unknown_strategy_is_refused_by_name(info: backends.BackendInfo) -> None:
    with pytest.raises(Unsupported, match=f"^strategy wishful: {info.name} has "):
        info.require("wishful", CASE, "forward")
