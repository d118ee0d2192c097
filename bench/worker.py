"""Child side: one process, one framework, the arms that the parent asks for.

The parent speaks first, one JSON message a request, and the worker answers each with one. It does
nothing between requests but block: whoever holds the token is the only one that runs. Standard
output belongs to the frameworks; answers have a channel of their own.

A **server** is a process that has imported a framework and run nothing of it; it forks a worker for
each channel that it is sent. Started without `--serve`, the process is itself a worker.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import json
import os
import signal
import socket
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

import backends
from backends.api import Backend, Batch, Case, Mode, Runner, Unavailable, Unsupported, Weights
from backends.data import make_batch, make_weights
from backends.reference.network import Expected, expected
from bench import measure, memory, outputs
from bench.expectation import read_expected, write_expected
from bench.record import Status

Reply = dict[str, Any]

_PR_SET_PDEATHSIG = 1

#: What frameworks say when memory ran out, besides `MemoryError`.
_OOM_WORDS = ("out of memory", "RESOURCE_EXHAUSTED", "not enough memory", "can't allocate memory")


def failure(error: Exception) -> Reply:
    """An exception as status and reason."""
    if isinstance(error, Unsupported):
        return {"status": Status.UNSUPPORTED, "reason": str(error)}
    if isinstance(error, Unavailable):
        return {"status": Status.UNAVAILABLE, "reason": str(error)}
    message = f"{type(error).__name__}: {error}"
    if isinstance(error, MemoryError) or any(word in message for word in _OOM_WORDS):
        return {"status": Status.OOM, "reason": message.splitlines()[0]}
    return {"status": Status.CRASHED, "reason": "".join(traceback.format_exception(error))}


class _Subject:
    """One implementation of one case in one mode, with its data and what it must compute."""

    def __init__(self, backend: Backend, request: Mapping[str, Any]) -> None:
        self.implementation = backends.IMPLEMENTATIONS[request["implementation"]]
        self.case = Case(**request["case"])
        self.mode: Mode = request["mode"]
        self.expected: Expected = read_expected(Path(request["expected"]))
        self.weights: Weights = make_weights(self.case)
        self.batch: Batch = make_batch(self.case)
        self._backend = backend
        self.runner: Runner

    def build(self, stopwatch: measure.Stopwatch) -> None:
        strategy = self.implementation.strategy.name
        self.runner = self._backend.build(self.case, strategy, self.mode, stopwatch.stage)

    def load(self) -> None:
        self.runner.load(self.weights)
        self.runner.bind(self.batch)

    def call(self) -> Any:
        return self.runner.forward() if self.mode == "forward" else self.runner.train()

    def check(self, first: Any) -> outputs.Check:
        """Compare with the oracle: what the first call left, and in training a probing step."""
        if self.implementation.kind == "limit":
            return outputs.Check(differences={}, fault=None)
        if self.mode == "forward":
            return outputs.check_forward(self.case, self.runner.fetch(first), self.expected)
        loss = self.runner.fetch_loss(first)
        probed, gradients = outputs.probe_gradients(self.runner, self.weights, self.batch)
        return outputs.check_train(self.case, [loss, probed], gradients, self.expected)

    def check_again(self) -> outputs.Check:
        """The check after the timing, by a call that another batch's call came before.

        What optimises late, keeps a result or carries its state on is right the first time only.
        """
        self.load()
        self.runner.bind(replace(self.batch, x=-self.batch.x))
        other = self.call()
        self.runner.sync(other)
        if self.mode == "forward" and self.check(other).fault is None:
            return outputs.Check(differences={}, fault="outputs do not follow the batch")
        self.load()
        out = self.call()
        self.runner.sync(out)
        return self.check(out)

    @staticmethod
    def verdict(check: outputs.Check) -> Reply:
        """A check as status, reason and errors."""
        errors = {part: vars(error) for part, error in check.differences.items()}
        if check.fault is None:
            return {"status": Status.OK, "reason": "", "errors": errors}
        nan = any(np.isnan(error["absolute"]) for error in errors.values())
        status = Status.NAN if nan else Status.WRONG_OUTPUT
        return {"status": status, "reason": check.fault, "errors": errors}

    def program(self) -> dict[str, float]:
        return {f"program_{name}": n for name, n in self.runner.program_size().items()}


class Worker:
    """Answers requests; holds the arms that passed their check."""

    def __init__(self, backend: str, threads: int) -> None:
        self._name = backend
        self._threads = threads
        self._stopwatch = measure.Stopwatch()
        self._created: Backend | None = None
        self._arms: dict[str, measure.Arm] = {}
        self._subjects: dict[str, _Subject] = {}

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
            "warm": self._warm,
            "turn": self._turn,
            "recheck": self._recheck,
        }
        try:
            return operations[request["op"]](request)
        except Exception as error:
            return failure(error)

    def _describe(self, _request: Mapping[str, Any]) -> Reply:
        backend = self._backend()
        return {
            "status": Status.OK,
            "versions": dict(backend.versions()),
            "threads": dict(backend.threads()),
            "devices": dict(backend.devices()),
            "pid": os.getpid(),
        }

    def _expect(self, request: Mapping[str, Any]) -> Reply:
        case = Case(**request["case"])
        write_expected(Path(request["path"]), expected(case, make_weights(case), make_batch(case)))
        return {"status": Status.OK}

    def _prepare(self, request: Mapping[str, Any]) -> Reply:
        """Build, load, call once, check; what is right becomes an arm."""
        subject = _Subject(self._backend(), request)
        stopwatch = measure.Stopwatch()
        subject.build(stopwatch)
        subject.load()
        first = subject.call()
        subject.runner.sync(first)
        reply = subject.verdict(subject.check(first))
        if reply["status"] == Status.OK:
            name = subject.implementation.name
            self._arms[name] = measure.Arm(name=name, call=subject.call, sync=subject.runner.sync)
            self._subjects[name] = subject
        return {**reply, "values": subject.program()}

    def _cold(self, request: Mapping[str, Any]) -> Reply:
        """The phases that a process has once, each timed; the check comes after."""
        subject = _Subject(self._backend(), request)
        stopwatch = self._stopwatch
        with measure.collector_off():
            with stopwatch.phase("build"):
                subject.build(stopwatch)
            with stopwatch.phase("load"):
                subject.load()
            with stopwatch.phase("first"):
                first = subject.call()
                subject.runner.sync(first)
        reply = subject.verdict(subject.check(first))
        return {**reply, "values": subject.program(), "samples": stopwatch.samples}

    def _memory(self, request: Mapping[str, Any]) -> Reply:
        """Peaks of build and load, and of two calls. Nothing is timed here."""
        subject = _Subject(self._backend(), request)
        meter = memory.PeakMeter()
        subject.build(measure.Stopwatch())
        subject.load()
        build_peak = meter.read()
        first = subject.call()
        subject.runner.sync(first)
        subject.runner.sync(subject.call())
        run_peak = meter.read()
        values: dict[str, float] = {
            "build_peak_bytes": build_peak,
            "run_peak_bytes": run_peak,
            "peak_bytes": max(build_peak, run_peak),
        }
        if subject.mode == "train":
            # The second step moved the weights; what it left is not what the oracle expects.
            subject.load()
            first = subject.call()
            subject.runner.sync(first)
        verdict = subject.verdict(subject.check(first))
        values["calibration_error"] = memory.calibration_error()
        return {**verdict, "values": values}

    def _warm(self, request: Mapping[str, Any]) -> Reply:
        call_s: dict[str, float] = {}
        for name, arm in self._arms.items():
            call_s[name] = measure.warm_up(arm, calls=request["calls"], seconds=request["seconds"])
            self._arms[name] = arm.sized(call_s[name])
        return {
            "status": Status.OK,
            "call_s": call_s,
            "inner": {name: arm.inner for name, arm in self._arms.items()},
        }

    def _turn(self, request: Mapping[str, Any]) -> Reply:
        arms = [self._arms[name] for name in request["order"]]
        samples = measure.turn(arms, palindromes=measure.PALINDROMES_PER_TURN)
        return {"status": Status.OK, "samples": samples}

    def _recheck(self, request: Mapping[str, Any]) -> Reply:
        """One arm, after it was timed."""
        subject = self._subjects[request["implementation"]]
        if subject.implementation.kind == "limit":
            return {"status": Status.OK, "reason": ""}
        return subject.verdict(subject.check_again())


def serve_requests(channel: Connection, worker: Worker) -> None:
    """Answer until the parent says close, or is gone."""
    while True:
        try:
            request = json.loads(channel.recv_bytes())
        except (EOFError, ConnectionResetError):
            return
        if request["op"] == "close":
            return
        channel.send_bytes(json.dumps(worker.answer(request)).encode())


def _die_with_parent() -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _import_framework(backend: str) -> None:
    info = backends.BACKENDS[backend]
    for module in (*info.preload, info.module):
        importlib.import_module(module)


def _run_worker(descriptor: int, backend: str, threads: int) -> None:
    """Serve one channel; the import comes first, so that no phase holds it."""
    _import_framework(backend)
    channel = Connection(descriptor)
    serve_requests(channel, Worker(backend, threads))


def _serve_forks(descriptor: int, backend: str, threads: int) -> None:
    """Import the framework, say how many threads that made, then fork a worker for each channel."""
    _import_framework(backend)
    control = socket.socket(fileno=descriptor)
    control.send(json.dumps({"threads": len(list(Path("/proc/self/task").iterdir()))}).encode())
    while True:
        message, descriptors, _flags, _address = socket.recv_fds(control, 1 << 16, 1)
        if not message:
            return
        request = json.loads(message)
        if request["op"] == "wait":
            _pid, status = os.waitpid(request["pid"], 0)
            control.send(json.dumps({"code": os.waitstatus_to_exitcode(status)}).encode())
            continue
        server = os.getpid()
        pid = os.fork()
        if pid == 0:
            _die_with_parent()
            if os.getppid() != server:
                os._exit(1)
            control.close()
            os.environ.update(request["environment"])
            _run_worker(descriptors[0], backend, threads)
            os._exit(0)
        os.close(descriptors[0])
        control.send(json.dumps({"pid": pid}).encode())


def main() -> None:
    """Entry point of `python -m bench.worker`; started by `bench.launch` only."""
    parser = argparse.ArgumentParser(prog="bench.worker", description=main.__doc__)
    parser.add_argument("--backend", required=True, choices=sorted(backends.BACKENDS))
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--cpus", required=True, help="comma-separated CPU numbers")
    parser.add_argument("--fd", type=int, required=True, help="channel or control socket")
    parser.add_argument("--serve", action="store_true")
    arguments = parser.parse_args()
    _die_with_parent()
    # Ctrl-C reaches every process of the terminal: the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.sched_setaffinity(0, {int(cpu) for cpu in arguments.cpus.split(",")})
    start = _serve_forks if arguments.serve else _run_worker
    start(arguments.fd, arguments.backend, arguments.threads)
    # A framework's teardown can hang or crash after every result is safe.
    os._exit(0)


if __name__ == "__main__":
    main()
