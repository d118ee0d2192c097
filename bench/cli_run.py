"""The command `run`: measure a sweep, or complete a run that was cut off."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from bench.errors import UsageError
from bench.options import (
    FAILED,
    FOLDER,
    INTERRUPTED,
    OK,
    PYTHON,
    duration,
    percentage,
    repeatable,
    said_where,
    size,
    sweep_options,
)

if TYPE_CHECKING:
    from bench.store import Run

LOCAL_RESULTS = Path("results/local")

_EPILOG = """\b
Examples:
  python -m bench run --dry-run
  python -m bench run --backend torch,jax --strategy static,dynamic --seq-len 10,50
  python -m bench run --preset smoke --cell gru --mode train --blocks 3
  python -m bench run --preset long --precision 2% --budget 1h
  python -m bench run --preset mine.toml --out results/local/mine
  python -m bench run --resume results/local/mine

Values of an axis are separated by commas. Every combination is measured, and axes that are not
named stay as in the preset. The run's folder holds every sample (records.jsonl), the host and its
versions (manifest.json), the tables, and benchmark.json for pytest-benchmark.

Ctrl-C once ends the run after the block that is being measured, and prints its tables; twice ends
it at once. What was measured is kept either way, and --resume measures the rest.
"""


@click.command("run", epilog=_EPILOG, short_help="Measure a sweep and print its tables.")
@sweep_options
@PYTHON
@click.option(
    "--precision",
    callback=percentage,
    metavar="N%",
    help="Add blocks, up to three looks, until intervals are this narrow or verdicts clear.",
)
@click.option(
    "--budget", callback=duration, metavar="TIME", help="Measure no longer than this: 90s, 10m, 2h."
)
@click.option(
    "--memory-limit",
    callback=size,
    metavar="SIZE",
    help="Also find the longest T that fits in this much memory: 300M, 2G, 1GiB.",
)
@click.option(
    "--out", type=FOLDER, metavar="FOLDER", help="New folder. [default: results/local/TIME-PRESET]"
)
@click.option(
    "--resume", "unfinished", type=FOLDER, metavar="FOLDER", help="Complete the run in this folder."
)
@click.option("--dry-run", is_flag=True, help="Say what would be measured, and stop.")
@click.pass_context
def run(
    context: click.Context,
    /,
    *,
    preset: str,
    pythons: dict[str, Path],
    blocks: int | None,
    precision: float | None,
    budget: float | None,
    memory_limit: int | None,
    start: Literal["fork", "spawn"],
    no_caps: bool,
    out: Path | None,
    unfinished: Path | None,
    dry_run: bool,
    **named: tuple[Any, ...] | None,
) -> int:
    """Measure a sweep: time a call, time to the first result, peak memory, outputs.

    Each implementation has a process of its own, and these take turns, so that every ratio is
    paired; each is compared with a float64 oracle before it is timed and afterwards.
    """
    from rich.console import Console

    from bench import run as engine
    from bench.capacity import check_limit
    from bench.interpreters import Interpreters
    from bench.plan import print_plan
    from bench.progress import for_console
    from bench.selection import absent_backends, check_installed, select
    from bench.store import check_new

    progress = for_console(Console(stderr=True))
    if unfinished is not None:
        _check_alone(context, "unfinished")
        with said_where(unfinished):
            return _publish(engine.resume(unfinished, progress=progress))
    axes = {name: values for name, values in named.items() if values is not None}
    if out is not None:
        check_new(out)
    sampling = {"blocks": blocks, "precision": precision, "budget_s": budget}
    sampling["memory_limit_bytes"] = memory_limit
    interpreters = Interpreters.of_paths(pythons)
    sweep = select(preset, axes, sampling=sampling, capped=not no_caps)
    check_limit(sweep)
    engine.chosen_cpus(sweep.threads()[-1])
    check_installed(sweep, axes.get("backend", ()), interpreters)
    engine.check_devices(sweep, interpreters)
    if dry_run:
        print_plan(sweep, absent_backends(sweep, interpreters), Console())
        return OK
    folder = out or LOCAL_RESULTS / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{sweep.name}"
    with said_where(folder):
        result = engine.execute(
            sweep,
            folder,
            start=start,
            command=repeatable(context),
            progress=progress,
            interpreters=interpreters,
        )
    return _publish(result)


def _check_alone(context: click.Context, name: str) -> None:
    """Raise `UsageError` where an option is given beside one that leaves it nothing to say."""
    for parameter in context.command.params:
        source = context.get_parameter_source(str(parameter.name))
        if parameter.name != name and source == click.core.ParameterSource.COMMANDLINE:
            raise UsageError(
                f"{parameter.opts[0]}: a run is resumed as it was planned; "
                "--resume takes no other option"
            )


def _publish(result: Run) -> int:
    """Print the tables of a run and write them into its folder; returns the exit status."""
    from rich.console import Console

    from bench import report as reports
    from bench.export import export as write_benchmark
    from bench.run import failed

    if not result.records:
        if result.manifest["status"] == "out of budget":
            said = "the budget was spent before anything was measured; a larger one needs a new run"
            click.echo(f"bench: {result.folder}: {said}", err=True)
            return FAILED
        click.echo(f"bench: {result.folder}: stopped before anything was measured", err=True)
        return INTERRUPTED
    report = reports.build([result])
    reports.print_report(report, Console())
    try:
        written = reports.write(report, result.folder)
        if any(record.job.measure in ("steady", "cold") for record in result.records):
            written.append(write_benchmark(result, result.folder / "benchmark.json"))
    except UsageError as error:
        # What was measured is safe: a missing extra is no reason to call the run wrong.
        click.echo(f"bench: not everything was written: {error}", err=True)
    else:
        click.echo(f"\n{result.folder}: records.jsonl, {', '.join(p.name for p in written)}")
    if result.manifest["status"] == "interrupted":
        click.echo(f"bench: interrupted; --resume {result.folder} measures the rest", err=True)
        return INTERRUPTED
    jobs = len({record.job for record in failed(result)})
    if jobs:
        click.echo(f"bench: {jobs} jobs failed; the tables say why", err=True)
    return FAILED if jobs else OK
