"""The command `versus`: two environments measured side by side, and compared."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, Literal

import click

from bench.options import FOLDER, said_where, sweep_options

_EPILOG = """\b
Examples:
  python -m bench versus old/bin/python new/bin/python --backend jax --out results/local/jax
  nox -s compare -- jax==0.10.0 jax==0.10.2

Both environments need this project and the frameworks of the sweep. Their runs are in FOLDER/old
and FOLDER/new, and `compare` reads them again. Exit statuses are those of `compare`. What was
cut off starts again: `run --resume` cannot go on with two that take turns. A memory limit, a
precision and a budget are for `run`: a preset that has one is refused.
"""


@click.command("versus", epilog=_EPILOG, short_help="Measure two environments side by side.")
@click.argument("old", type=FOLDER, metavar="OLD_PYTHON")
@click.argument("new", type=FOLDER, metavar="NEW_PYTHON")
@sweep_options
@click.option("--out", type=FOLDER, required=True, metavar="FOLDER", help="New folder.")
@click.option(
    "--fail-if", "fail_if", multiple=True, metavar="RULE", help="As in `compare`; may be repeated."
)
@click.pass_context
def versus(
    context: click.Context,
    /,
    *,
    old: Path,
    new: Path,
    preset: str,
    blocks: int | None,
    start: Literal["fork", "spawn"],
    no_caps: bool,
    out: Path,
    fail_if: tuple[str, ...],
    **named: tuple[Any, ...] | None,
) -> int:
    """Measure a sweep with the interpreters of two environments, block by block in turns.

    What differs between two runs made one after the other, the host's state above all, is the same
    for both sides here.
    """
    from rich.console import Console

    from bench import report
    from bench import versus as engine
    from bench.compare import compare
    from bench.progress import for_console
    from bench.report import comparison
    from bench.rules import parse_rules
    from bench.run import chosen_cpus
    from bench.selection import select
    from bench.store import check_new

    rules = parse_rules(fail_if)
    check_new(out)
    axes = {name: values for name, values in named.items() if values is not None}
    sweep = select(preset, axes, sampling={"blocks": blocks}, capped=not no_caps)
    chosen_cpus(sweep.threads()[-1])
    with said_where(out):
        runs = engine.execute(
            sweep,
            out,
            (old, new),
            start=start,
            command=shlex.join(["python", "-m", "bench", *context.find_root().obj]),
            progress=for_console(Console(stderr=True)),
        )
    found = compare(*runs, rules=rules)
    report.print_report(comparison.build(found), Console())
    return found.exit_status
