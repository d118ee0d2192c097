"""Options of a sweep's axes (lists, whole numbers, sizes), and exit statuses, for all commands.

Which values an axis may have is for `bench.axes.Axes` to say.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from bench.errors import StoreError, UsageError

#: Exit statuses of every command.
OK, FAILED, USAGE, CANNOT_TELL, INTERRUPTED = 0, 1, 2, 3, 130

FOLDER = click.Path(path_type=Path)

Words = tuple[str, ...]
Numbers = tuple[int, ...]
Command = Callable[..., Any]


def words(_context: click.Context, option: click.Parameter, text: str | None) -> Words | None:
    """`lstm,gru` -> names, taken as they are."""
    return None if text is None else tuple(_parts(_name(option), text))


def numbers(_context: click.Context, option: click.Parameter, text: str | None) -> Numbers | None:
    """`25,100` -> whole numbers."""
    if text is None:
        return None
    return tuple(_whole(_name(option), part) for part in _parts(_name(option), text))


def count(_context: click.Context, option: click.Parameter, text: str | None) -> int | None:
    """A whole number of 1 or more."""
    if text is None:
        return None
    number = _whole(_name(option), text)
    if number < 1:
        raise _not_a_count(_name(option), text)
    return number


def percentage(_context: click.Context, option: click.Parameter, text: str | None) -> float | None:
    """`2%` or `2.5%` -> 0.02, 0.025: above 0 and below 100."""
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)%", text.strip())
    share = float(found[1]) / 100 if found else 0.0
    if not 0 < share < 1:
        raise UsageError(f"{_name(option)} {text!r}: must be above 0% and below 100%, such as 2%")
    return share


_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0}


def duration(_context: click.Context, option: click.Parameter, text: str | None) -> float | None:
    """`90s`, `10m`, `1.5h` -> seconds."""
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)([smh])", text.strip())
    seconds = float(found[1]) * _UNITS_S[found[2]] if found else 0.0
    if seconds <= 0:
        raise UsageError(f"{_name(option)} {text!r}: must be a time above 0: 90s, 10m or 2h")
    return seconds


_UNITS_BYTES = {"K": 10**3, "M": 10**6, "G": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


#: No step of any framework runs within less.
LEAST_BYTES = 1_000_000


def size(_context: click.Context, option: click.Parameter, text: str | None) -> int | None:
    """`300M`, `2G`, `1.5GiB` -> bytes: K, M, G are powers of 1,000; KiB, MiB, GiB of 1,024."""
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)([KMG](?:iB)?)", text.strip())
    size_bytes = int(float(found[1]) * _UNITS_BYTES[found[2]]) if found else 0
    if size_bytes < LEAST_BYTES:
        raise UsageError(
            f"{_name(option)} {text!r}: must be a size of 1M or more in K, M, G, KiB, MiB or GiB: "
            "300M"
        )
    return size_bytes


def _name(option: click.Parameter) -> str:
    return option.opts[0].removeprefix("--")


def _parts(name: str, text: str) -> list[str]:
    parts = [part.strip() for part in text.split(",")]
    if "" in parts:
        raise UsageError(f"{name} {text!r}: has an empty value; separate values by one comma each")
    return parts


def _whole(name: str, text: str) -> int:
    # int() also takes 1_000 and digits of every script: nobody means them here.
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text.strip()):
        raise _not_a_count(name, text)
    return int(text)


def _not_a_count(name: str, text: str) -> UsageError:
    return UsageError(f"{name} {text!r}: must be a whole number of 1 or more")


#: Options that each replace one axis of the preset: flag, what parses it, its form, its help.
_AXES: tuple[tuple[str, Callable[..., Any], str, str], ...] = (
    ("--backend", words, "A,B", "Frameworks; see `list`."),
    ("--strategy", words, "A,B", "Ways to carry time, by name; see `list`."),
    ("--cell", words, "A,B", "Cells; see `list --cells`."),
    ("--seq-len", numbers, "N,M", "Sequence lengths T."),
    ("--batch", numbers, "N,M", "Batch sizes B."),
    ("--layers", numbers, "N,M", "Numbers of layers L."),
    ("--hidden", numbers, "N,M", "Hidden units H."),
    ("--inputs", numbers, "N,M", "Input features D."),
    ("--direction", words, "A,B", "forward; bidirectional: joined after each layer; two-stacks."),
    ("--lengths", words, "A,B", "full, ragged (each its own length), or half (T / 2 at most)."),
    ("--initial-state", words, "A,B", "zeros, random."),
    ("--dtype", words, "A,B", "float32, float64, bfloat16, float16."),
    ("--tf32", words, "A,B", "off, on: may a GPU's products of float32 be TensorFloat-32."),
    ("--device", words, "A,B", "cpu, gpu; gpu:1 is the second GPU."),
    ("--threads", numbers, "N,M", "Threads of every framework, each on a CPU of its own."),
    ("--mode", words, "A,B", "forward, or train: forward, backward and update."),
)


def pythons(
    _context: click.Context, _option: click.Parameter, named: Sequence[str]
) -> dict[str, Path]:
    """`torch=env/bin/python`, each once -> backend and absolute path."""
    paths: dict[str, Path] = {}
    for word in named:
        backend, _, path = word.partition("=")
        if not (backend and path):
            raise UsageError(f"python {word!r}: must be BACKEND=PATH, as torch=env/bin/python")
        if backend in paths:
            raise UsageError(f"python {word!r}: {backend} is given twice")
        # Not resolved: an environment's interpreter is a link, and being one makes it that.
        paths[backend] = Path(path).expanduser().absolute()
    return paths


#: Which interpreter runs a framework.
PYTHON = click.option(
    "--python",
    "pythons",
    multiple=True,
    callback=pythons,
    metavar="BACKEND=PATH",
    help="Interpreter of a framework's own environment; once for each such framework.",
)


#: Options of what is measured and how, besides the axes.
_SWEEP = (
    click.option("--blocks", callback=count, metavar="N", help="Independent repetitions."),
    click.option(
        "--start",
        type=click.Choice(["fork", "spawn"]),
        default="fork",
        show_default=True,
        help="Workers are forked from a process that has imported the framework, or start afresh.",
    ),
    click.option(
        "--no-caps", is_flag=True, help="Measure also what the preset leaves out as too slow."
    ),
)


def sweep_options(command: Command) -> Command:
    """Add the options that make a sweep: a preset, its axes (None where not given), sampling."""
    for option in reversed(_SWEEP):
        command = option(command)
    for flag, parse, form, text in reversed(_AXES):
        command = click.option(flag, callback=parse, metavar=form, help=text)(command)
    return click.option(
        "--preset",
        default="default",
        show_default=True,
        metavar="NAME|FILE.toml",
        help="Where axes and sampling come from; see `list --presets`.",
    )(command)


def repeatable(context: click.Context, is_place: Callable[[str], bool] = lambda _: False) -> str:
    """The command line without `--out FOLDER` and other places: who types it again has others.

    `is_place` says which arguments, that are no options or their values, are left out too.
    """
    command, *arguments = context.find_root().obj
    options = [entry for entry in context.command.params if isinstance(entry, click.Option)]
    with_value = {name for option in options if not option.is_flag for name in option.opts}
    kept, before, positional = [command], "", False
    for argument in arguments:
        is_value = before in with_value
        option = "" if positional else before if is_value else argument.partition("=")[0]
        if option != "--out" and (is_value or not is_place(argument)):
            kept.append(argument)
        positional = positional or (argument == "--" and not is_value)
        before = "" if is_value or positional else argument
    return shlex.join(["python", "-m", "bench", *kept])


@contextmanager
def said_where(folder: Path) -> Iterator[None]:
    """Say where the records are when a run is ended from outside or by its disk."""
    try:
        yield
    except (KeyboardInterrupt, StoreError):
        click.echo(f"\nbench: what was measured is in {folder}", err=True)
        raise
