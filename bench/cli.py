"""The commands: run, report, list, export.

Commands import what they need when they run, so that `--help` and a mistyped option answer at once.
Nothing below this module prints an error or decides an exit status.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from bench.cli_claims import claims
from bench.cli_compare import compare
from bench.cli_run import run
from bench.cli_versus import versus
from bench.errors import StoreError, UsageError, choose
from bench.options import FAILED, FOLDER, INTERRUPTED, OK, PYTHON, USAGE


class _Commands(click.Group):
    """A group that says which command was probably meant."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, choose("command", cmd_name, self.list_commands(ctx)))


_EPILOG = """\b
Examples:
  python -m bench run                        ten minutes, LSTM over sequence length
  python -m bench run --preset smoke         a minute or two: does it run here
  python -m bench report results/local/RUN   its tables again
  python -m bench claims --run               what others claim, judged by this host
  python -m bench COMMAND --help             more, with examples

Exit status: 0; 1 if a job of a run failed, is slower in a comparison, or a claim is refuted; 2 for
wrong input, nothing written; 3 where a comparison or a claim cannot be told; 130 interrupted.
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


cli.add_command(run)
cli.add_command(versus)
cli.add_command(compare)
cli.add_command(claims)

_REPORT_EPILOG = """\b
Examples:
  python -m bench report results/local/RUN
  python -m bench report results/local/OLD results/local/NEW --out comparison
"""


@cli.command(epilog=_REPORT_EPILOG, short_help="Print and write the tables of runs.")
@click.argument("runs", nargs=-1, required=True, type=FOLDER, metavar="RUN...")
@click.option(
    "--out", type=FOLDER, metavar="FOLDER", help="Where the tables go. [default: one run's folder]"
)
def report(runs: tuple[Path, ...], out: Path | None) -> int:
    """Print the tables of one run or several, and write them as a page, Markdown, LaTeX and CSV.

    The page, index.html, opens without a network; plots and raw records lie beside it.

    Everything is derived again from the samples. A folder of runs, as `claims --run` leaves one, is
    all of them. Several runs stand side by side and are never averaged.
    """
    from rich.console import Console

    from bench import report as reports
    from bench.store import MANIFEST, read_all

    if len(runs) > 1 and out is None:
        raise UsageError(f"report of {len(runs)} runs: name a folder for the tables with --out")
    folder = out or runs[0]
    if (folder / MANIFEST).exists() and folder.resolve() not in {r.resolve() for r in runs}:
        raise UsageError(f"output folder {folder}: holds another run; name a new one")
    reports.prepare()
    with _keeping_everything():
        result = reports.build(read_all(runs))
        drawing = reports.draw(result)
        reports.print_report(result, Console())
        written = reports.write(result, folder, drawing)
    click.echo(f"\n{folder}: {', '.join(reports.named(written, folder))}")
    return OK


@contextmanager
def _keeping_everything() -> Iterator[None]:
    """Without the search for garbage: nothing of a run is any before its report is written.

    Records are many objects; looking through them again and again would take a third of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


_LIST_EPILOG = """\b
Examples:
  python -m bench list
  python -m bench list --presets
  python -m bench list --cells --markdown
"""


@cli.command("list", epilog=_LIST_EPILOG, short_help="Say what there is to choose from.")
@click.option(
    "--cells", "what", flag_value="cells", help="Cells, and which strategies compute them."
)
@click.option("--presets", "what", flag_value="presets", help="Named sweeps.")
@click.option("--claims", "what", flag_value="claims", help="Claims, and what decides them.")
@click.option("--devices", "what", flag_value="devices", help="Devices that frameworks find here.")
@click.option("--markdown", is_flag=True, help="With --cells: as a page with every reason.")
@PYTHON
def list_(what: str | None, *, markdown: bool, pythons: dict[str, Path]) -> int:
    """Say what there is to choose from: implementations, cells, presets, claims, devices; or one.

    Devices are asked of every framework in a process of its own, which takes some seconds.
    """
    from rich.console import Console

    from bench import listing, support
    from bench.interpreters import Interpreters

    if markdown:
        if what != "cells":
            raise UsageError("markdown: goes with --cells")
        click.echo(support.page(), nl=False)
        return OK
    console = Console()
    interpreters = Interpreters.of_paths(pythons)
    if what is None:
        listing.print_implementations(console, interpreters)
    if what in (None, "cells"):
        listing.print_cells(console)
    if what in (None, "presets"):
        listing.print_presets(console)
    if what in (None, "claims"):
        listing.print_claims(console)
    if what in (None, "devices"):
        listing.print_devices(console, interpreters)
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
@click.argument("run_folder", type=FOLDER, metavar="RUN")
@click.option(
    "--format",
    "_format",
    type=click.Choice(["pytest-benchmark"]),
    default="pytest-benchmark",
    show_default=True,
    help="The form of the file.",
)
@click.option("--out", type=FOLDER, metavar="FILE", help="[default: RUN/benchmark.json]")
def export_(run_folder: Path, _format: str, out: Path | None) -> int:
    """Write a run's times as a file that other tools read."""
    from bench.export import export
    from bench.store import read_run

    written = export(read_run(run_folder), out or run_folder / "benchmark.json")
    click.echo(str(written))
    return OK


#: The variable that names backends outside the tree; `backends` is imported when a command runs.
_EXTRA_BACKENDS = "RNN_BENCH_EXTRA_BACKENDS"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status. An expected error is one line on stderr."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _check_nul(given)
        status = cli.main(given, prog_name="python -m bench", standalone_mode=False, obj=given)
    except UsageError as error:
        return _refuse(str(error))
    except click.ClickException as error:
        return _refuse(error.format_message())
    except ImportError as error:
        if error.name != _EXTRA_BACKENDS:
            raise
        return _refuse(str(error))
    except StoreError as error:
        click.echo(f"bench: error: {error}", err=True)
        return FAILED
    except (KeyboardInterrupt, click.Abort):
        click.echo("bench: interrupted", err=True)
        return INTERRUPTED
    return int(status or OK)


def _check_nul(arguments: Sequence[str]) -> None:
    if any("\0" in argument for argument in arguments):
        raise UsageError("arguments: hold a NUL character, which no name and no path has")


def _refuse(message: str) -> int:
    printable = "".join(c if c.isprintable() else " " for c in message)
    click.echo(f"bench: error: {' '.join(printable.split())}", err=True)
    return USAGE
