"""A report in each of its forms: nothing cut off, nothing read as markup, all digits in the CSV."""

from __future__ import annotations

import math
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import format as fmt
from bench.errors import UsageError
from bench.record import Status
from bench.report import Report, build, latex, markdown, page, write
from tests import synthetic
from tests.reading import broken_report, plain_report, table, terminal


@pytest.fixture(name="plain")
def _plain() -> Report:
    return plain_report()


@pytest.fixture(name="broken")
def _broken() -> Report:
    return broken_report()


class Tags(HTMLParser):
    """The tags and the text of a page; fails where tags do not nest."""

    VOID = frozenset({"meta", "br", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_html_escapes_what_records_and_hosts_say(broken: Report) -> None:
    document = page.render(broken)
    tags = Tags()
    tags.feed(document)
    assert not tags.open
    assert not {"i", "img"} & tags.seen
    text = "".join(tags.text)
    assert "<script>alert(1)</script>" in text
    assert "<i>héllo</i> & co_1|x" in text
    assert "\x1b" not in document
    assert "src=" not in document
    assert "prefers-color-scheme: dark" in document


def test_latex_escapes_what_records_and_hosts_say(broken: Report) -> None:
    document = latex.render(broken)
    assert r"\$x\_1\$ 100\% \#2 \{a\} \textbackslash{}cmd" in document
    assert r"\textless{}i\textgreater{}héllo" in document
    assert "-{}-flag" in document
    document.encode("latin-1")
    assert document.count(r"\toprule") == 2 * len(broken.tables)


def test_markdown_escapes_what_records_and_hosts_say(broken: Report) -> None:
    document = markdown.render(broken)
    assert r"\<i\>héllo\</i\> \& co\_1\|x" in document
    assert "`` died <script>" in document
    lines = [line for line in document.splitlines() if line.startswith("| 10")]
    widths = {name: len(table(broken, name).display.columns) for name in ("latency", "ranking")}
    assert {line.count("|") - 1 for line in lines} >= set(widths.values())


def test_the_terminal_shows_markup_as_text(broken: Report) -> None:
    text = terminal(broken)
    assert "[red]no[/red]" in " ".join(text.split())
    assert "\x1b" not in text


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_the_terminal_cuts_nothing_off(plain: Report, width: int) -> None:
    text = terminal(plain, width)
    assert max(len(line) for line in text.splitlines()) <= width
    squeezed = "".join(text.split())
    for found in plain.tables:
        for column in found.columns():
            if column in found.words or column in found.spare:
                continue
            for cell in found.display[column]:
                assert "".join(cell.split()) in squeezed


def test_the_terminal_says_which_columns_it_left_out(plain: Report) -> None:
    assert "Left out for width, and in the files: peak, build, first call." in terminal(plain)
    assert "Left out" not in terminal(plain, 250)


def test_files(plain: Report, tmp_path: Path) -> None:
    paths = write(plain, tmp_path / "new" / "folder")
    assert [path.name for path in paths] == [
        "index.html", "report.md", "report.tex",
        *(f"{found.name}.csv" for found in plain.tables),
        *(f"{plot.name}.{kind}" for plot in plain.plots for kind in ("svg", "png")),
    ]  # fmt: skip
    texts = [path for path in paths if path.suffix != ".png"]
    assert all(path.read_text(encoding="utf-8") for path in texts)
    back = pd.read_csv(tmp_path / "new" / "folder" / "ranking.csv")
    exact = table(plain, "ranking").frame
    np.testing.assert_array_equal(back["ratio"], exact["ratio"])


def test_what_cannot_be_encoded_or_is_huge_is_still_written(tmp_path: Path) -> None:
    change = synthetic.only(
        "jax/static", synthetic.ends(Status.CRASHED, "\ud800\x00" + "again and again " * 10_000)
    )
    report = build([synthetic.run(change=change, id="\x1b[31mred\udcff")])
    sizes = {path.name: path.stat().st_size for path in write(report, tmp_path)}
    assert sizes["index.html"] > 160_000
    assert sizes["report.md"] < 50_000
    assert sizes["report.tex"] < 50_000
    assert len(terminal(report)) < 50_000
    assert "\x1b" not in terminal(report)


def test_a_folder_that_cannot_be_written_is_one_line(plain: Report, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="report folder"):
        write(plain, tmp_path / "file")


def test_a_missing_extra_is_named(
    plain: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.report.find_spec", lambda name: None if name == "jinja2" else name)
    with pytest.raises(
        UsageError, match=r"jinja2 not installed: pip install -c constraints.txt -e '.\[report\]'"
    ):
        write(plain, tmp_path)


def test_a_small_markdown_table() -> None:
    plan = synthetic.sweep(seq_len=[10], mode=["forward"], backend=["jax"], blocks=3)
    text = markdown.table_text(table(build([synthetic.run(plan)]), "ranking"))
    assert text.splitlines() == GOLDEN


GOLDEN = """\
| mode    | implementation    |   rank | kind    |   steady (µs) |             ratio | verdict   | status   |
|:--------|:------------------|-------:|:--------|--------------:|------------------:|:----------|:---------|
| forward | jax/static        |      1 | static  |           505 |                 1 | fastest   | ok       |
| forward | jax/scan-unroll-8 |      2 | dynamic |           576 | 1.14 [1.13, 1.14] | slower    | ok       |
| forward | jax/dynamic       |      3 | dynamic |           613 | 1.20 [1.18, 1.23] | slower    | ok       |
""".splitlines()  # noqa: E501, the table is as wide as it is


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.234, "1.23"), (0.01234, "0.0123"), (9.996, "10.0"), (99.96, "100"), (12345.0, "12,300"),
        (0.0, "0"), (-0.31, "-0.310"), (1.2e-7, "1.20e-07"), (3e12, "3.00e+12"),
        (math.nan, "-"), (math.inf, "inf"),
    ],
)  # fmt: skip
def test_three_digits(value: float, text: str) -> None:
    assert fmt.digits(value) == text


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((1.43, 1.38, 1.49), "1.43 [1.38, 1.49]"),
        ((0.832, 0.821, 0.84), "0.83 [0.82, 0.84]"),
        ((0.0452, 0.0449, 0.0461), "0.045 [0.045, 0.046]"),
        ((598.2, 590.1, 607.4), "598 [590, 607]"),
        ((0.98, 0.96, 0.9996), "0.98 [0.96, 0.9996]"),
        ((1.02, 1.0012, 1.04), "1.02 [1.001, 1.04]"),
        ((2.0, 1e-5, 4e5), "2.00 [1e-05, 4e+05]"),
        ((2.0, math.nan, math.nan), "2.00 (no interval)"),
        ((math.nan, math.nan, math.nan), "-"),
    ],
)  # fmt: skip
def test_a_ratio_with_its_interval(values: tuple[float, float, float], text: str) -> None:
    assert fmt.interval(*values) == text


@given(st.floats(1e-3, 1e3), st.floats(1.0, 50.0), st.floats(1.0, 50.0))
def test_an_interval_that_excludes_one_reads_so(value: float, down: float, up: float) -> None:
    low, high = value / down, value * up
    shown_low, shown_high = (
        float(bound.replace(",", ""))
        for bound in fmt.interval(value, low, high).split("[")[1][:-1].split(", ")
    )
    if low > 1 + 1e-6:
        assert shown_low > 1
    if high < 1 - 1e-6:
        assert shown_high < 1


@pytest.mark.parametrize(
    ("seconds", "unit"), [([1e-6, 2e-4], "µs"), ([0.02, 0.5, 3.0], "ms"), ([2.0], "s"), ([], "µs")]
)
def test_a_column_of_times_has_one_unit(seconds: list[float], unit: str) -> None:
    assert fmt.seconds(seconds).name == unit


@pytest.mark.parametrize(
    ("value", "text"), [(0.2, "1"), (41.3, "42"), (100.0, "100"), (12345.6, "12,000")]
)
def test_a_count_of_calls(value: float, text: str) -> None:
    assert fmt.count(value) == text
