"""The most that a quarter of an hour on a host with a GPU can say, in one command.

    bash benchmarks/gpu_session.sh OUT [--device gpu] [--seconds 570] [--tensorflow]

Steps run one after the other, the most valuable first, each in a process of its own with a budget
of time; what fails or is cut off costs its own step. All that is left is OUT/gpu-session.tar.xz:
the folders of the runs, as `bench report`, `bench claims` and `--resume` read them, what each step
printed, and `log.txt` with their times. It is written anew after each step, so that a session that
is killed leaves the steps before. A summary of `SUMMARY_LINES` lines at most is printed at the end.

`--tensorflow` is for hosts that have it: claims I1 and I3 too. `--device cpu` is for a rehearsal.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from backends.api import CELL_NAMES
from bench.claims.judge import judge
from bench.claims.registry import CLAIMS
from bench.errors import UsageError
from bench.record import EXPECTED
from bench.report import build, labels_of
from bench.store import read_all, read_run

ROOT = Path(__file__).parents[1]

#: What is compared with the oracle.
CELLS = ("lstm", "gru", "gru-reset-after", "rnn")

#: Seconds of the whole session, with the archive and the summary.
SESSION_S = 570.0

#: Kept for the archive and the summary.
END_S = 15.0

#: A step with less time than this is not begun.
LEAST_S = 10.0

#: A step that is told to end has this long to write down what it has, then again as long.
GRACE_S = 10.0

SUMMARY_LINES = 60

#: Longest line of the summary.
WIDTH = 100

ARCHIVE = "gpu-session.tar.xz"

#: The archive stays below this; if it would not, what steps printed is left out.
LARGEST_BYTES = 16_000_000


@dataclass(frozen=True, kw_only=True)
class Step:
    """A command with a budget [s]. `run` is the folder of the run that it leaves, if it does."""

    name: str
    command: Sequence[str]
    budget_s: float
    run: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Done:
    """End of a step, and its duration."""

    step: Step
    seconds: float
    end: str

    def __str__(self) -> str:
        return (
            f"{self.step.name:<22} {self.seconds:6.1f} s of {self.step.budget_s:4.0f}   {self.end}"
        )


def steps(device: str, *, tensorflow: bool = False) -> Iterator[Step]:
    """The steps of a session, the most valuable first. Their budgets are some nine minutes."""
    bench = (sys.executable, "-m", "bench")
    backends = "torch,jax,tensorflow" if tensorflow else "torch,jax"

    def measured(name: str, budget_s: float, *words: str, **environment: str) -> Step:
        command = (*bench, "run", *words, "--device", device, "--out", f"runs/{name}")
        command = (*command, "--budget", f"{budget_s:.0f}s")
        return Step(
            name=name,
            command=command,
            budget_s=budget_s,
            run=f"runs/{name}",
            environment=environment,
        )

    yield Step(name="driver", command=("nvidia-smi",), budget_s=10)
    yield Step(name="devices", command=(*bench, "list", "--devices"), budget_s=45)
    # As the ids of that suite have them: a cell's name may begin as another one does.
    others = itertools.product(
        (name for name in CELL_NAMES if name not in CELLS),
        ("full", "ragged", "float16", "bfloat16"),
    )
    left_out = " or ".join(f"{name}-{next_word}" for name, next_word in others)
    chosen = f"({' or '.join(backends.split(','))}) and not ({left_out})"
    pytest = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "4")
    pytest = (*pytest, "--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml"))
    yield Step(
        name="conformance",
        command=(*pytest, str(ROOT / "tests" / "test_conformance.py"), "-k", chosen),
        budget_s=110,
        environment={"RNN_BENCH_TEST_DEVICE": device},
    )
    yield measured("smoke", 50, "--preset", "smoke", "--backend", backends)
    yield measured(
        "claims-gpu", 120, "--preset", "claims-gpu", "--backend", backends, "--blocks", "4"
    )
    yield measured("claims-gpu-dropout", 30, "--preset", "claims-gpu-dropout")
    yield measured("default", 110, "--backend", backends)
    short = ("--seq-len", "30", "--mode", "forward", "--blocks", "3")
    yield measured("jax", 25, "--backend", "jax", *short)
    off = "--xla_gpu_enable_command_buffer="
    yield measured("jax-no-command-buffer", 25, "--backend", "jax", *short, XLA_FLAGS=off)
    half = ("--backend", "torch", "--strategy", "dynamic,fused", "--dtype", "float32,bfloat16")
    yield measured("bfloat16", 25, *half, *short)
    large = ("--seq-len", "1000", "--batch", "512", "--hidden", "1024", "--inputs", "1024")
    fused = ("--backend", "jax", "--strategy", "fused" if device != "cpu" else "dynamic")
    size = large if device != "cpu" else ()
    yield measured("workspace", 30, *fused, *size, "--mode", "train", "--blocks", "1")
    if tensorflow:
        yield measured("claims-gpu-memory", 120, "--preset", "claims-gpu-memory")


class Session:
    """Runs steps in a folder of its own, and keeps what they leave in an archive."""

    def __init__(self, out: Path, seconds: float) -> None:
        self._began_s, self._seconds = time.monotonic(), seconds
        self._archive = out / ARCHIVE
        self._folder = Path(tempfile.mkdtemp(prefix="gpu-session-"))
        (self._folder / "printed").mkdir()
        self.done: list[Done] = []

    def left_s(self) -> float:
        """Seconds for steps."""
        return self._seconds - END_S - (time.monotonic() - self._began_s)

    def run(self, planned: Sequence[Step]) -> None:
        """Run each step for which there is time; the archive is whole after each."""
        for step in planned:
            self.done.append(self._step(step))
            lines = [str(done) for done in self.done]
            print(lines[-1], flush=True)
            (self._folder / "log.txt").write_text("\n".join(lines) + "\n")
            self._keep()

    def _step(self, step: Step) -> Done:
        budget_s = min(step.budget_s, self.left_s())
        if budget_s < LEAST_S and budget_s < step.budget_s:
            return Done(step=step, seconds=0.0, end="no time was left for it")
        began_s = time.monotonic()
        with (self._folder / "printed" / f"{step.name}.txt").open("wb") as printed:
            try:
                process = subprocess.Popen(
                    step.command,
                    cwd=self._folder,
                    env={**os.environ, **self._environment(), **step.environment},
                    stdin=subprocess.DEVNULL,
                    stdout=printed,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                return Done(step=step, seconds=0.0, end=f"not started: {error.strerror}")
            try:
                end = _ended(process, budget_s)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        return Done(step=step, seconds=time.monotonic() - began_s, end=end)

    def _environment(self) -> dict[str, str]:
        """The tree and the packages that came with it are found from the session's folder."""
        paths = [
            str(ROOT),
            os.environ.get("GPU_SESSION_SITE", ""),
            os.environ.get("PYTHONPATH", ""),
        ]
        return {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1"}

    def _keep(self) -> None:
        """Write the archive in place of the one before."""
        self._archive.parent.mkdir(parents=True, exist_ok=True)
        written = self._archive.with_suffix(".part")
        for left_out in ((), ("printed", "workers.log")):
            with tarfile.open(written, "w:xz", preset=1) as archive:
                archive.add(self._folder, arcname="gpu-session", filter=_without(left_out))
            if written.stat().st_size < LARGEST_BYTES:
                break
        written.replace(self._archive)

    def summary(self) -> list[str]:
        """Lines on the steps, the runs, the claims, and the archive."""
        lines = [str(done) for done in self.done]
        for done in self.done:
            folder = self._folder / done.step.run
            if done.step.run and (folder / "manifest.json").exists():
                lines += ["", f"{done.step.name}:", *_said(folder)]
        lines += _claims(self._folder / "runs")
        size = self._archive.stat().st_size / 1e6 if self._archive.exists() else 0.0
        end = ["", f"{self._archive}: {size:.1f} MB"]
        kept = lines[: SUMMARY_LINES - len(end) - 1]
        if len(kept) < len(lines):
            kept.append(f"... {len(lines) - len(kept)} more lines; the archive has the runs")
        return [line[:WIDTH] for line in (*kept, *end)]

    def close(self) -> None:
        """Remove all but the archive."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _ended(process: subprocess.Popen[bytes], budget_s: float) -> str:
    """Wait for a step, tell it to end when its budget is spent, and kill it if it does not."""
    waits = (budget_s, signal.SIGINT), (GRACE_S, signal.SIGINT), (GRACE_S, signal.SIGKILL)
    for told, (patience_s, number) in enumerate(waits):
        try:
            code = process.wait(patience_s)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        else:
            said = "ok" if code == 0 else f"exit status {code}"
            return f"cut off after {budget_s:.0f} s: {said}" if told else said
    process.wait()
    return f"killed after {budget_s:.0f} s"


def _without(names: Sequence[str]) -> Callable[[tarfile.TarInfo], tarfile.TarInfo | None]:
    def kept(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if Path(entry.name).name in names else entry

    return kept


def _said(folder: Path) -> Iterator[str]:
    """A run in a few lines: how its jobs ended, and each pair's ratio of a call."""
    run = read_run(folder)
    ends = Counter(str(record.status) for record in run.records)
    yield f"  {run.manifest['status']}: {', '.join(f'{n} {end}' for end, n in ends.items())}"
    failed = [record for record in run.records if record.status not in EXPECTED]
    for record in failed[:1]:
        reason = record.reason.strip().splitlines()[-1:]
        yield f"  {record.job.implementation} {record.job.mode} {record.status}: {''.join(reason)}"
    for table in build([run]).tables:
        if table.name == "static-dynamic":
            for row in table.display.to_dict("records"):
                heads = " ".join(str(row[name]) for name in table.heads)
                yield f"  {heads}: {row['a / b']} {row['steady']} {row['verdict']}"


def _claims(folder: Path) -> Iterator[str]:
    """The verdicts on claims that a GPU decides, a line each."""
    try:
        runs = read_all([folder])
    except UsageError:
        return
    for verdict in judge(runs, labels_of(runs)):
        if CLAIMS[verdict.id].gpu:
            yield f"{verdict.id}: {verdict.answer}: {verdict.reason}"


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT", help="where the archive goes")
    parser.add_argument("--device", default="gpu", help="[default: gpu; cpu for a rehearsal]")
    parser.add_argument("--seconds", type=float, default=SESSION_S, help="[default: %(default)s]")
    parser.add_argument("--tensorflow", action="store_true", help="where it is installed")
    arguments = parser.parse_args()
    session = Session(arguments.out, arguments.seconds)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        session.run(list(steps(arguments.device, tensorflow=arguments.tensorflow)))
        print("", *session.summary(), sep="\n")
    finally:
        session.close()


if __name__ == "__main__":
    main()
