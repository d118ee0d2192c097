"""The commands: run, report, list, export.

Commands import what they need when they run, so that `--help` and a mistyped option answer at once.
Nothing below this module prints an error or decides an exit status.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from bench.errors import UsageError, choose
from bench.options import axis_options, count

if TYPE_CHECKING:
    from bench.record import Run

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

LOCAL_RESULTS = Path("results/local")

_FOLDER = click.Path(path_type=Path)


class _Commands(click.Group):
    """A group that says which command was probably meant."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, choose("command", cmd_name, self.list_commands(ctx)))


_EPILOG = """\b
Examples:
  python -m bench run                        ten minutes, LSTM over sequence length
  python -m bench run --preset smoke         one minute: does it run here
  python -m bench report results/local/RUN   its tables again
  python -m bench COMMAND --help             more, with examples

Exit status: 0; 1 if a job of a run failed; 2 for wrong input, nothing written; 130 interrupted.
"""


@click.group(
    cls=_Commands,
    epilog=_EPILOG,
    invoke_without_command=True,
    context_settings={"max_content_width": 100, "help_option_names": ["-h", "--help"]},
)
@click.pass_context
def cli(context: click.Context) -> None:
    """Measure static against dynamic recurrent networks in TensorFlow, PyTorch and JAX."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


_RUN_EPILOG = """\b
Examples:
  python -m bench run --dry-run
  python -m bench run --backend torch,jax --strategy static,dynamic --seq-len 10,50
  python -m bench run --preset smoke --cell gru --mode train --blocks 3
  python -m bench run --preset mine.toml --out results/local/mine

Values of an axis are separated by commas. Every combination is measured, and axes that are not
named stay as in the preset. The run's folder holds every sample (records.jsonl), the host and its
versions (manifest.json), the tables, and benchmark.json for pytest-benchmark.
"""


@cli.command(epilog=_RUN_EPILOG, short_help="Measure a sweep and print its tables.")
@click.option(
    "--preset",
    default="default",
    show_default=True,
    metavar="NAME|FILE.toml",
    help="Where axes and sampling come from; see `list --presets`.",
)
@axis_options
@click.option(
    "--threads",
    callback=count,
    default="1",
    show_default=True,
    metavar="N",
    help="Threads of every framework, each on a CPU of its own.",
)
@click.option("--blocks", callback=count, metavar="N", help="Independent repetitions.")
@click.option(
    "--start",
    type=click.Choice(["fork", "spawn"]),
    default="fork",
    show_default=True,
    help="Workers are forked from a process that has imported the framework, or start afresh.",
)
@click.option(
    "--no-caps", is_flag=True, help="Measure also what the preset leaves out as too slow."
)
@click.option(
    "--out", type=_FOLDER, metavar="FOLDER", help="New folder. [default: results/local/TIME-PRESET]"
)
@click.option("--dry-run", is_flag=True, help="Say what would be measured, and stop.")
@click.pass_context
def run(
    context: click.Context,
    /,
    *,
    preset: str,
    threads: int,
    blocks: int | None,
    start: Literal["fork", "spawn"],
    no_caps: bool,
    out: Path | None,
    dry_run: bool,
    **named: tuple[Any, ...] | None,
) -> int:
    """Measure a sweep: time a call, time to the first result, peak memory, outputs.

    What is compared lives in one worker per framework and takes turns, so that every ratio is
    paired; each implementation is checked against a float64 oracle before it is timed.
    """
    from rich.console import Console

    from bench import run as engine
    from bench.plan import print_plan
    from bench.progress import for_console
    from bench.record import check_new
    from bench.selection import absent_backends, check_installed, select

    axes = {name: values for name, values in named.items() if values is not None}
    if out is not None:
        check_new(out)
    sweep = select(preset, axes, blocks=blocks, capped=not no_caps)
    engine.chosen_cpus(threads)
    check_installed(sweep, axes.get("backend", ()))
    engine.check_devices(sweep)
    if dry_run:
        print_plan(sweep, absent_backends(sweep), Console())
        return OK
    folder = out or LOCAL_RESULTS / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{sweep.name}"
    try:
        result = engine.execute(
            sweep,
            folder,
            threads=threads,
            start=start,
            command=shlex.join(["python", "-m", "bench", *_repeatable(context.find_root().obj)]),
            progress=for_console(Console(stderr=True)),
        )
    except KeyboardInterrupt:
        click.echo(f"\nbench: what was measured is in {folder}", err=True)
        raise
    _publish(result)
    failed = engine.failed(result)
    if failed:
        jobs = len({record.job for record in failed})
        click.echo(f"bench: {jobs} jobs failed; the tables say why", err=True)
    return FAILED if failed else OK


def _repeatable(arguments: Sequence[str]) -> list[str]:
    """The arguments without `--out FOLDER`: whoever runs them again has another folder."""
    kept: list[str] = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if argument.partition("=")[0] != "--out" and before != "--out":
            kept.append(argument)
    return kept


def _publish(result: Run) -> None:
    """Print the tables of a finished run and write them into its folder."""
    from rich.console import Console

    from bench import report as reports
    from bench.export import export as write_benchmark

    report = reports.build([result])
    reports.print_report(report, Console())
    try:
        written = reports.write(report, result.folder)
        written.append(write_benchmark(result, result.folder / "benchmark.json"))
    except UsageError as error:
        # What was measured is safe: a missing extra is no reason to call the run wrong.
        click.echo(f"bench: not everything was written: {error}", err=True)
    else:
        click.echo(f"\n{result.folder}: records.jsonl, {', '.join(p.name for p in written)}")


_REPORT_EPILOG = """\b
Examples:
  python -m bench report results/local/RUN
  python -m bench report results/local/OLD results/local/NEW --out comparison
"""


@cli.command(epilog=_REPORT_EPILOG, short_help="Print and write the tables of runs.")
@click.argument("runs", nargs=-1, required=True, type=_FOLDER, metavar="RUN...")
@click.option(
    "--out", type=_FOLDER, metavar="FOLDER", help="Where the tables go. [default: one run's folder]"
)
def report(runs: tuple[Path, ...], out: Path | None) -> int:
    """Print the tables of one run or several, and write them as Markdown, HTML, LaTeX and CSV.

    Everything is derived again from the samples. Several runs stand side by side and are never
    averaged.
    """
    from rich.console import Console

    from bench import report as reports
    from bench.record import read_run

    if len(runs) > 1 and out is None:
        raise UsageError(f"report of {len(runs)} runs: name a folder for the tables with --out")
    result = reports.build([read_run(folder) for folder in runs])
    reports.print_report(result, Console())
    folder = out or runs[0]
    written = reports.write(result, folder)
    click.echo(f"\n{folder}: {', '.join(path.name for path in written)}")
    return OK


_LIST_EPILOG = """\b
Examples:
  python -m bench list
  python -m bench list --presets
"""


@cli.command("list", epilog=_LIST_EPILOG, short_help="Say what there is to choose from.")
@click.option("--cells", "what", flag_value="cells", help="Cells and their gates.")
@click.option("--presets", "what", flag_value="presets", help="Named sweeps.")
@click.option("--devices", "what", flag_value="devices", help="Devices that frameworks find here.")
def list_(what: str | None) -> int:
    """Say what there is to choose from: implementations, cells, presets, devices, or one of them.

    Devices are asked of every framework in a process of its own, which takes some seconds.
    """
    from rich.console import Console

    from bench import listing

    console = Console()
    if what is None:
        listing.print_implementations(console)
    if what in (None, "cells"):
        listing.print_cells(console)
    if what in (None, "presets"):
        listing.print_presets(console)
    if what in (None, "devices"):
        listing.print_devices(console)
    return OK


_EXPORT_EPILOG = """\b
Examples:
  python -m bench export results/local/RUN --format pytest-benchmark
  pytest-benchmark compare OLD/benchmark.json NEW/benchmark.json --group-by=fullname
  pytest-benchmark compare RUN/benchmark.json --group-by=param:seq_len --sort=mean

One round of the file is one worker's median, so that its spread is the one between workers. Jobs
that failed, were wrong or were left out are under the key not_replayed.
"""


@cli.command("export", epilog=_EXPORT_EPILOG, short_help="Write a run as pytest-benchmark JSON.")
@click.argument("run_folder", type=_FOLDER, metavar="RUN")
@click.option(
    "--format",
    "_format",
    type=click.Choice(["pytest-benchmark"]),
    default="pytest-benchmark",
    show_default=True,
    help="The form of the file.",
)
@click.option("--out", type=_FOLDER, metavar="FILE", help="[default: RUN/benchmark.json]")
def export_(run_folder: Path, _format: str, out: Path | None) -> int:
    """Write a run's times as a file that other tools read."""
    from bench.export import export
    from bench.record import read_run

    written = export(read_run(run_folder), out or run_folder / "benchmark.json")
    click.echo(str(written))
    return OK


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status. An expected error is one line on stderr."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = cli.main(given, prog_name="python -m bench", standalone_mode=False, obj=given)
    except UsageError as error:
        return _refuse(str(error))
    except click.ClickException as error:
        return _refuse(error.format_message())
    except (KeyboardInterrupt, click.Abort):
        click.echo("bench: interrupted", err=True)
        return INTERRUPTED
    return int(status or OK)


def _refuse(message: str) -> int:
    printable = "".join(c if c.isprintable() else " " for c in message)
    click.echo(f"bench: error: {' '.join(printable.split())}", err=True)
    return USAGE
