"""Rewrite the README's table from the published run: `python benchmarks/readme_table.py`.

The rows are those of its static-dynamic table in which a static strategy was measured, derived from
the records by the code as it is now.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.report import build
from bench.store import read_run

ROOT = Path(__file__).parents[1]
#: The run that the table is of.
RUN = "results/2026-11-24-lstm-cpu"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"

#: Which strategies of the table are unrolled.
STATIC = ("tensorflow/static", "torch/static", "torch/traced", "jax/static")

#: Column of the report -> what the README calls it.
COLUMNS = {
    "a / b": "static / dynamic",
    "mode": "mode",
    "T": "T",
    "steady": "a call",
    "verdict": "static is",
    "first result": "first result",
    "break-even (calls)": "paid back after",
    "peak": "peak memory",
}


def table() -> str:
    """The Markdown table of the published run."""
    report = build([read_run(ROOT / RUN)])
    (pairs,) = (table for table in report.tables if table.name == "static-dynamic")
    chosen = pairs.frame["implementation"].isin(STATIC) & pairs.frame["steady_ratio"].notna()
    shown = pairs.display[chosen].assign(name=pairs.frame["implementation"])
    shown = shown.assign(steps=pairs.frame["seq_len"])
    shown = shown.sort_values(["mode", "name", "steps"], kind="stable")
    shown = shown[list(COLUMNS)].rename(columns=COLUMNS)
    alignment = ("left",) * 3 + ("right",) * (len(COLUMNS) - 3)
    return str(pd.DataFrame(shown).to_markdown(index=False, colalign=alignment))


def rewritten(readme: str) -> str:
    """The README with the table between its markers."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def main() -> None:
    readme = ROOT / "README.md"
    readme.write_text(rewritten(readme.read_text()))


if __name__ == "__main__":
    main()
