"""One writer a folder: a lock that ends with the process that holds it, however that ends.

The kernel keeps it (`flock`), so one that was left behind blocks nobody. The file says who.
"""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path

from bench.errors import UsageError

#: The file in the folder; it is there while somebody writes, or after somebody was killed.
NAME = "lock"

#: A lock holds a process id; a file of that name that is larger is somebody else's.
_MAX_BYTES = 32

# A link is not followed: taking the lock writes to the file.
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class Lock:
    """The lock of a folder, held until `release`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    @classmethod
    def take(cls, folder: Path) -> Lock:
        """Lock a folder. Raises `UsageError` where another holds it, `OSError` where it cannot."""
        path = folder / NAME
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _FLAGS, 0o644)
            try:
                _check_ours(path, descriptor)
                _exclude(descriptor, folder)
                if _is_at(path, descriptor):
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
                    return cls(path, descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            # Whoever held it has removed it since it was opened: this is a lock of nothing.
            os.close(descriptor)

    def release(self) -> None:
        """Remove the file, then let go of it: in the other order it could be the next one's."""
        # One that cannot be removed is a stale one, and blocks nobody.
        with suppress(OSError):
            if _is_at(self._path, self._descriptor):
                self._path.unlink()
        os.close(self._descriptor)


def check_unlocked(folder: Path) -> None:
    """Raise `UsageError` where a process writes into the folder now. Leaves nothing there."""
    try:
        descriptor = os.open(folder / NAME, os.O_RDONLY | _FLAGS)
    except OSError:
        return  # not there, or not to be read: taking it will say why
    try:
        _exclude(descriptor, folder, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _check_ours(path: Path, descriptor: int) -> None:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_size > _MAX_BYTES:
        raise UsageError(f"{path}: is not the lock of a run; remove it or name another folder")


def _exclude(descriptor: int, folder: Path, kind: int = fcntl.LOCK_EX) -> None:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError as error:
        pid = os.pread(descriptor, _MAX_BYTES, 0).strip().decode(errors="replace")
        who = f" (pid {pid})" if pid.isdigit() else ""
        raise UsageError(f"folder {folder}: is being written by another process{who}") from error


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the file that is open is the one of that path."""
    try:
        return os.path.samestat(path.stat(follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False
