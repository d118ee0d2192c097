"""Rewrite the README's tables from the published runs: `python benchmarks/readme_table.py`.

One has the rows of a run's static-dynamic table in which a static strategy was measured, the other
the verdicts on claims, which `results/README.md` has too. `docs/then-and-now.md` has what runs of
others' cases say. All are derived from the records by the code as it is now.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.claims.judge import judge
from bench.claims.model import Verdict
from bench.report import build, labels_of, markdown
from bench.report.markdown import escaped
from bench.report.then_and_now import NOBODY
from bench.store import read_all, read_run

ROOT = Path(__file__).parents[1]
#: The run that the table is of.
RUN = "results/2026-12-01-default-cpu"
#: The folder of runs that the verdicts are from.
CLAIMS = "results/2026-11-26-claims-cpu"
#: The same sweeps, measured before.
FIRST = "results/2026-11-26-claims-cpu-first"
#: The cases that others published, each preset a run.
THEN = "results/2026-11-26-then-and-now-cpu"

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


@cache
def judged(folder: str) -> Sequence[Verdict]:
    """The verdicts on what a folder of runs holds."""
    runs = read_all([ROOT / folder])
    return judge(runs, labels_of(runs))


def verdicts(folder: str) -> str:
    """The Markdown table of the verdicts; `folder` is where the links start from."""
    rows = [
        {
            "claim": f"[{v.id}]({folder}claims.md#{v.id.lower()}): {escaped(v.sentence)}",
            "verdict": f"**{v.answer}**" if v.answer in ("holds", "refuted") else v.answer,
            "effect": escaped("-" if v.deciding is None else v.deciding.said),
            "where": _where(v),
        }
        for v in judged(CLAIMS)
    ]
    return str(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True))


def _where(verdict: Verdict) -> str:
    """Subject and place of the effect; or the reason why there is none."""
    found = verdict.deciding
    if found is None:
        return escaped(verdict.reason)
    what = f"{found.statement}, " if found.blocks else ""
    return escaped(f"{what}{found.place}; {verdict.reason}")


def twice() -> str:
    """The Markdown table of both passes: verdicts, and what was sampled and told of places.

    Facts, and gradients of fixed seeds, are the same each time by their nature, and are left out.
    """
    rows = []
    for first, second in zip(judged(FIRST), judged(CLAIMS), strict=True):
        if {first.answer, second.answer} == {"no data"}:
            continue
        before, after = _answers(first), _answers(second)
        shared = before.keys() & after.keys()
        rows.append(
            {
                "claim": second.id,
                "first pass": first.answer,
                "second pass": second.answer,
                "places told in both": len(shared),
                "told the same": sum(before[place] == after[place] for place in shared),
                "told in one only": len(before.keys() ^ after.keys()),
            }
        )
    return str(pd.DataFrame(rows).to_markdown(index=False))


def then_and_now() -> str:
    """The Markdown table of published ratios and today's, without what has no counterpart."""
    report = build(read_all([ROOT / THEN]))
    (found,) = (table for table in report.tables if table.name == "then-and-now")
    shown = found.display[found.frame["said"] != NOBODY]
    shown = shown.drop(columns=["today", "status", "change"])
    return markdown.table_text(replace(found, display=shown))


def _answers(verdict: Verdict) -> dict[tuple[tuple[str, str], ...], str]:
    """Place -> answer, of the places where there is one by time or memory."""
    told = (f for f in verdict.findings if f.answer in ("holds", "refuted") and f.blocks)
    sampled = (f for f in told if verdict.id != "T10")
    return {tuple(finding.where.items()): finding.answer for finding in sampled}


def rewritten(text: str, tables: Mapping[str, str]) -> str:
    """A page with each table between its markers."""
    for name, table_text in tables.items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = f"{before}{begin}\n{table_text}\n{end}{after}"
    return text


def pages() -> dict[Path, str]:
    """The pages with tables, as they should be."""
    readme, results = ROOT / "README.md", ROOT / "results" / "README.md"
    then = ROOT / "docs" / "then-and-now.md"
    bundle = Path(CLAIMS)
    return {
        readme: rewritten(
            readme.read_text(), {"table": table(), "verdicts": verdicts(f"{CLAIMS}/")}
        ),
        results: rewritten(
            results.read_text(), {"verdicts": verdicts(f"{bundle.name}/"), "twice": twice()}
        ),
        then: rewritten(then.read_text(), {"then-and-now": then_and_now()}),
    }


def main() -> None:
    for path, text in pages().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
