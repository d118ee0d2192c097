"""Who may know what: backends know no harness, the harness no framework, one file a clock."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

#: One test of conformance.
SMALL = "test_it_computes_what_the_oracle_computes and torch/dynamic-lstm-ragged-1-float64-bidir"
FRAMEWORKS = (
    *("tensorflow", "tf_keras", "keras", "torch", "jax", "jaxlib", "onnx", "onnxruntime"),
    "autograd",  # the oracle's, and no part of what a worker's memory is
)

#: `sleep` and `monotonic` wait and end waiting; these measure.
CLOCKS = {
    f"{clock}{suffix}"
    for clock in ("perf_counter", "process_time", "thread_time", "time", "clock_gettime")
    for suffix in ("", "_ns")
}

BENCH = sorted(ROOT.glob("bench/**/*.py"))
BACKENDS = sorted(ROOT.glob("backends/**/*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


#: Running `bench.__main__` runs the command line.
MODULES = ["backends", *(module_name(path) for path in BENCH if path.stem != "__main__")]


def test_importing_backends_and_bench_imports_no_framework() -> None:
    script = f"""
import importlib, sys
for module in {MODULES}:
    importlib.import_module(module)
    for name in {FRAMEWORKS}:
        if name in sys.modules:
            sys.exit(f"{{module}} imports {{name}}")
"""
    loaded = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert loaded.returncode == 0, loaded.stderr


def test_conformance_needs_one_framework_and_nothing_of_a_report() -> None:
    """On a GPU each framework has an environment of its own (docs/gpu.md)."""
    pytest.importorskip("torch")
    absent = (
        *("tensorflow", "tf_keras", "keras", "jax", "jaxlib", "onnx", "onnxruntime"),
        *("altair", "vl_convert", "jinja2", "tabulate", "orjson"),
    )
    script = f"""
import sys
class Absent:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in {absent}:
            raise ModuleNotFoundError(name=name)
sys.meta_path.insert(0, Absent)
import pytest
sys.exit(pytest.main({["-q", "-p", "no:cacheprovider", "tests/test_conformance.py", "-k", SMALL]}))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def imported(tree: ast.AST) -> Iterator[str]:
    """Names of the modules that a file imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("path", BACKENDS, ids=relative)
def test_a_backend_does_not_know_the_harness(path: Path) -> None:
    found = [name for name in imported(parse(path)) if name.split(".")[0] == "bench"]
    assert found == []


@pytest.mark.parametrize("path", BENCH, ids=relative)
def test_the_harness_does_not_know_a_framework(path: Path) -> None:
    found = [name for name in imported(parse(path)) if name.split(".")[0] in FRAMEWORKS]
    assert found == []


def clock_reads(tree: ast.AST) -> list[str]:
    """Clocks of `time` that a file names, called or not."""
    aliases = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name == "time"
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            found += [alias.name for alias in node.names if alias.name in CLOCKS]
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in aliases
            and node.attr in CLOCKS
        ):
            found.append(node.attr)
    return found


@pytest.mark.parametrize("path", [p for p in BENCH if p.name != "measure.py"], ids=relative)
def test_only_measure_reads_a_clock(path: Path) -> None:
    assert clock_reads(parse(path)) == []


@pytest.mark.parametrize(
    ("source", "reads"),
    [
        ("import time\ntime.perf_counter_ns()", ["perf_counter_ns"]),
        ("import time as t\nclock = t.time", ["time"]),
        ("from time import perf_counter as p", ["perf_counter"]),
        ("import time\ntime.sleep(1); time.monotonic()", []),
        ("from bench.measure import time\ntime()", []),
    ],
)
def test_a_clock_is_found_however_it_is_named(source: str, reads: list[str]) -> None:
    assert clock_reads(ast.parse(source)) == reads


def test_there_is_something_to_scan() -> None:
    assert ROOT / "bench" / "measure.py" in BENCH
    assert ROOT / "backends" / "api.py" in BACKENDS


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))
