"""Writing that is whole or not there: on return it is on the disk, on failure nothing of it is."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


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
