"""Entry of a worker's process: CPUs, the framework's import, and the channel to the parent.

A **server** is a process that has imported a framework and run nothing of it; it forks a worker for
each channel that it is sent. Started without `--serve`, the process is itself a worker. Standard
output belongs to the frameworks; answers have a channel of their own.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib
import json
import os
import signal
import socket
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

import backends
from bench.ending import die_with_parent
from bench.worker import Worker

_PR_SET_CHILD_SUBREAPER = 36


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


def _adopt_orphans() -> None:
    """Become the parent of what a worker leaves behind, in whatever session that is."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _children() -> dict[int, psutil.Process]:
    return {child.pid: child for child in psutil.Process().children()}


def _reap(pid: int, kept: set[int]) -> int:
    """Wait for a worker and kill what it has left; its exit code, negative for a signal.

    What is in the group of another worker that lives is that one's.
    """
    _pid, status = os.waitpid(pid, 0)
    # Each orphan may leave orphans of its own.
    while left := [
        child
        for child in _children().values()
        if child.pid not in kept and os.getpgid(child.pid) not in kept
    ]:
        for orphan in left:
            orphan.kill()
            os.waitpid(orphan.pid, 0)
    return os.waitstatus_to_exitcode(status)


def _import_framework(backend: str) -> None:
    info = backends.BACKENDS[backend]
    for module in (*info.preload, info.module):
        importlib.import_module(module)
    # Frameworks leave 100,000 to 400,000 objects that stay. A collection walks them all, which
    # takes 50 to 200 ms, and there is one before every turn: it need not see them again.
    gc.collect()
    gc.freeze()


def _run_worker(descriptor: int, backend: str, threads: int) -> None:
    """Serve one channel; the import comes first, so that no phase holds it."""
    _import_framework(backend)
    channel = Connection(descriptor)
    # What a worker forks must not hold its channel: the parent would wait for a worker that died.
    os.register_at_fork(after_in_child=channel.close)
    serve_requests(channel, Worker(backend, threads))


def _serve_forks(descriptor: int, backend: str, threads: int) -> None:
    """Import the framework, say how many threads that made, then fork a worker for each channel."""
    _import_framework(backend)
    control = socket.socket(fileno=descriptor)
    _adopt_orphans()
    kept = set(_children())  # what the import has started belongs to the server
    control.send(json.dumps({"threads": len(list(Path("/proc/self/task").iterdir()))}).encode())
    while True:
        message, descriptors, _flags, _address = socket.recv_fds(control, 1 << 16, 1)
        if not message:
            return
        request = json.loads(message)
        if request["op"] == "wait":
            kept.remove(request["pid"])
            control.send(json.dumps({"code": _reap(request["pid"], kept)}).encode())
            continue
        server = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:  # no memory for it, or too many processes
            os.close(descriptors[0])
            control.send(json.dumps({"error": str(error)}).encode())
            continue
        if pid == 0:
            die_with_parent(server)
            # A group of its own: what a worker starts and leaves behind is killed with it.
            os.setpgid(0, 0)
            control.close()
            os.environ.update(request["environment"])
            _run_worker(descriptors[0], backend, threads)
            os._exit(0)
        kept.add(pid)
        os.close(descriptors[0])
        with suppress(PermissionError, ProcessLookupError):
            os.setpgid(pid, pid)  # whichever of the two is first: the parent may kill it at once
        control.send(json.dumps({"pid": pid}).encode())


def main() -> None:
    """Entry point of `python -m bench.serve`; started by `bench.launch` only."""
    parser = argparse.ArgumentParser(prog="bench.serve", description=main.__doc__)
    parser.add_argument("--backend", required=True, choices=sorted(backends.BACKENDS))
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--cpus", required=True, help="comma-separated CPU numbers")
    parser.add_argument("--fd", type=int, required=True, help="channel or control socket")
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--parent", type=int, required=True, help="who must be there")
    arguments = parser.parse_args()
    die_with_parent(arguments.parent)
    # Ctrl-C reaches every process of the terminal: the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.sched_setaffinity(0, {int(cpu) for cpu in arguments.cpus.split(",")})
    start = _serve_forks if arguments.serve else _run_worker
    start(arguments.fd, arguments.backend, arguments.threads)
    # A framework's teardown can hang or crash after every result is safe.
    os._exit(0)


if __name__ == "__main__":
    main()
