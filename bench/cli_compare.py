"""The command `compare`: is anything slower than it was? For people, and for CI."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from bench.errors import UsageError, choose
from bench.options import FOLDER, words

if TYPE_CHECKING:
    from bench.compare import Comparison

Format = Literal["table", "markdown", "json", "csv"]

_EPILOG = """\b
Examples:
  python -m bench compare results/local/OLD results/local/NEW
  python -m bench compare OLD NEW --fail-if slower-than-10% --fail-if larger-than-20%
  python -m bench compare OLD NEW --measure steady --format json > comparison.json

\b
Exit status:
  0    every job that counts is shown to be faster, or not slower than the limit allows
  1    a job is slower than the limit allows, or ended well in OLD and fails or is wrong in NEW
  2    wrong input, hosts that differ, or no job in common; nothing is compared
  3    nothing is known to be worse, but of some jobs one cannot tell

"Slower than 5 %" means that the true ratio is above 1.05, with an error of 5 % over all jobs
together; a ratio that is merely seen to be 1.06 is not enough. For status 3 the remedy is more
blocks, or fewer jobs.
"""


@click.command("compare", epilog=_EPILOG, short_help="Say what is slower in one run than another.")
@click.argument("old", type=FOLDER, metavar="OLD")
@click.argument("new", type=FOLDER, metavar="NEW")
@click.option(
    "--fail-if",
    "fail_if",
    multiple=True,
    metavar="RULE",
    help="slower-than-N% or larger-than-N% (peak memory); may be repeated. "
    "[default: slower-than-5%]",
)
@click.option(
    "--measure",
    callback=words,
    metavar="A,B",
    help="Compare only these: steady, cold, memory. [default: all]",
)
@click.option(
    "--across-hosts", is_flag=True, help="Compare runs of different hosts, and label every row so."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "markdown", "json", "csv"]),
    default="table",
    show_default=True,
    help="What is printed.",
)
def compare(
    *,
    old: Path,
    new: Path,
    fail_if: tuple[str, ...],
    measure: tuple[str, ...] | None,
    across_hosts: bool,
    form: Format,
) -> int:
    """Hold each job of the run NEW against the same job of the run OLD.

    Steady calls, first results and peak memory are compared as ratios NEW / OLD with intervals.
    Runs that took turns block by block are compared in pairs, others as two samples.
    """
    from bench.compare import compare as compare_runs
    from bench.record import MEASURES
    from bench.rules import parse_rules
    from bench.store import read_run

    rules = parse_rules(fail_if)
    for name in measure or ():
        choose("measure", name, MEASURES)
    if old.resolve() == new.resolve():
        raise UsageError(f"run {old}: is given twice; name an old and a new run")
    result = compare_runs(
        read_run(old),
        read_run(new),
        rules=rules,
        across_hosts=across_hosts,
        measures=[name for name in MEASURES if measure is None or name in measure],
    )
    _show(result, form)
    return result.exit_status


def _show(result: Comparison, form: Format) -> None:
    from rich.console import Console

    from bench.report import comparison, print_report

    if form == "table":
        print_report(comparison.build(result), Console())
    elif form == "markdown":
        click.echo(_markdown(result), nl=False)
    elif form == "csv":
        click.echo(comparison.to_csv(result), nl=False)
    else:
        click.echo(comparison.to_json(result))


def _markdown(result: Comparison) -> str:
    from importlib.util import find_spec

    from backends import install_line
    from bench.report import comparison, markdown

    if find_spec("tabulate") is None:
        raise UsageError("tabulate not installed: " + install_line("report"))
    return markdown.render(comparison.build(result))
