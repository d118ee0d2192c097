"""Fixtures of the shared tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from unittest.mock import patch

import psutil
import pytest
from hypothesis import settings

import backends
from backends.api import Backend, Case, Mode, Runner
from backends.devices import is_gpu
from bench import outcome
from tests.checks import Build
from tests.scripted_runs import left_behind, registered
from tests.support import DEVICE, ON_CPU_ALONE

try:
    from bench.report import page
except ModuleNotFoundError:  # conformance needs nothing of a report: on a GPU there may be none
    page = None  # type: ignore[assignment]

# The same examples every time: a failure that comes and goes tells nothing about a change.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "xdist_group(name): runs in one process with its group")
    config.addinivalue_line("markers", "draws: plots of its reports are really drawn")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests of an adapter, `test_<backend>.py`, where its framework is loaded anyway."""
    modules = {f"test_{name}": name for name in backends.BACKENDS}
    for item in items:
        backend = modules.get(Path(item.path).stem)
        if backend is not None:
            item.add_marker(pytest.mark.xdist_group(backend))


@cache
def _backend(name: str) -> Backend:
    return backends.create(name)


@pytest.fixture
def build_with() -> Callable[[str], Build]:
    """Builds runners of an implementation; skips where its framework is not installed."""

    def of(implementation: str) -> Build:
        entry = backends.IMPLEMENTATIONS[implementation]
        reason = backends.missing(entry.backend)
        if reason is not None:
            pytest.skip(reason)
        if is_gpu(DEVICE) and entry.backend in ON_CPU_ALONE:
            pytest.skip(f"{entry.backend} computes on the CPU")

        def build(case: Case, mode: Mode) -> Runner:
            return _backend(entry.backend).build(case, entry.strategy.name, mode)

        return build

    return of


@pytest.fixture(autouse=True)
def quick_pictures(request: pytest.FixtureRequest) -> Iterator[None]:
    """Draw nothing, which takes seconds for each report, but where a test is marked `draws`."""
    if page is not None:
        page.remember_nothing()
    if page is None or request.node.get_closest_marker("draws"):
        yield
        return

    def drawn(what: str, given: str = "") -> str:
        return (
            "vegaEmbed = null;"
            if what == "bundle"
            else json.dumps([["<svg/>", ""]] * len(json.loads(given)))
        )

    with patch("bench.report.charts.in_another_process", drawn):
        yield


@pytest.fixture
def scripted_backend() -> Iterator[None]:
    """Register the scripted backend here and in every worker that starts; none may be left."""
    # Not `monkeypatch`: what a test changes with that is restored before this is.
    with registered() as mark, patch.object(outcome, "PREPARE_LIMIT_S", 5.0):
        yield
    children = psutil.Process().children(recursive=True)
    assert [child for child in children if child.is_running()] == []
    assert left_behind(mark) == []
