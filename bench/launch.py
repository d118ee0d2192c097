"""Parent side: processes, pinned CPUs, time limits.

A `Team` holds one source of workers for each backend: a server that has imported the framework and
forks (`fork`), or fresh interpreters (`spawn`). Environment variables, CPUs and thread counts are
set before the framework is imported. A worker that dies or does not answer in time raises, with
what is known; nothing here retries. What was asked and not answered, because Ctrl-C came between,
ends who was asked: the answer would be taken for that to the next question.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, Self

from backends import BACKENDS
from bench import sources
from bench.ending import exit_text, has_ended, kill_group
from bench.interpreters import OWN, Interpreters
from bench.sources import ForkServer, ServerDied, Setup, Source, Spawner, WorkerDied, WorkerHung
from bench.worker_log import shorten

Start = Literal["fork", "spawn"]

#: An answer that has begun goes on at once: one that pauses for longer is not completed.
REPLY_LIMIT_S = 30.0


class OutOfTime(Exception):
    """The time of the whole run is over: nobody's fault, and no result."""


class Worker:
    """One worker process and the channel to it. Requests block; there is one at a time."""

    def __init__(
        self,
        backend: str,
        source: Source,
        environment: Mapping[str, str],
        *,
        deadline_s: float = math.inf,
        longest_s: float = math.inf,
    ) -> None:
        """After `deadline_s`, of the monotonic clock, no answer is waited for.

        Nor is one for longer than `longest_s`.
        """
        self.backend = backend
        self._deadline_s, self._longest_s = deadline_s, longest_s
        self._source = source
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self.pid = source.start(theirs.fileno(), environment)
            except OSError as error:
                ours.close()
                raise WorkerDied(f"no worker could be started ({error})") from error
            except BaseException:
                ours.close()
                raise
        limit = struct.pack("ll", int(REPLY_LIMIT_S), 0)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        self._channel = Connection(ours.detach())
        self._ended = False

    def request(self, message: Mapping[str, Any], *, limit_s: float) -> dict[str, Any]:
        """Send a request and wait for its reply.

        Raises `WorkerDied` when the process ends or breaks off without one, `ServerDied` when that
        was its server's end, `WorkerHung` after `limit_s`, `OutOfTime` at the deadline. Whatever is
        raised, the worker is gone.
        """
        if self._ended:
            raise WorkerDied(f"worker ended before {message['op']!r}")
        try:
            return self._exchange(message, limit_s)
        except BaseException:
            if not self._ended:
                self._reap()
            raise

    def _exchange(self, message: Mapping[str, Any], limit_s: float) -> dict[str, Any]:
        op = message["op"]
        try:
            self._channel.send_bytes(json.dumps(message).encode())
            limit_s = min(limit_s, self._longest_s)
            left_s = self._deadline_s - time.monotonic()
            if not self._channel.poll(max(0.0, min(limit_s, left_s))):
                self._reap()
                if left_s < limit_s:
                    raise OutOfTime(f"no time is left for an answer to {op!r}")
                raise WorkerHung(f"no answer to {op!r} within {limit_s:.0f} s")
            reply: dict[str, Any] = json.loads(self._channel.recv_bytes())
        except BlockingIOError as error:
            self._reap()
            raise WorkerHung(f"stopped within its answer to {op!r}") from error
        except (EOFError, OSError, ValueError) as error:
            ended = has_ended(self.pid, sources.EXIT_LIMIT_S)
            code = self._reap()
            if code is None:
                raise ServerDied(f"worker ended during {op!r}: with its fork server") from error
            how = f"ended during {op!r}: {exit_text(code)}"
            if not ended:
                how = f"broke off during {op!r}: what it sent is no answer, and it stayed"
            raise WorkerDied(f"worker {how}") from error
        return reply

    def _reap(self) -> int | None:
        """Kill what is left of the worker and what it started; its exit code, if that is known."""
        self._ended = True
        kill_group(self.pid)
        return self._source.wait(self.pid)

    def close(self) -> None:
        """Tell the worker to end, and reap it; one that stays is killed."""
        try:
            if not self._ended:
                self._end()
        finally:
            self._channel.close()

    def _end(self) -> None:
        try:
            with suppress(OSError, EOFError):
                self._channel.send_bytes(json.dumps({"op": "close"}).encode())
                if self._channel.poll(sources.EXIT_LIMIT_S):
                    self._channel.recv_bytes()  # end of file: it has closed its side
        finally:
            # What hangs in its exit, or was left by it, has had its time.
            self._reap()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Team:
    """Sources of workers, one for each backend and number of threads.

    A worker has as many CPUs as threads: the last ones of the team's.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        threads: Sequence[int] = (1,),
        cpus: Sequence[int],
        start: Start,
        log: Path,
        scratch: Path,
        interpreters: Interpreters = OWN,
        deadline_s: float = math.inf,
        longest_s: float = math.inf,
    ) -> None:
        """Start the sources.

        `threads` are the numbers of threads that workers are asked for with; `interpreters` says
        which environment has which framework.

        After `deadline_s`, a time of the monotonic clock, what is asked of a worker raises
        `OutOfTime`; a worker that does not answer within `longest_s` hangs, whatever it was asked.
        """
        self._deadline_s, self._longest_s = deadline_s, longest_s
        self.scratch = scratch
        self._start = start
        self._log_path = log
        self._log = log.open("ab")
        self._interpreters = interpreters
        self._cpus = cpus
        self._fresh_folders = 0
        self.threads = sorted(threads)
        self.sources: dict[tuple[str, int], Source] = {}
        #: Why a backend's workers are spawned although forking was asked for.
        self.notes: dict[str, str] = {}
        self._failed: dict[tuple[str, int], Exception] = {}
        try:
            for kind in itertools.product(names, self.threads):
                try:
                    self.sources[kind] = self._source(*kind)
                except (WorkerDied, WorkerHung) as error:
                    # Installed, but its import fails: its jobs say so, the others' go on.
                    self._failed[kind] = error
        except BaseException:
            self.close()
            raise

    def _source(self, name: str, threads: int) -> Source:
        setup = Setup(
            backend=name,
            threads=threads,
            cpus=self._cpus[-threads:],
            log=self._log,
            python=self._interpreters.path(name),
        )
        if self._start == "fork":
            server = ForkServer(setup)
            if server.threads == 1:
                return server
            server.close()
            self.notes[name] = f"spawned: its import leaves {server.threads} threads"
        return Spawner(setup)

    def worker(
        self, backend: str, threads: int | None = None, *, fresh_cache: bool = False
    ) -> Worker:
        """Start a worker, with the fewest threads that the team has where they are not named.

        Compiled code is cached in a folder that a run's workers share, so that a program compiles
        once; `fresh_cache` gives the worker an empty one, where compiling is part of what is
        measured (time or memory).
        """
        kind = backend, self.threads[0] if threads is None else threads
        if kind in self._failed:
            raise self._failed[kind]
        shorten(self._log_path)
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
            return self._start_worker(kind, environment)
        except (WorkerDied, WorkerHung):
            if not self.sources[kind].closed:
                raise  # the host has no room for a process: the others go on
            # The server was killed or is deadlocked: another one costs an import, not the run.
            try:
                self.sources[kind] = self._source(*kind)
            except (WorkerDied, WorkerHung) as error:
                self._failed[kind] = error
                raise
            return self._start_worker(kind, environment)

    def _start_worker(self, kind: tuple[str, int], environment: Mapping[str, str]) -> Worker:
        return Worker(
            kind[0],
            self.sources[kind],
            environment,
            deadline_s=self._deadline_s,
            longest_s=self._longest_s,
        )

    def close(self) -> None:
        """End all that was started; what one source's end raises keeps no other from it."""
        with ExitStack() as stack:
            stack.callback(shorten, self._log_path)
            stack.callback(self._log.close)
            for source in self.sources.values():
                stack.callback(source.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
