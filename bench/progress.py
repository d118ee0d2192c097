"""Watching a run: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskProgressColumn, TextColumn
from rich.text import Text

from bench.engine import Progress as Watcher
from bench.estimate import words
from bench.measure import Clock, clock

#: Seconds between two lines where there is no terminal to draw a bar on.
QUIET_S = 30.0


#: Until this share is done the estimate is believed, not what little has been seen.
SEEN = 0.05


def seconds_left(elapsed_s: float, done_s: float, total_s: float) -> float:
    """Time left if the rest goes as what is done went; `done_s` and `total_s` are estimates."""
    left_s = max(0.0, total_s - done_s)
    return left_s if done_s < SEEN * total_s else left_s * elapsed_s / done_s


def for_console(console: Console) -> Watcher:
    """The progress that a console can show."""
    return Bar(console) if console.is_terminal else Lines(console)


class _Times(ProgressColumn):
    """Elapsed and remaining time."""

    def render(self, task: Task) -> Text:
        elapsed = task.elapsed or 0.0
        if task.finished:
            return Text(words(elapsed))
        left = seconds_left(elapsed, task.completed, task.total or 0.0)
        return Text(f"{words(elapsed)}, {words(left)} left")


class Bar:
    """A `bench.engine.Progress` that redraws one line of a terminal."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            _Times(),
            TextColumn("{task.description}", markup=False),
            console=console,
            refresh_per_second=2,
        )
        self._task = self._progress.add_task("starting workers", total=None)

    def begin(self, total_s: float) -> None:
        self._progress.update(self._task, total=total_s)
        self._progress.start()

    def extend(self, seconds: float) -> None:
        self._progress.update(self._task, total=(self._progress.tasks[0].total or 0.0) + seconds)

    def advance(self, seconds: float, label: str) -> None:
        self._progress.update(self._task, advance=seconds, description=label)

    def end(self) -> None:
        if self._progress.finished:
            self._progress.update(self._task, description="done")
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

    def extend(self, seconds: float) -> None:
        self._total += seconds

    def advance(self, seconds: float, label: str) -> None:
        self._done += seconds
        now = self._now()
        if now - self._last < QUIET_S * 1e9:
            return
        self._last = now
        elapsed = (now - self._start) / 1e9
        left = words(seconds_left(elapsed, self._done, self._total))
        share = self._done / self._total
        self._console.print(
            f"bench: {share:4.0%}, {words(elapsed)}, {left} left: {label}", markup=False
        )

    def end(self) -> None:
        elapsed = (self._now() - self._start) / 1e9
        self._console.print(f"bench: measuring ended after {words(elapsed)}")
