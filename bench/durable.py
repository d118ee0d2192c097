"""Writing that is whole or not there: on return it is on the disk, on failure nothing of it is."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.errors import StoreError

#: What a disk says that takes no more.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


@contextmanager
def full_disk_told(folder: Path) -> Iterator[None]:
    """A disk that takes no more, met in the body, as the `StoreError` that it is.

    What workers share with the parent lies beside the records, and is full with them.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        reason = f"{error.strerror}; the records written so far are kept"
        raise StoreError(f"{folder}: cannot be written ({reason})") from error


def replace(path: Path, text: str) -> None:
    """Give a file this text (ASCII). Raises `OSError`; the file is then as it was."""
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)  # the file's name is the folder's content
    finally:
        os.close(folder)


def append(path: Path, line: bytes) -> None:
    """Add a line to a file that is there. Raises `OSError`; the file is then as it was."""
    # Unbuffered: what a buffer still holds is written when the file is closed, whatever happened.
    with path.open("r+b", buffering=0) as file:
        before, left = file.seek(0, os.SEEK_END), memoryview(line)
        try:
            while left:
                left = left[file.write(left) :]
            os.fsync(file.fileno())
        except BaseException:
            with suppress(OSError):  # then it is a torn line, which reading sets aside
                file.truncate(before)
            raise


def end_line(path: Path) -> None:
    """End the last line of a file, where a writer was cut off within it. Raises `OSError`."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        torn = file.read() not in (b"", b"\n")
    if torn:
        append(path, b"\n")
