"""Numbers of blocks, and durations of warm-up and timing."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bench.axes import is_count
from bench.errors import UsageError
from bench.record import Measure

#: Nobody waits longer for a benchmark.
MAX_BUDGET_S = 7 * 86400.0


def _between(value: object, low: float, high: float) -> bool:
    """Whether a value from a file is a number in (low, high]."""
    return type(value) in (int, float) and low < value <= high  # type: ignore[operator]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Sampling of a sweep. `blocks` of steady state, the first few with cold and memory jobs too.

    With no `cold_blocks` or `memory_blocks` these are not measured. `behaviour_blocks`, one as a
    rule, hold what an implementation does whatever it takes (`bench.behaviour`). Where these or
    cold jobs are asked for there may be no `blocks`: then no call is timed in steady state.

    In a block an implementation is timed for `steady_s` seconds at most; it is warm after
    `warmup_calls` calls and `warmup_s` seconds at least (`bench.measure.warm_up`).
    `blocks_per_server` blocks of each case share the processes that fork their workers. A block
    waits up to `quiet_wait_s` for a quiet host, less often the more has been waited. With a
    `precision` (0.02 is 2 %) the blocks are a first look: what is not yet known that well gets as
    many again, and then twice as many. `budget_s` bounds the measuring; what does not fit in is
    left out. With a `memory_limit_bytes` one block also looks for the longest T that runs within
    it, in trials of at most `probe_limit_s`.
    """

    blocks: int
    cold_blocks: int
    memory_blocks: int
    steady_s: float = 0.5
    warmup_s: float = 0.3
    warmup_calls: int = 20
    blocks_per_server: int = 1
    quiet_wait_s: float = 60.0
    precision: float | None = None
    budget_s: float | None = None
    memory_limit_bytes: int | None = None
    probe_limit_s: float = 60.0
    behaviour_blocks: int = 0

    def __post_init__(self) -> None:
        self._check_counts(0, "cold_blocks", "memory_blocks", "behaviour_blocks")
        # Only what is asked for takes the place of steady blocks.
        least = 0 if self.cold_blocks or self.behaviour_blocks else 1
        self._check_counts(least, "blocks")
        self._check_counts(1, "warmup_calls", "blocks_per_server")
        for name in ("steady_s", "warmup_s"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 < value < 3600:
                raise UsageError(f"{name} {value!r}: must be seconds above 0")
        if not _between(self.quiet_wait_s, -1e-9, 3600):
            raise UsageError(f"quiet_wait_s {self.quiet_wait_s!r}: must be 0 to 3600 seconds")
        if self.precision is not None and not _between(self.precision, 0, 1):
            raise UsageError(f"precision {self.precision!r}: must be above 0 and below 1 (100%)")
        if self.precision is not None and not self.blocks:
            raise UsageError(
                f"precision {self.precision!r}: is of steady blocks, and there are none"
            )
        if self.budget_s is not None and not _between(self.budget_s, 0, MAX_BUDGET_S):
            raise UsageError(f"budget_s {self.budget_s!r}: must be seconds above 0, a week at most")
        if self.memory_limit_bytes is not None and not is_count(self.memory_limit_bytes):
            raise UsageError(
                f"memory_limit_bytes {self.memory_limit_bytes!r}: must be a whole number of 1 or "
                "more, below 2^63"
            )
        if not _between(self.probe_limit_s, 0, 3600):
            raise UsageError(f"probe_limit_s {self.probe_limit_s!r}: must be above 0, 3600 at most")

    def _check_counts(self, least: int, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if not is_count(value) and (type(value) is not int or value != least):
                raise UsageError(
                    f"{name} {value!r}: must be a whole number of {least} or more, below 2^63"
                )

    def counts(self) -> dict[Measure, int]:
        """In how many blocks each way of measuring takes part; what is not asked for lacks."""
        counts: dict[Measure, int] = {
            "steady": self.blocks,
            "cold": self.cold_blocks,
            "memory": self.memory_blocks,
            "behaviour": self.behaviour_blocks,
            "capacity": 0 if self.memory_limit_bytes is None else 1,
        }
        return {measure: count for measure, count in counts.items() if count}

    def but(
        self,
        *,
        blocks: int | None = None,
        precision: float | None = None,
        budget_s: float | None = None,
        memory_limit_bytes: int | None = None,
    ) -> Sampling:
        """Copy with other values; with other blocks every kind of job takes part in them.

        What is not measured at all, steady state too, is not measured in other blocks either.
        """
        changed = self
        if blocks is not None:
            timed = self.blocks or self.cold_blocks
            changed = replace(
                self,
                blocks=blocks if self.blocks else 0,
                cold_blocks=blocks if self.cold_blocks else 0,
                memory_blocks=min(blocks, self.memory_blocks),
                # Facts stay as they are: repeated only where nothing else is.
                behaviour_blocks=min(blocks, self.behaviour_blocks) if timed else blocks,
            )
        return replace(
            changed,
            precision=self.precision if precision is None else precision,
            budget_s=self.budget_s if budget_s is None else budget_s,
            memory_limit_bytes=(
                self.memory_limit_bytes if memory_limit_bytes is None else memory_limit_bytes
            ),
        )
