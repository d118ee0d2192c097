"""The peak that `bench.memory` reads against allocations whose size is known, in each framework.

    python benchmarks/memory.py [--repeats 5] [--megabytes 16,64,512] [--out FILE]

Each allocation is one of ones, in a fresh process that has imported and started the framework, as
the worker of a memory job has. The goal is 5 % or less from 16 MB on. Writes the raw readings.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import backends
from bench.memory import PeakMeter
from benchmarks import instrument

#: Relative error that a reading may have.
GOAL = 0.05

MEGABYTES = (16, 32, 64, 128, 256, 512)

#: Allocates, and returns what holds the memory.
Make = Callable[[], object]


def _jax(jax: Any, size: int) -> Make:
    """Compiled before: a program that makes ones takes 6 MB to compile, whatever their number."""
    compiled = jax.jit(lambda: jax.numpy.ones(size, "uint8")).lower().compile()
    return lambda: compiled().block_until_ready()


@dataclass(frozen=True)
class Framework:
    """A backend in whose environment it runs, its module, and what makes ones of that size."""

    backend: str
    module: str
    ones: Callable[[Any, int], Make]


FRAMEWORKS = {
    "numpy": Framework("reference", "numpy", lambda np, n: partial(np.ones, n, np.uint8)),
    "torch": Framework("torch", "torch", lambda t, n: partial(t.ones, n, dtype=t.uint8)),
    "jax": Framework("jax", "jax", _jax),
    "tensorflow": Framework("tensorflow", "tensorflow", lambda tf, n: partial(tf.ones, n, "uint8")),
}


def reading(framework: Framework, size: int) -> int:
    """Bytes that the meter reads of an allocation of `size` bytes, here and now."""
    module = import_module(framework.module)
    framework.ones(module, 1)()  # starts the framework, which is no part of the allocation
    make = framework.ones(module, size)
    meter = PeakMeter()
    held = make()
    read = meter.read()
    del held
    return read


def one_process(framework: str, size: int) -> int:
    """Read in a fresh process."""
    info = backends.BACKENDS[FRAMEWORKS[framework].backend]
    done = subprocess.run(
        [sys.executable, __file__, "--one", framework, str(size)],
        env={**os.environ, **info.environment(1)},
        capture_output=True,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise SystemExit(
            f"{framework}: exit status {done.returncode}: {lines[-1] if lines else ''}"
        )
    return int(done.stdout.split()[-1])


def table_row(row: dict[str, Any]) -> dict[str, Any]:
    """Table row of the readings of one size."""
    size, read = row["bytes"], row["read_bytes"]
    errors = [value / size - 1 for value in read]
    worst = max(errors, key=abs)
    return {
        "framework": row["framework"],
        "MB": f"{size / 1e6:.0f}",
        "reading [MB]": f"{median(read) / 1e6:.2f}",
        "error": f"{median(errors):+.2%}",
        "worst": f"{worst:+.2%}",
        "within 5 %": "yes" if abs(worst) <= GOAL else "no",
        "processes": len(read),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="processes a size")
    parser.add_argument("--megabytes", default=",".join(map(str, MEGABYTES)), metavar="N,M")
    parser.add_argument("--only", default=",".join(FRAMEWORKS), help="frameworks, by commas")
    parser.add_argument("--out", type=Path, default=Path("results/instrument/memory.json"))
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        name, size = arguments.one
        print(reading(FRAMEWORKS[name], int(size)))
        return
    rows: list[dict[str, Any]] = []
    for framework in arguments.only.split(","):
        for megabytes in map(int, arguments.megabytes.split(",")):
            size = megabytes * 10**6
            read = [one_process(framework, size) for _ in range(arguments.repeats)]
            rows.append({"framework": framework, "bytes": size, "read_bytes": read})
        settings = {"repeats": arguments.repeats}
        instrument.write(arguments.out, settings=settings, rows=rows)
    instrument.print_table([table_row(row) for row in rows])


if __name__ == "__main__":
    main()
