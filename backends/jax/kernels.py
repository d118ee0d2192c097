"""Which kernels and XLA instructions one call runs, by `jax.profiler`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax

from backends.kernels import Span, of_spans


def kernels(device: str, call: Callable[[], None]) -> Mapping[str, int]:
    """See `backends.api.Backend`; on the CPU instructions of the compiled program."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            call()
        (path,) = Path(folder).rglob("*.xplane.pb")
        with warnings.catch_warnings():
            # A type of jaxlib's has no `__module__`. Python 3.12 says so, and where that is an
            # error the binding ends the process.
            warnings.simplefilter("ignore", DeprecationWarning)
            return of_spans(_spans(jax.profiler.ProfileData.from_file(str(path))), device)


def _spans(data: Any) -> Iterable[Span]:
    for plane in data.planes:
        for line in plane.lines:
            for event in line.events:
                operation = str(dict(event.stats).get("hlo_op", ""))
                yield Span(plane.name, line.name, event.name, operation, event.duration_ns)
