"""Reason of a job's end, in its source's words; of a traceback, the exception."""

from __future__ import annotations

import re
from pathlib import PurePath

from bench.format import shortened

#: A headline is a line or two on a terminal, and a file's name the smaller part of it.
LONGEST, _LONGEST_NAME = 160, 40

_TRACEBACK = "Traceback (most recent call last):"
_FRAME = re.compile(r'^  File "(.*)", line (\d+)', re.MULTILINE)
_RAISED = re.compile(r"^\S.*", re.MULTILINE | re.DOTALL)


def headline(reason: str) -> str:
    """A reason in one line of at most `LONGEST` characters: of a traceback, what was raised."""
    return _raised(reason) or shortened(reason, LONGEST)


def headed(reason: str) -> str:
    """A reason as it is; a traceback below its headline."""
    found = _raised(reason)
    return reason if found is None else f"{found}\n{reason}"


def _raised(reason: str) -> str | None:
    """Exception at the end of a traceback, and where it was raised; None for other text."""
    before, _, traceback = reason.partition(_TRACEBACK)
    # Of a chain of exceptions the last one came out. What it says may have lines of its own.
    frames = list(_FRAME.finditer(traceback))
    raised = _RAISED.search(traceback, frames[-1].end()) if frames else None
    if raised is None:
        return None
    name, line = frames[-1].groups()
    place = f" (raised in {shortened(PurePath(name).name, _LONGEST_NAME)}:{line:.9})"
    said = before.rpartition("\n")[2] + raised[0].replace(_TRACEBACK, "")
    return shortened(said, LONGEST - len(place)) + place
