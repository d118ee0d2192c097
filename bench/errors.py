"""The errors that are one line to whoever runs a command: the user's, and the host's."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UsageError(Exception):
    """Bad input: one line that names the value and what is allowed. Exit status 2."""


class StoreError(Exception):
    """The host cannot keep what is measured: one line that says why, and what is kept."""


def choose(what: str, value: str, allowed: Iterable[str]) -> str:
    """Return `value` if allowed; else raise `UsageError` with the nearest name and the list."""
    names = list(allowed)
    if value in names:
        return value
    near = difflib.get_close_matches(value, names, n=1, cutoff=0.5)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise UsageError(f"unknown {what} {value!r}{hint}; allowed: {', '.join(names)}")
