"""Hostile input by the thousand: `python benchmarks/hostile.py [--inputs N] [--seed 0] [--out F]`.

Presets, command lines of a dry run, and run folders to report, each mutated from valid ones. Every
one must end in a normal result, or in one line with exit status 2 and nothing written: never in a
traceback, never in a program that hangs. Exit status 1 where one does not.
"""

from __future__ import annotations

import contextlib
import io
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal
from unittest.mock import patch

import click
from hypothesis import HealthCheck, Phase, given, seed, settings
from rich.console import Console
from rich.table import Table

from backends import BACKENDS
from bench import cli, run
from bench.measure import clock
from bench.options import OK, USAGE
from benchmarks import instrument
from benchmarks.hostile_inputs import KINDS, Kind

#: Seconds after which an input hangs; the slowest takes one or two.
LIMIT_S = 20.0

Ending = Literal["ok", "refused", "traceback", "hang", "untidy"]
GOOD: tuple[Ending, ...] = ("ok", "refused")


class _Hang(BaseException):
    """Not an `Exception`: nothing of what is tested may catch it."""


@dataclass(kw_only=True)
class Tally:
    """Ends of the inputs of a kind, and one input for each bad end."""

    ends: Counter[Ending] = field(default_factory=Counter)
    details: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


def attempt(kind: Kind, value: Any) -> tuple[Ending, str]:
    """End of one input, and its output; in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder, contextlib.chdir(folder):
        arguments = kind.prepare(value)
        before = _tree()
        out, err = io.StringIO(), io.StringIO()
        try:
            with (
                _alarm(),
                warnings.catch_warnings(action="error"),
                contextlib.redirect_stdout(out),
                contextlib.redirect_stderr(err),
                _nothing_measured(),
            ):
                status = cli.main(arguments)
        except _Hang:
            return "hang", "".join(traceback.format_exc())
        except Exception:
            return "traceback", traceback.format_exc()
        return _judged(status, out.getvalue(), err.getvalue(), written=_tree() - before)


def _judged(status: int, out: str, err: str, *, written: set[str]) -> tuple[Ending, str]:
    said = f"exit {status}\n{out[-2000:]}\n{err[-2000:]}"
    if status == OK and not err and _printable(out):
        return "ok", said
    one_line = err.startswith("bench: error: ") and err.count("\n") == 1 and _printable(err)
    if status == USAGE and one_line and not out and not written:
        return "refused", said
    return "untidy", f"{said}\nwritten: {written}"


def _printable(text: str) -> bool:
    """Whether text moves no cursor and sets no colour: a terminal obeys what a file says."""
    return all(line.isprintable() for line in text.split("\n"))


def _tree() -> set[str]:
    return {str(path) for path in Path().rglob("*")}


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    """Raise `_Hang` in the body after `LIMIT_S`; a timer that runs already goes on afterwards."""

    def ring(_signal: int, _frame: FrameType | None) -> None:
        raise _Hang

    handler = signal.signal(signal.SIGALRM, ring)
    left, interval = signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    start = clock()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:
            passed = (clock() - start) / 1e9
            signal.setitimer(signal.ITIMER_REAL, max(1e-3, left - passed), interval)


@contextlib.contextmanager
def _nothing_measured() -> Iterator[None]:
    """No input may start a process: devices are said without asking, and nothing is run."""

    def describe(**_: object) -> dict[str, dict[str, Any]]:
        return {name: {"devices": {"cpu": "a CPU"}} for name in BACKENDS}

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a dry run measures nothing")

    with (
        patch.object(run, "describe_backends", describe),
        patch.object(run, "execute", refuse),
        patch.object(run, "resume", refuse),
    ):
        yield


def attack(kind: Kind, *, inputs: int, start: int) -> Tally:
    """Try so many inputs of a kind; the same for the same `start`."""
    tally = Tally()

    @seed(start)
    @settings(
        max_examples=inputs,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(kind.inputs)
    def each(value: Any) -> None:
        ending, said = attempt(kind, value)
        tally.ends[ending] += 1
        if ending not in GOOD:
            # The last lines tell one fault from another.
            last = "\n".join(said.splitlines()[-4:-1])
            tally.details.setdefault(last, f"{kind.name}, {ending}: {value!r:.1500}\n{said}")

    before = clock()
    each()
    tally.seconds = (clock() - before) / 1e9
    return tally


@click.command(help=__doc__)
@click.option("--inputs", default=10_000, show_default=True, help="Of all kinds together.")
@click.option("--seed", "start", default=0, show_default=True, help="Other inputs.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=instrument.RESULTS / "hostile.json",
    show_default=True,
)
def main(inputs: int, start: int, out: Path) -> None:
    table = Table("kind", "inputs", "ok", "refused", "tracebacks", "hangs", "untidy", "seconds")
    tallies = {kind.name: attack(kind, inputs=inputs // len(KINDS), start=start) for kind in KINDS}
    for name, tally in tallies.items():
        ends = (tally.ends[word] for word in ("ok", "refused", "traceback", "hang", "untidy"))
        table.add_row(name, str(tally.ends.total()), *map(str, ends), f"{tally.seconds:.0f}")
    Console(width=100).print(table)
    rows = [
        {"kind": name, **tally.ends, "seconds": tally.seconds} for name, tally in tallies.items()
    ]
    instrument.write(out, settings={"inputs": inputs, "seed": start}, rows=rows)
    details = [detail for tally in tallies.values() for detail in tally.details.values()]
    for detail in details:
        print(f"\n{detail}", file=sys.stderr)
    sys.exit(1 if details else 0)


if __name__ == "__main__":
    main()
