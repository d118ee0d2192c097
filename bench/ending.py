"""Ends of processes, by themselves in time, with their parent, or killed; and their rest."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

#: The variable that marks a process that was started, and by inheritance all that it starts.
MARK = "RNN_BENCH_STARTED"

#: What is killed ends at once, unless the kernel is busy for it: then nothing helps but time.
_KILL_LIMIT_S = 5.0

_PAUSE_S = 0.01

#: How long the threads of a worker may go on after its burst, and how often they are looked at.
_REST_LIMIT_S, _REST_PAUSE_S = 0.5, 0.001

_PR_SET_PDEATHSIG = 1


def exit_text(code: int) -> str:
    """An exit code as words: a signal's name where it was one."""
    if code == -signal.SIGKILL:
        return "killed by SIGKILL, as the kernel does where memory runs out"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit status {code}"


def has_ended(pid: int, limit_s: float) -> bool:
    """Whether a process ends by itself in this time: it is gone then, or waits to be reaped."""
    return _comes_true(lambda: _is_gone(pid), limit_s, _PAUSE_S)


def _is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _comes_true(condition: Callable[[], bool], limit_s: float, pause_s: float) -> bool:
    """Whether a condition holds within so many seconds; it is asked once at least."""
    end_s = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end_s:
            return False
        time.sleep(pause_s)
    return True


def wait_until_asleep(pid: int, limit_s: float = _REST_LIMIT_S) -> bool:
    """Wait until no thread of a process runs, for this long at most; whether that came true.

    Pools of threads spin for a while after their last work (OpenMP's up to 0.2 s), and would take
    the CPU from what is timed next.
    """
    return _comes_true(lambda: not _runs(pid), limit_s, _REST_PAUSE_S)


def _runs(pid: int) -> bool:
    """Whether a thread of a process runs, is ready to, or waits for a disk; not if it is gone."""
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                # The state stands behind the name, which may hold anything in its brackets.
                state = (task / "stat").read_bytes().rpartition(b")")[2].split()[0]
                if state in (b"R", b"D"):
                    return True
    return False


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when `parent` ends; where it has ended already, end now."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def kill_group(pid: int) -> None:
    """Kill a process that leads a group, and what it has started in it.

    Only before it is reaped: its id, and so the group's, may be somebody else's afterwards.
    """
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def kill_marked(mark: str) -> None:
    """Kill what has this value of `MARK` in its environment, whatever group or session it is in.

    A mark is given to one process only, so that nobody else's are found. What has emptied its
    environment is not found either.
    """
    end_s = time.monotonic() + _KILL_LIMIT_S
    # Again until none is there: what is killed may have started another one just before.
    while (found := _marked(mark)) and time.monotonic() < end_s:
        for process in found:
            with suppress(psutil.Error):
                process.kill()
        time.sleep(_PAUSE_S)


def _marked(mark: str) -> list[psutil.Process]:
    """The processes with this mark; one that waits to be reaped has no environment any more."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for pid in psutil.pids():
        # Of others' processes, and of those that end meanwhile, nothing is known.
        with suppress(OSError, psutil.Error):
            # There may be thousands. psutil, which tells an id that was given anew, is for ours.
            if wanted in Path("/proc", str(pid), "environ").read_bytes():
                process = psutil.Process(pid)
                if process.environ().get(MARK) == mark:
                    found.append(process)
    return found
