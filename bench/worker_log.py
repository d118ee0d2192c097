"""The file that workers print to, kept at a size: a framework may print for each call.

Workers have the file itself as their output, so that nobody stands between them and it. It is
shortened from outside, between jobs: what one job prints is the only thing it may exceed its size
by. Writers append, and so go on behind what is left.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

#: A file that is larger is shortened to its ends, the first of which is this long.
LARGEST_BYTES = 10_000_000
END_BYTES = 2_500_000

_CUT = re.compile(rb"\n\[bench: (\d+) bytes cut here\]\n")

#: No number of bytes makes the line longer.
_LONGEST_CUT = 100


def shorten(path: Path) -> None:
    """Cut the middle out of a file that is too large, and say there how much that was.

    Raises `OSError`. What is written at this very moment may be lost.
    """
    if not path.exists() or path.stat().st_size <= LARGEST_BYTES:
        return
    with path.open("r+b") as file:
        end = file.seek(-END_BYTES, os.SEEK_END)
        tail = file.read(END_BYTES)
        file.seek(END_BYTES)
        earlier = _CUT.match(file.read(_LONGEST_CUT))
        cut = end - END_BYTES
        if earlier is not None:  # a line about what is not there is no part of it
            cut += int(earlier[1]) - len(earlier[0])
        file.seek(END_BYTES)
        file.write(b"\n[bench: %d bytes cut here]\n" % cut)
        file.write(tail)
        file.truncate()
