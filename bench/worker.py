"""Child side: one framework, and the one arm that the parent asks for.

The parent speaks first, one JSON message a request, and the worker answers each with one. It does
nothing between requests but block, so that of all workers of a block one runs at a time.
"""

from __future__ import annotations

import os
import platform
import resource
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import backends
from backends.api import Backend, Case, Unavailable, Unsupported
from backends.devices import is_gpu
from bench import kernels, limits, measure, memory, oom
from bench.behaviour import observe
from bench.expectation import write_all
from bench.peaks import measure_peaks
from bench.record import Status
from bench.subject import Subject, verdict

Reply = dict[str, Any]

#: Of a longer reason the ends are kept: where it was raised, and what was said last.
LONGEST_REASON = 20_000


def failure(error: BaseException) -> Reply:
    """An exception as status and reason."""
    message = f"{type(error).__name__}: {error}"
    if isinstance(error, Unsupported):
        return {"status": Status.UNSUPPORTED, "reason": _cut(str(error) or message)}
    if isinstance(error, Unavailable):
        return {"status": Status.UNAVAILABLE, "reason": _cut(str(error) or message)}
    if isinstance(error, MemoryError) or oom.ran_out(message):
        return {"status": Status.OOM, "reason": _cut(message.splitlines()[0])}
    return {"status": Status.CRASHED, "reason": _cut("".join(traceback.format_exception(error)))}


def _cut(text: str) -> str:
    """A text of a sane size: it goes through a channel, into a record and into tables."""
    half = LONGEST_REASON // 2
    if len(text) <= LONGEST_REASON:
        return text
    return f"{text[:half]}\n[{len(text) - 2 * half:,} characters cut]\n{text[-half:]}"


class Worker:
    """Answers requests; holds the arm that passed its check."""

    def __init__(self, backend: str, threads: int) -> None:
        self._name = backend
        self._threads = threads
        self._stopwatch = measure.Stopwatch()
        self._created: Backend | None = None
        self._subject: Subject | None = None
        self._calls = self._discarded = 0

    def _backend(self) -> Backend:
        if self._created is None:
            with self._stopwatch.phase("create"):
                self._created = backends.create(self._name, threads=self._threads)
        return self._created

    def answer(self, request: Mapping[str, Any]) -> Reply:
        """One request -> one reply; an exception becomes a status."""
        operations: Mapping[str, Callable[[Mapping[str, Any]], Reply]] = {
            "describe": self._describe,
            "expect": self._expect,
            "peaks": self._peaks,
            "prepare": self._prepare,
            "cold": self._cold,
            "memory": self._memory,
            "behaviour": self._behaviour,
            "probe": self._probe,
            "warm": self._warm,
            "burst": self._burst,
            "recheck": self._recheck,
            "device": self._device,
            "kernels": self._kernels,
        }
        try:
            return operations[request["op"]](request)
        except BaseException as error:  # a library's sys.exit(), too
            return failure(error)

    def _describe(self, _request: Mapping[str, Any]) -> Reply:
        backend = self._backend()
        return {
            "status": Status.OK,
            "python": platform.python_version(),
            "versions": dict(backend.versions()),
            "threads": dict(backend.threads()),
            "devices": dict(backend.devices()),
            "no_gpu": backend.lacking("gpu"),
            "overhead": {"call_s": measure.overhead()},
            "calibration_error": memory.calibration_error(),
            "pid": os.getpid(),
        }

    def _expect(self, request: Mapping[str, Any]) -> Reply:
        write_all(Path(request["path"]), Case(**request["case"]), request["mode"])
        return {"status": Status.OK}

    def _peaks(self, request: Mapping[str, Any]) -> Reply:
        """The peaks of this host by this backend's products, and by reading memory."""
        found = measure_peaks(
            self._backend(),
            device=request["device"],
            dtype=request["dtype"],
            tf32=request["tf32"],
        )
        return {"status": Status.OK, "reason": "", "peaks": found.to_json()}

    def _prepare(self, request: Mapping[str, Any]) -> Reply:
        """Build, load, call once, check; what is right becomes the arm."""
        subject = Subject(self._backend(), request)
        subject.build(measure.Stopwatch())
        subject.load()
        first = subject.call()
        subject.runner.sync(first)
        reply = verdict(subject.check(first))
        if reply["status"] == Status.OK:
            self._subject = subject
        return {**reply, "values": subject.program()}

    def _ready(self) -> Subject:
        if self._subject is None:
            raise RuntimeError("no arm was prepared")
        return self._subject

    def _arm(self) -> measure.Arm:
        subject = self._ready()
        runner = subject.runner
        return measure.Arm(call=subject.call, sync=runner.sync, advance=runner.advance)

    def _cold(self, request: Mapping[str, Any]) -> Reply:
        """The phases that a process has once, each timed; the check comes after."""
        subject = Subject(self._backend(), request)
        stopwatch = self._stopwatch
        with measure.collector_off():
            with stopwatch.phase("build"):
                subject.build(stopwatch)
            with stopwatch.phase("load"):
                subject.load()
            with stopwatch.phase("first"):
                first = subject.call()
                subject.runner.sync(first)
        reply = verdict(subject.check(first))
        return {**reply, "values": subject.program(), "samples": stopwatch.samples}

    def _memory(self, request: Mapping[str, Any]) -> Reply:
        """Peaks of build and load, and of two calls. Nothing is timed here."""
        subject = Subject(self._backend(), request)
        meter = memory.host_meter(subject.case.device)
        device = memory.DeviceMeter(self._backend(), subject.case.device)
        subject.build(measure.Stopwatch())
        subject.load()
        build_peak, on_device = meter.read(), device.read()
        # No handle is kept from one call to the next: it would count as the implementation's.
        subject.runner.sync(subject.call())
        subject.runner.sync(subject.call())
        run_peak = meter.read()
        values = {
            **memory.peaks(subject.case.device, (build_peak, run_peak), (on_device, device.read())),
            **subject.program(),
        }
        # Loaded again: in training, the steps moved the weights from where the oracle has them.
        subject.load()
        reply = verdict(subject.check())
        error = memory.calibration_error()
        if error is not None:
            values["calibration_error"] = error
        return {**reply, "values": values}

    def _behaviour(self, request: Mapping[str, Any]) -> Reply:
        """Check an implementation, then observe its behaviour whatever the check says."""
        subject = Subject(self._backend(), request)
        subject.build()
        subject.load()
        first = subject.call()
        subject.runner.sync(first)
        reply = verdict(subject.check(first))
        seen = observe(subject)
        return {**reply, "values": seen.values, "worker": seen.told}

    def _probe(self, request: Mapping[str, Any]) -> Reply:
        """Build, load and call once within a limit of memory; what that left must be finite."""
        subject = Subject(self._backend(), request)
        with _within(request["limit"], self._backend(), subject.case.device):
            subject.build(measure.Stopwatch())
            subject.load()
            out = subject.call()
            subject.runner.sync(out)
        if subject.is_finite(out):
            return {"status": Status.OK, "reason": ""}
        return {"status": Status.NAN, "reason": "what it computes is not finite"}

    def _warm(self, request: Mapping[str, Any]) -> Reply:
        """Warm the arm up and size its bursts."""
        self._ready().renew(request["calls"])
        call_s = measure.warm_up(self._arm(), calls=request["calls"], seconds=request["seconds"])
        self._calls = measure.calls_needed(call_s, request["burst_s"])
        self._discarded = measure.discarded_needed(call_s)
        return {"status": Status.OK, "reason": "", "call_s": call_s, "inner": self._calls}

    def _burst(self, _request: Mapping[str, Any]) -> Reply:
        """One figure of the arm [s], from calls on inputs whose values are new to this process."""
        subject, before = self._ready(), _switches()
        batches = subject.renew(self._calls + self._discarded)
        # On a GPU, XLA captures a program anew for addresses that it has not seen.
        discarded = max(self._discarded, batches) if subject.on_gpu else self._discarded
        sample = measure.burst(self._arm(), calls=self._calls, discarded=discarded)
        return {
            "status": Status.OK,
            "reason": "",
            "sample": sample,
            "involuntary_switches": _switches() - before,
        }

    def _recheck(self, _request: Mapping[str, Any]) -> Reply:
        """Compare the arm with the oracle again, after it was timed.

        What optimises late, keeps a result or carries its state on is right the first time only.
        """
        subject = self._ready()
        subject.load()
        return verdict(subject.check())

    def _device(self, request: Mapping[str, Any]) -> Reply:
        """Samples of the arm by the GPU's own clock; none where its framework cannot read it."""
        subject = self._ready()
        timer = self._backend().timer(subject.case.device)
        samples: list[float] = []
        if timer is not None:
            subject.renew(request["samples"] + 1)
            samples = measure.by_device(self._arm(), timer, request["samples"])
        return {"status": Status.OK, "reason": "", "samples": samples}

    def _kernels(self, _request: Mapping[str, Any]) -> Reply:
        """Kernels that a call of the arm runs. Nothing is timed in this process any more."""
        subject = self._ready()
        runner, device = subject.runner, subject.case.device
        found = self._backend().kernels(runner, device, lambda: runner.sync(subject.call()))
        return {"status": Status.OK, "reason": "", "kernels": kernels.kept(found)}


def _within(
    ordered: Mapping[str, Any], backend: Backend, device: str
) -> AbstractContextManager[None]:
    """The ordered limit of memory: the host's within the body, a GPU's from now on."""
    if is_gpu(device):
        backend.limit(device, ordered["bytes"])
        return nullcontext()
    return limits.enforced(ordered)


def _switches() -> int:
    """Number of times the kernel took the CPU from this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
