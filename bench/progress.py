"""Watching a run: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskProgressColumn, TextColumn
from rich.text import Text

from bench import run
from bench.estimate import words
from bench.measure import Clock, clock

#: Seconds between two lines where there is no terminal to draw a bar on.
QUIET_S = 30.0


def seconds_left(elapsed_s: float, done: float, total: float) -> float | None:
    """Time left if the rest goes as what is done went; None before anything is done.

    `done` and `total` are estimates: only their ratio is believed.
    """
    if done <= 0:
        return None
    return elapsed_s * max(0.0, total - done) / done


def for_console(console: Console) -> run.Progress:
    """The progress that a console can show."""
    return Bar(console) if console.is_terminal else Lines(console)


class _Times(ProgressColumn):
    """How long it has been, and how long it will be."""

    def render(self, task: Task) -> Text:
        elapsed = task.elapsed or 0.0
        left = seconds_left(elapsed, task.completed, task.total or 0.0)
        return Text(f"{words(elapsed)}, " + ("…" if left is None else f"{words(left)} left"))


class Bar:
    """A `bench.run.Progress` that redraws one line of a terminal."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            _Times(),
            TextColumn("{task.description}", markup=False),
            console=console,
        )
        self._task = self._progress.add_task("starting workers", total=None)

    def begin(self, total_s: float) -> None:
        self._progress.update(self._task, total=total_s)
        self._progress.start()

    def advance(self, seconds: float, label: str) -> None:
        self._progress.update(self._task, advance=seconds, description=label)

    def end(self) -> None:
        self._progress.stop()


class Lines:
    """A `bench.run.Progress` that prints a line every `QUIET_S`, for logs."""

    def __init__(self, console: Console, now: Clock = clock) -> None:
        self._console = console
        self._now = now
        self._start = self._last = now()
        self._done = self._total = 0.0

    def begin(self, total_s: float) -> None:
        self._start = self._last = self._now()
        self._total = total_s
        self._console.print(f"bench: measuring, about {words(total_s)}")

    def advance(self, seconds: float, label: str) -> None:
        self._done += seconds
        now = self._now()
        if now - self._last < QUIET_S * 1e9:
            return
        self._last = now
        elapsed = (now - self._start) / 1e9
        left = seconds_left(elapsed, self._done, self._total)
        rest = "" if left is None else f", {words(left)} left"
        share = min(1.0, self._done / self._total) if self._total else 1.0
        self._console.print(f"bench: {share:4.0%}, {words(elapsed)}{rest}: {label}", markup=False)

    def end(self) -> None:
        elapsed = (self._now() - self._start) / 1e9
        self._console.print(f"bench: measuring ended after {words(elapsed)}")
