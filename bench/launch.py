"""Parent side: processes, pinned CPUs, time limits.

A `Team` holds one source of workers for each backend: a server that has imported the framework and
forks (`fork`), or fresh interpreters (`spawn`). Environment variables, CPUs and thread counts are
set before the framework is imported. A worker that dies or does not answer in time raises, with
what is known; nothing here retries.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any, Literal, Protocol, Self

from backends import BACKENDS

Start = Literal["fork", "spawn"]

#: A server that takes longer than this to import its framework is taken for hung.
IMPORT_LIMIT_S = 180.0

#: A server that has its framework forks at once: one that takes longer is deadlocked.
FORK_LIMIT_S = 30.0

#: A worker that lives this long after it was told to end is killed.
EXIT_LIMIT_S = 5.0


class WorkerDied(Exception):
    """The worker is gone; the message says how it ended."""


class WorkerHung(Exception):
    """The worker did not answer in time; it has been killed."""


def exit_text(code: int | None) -> str:
    """An exit code as words: a signal's name where it was one; None for one that nobody knows."""
    if code is None:
        return "with its fork server"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit status {code}"


class _Source(Protocol):
    """Where workers of one backend come from."""

    def start(self, descriptor: int, environment: Mapping[str, str]) -> int:
        """Start a worker that owns a copy of the descriptor; returns its process id."""

    def wait(self, pid: int) -> int | None:
        """Block until the worker has ended; its exit code, negative for a signal.

        None where the source itself is gone, and its workers with it.
        """

    def close(self) -> None:
        """End the source."""


class Worker:
    """One worker process and the channel to it. Requests block; there is one at a time."""

    def __init__(self, backend: str, source: _Source, environment: Mapping[str, str]) -> None:
        self.backend = backend
        self._source = source
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self.pid = source.start(theirs.fileno(), environment)
            except ConnectionError as error:
                ours.close()
                raise WorkerDied("the fork server is gone; see workers.log") from error
            except (WorkerDied, WorkerHung):
                ours.close()
                raise
        self._channel = Connection(ours.detach())
        self._ended = False

    def request(self, message: Mapping[str, Any], *, limit_s: float) -> dict[str, Any]:
        """Send a request and wait for its reply.

        Raises `WorkerDied` when the process ends without one, `WorkerHung` after `limit_s`.
        """
        try:
            self._channel.send_bytes(json.dumps(message).encode())
            if not self._channel.poll(limit_s):
                self._kill()
                raise WorkerHung(f"no answer to {message['op']!r} within {limit_s:.0f} s")
            reply: dict[str, Any] = json.loads(self._channel.recv_bytes())
        except (EOFError, ConnectionError) as error:
            code = self._reap()
            raise WorkerDied(f"worker ended during {message['op']!r}: {exit_text(code)}") from error
        return reply

    def _kill(self) -> None:
        self._kill_group()
        self._reap()

    def _kill_group(self) -> None:
        """Kill the worker and what it started: it leads a process group of its own."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def _reap(self) -> int | None:
        self._ended = True
        code = self._source.wait(self.pid)
        self._kill_group()
        return code

    def close(self) -> None:
        """Tell the worker to end, and reap it; one that stays is killed."""
        if not self._ended:
            with suppress(ConnectionError, EOFError):
                self._channel.send_bytes(json.dumps({"op": "close"}).encode())
                if self._channel.poll(EXIT_LIMIT_S):
                    self._channel.recv_bytes()  # end of file: it has closed its side
            # What hangs in its exit, or was left by it, has had its time.
            self._kill()
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _command(
    backend: str, threads: int, cpus: Sequence[int], descriptor: int, *flags: str
) -> list[str]:
    return [
        *(sys.executable, "-m", "bench.serve", "--backend", backend),
        *("--threads", str(threads), "--cpus", ",".join(map(str, cpus))),
        *("--fd", str(descriptor), *flags),
    ]


def _environment(backend: str, threads: int) -> dict[str, str]:
    return {**os.environ, **BACKENDS[backend].environment(threads)}


class _Spawner:
    """A fresh interpreter for each worker."""

    def __init__(self, backend: str, threads: int, cpus: Sequence[int], log: IO[bytes]) -> None:
        self._backend, self._threads, self._cpus, self._log = backend, threads, cpus, log
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, descriptor: int, environment: Mapping[str, str]) -> int:
        process = subprocess.Popen(
            _command(self._backend, self._threads, self._cpus, descriptor),
            env={**_environment(self._backend, self._threads), **environment},
            pass_fds=[descriptor],
            process_group=0,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        self._processes[process.pid] = process
        return process.pid

    def wait(self, pid: int) -> int:
        return self._processes.pop(pid).wait()

    def close(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()


class _ForkServer:
    """A process that has imported the framework, run nothing of it, and forks workers."""

    def __init__(self, backend: str, threads: int, cpus: Sequence[int], log: IO[bytes]) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                _command(backend, threads, cpus, theirs.fileno(), "--serve"),
                env=_environment(backend, threads),
                pass_fds=[theirs.fileno()],
                process_group=0,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._control.settimeout(IMPORT_LIMIT_S)
        #: Threads that importing the framework left running; forking is safe with one only.
        try:
            self.threads = int(self._answer()["threads"])
        except (WorkerDied, WorkerHung):
            self._control.close()
            self._process.wait()
            raise
        self._control.settimeout(FORK_LIMIT_S)

    def _answer(self) -> dict[str, Any]:
        try:
            message = self._control.recv(1 << 16)
        except TimeoutError as error:
            self._process.kill()
            limit_s = self._control.gettimeout()
            raise WorkerHung(f"no answer from the fork server in {limit_s:.0f} s") from error
        except ConnectionError:
            message = b""
        if not message:
            code = self._process.wait()
            raise WorkerDied(f"fork server ended: {exit_text(code)}; see workers.log")
        answer: dict[str, Any] = json.loads(message)
        return answer

    def start(self, descriptor: int, environment: Mapping[str, str]) -> int:
        request = json.dumps({"op": "fork", "environment": dict(environment)}).encode()
        socket.send_fds(self._control, [request], [descriptor])
        return int(self._answer()["pid"])

    def wait(self, pid: int) -> int | None:
        try:
            self._control.send(json.dumps({"op": "wait", "pid": pid}).encode())
            return int(self._answer()["code"])
        except (OSError, WorkerDied, WorkerHung):
            return None

    def close(self) -> None:
        self._control.close()
        try:
            self._process.wait(EXIT_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Team:
    """Sources of workers, one a backend, all on the same CPUs with the same number of threads."""

    def __init__(
        self,
        names: Sequence[str],
        *,
        threads: int,
        cpus: Sequence[int],
        start: Start,
        log: Path,
        scratch: Path,
    ) -> None:
        self.scratch = scratch
        self._threads, self._cpus, self._start = threads, cpus, start
        self._log = log.open("ab")
        self._fresh_folders = 0
        self.sources: dict[str, _Source] = {}
        #: Why a backend's workers are spawned although forking was asked for.
        self.notes: dict[str, str] = {}
        self._failed: dict[str, Exception] = {}
        for name in names:
            try:
                self.sources[name] = self._source(name)
            except (WorkerDied, WorkerHung) as error:
                # Installed, but its import fails: its jobs say so, the others' go on.
                self._failed[name] = error

    def _source(self, name: str) -> _Source:
        if self._start == "fork":
            server = _ForkServer(name, self._threads, self._cpus, self._log)
            if server.threads == 1:
                return server
            server.close()
            self.notes[name] = f"spawned: its import leaves {server.threads} threads"
        return _Spawner(name, self._threads, self._cpus, self._log)

    def worker(self, backend: str, *, fresh_cache: bool = False) -> Worker:
        """Start a worker.

        Compiled code is cached in a folder that a run's workers share, so that a program compiles
        once; `fresh_cache` gives the worker an empty one, where compiling is part of what is
        measured (time or memory).
        """
        if backend in self._failed:
            raise self._failed[backend]
        environment: dict[str, str] = {}
        variable = BACKENDS[backend].compile_cache
        if variable is not None:
            folder = self.scratch / "cache"
            if fresh_cache:
                self._fresh_folders += 1
                folder = self.scratch / f"cache-{os.getpid()}-{id(self)}-{self._fresh_folders}"
            folder.mkdir(exist_ok=True)
            environment[variable] = str(folder)
        try:
            return Worker(backend, self.sources[backend], environment)
        except (WorkerDied, WorkerHung):
            # The server was killed or is deadlocked: another one costs an import, not the run.
            self.sources.pop(backend).close()
            try:
                self.sources[backend] = self._source(backend)
            except (WorkerDied, WorkerHung) as error:
                self._failed[backend] = error
                raise
            return Worker(backend, self.sources[backend], environment)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for source in self.sources.values():
            source.close()
        self._log.close()
