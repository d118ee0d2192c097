"""One side of a pair under pyperf: `python with_pyperf.py --side a -o a.json`.

Workers get the variable that says what is timed by `--inherit-environ`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pyperf

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.rivals.calls import call_of


def _pass_on(command: list[str], arguments: argparse.Namespace) -> None:
    command += ["--side", arguments.side]


def main() -> None:
    runner = pyperf.Runner(add_cmdline_args=_pass_on)
    runner.argparser.add_argument("--side", choices=["a", "b"], required=True)
    arguments = runner.parse_args()
    # The manager only starts workers: it needs no framework.
    call = call_of(arguments.side) if arguments.worker else None
    # The same name for both sides, so that `compare_to` has something to compare.
    runner.bench_func("call", call)


if __name__ == "__main__":
    main()
