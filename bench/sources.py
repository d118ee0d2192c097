"""Sources of workers: a server that has imported a framework and forks, or interpreters.

What is asked of a server and not answered, because Ctrl-C came between, ends it: the answer would
be taken for that to the next question.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Protocol

from backends import BACKENDS
from bench.ending import MARK, exit_text, has_ended, kill_group, kill_marked
from bench.interpreters import environment_of

#: A server that takes longer than this to import its framework is taken for hung.
IMPORT_LIMIT_S = 180.0

#: A server that has its framework forks at once: one that takes longer is deadlocked.
FORK_LIMIT_S = 30.0

#: A worker that lives this long after it was told to end, or broke off, is killed.
EXIT_LIMIT_S = 5.0


class WorkerDied(Exception):
    """The worker is gone; the message says how it ended."""


class ServerDied(WorkerDied):
    """The worker went with its fork server: no fault of what it was doing."""


class WorkerHung(Exception):
    """The worker did not answer in time; it has been killed."""


def is_flags(name: str, value: str | None) -> bool:
    """Whether a variable holds flags, to which others can be added: XLA reads a file's name too."""
    return value is not None and name.endswith("_FLAGS") and value.lstrip().startswith("-")


class Source(Protocol):
    """Source of the workers of one backend."""

    def start(self, descriptor: int, environment: Mapping[str, str]) -> int:
        """Start a worker that owns a copy of the descriptor; returns its process id."""

    def wait(self, pid: int) -> int | None:
        """Block until a worker that was killed has ended; its exit code, negative for a signal.

        None where the source itself is gone, and its workers with it.
        """

    @property
    def closed(self) -> bool:
        """Whether it has ended, and all that it had started."""

    def close(self) -> None:
        """End the source and all that it has started. A second time does nothing."""


class _Process:
    """A process that was started, and what it starts: all that has its mark."""

    def __init__(self, process: subprocess.Popen[bytes], mark: str) -> None:
        self.pid = process.pid
        self._process = process
        self._mark = mark
        self._code: int | None = None

    def end(self) -> int:
        """Kill what is left of it; its exit code, negative for a signal.

        A second time does nothing; one that was interrupted is completed.
        """
        if self._code is None:
            if self._process.returncode is None:
                kill_group(self.pid)
            code = self._process.wait()
            # A session of its own is out of the group's reach, and so are a server's workers.
            kill_marked(self._mark)
            self._code = code
        return self._code


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Setup of a backend's processes: interpreter, threads, CPUs, environment."""

    backend: str
    threads: int
    cpus: Sequence[int]
    log: IO[bytes]
    python: str

    def start(
        self, descriptor: int, *flags: str, environment: Mapping[str, str] | None = None
    ) -> _Process:
        """Start a process that owns a copy of the descriptor, in a process group of its own."""
        mark = uuid.uuid4().hex
        process = subprocess.Popen(
            [
                *(self.python, "-m", "bench.serve", "--backend", self.backend),
                *("--threads", str(self.threads), "--cpus", ",".join(map(str, self.cpus))),
                *("--parent", str(os.getpid()), "--fd", str(descriptor), *flags),
            ],
            env={**self._environment(), **(environment or {}), MARK: mark},
            pass_fds=[descriptor],
            process_group=0,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
        )
        return _Process(process, mark)

    def _environment(self) -> dict[str, str]:
        """The caller's variables and the backend's; flags of both, the backend's last."""
        ours = BACKENDS[self.backend].environment(self.threads)
        given = {name: os.environ[name] for name in ours if name in os.environ}
        joined = {
            name: f"{given[name]} {value}" if is_flags(name, given.get(name)) else value
            for name, value in ours.items()
        }
        # As NVML counts them; a framework would begin with the fastest one.
        order = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        return {**order, **environment_of(self.python), **joined}


class Spawner:
    """A fresh interpreter for each worker."""

    closed = False

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._processes: dict[int, _Process] = {}

    def start(self, descriptor: int, environment: Mapping[str, str]) -> int:
        process = self._setup.start(descriptor, environment=environment)
        self._processes[process.pid] = process
        return process.pid

    def wait(self, pid: int) -> int | None:
        process = self._processes.get(pid)
        if process is None:
            return None  # this source was closed, and its workers with it
        code = process.end()
        del self._processes[pid]
        return code

    def close(self) -> None:
        for pid in list(self._processes):
            self.wait(pid)


class ForkServer:
    """A process that has imported the framework, run nothing of it, and forks workers."""

    def __init__(self, setup: Setup) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self._process = setup.start(theirs.fileno(), "--serve")
            except OSError as error:
                self._control.close()
                raise WorkerDied(f"no fork server could be started ({error})") from error
        self._control.settimeout(IMPORT_LIMIT_S)
        #: Threads that importing the framework left running; forking is safe with one only.
        try:
            self.threads = int(self._answer()["threads"])
        except BaseException:
            self.close()
            raise
        self._control.settimeout(FORK_LIMIT_S)

    def _ask(self, request: Mapping[str, Any], *descriptors: int) -> dict[str, Any]:
        """Ask for one thing. Where no answer was read, the server is gone, and its workers too."""
        try:
            socket.send_fds(self._control, [json.dumps(request).encode()], descriptors)
            return self._answer()
        except BaseException:
            self.close()
            raise

    def _answer(self) -> dict[str, Any]:
        try:
            message = self._control.recv(1 << 16)
        except TimeoutError as error:
            limit_s = self._control.gettimeout()
            raise WorkerHung(f"no answer from the fork server in {limit_s:.0f} s") from error
        except ConnectionError:
            message = b""
        if not message:
            has_ended(self._process.pid, EXIT_LIMIT_S)
            code = self._process.end()
            raise WorkerDied(f"fork server ended: {exit_text(code)}; see workers.log")
        answer: dict[str, Any] = json.loads(message)
        return answer

    @property
    def closed(self) -> bool:
        return self._control.fileno() < 0

    def start(self, descriptor: int, environment: Mapping[str, str]) -> int:
        answer = self._ask({"op": "fork", "environment": dict(environment)}, descriptor)
        if "error" in answer:
            raise WorkerDied(f"no worker could be forked ({answer['error']})")
        return int(answer["pid"])

    def wait(self, pid: int) -> int | None:
        try:
            return int(self._ask({"op": "wait", "pid": pid})["code"])
        except (OSError, WorkerDied, WorkerHung):
            return None

    def close(self) -> None:
        self._control.close()
        self._process.end()
