"""The process that workers come from, before it has any."""

from __future__ import annotations

import subprocess
import sys

_SCRIPT = """
import gc
from bench import serve
serve._import_framework("reference")
print(gc.get_freeze_count(), len(gc.get_objects()))
"""


def test_a_collection_does_not_walk_what_the_import_has_made() -> None:
    """There is one before every turn: it would take longer than the turn."""
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, check=True)
    frozen, walked = map(int, done.stdout.split())
    assert frozen > 10_000
    assert walked < 0.01 * frozen
