"""Child side: one framework, the arms that the parent asks for.

The parent speaks first, one JSON message a request, and the worker answers each with one. It does
nothing between requests but block: whoever holds the token is the only one that runs.
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
from backends.data import make_batch, make_weights
from backends.devices import is_gpu
from bench import kernels, limits, measure, memory, oom
from bench.beacon import Beacon
from bench.behaviour import observe
from bench.expectation import compute_expected, write_expected
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
    """Answers requests; holds the arms that passed their check."""

    def __init__(self, backend: str, threads: int) -> None:
        self._name = backend
        self._threads = threads
        self._stopwatch = measure.Stopwatch()
        self._created: Backend | None = None
        self._arms: dict[str, measure.Arm] = {}
        self._subjects: dict[str, Subject] = {}
        self._beacon: Beacon | None = None

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
            "prepare": self._prepare,
            "cold": self._cold,
            "memory": self._memory,
            "behaviour": self._behaviour,
            "probe": self._probe,
            "warm": self._warm,
            "turn": self._turn,
            "alone": self._alone,
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
        call_s, sample_s = measure.overhead()
        return {
            "status": Status.OK,
            "python": platform.python_version(),
            "versions": dict(backend.versions()),
            "threads": dict(backend.threads()),
            "devices": dict(backend.devices()),
            "no_gpu": backend.lacking("gpu"),
            "overhead": {"call_s": call_s, "sample_s": sample_s},
            "calibration_error": memory.calibration_error(),
            "pid": os.getpid(),
        }

    def _expect(self, request: Mapping[str, Any]) -> Reply:
        case = Case(**request["case"])
        expected = compute_expected(case, make_weights(case), make_batch(case))
        write_expected(Path(request["path"]), expected)
        return {"status": Status.OK}

    def _prepare(self, request: Mapping[str, Any]) -> Reply:
        """Build, load, call once, check; what is right becomes an arm."""
        subject = Subject(self._backend(), request)
        subject.build(measure.Stopwatch())
        subject.load()
        first = subject.call()
        subject.runner.sync(first)
        reply = verdict(subject.check(first))
        if reply["status"] == Status.OK:
            name = request["arm"]
            subject.rotate()
            self._arms[name] = measure.Arm(
                name=name,
                call=subject.call,
                sync=subject.runner.sync,
                before=subject.runner.advance if subject.on_gpu else None,
            )
            self._subjects[name] = subject
        return {**reply, "values": subject.program()}

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
        out = subject.call()
        subject.runner.sync(out)
        reply = verdict(subject.check(out))
        error = memory.calibration_error()
        if error is not None:
            values["calibration_error"] = error
        return {**reply, "values": values}

    def _behaviour(self, request: Mapping[str, Any]) -> Reply:
        """What it does, whatever it takes; first it is checked, and observed however that ends."""
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
        """Warm one arm up and size its samples."""
        arm = self._arms[request["arm"]]
        call_s = measure.warm_up(arm, calls=request["calls"], seconds=request["seconds"])
        self._arms[arm.name] = arm = arm.sized(call_s)
        return {"status": Status.OK, "reason": "", "call_s": call_s, "inner": arm.inner}

    def _turn(self, request: Mapping[str, Any]) -> Reply:
        return self._timed(
            request, lambda arms, show: measure.turn(arms, request["palindromes"], show=show)
        )

    def _alone(self, request: Mapping[str, Any]) -> Reply:
        return self._timed(
            request, lambda arms, show: measure.alone(arms, request["samples"], show=show)
        )

    def _timed(
        self,
        request: Mapping[str, Any],
        measured: Callable[[list[measure.Arm], measure.Show], dict[str, list[float]]],
    ) -> Reply:
        """Samples of arms in an order; the beacon tells the parent which of them runs."""
        order: list[str] = request["order"]
        if self._beacon is None:
            self._beacon = Beacon(Path(request["beacon"]))
        show = self._beacon.show
        before = _switches()
        try:
            samples = measured([self._arms[name] for name in order], show)
        except BaseException as error:
            return {**failure(error), "culprit": order[self._beacon.read()]}
        return {
            "status": Status.OK,
            "reason": "",
            "samples": samples,
            "involuntary_switches": _switches() - before,
        }

    def _recheck(self, request: Mapping[str, Any]) -> Reply:
        """One arm, after it was timed."""
        subject = self._subjects[request["arm"]]
        reply = verdict(subject.check_again())
        subject.rotate()  # the check has bound another batch, and this one again
        return reply

    def _device(self, request: Mapping[str, Any]) -> Reply:
        """Samples of arms by the GPU's own clock; of none whose framework cannot read it."""

        def measured(arms: list[measure.Arm], show: measure.Show) -> dict[str, list[float]]:
            samples: dict[str, list[float]] = {}
            for number, arm in enumerate(arms):
                show(number)
                timer = self._backend().timer(self._subjects[arm.name].case.device)
                if timer is not None:
                    samples[arm.name] = measure.by_device(arm, timer, request["samples"])
            return samples

        return self._timed(request, measured)

    def _kernels(self, request: Mapping[str, Any]) -> Reply:
        """What a call of an arm runs. Nothing is timed in this process any more."""
        subject = self._subjects[request["arm"]]
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
    """How often the kernel took the CPU from this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
