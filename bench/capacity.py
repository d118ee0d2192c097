"""The longest sequence that runs within a limit of memory, found by trying.

Each trial is one call (of a training job: one step) in a fresh worker under a hard limit, see
`bench.limits`. The limit is on what building, loading and calling take beyond the framework as it
is imported and started; the harness's own copy of the data is no part of it, as in a memory job.

On a GPU the framework's allocator keeps to the limit: it is on all that it takes from the driver.
A worker that was refused memory ends with its trial. The kernel closes all that a process has open,
the GPU too, and only then tells who waits for its end: the next trial finds its memory free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import psutil

from backends.api import Case
from backends.devices import is_gpu
from backends.stack import input_width, output_width
from bench import gpus, limits, oom
from bench.errors import UsageError
from bench.launch import Team
from bench.record import Job, Record, Status
from bench.sources import ServerDied, WorkerDied, WorkerHung
from bench.sweep import Sweep

#: Values of a capacity record. The largest T is 0 where not even T=1 ran; the smallest that failed
#: is absent where none was met, and then `Record.reason` says what ended the search.
LARGEST, FAILED, LIMIT = "largest_seq_len", "smallest_failed_seq_len", "limit_bytes"

#: A search ends when what runs and what does not are this close, or one step apart.
TOLERANCE = 0.05


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Whether a T ran within the limit; `fits` is None where something else kept it from running.

    `status` and `reason` are those of what did.
    """

    fits: bool | None
    status: Status = Status.OK
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Found:
    """`largest` is the largest T that ran, `failed` the smallest that did not, or None.

    `status` and `reason` are those of what ended the search.
    """

    largest: int
    failed: int | None
    status: Status
    reason: str


def is_close(largest: float, failed: float) -> bool:
    """Whether no trial is needed between a T that runs and one that does not."""
    return failed - largest <= max(1, TOLERANCE * largest)


def search(first: int, longest: int | None, attempt: Callable[[int], Trial]) -> Found:
    """Double T from `first` on until it does not fit, then halve the gap until it is small.

    No T above `longest` is tried. Where `first` does not fit, what is below it is searched. What
    fits is taken to be all that is shorter than something that does.
    """
    largest, failed, seq_len, why = 0, None, first, ""
    while True:
        trial = attempt(seq_len)
        if trial.fits is None:
            why = f"T={seq_len:,}: {trial.reason}"
            return Found(largest=largest, failed=failed, status=trial.status, reason=why)
        if trial.fits:
            largest = seq_len
        else:
            failed, why = seq_len, f"T={seq_len:,}: {trial.reason}"
        if failed is not None:
            if is_close(largest, failed):
                return Found(largest=largest, failed=failed, status=Status.OK, reason=why)
            seq_len = (largest + failed) // 2
        elif seq_len == longest:
            why = f"T={seq_len:,}: it fits, and this sweep stops there; --no-caps lifts it"
            return Found(largest=largest, failed=None, status=Status.OK, reason=why)
        else:
            seq_len = 2 * seq_len if longest is None else min(2 * seq_len, longest)


def data_bytes(case: Case) -> int:
    """Bytes of data that every implementation needs: x [B, T, D], outputs or targets [B, T, O]."""
    features = input_width(case) + output_width(case)
    return case.batch * case.seq_len * features * np.dtype(case.dtype).itemsize


def check_limit(sweep: Sweep) -> None:
    """Raise `UsageError` for a limit that a device here has not the memory to reach.

    A GPU whose driver does not tell how much it has is left to the trials.
    """
    limit_bytes = sweep.sampling.memory_limit_bytes
    if limit_bytes is None:
        return
    for device in sweep.axes.device:
        on_gpu = is_gpu(device)
        here = gpus.memory_bytes(device) if on_gpu else psutil.virtual_memory().total
        if here is not None and limit_bytes > here:
            raise UsageError(
                f"memory-limit {limit_bytes / 1e6:,.0f}M: {device if on_gpu else 'this host'} has "
                f"{here / 1e6:,.0f}M"
            )


def capacity(team: Team, job: Job, block: int, sweep: Sweep, go_on: Callable[[], None]) -> Record:
    """The record of a capacity job. `go_on` is called before each trial, and may raise.

    A trial does not fit if the kernel killed it for that, or if it was refused memory and says so;
    on a GPU, memory of the GPU. RLIMIT_AS only refuses, and what is refused memory dies or fails in
    many ways: under it whatever fails counts, once something shorter has run. What takes too long,
    or fails otherwise, ends the search: of a longer T nothing is known then.
    """
    limit_bytes = sweep.sampling.memory_limit_bytes
    if limit_bytes is None:
        raise ValueError(f"{job.arm}: a capacity job of a sweep without a limit of memory")
    place = None if is_gpu(job.case.device) else limits.find_place()
    limit_s = sweep.sampling.probe_limit_s
    probe = _Probe(team=team, job=job, place=place, limit_bytes=limit_bytes, limit_s=limit_s)
    trials: list[dict[str, Any]] = []

    def attempt(seq_len: int) -> Trial:
        go_on()
        trial = probe.attempt(seq_len, shorter_ran=any(known["fits"] for known in trials))
        trials.append({"seq_len": seq_len, "fits": trial.fits, "reason": trial.reason})
        return trial

    found = search(job.case.seq_len, sweep.longest(job), attempt)
    values: dict[str, float] = {LIMIT: limit_bytes}
    if found.failed is not None:
        values[FAILED] = found.failed
    # That no T runs is known where T=1 was tried, and not where something else ended the search.
    if found.largest or (found.failed is not None and is_close(0, found.failed)):
        values[LARGEST] = found.largest
    return Record(
        job=job,
        block=block,
        status=Status.OK if LARGEST in values else found.status,
        reason=found.reason,
        values=values,
        worker={
            "limited_by": probe.limited_by,
            "trials": trials,
        },
    )


@dataclass(frozen=True, kw_only=True)
class _Probe:
    """Runs a job's case with other T, each in a worker of its own that may take so many bytes."""

    team: Team
    job: Job
    place: limits.Place | None
    limit_bytes: int
    limit_s: float

    @property
    def on_gpu(self) -> bool:
        return is_gpu(self.job.case.device)

    @property
    def limited_by(self) -> str:
        """Mechanism that keeps a trial to the limit."""
        if self.on_gpu:
            return f"{self.job.backend}'s allocator"
        return limits.ADDRESSES if self.place is None else self.place.version.name

    def attempt(self, seq_len: int, *, shorter_ran: bool) -> Trial:
        """Run the case once with this T; what kept it from running is for `shorter_ran` to say."""
        case = replace(self.job.case, seq_len=seq_len)
        if data_bytes(case) > self.limit_bytes:
            return Trial(fits=False, reason="its data alone are larger than the limit")
        try:
            try:
                trial = self._once(case)
            except ServerDied:
                trial = self._once(case)  # no question of memory
        except (WorkerDied, WorkerHung) as error:
            return Trial(fits=None, status=Status.CRASHED, reason=str(error))
        refused = self.limited_by == limits.ADDRESSES
        if refused and shorter_ran and trial.status == Status.CRASHED:
            return replace(trial, fits=False)
        return trial

    def _once(self, case: Case) -> Trial:
        """Raises what kept a worker from starting, and `ServerDied`."""
        with self._group() as made:
            message = {
                "op": "probe",
                "implementation": self.job.implementation,
                "case": asdict(case),
                "mode": self.job.mode,
                "limit": limits.order(self.limit_bytes, made),
            }
            with self.team.worker(
                self.job.backend, self.job.case.threads, fresh_cache=True
            ) as worker:
                try:
                    reply = worker.request(message, limit_s=self.limit_s)
                except WorkerHung as error:
                    return Trial(fits=None, status=Status.TIMEOUT, reason=str(error))
                except ServerDied:
                    raise
                except WorkerDied as error:
                    reply = {"status": Status.CRASHED, "reason": str(error)}
            # What was killed may be a compiler that the worker started, and the worker alive.
            killed = made is not None and made.kills() > 0
        status = Status(reply["status"])
        if status == Status.OK:
            return Trial(fits=True)
        if killed:
            return Trial(fits=False, status=Status.OOM, reason="killed at the limit")
        # On a GPU the limit is on no memory of the host: who was refused that says nothing of it.
        elsewhere = self.on_gpu and oom.is_of_host(reply["reason"])
        fits = False if status == Status.OOM and not elsewhere else None
        return Trial(fits=fits, status=status, reason=_last_line(reply["reason"]))

    @contextmanager
    def _group(self) -> Iterator[limits.Group | None]:
        if self.place is None:
            yield None
            return
        with limits.group(self.place, self.limit_bytes) as made:
            yield made


def _last_line(reason: str) -> str:
    """Of a traceback, the line that says what happened; what belongs to it is indented below."""
    lines = [line for line in reason.strip().splitlines() if line[:1].strip()]
    return lines[-1]
