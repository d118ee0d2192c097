"""Figures in the README, and tables of the published runs, are what the records say."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from bench import report
from bench.store import read_all
from benchmarks import readme_table

ROOT = Path(__file__).parent.parent
RUNS = sorted(path.parent for path in (ROOT / "results").glob("*/index.html"))


def test_the_tables_are_the_published_runs() -> None:
    assert "tensorflow static / dynamic" in readme_table.table()
    assert "[T4](x/claims.md#t4): In practice" in readme_table.verdicts("x/")
    for path, text in readme_table.pages().items():
        assert path.read_text() == text, path


@pytest.mark.parametrize("folder", RUNS, ids=lambda path: path.name)
def test_published_tables_are_made_of_the_records_by_this_version(
    folder: Path, tmp_path: Path
) -> None:
    """A verdict that changes with the code changes here too, or the commit is not whole."""
    runs = read_all([folder])
    for run in runs:
        assert run.faults == []
        assert run.manifest["status"] == "finished"
    for path in report.write(report.build(runs), tmp_path):
        assert path.suffix != ".html" or (folder / path.name).exists()
        if path.parent != tmp_path or path.suffix == ".html":
            continue  # drawings and the page around them are of libraries' versions
        if path.suffix == ".csv":  # another CPU may round the last digit otherwise
            pd.testing.assert_frame_equal(
                pd.read_csv(path), pd.read_csv(folder / path.name), rtol=1e-9
            )
        else:
            assert path.read_text() == (folder / path.name).read_text(), path.name
