"""Rewrite the README's table from the published run: `python benchmarks/readme_table.py`.

The rows are those of the run's static-dynamic.csv in which a static strategy was measured.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parents[1]
#: The run that the table is of.
RUN = "results/2026-11-24-lstm-cpu"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"

#: Which strategies of the table are unrolled.
STATIC = ("tensorflow/static", "torch/static", "torch/traced", "jax/static")


def _interval(row: pd.Series, name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    digits = 2 if row[name] < 10 else 1 if row[name] < 100 else 0
    return f"{row[name]:,.{digits}f} [{low:,.{digits}f}, {high:,.{digits}f}]"


def table() -> str:
    """The Markdown table of the published run."""
    frame = pd.read_csv(ROOT / RUN / "static-dynamic.csv")
    frame = frame[frame["implementation"].isin(STATIC) & frame["steady_ratio"].notna()]
    frame = frame.sort_values(["mode", "implementation", "seq_len"], kind="stable")
    rows = [
        {
            "static / dynamic": f"{row['implementation']} / {row['against'].split('/')[1]}",
            "mode": row["mode"],
            "T": row["seq_len"],
            "a call": _interval(row, "steady_ratio"),
            "static is": row["verdict"],
            "first result": _interval(row, "time_to_first_ratio"),
            "peak memory": _interval(row, "peak_ratio"),
        }
        for _, row in frame.iterrows()
    ]
    return pd.DataFrame(rows).to_markdown(index=False, colalign=("left",) * 3 + ("right",) * 4)


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
