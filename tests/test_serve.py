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


_ORPHANS = """
import os, sys, time
from bench import serve

def worker(leaves):
    pid = os.fork()
    if pid:
        os.waitpid(pid, os.WNOHANG)
        return pid
    os.setpgid(0, 0)
    if leaves and os.fork() == 0:
        if os.fork() == 0:
            time.sleep(600)
        os._exit(0)
    time.sleep(600 if leaves == "lives" else 0.3)
    os._exit(0)

serve._adopt_orphans()
lives, ends = worker("lives"), worker("ends")
time.sleep(0.2)
there = lambda: [os.getpgid(pid) for pid in serve._children()]
assert sorted(there()) == sorted([lives, lives, ends, ends]), there()
serve._reap(ends, {lives})
print(there() == [lives, lives])
os.kill(lives, 9)
serve._reap(lives, set())
print(there())
"""


def test_an_orphan_of_a_worker_that_lives_stays_and_ends_with_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _ORPHANS], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("True\n[]\n", "")
