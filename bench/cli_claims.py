"""The command `claims`: verdicts on what others said, from runs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.errors import UsageError
from bench.options import CANNOT_TELL, FAILED, FOLDER, OK, PYTHON, count, repeatable, said_where

if TYPE_CHECKING:
    from bench.claims.model import Verdict
    from bench.claims.registry import Claim
    from bench.interpreters import Interpreters
    from bench.store import Run

LOCAL_RESULTS = Path("results/local")

_EPILOG = """\b
Examples:
  python -m bench claims                      what the last claims run here said
  python -m bench claims results/local/RUN    what a run says, of every claim
  python -m bench claims --run                measure what decides them, and judge
  python -m bench claims --run T4 T5          only what these two need
  python -m bench claims --explain T4         the rows and the arithmetic of one

RUN is a run's folder, or one that holds several. Runs of several hosts are judged side by side and
never together. Every claim is judged whichever is named, so that the correction for their number
is always the same; an ID (T1 to T13, I1 to I18) chooses what is shown and measured.

Exit status: 0 if all that is shown holds; 1 if any of it is refuted; 3 if nothing is refuted and
something is inconclusive, or has no data.
"""


@click.command("claims", epilog=_EPILOG, short_help="Judge claims of others by what was measured.")
@click.argument("words", nargs=-1, metavar="[RUN...] [ID...]")
@click.option("--run", "measure", is_flag=True, help="Measure first what is missing.")
@click.option("--explain", metavar="ID", help="Show one claim: its rows, and the arithmetic.")
@click.option(
    "--threads",
    callback=count,
    metavar="N",
    help="With --run: threads of sweeps that are not about threads. [default: 1]",
)
@PYTHON
@click.option(
    "--out",
    type=FOLDER,
    metavar="FOLDER",
    help="With --run: where the runs go. [default: results/local/TIME-claims]",
)
@click.pass_context
def claims(
    context: click.Context,
    /,
    *,
    words: Sequence[str],
    measure: bool,
    explain: str | None,
    threads: int | None,
    pythons: dict[str, Path],
    out: Path | None,
) -> int:
    """Say of each claim whether it holds here: holds, refuted, inconclusive, or no data."""
    from rich.console import Console

    from bench.claims import bundle
    from bench.claims.judge import judge
    from bench.claims.registry import CLAIMS
    from bench.errors import choose
    from bench.report import explain as explanation
    from bench.report import labels_of, terminal
    from bench.report.verdicts import verdict_table
    from bench.store import read_all

    asked, folders = bundle.ids_and_folders(words)
    if explain is not None:
        asked = [CLAIMS[choose("claim", explain.upper(), CLAIMS)]]
    if not measure:
        only_with_run = {"out": "--out", "threads": "--threads", "pythons": "--python"}
        for name, flag in only_with_run.items():
            if context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE:
                raise UsageError(f"{flag}: goes with --run")
        folders = folders or [_latest()]
    runs = read_all(folders)
    if measure:
        command = repeatable(
            context, lambda word: word.upper() not in CLAIMS and Path(word) in folders
        )
        runs += _measure(asked, runs, folders, threads, pythons, out, command)
    verdicts = judge(runs, labels_of(runs))
    shown = [verdict for verdict in verdicts if verdict.id in {claim.id for claim in asked}]
    console = Console()
    if explain is not None:
        explanation.show(shown, console)
    else:
        terminal.show_table(verdict_table(shown), console)
    return _status(shown)


def _latest() -> Path:
    from bench.claims import bundle

    found = bundle.latest(LOCAL_RESULTS)
    if found is None:
        raise UsageError("claims: name a run, or measure with --run; there is none here yet")
    click.echo(f"Judged by {found}", err=True)
    return found


def _status(verdicts: Sequence[Verdict]) -> int:
    answers = {verdict.answer for verdict in verdicts}
    if "refuted" in answers:
        return FAILED
    return OK if answers == {"holds"} else CANNOT_TELL


def _measure(
    asked: Sequence[Claim],
    runs: Sequence[Run],
    folders: Sequence[Path],
    threads: int | None,
    pythons: dict[str, Path],
    out: Path | None,
    command: str,
) -> list[Run]:
    """Measure the sweeps that are missing, each into a folder of its own."""
    from rich.console import Console

    from bench import run as engine
    from bench.claims import bundle
    from bench.interpreters import Interpreters
    from bench.preset import has_own_threads
    from bench.progress import for_console
    from bench.selection import check_installed, select

    if threads is not None:
        engine.chosen_cpus(threads)
    interpreters = Interpreters.of_paths(pythons)
    folder = out or _folder(folders)
    found: list[Run] = []
    gpu = any(claim.gpu for claim in asked) and _has_gpu(interpreters)
    there = [claim for claim in asked if gpu or not claim.gpu]
    for preset in bundle.missing(there, runs):
        own = threads is None or has_own_threads(preset)
        sweep = select(preset, {} if own else {"threads": (threads,)})
        check_installed(sweep, (), interpreters)
        target = folder / preset
        click.echo(f"{preset}: {sweep.title}", err=True)
        with said_where(target):
            run = engine.execute(
                sweep,
                target,
                start="fork",
                command=command,
                progress=for_console(Console(stderr=True)),
                interpreters=interpreters,
            )
        if run.manifest["status"] == "interrupted":
            click.echo(f"bench: interrupted; what was measured is in {folder}", err=True)
            raise KeyboardInterrupt
        found.append(run)
    return found


def _folder(folders: Sequence[Path]) -> Path:
    """Folder for the runs: the one folder of runs that was named, or a new one."""
    if len(folders) == 1 and not (folders[0] / "manifest.json").exists():
        return folders[0]
    return LOCAL_RESULTS / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-claims"


def _has_gpu(interpreters: Interpreters) -> bool:
    """Whether a framework finds a GPU on this host, asked in processes of their own."""
    from bench import run as engine

    here = engine.describe_backends(interpreters=interpreters)
    devices = (info.get("devices", {}) for info in here.values())
    return any("gpu" in found for found in devices)
