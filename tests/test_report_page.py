"""The page and what lies beside it, without a browser: what is in it, and what is not."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from bench.errors import UsageError
from bench.record import Job, Record, Status
from bench.report import Report, build, charts, files, page, write
from bench.report.gradients import decay
from bench.report.model import Layout
from bench.report.page_data import embedded
from bench.store import Store, read_run
from tests import synthetic
from tests.browser.pages import ATTACK, hostile_report, verdicts
from tests.reading import plain_report


@pytest.fixture(name="plain")
def _plain() -> Report:
    return replace(plain_report(), verdicts=verdicts())


def data_of(document: str) -> dict[str, object]:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', document)
    found: dict[str, object] = json.loads(text)
    return found


def test_data_cannot_end_its_script() -> None:
    text = embedded({"a": "</script><!--<script> & \u2028\u2029"})
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {"a": "</script><!--<script> & \u2028\u2029"}


def test_whatever_records_say_the_page_has_its_own_scripts_only() -> None:
    document = page.render(hostile_report())
    assert len(re.findall("<script", document)) == 3
    assert len(re.findall("</script", document)) == 3
    assert "<img" not in document
    assert 'href="javascript' not in document
    assert ATTACK in json.dumps(data_of(document), ensure_ascii=False).replace('\\"', '"')


@pytest.mark.parametrize(
    ("url", "link"),
    [
        ("https://example.org/a?b=c", True), ("http://example.org", True),
        ("javascript:alert(1)", False), ("JaVaScRiPt:alert(1)", False),
        ("data:text/html,x", False), ("//example.org", False), ("https:", False), ("", False),
        ("https://exa mple.org", False), ("https://example.org/\n", False),
        ("file:///etc/passwd", False), ("https://[", False),
    ],
)  # fmt: skip
def test_only_addresses_of_the_web_are_links(url: str, link: bool) -> None:
    assert page.web_address(url) == (url if link else "")


def test_the_policy_allows_nothing_but_the_pages_own_parts(plain: Report) -> None:
    document = page.render(plain)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', document)
    assert policy.startswith("default-src &#39;none&#39;")
    assert "unsafe" not in policy
    assert "http" not in policy
    assert policy.count("sha256-") == 3


def test_the_page_has_every_row_of_every_table(plain: Report) -> None:
    found = data_of(page.render(plain))
    tables = found["tables"]
    assert isinstance(tables, list)
    for table, given in zip(plain.tables, tables, strict=True):
        assert [column["name"] for column in given["columns"]] == list(table.display.columns)
        assert len(given["place"]) == len(table.frame)
        for column in given["columns"]:
            cells = column.get("cells") or [column["texts"][code] for code in column["codes"]]
            assert cells == list(table.display[column["name"]])


def test_a_verdict_stands_with_its_evidence(plain: Report) -> None:
    document = page.render(plain)
    for said in ("The dynamic one is as fast.", "at most 5 % slower", "0.80 [0.78, 0.83]", "0.0004",
                 "0.8 is below 1", "findings.csv", 'href="https://example.org/claim"'):  # fmt: skip
        assert said in document
    assert document.index('id="verdicts"') < document.index('id="filters"')
    summary = document[document.index("<summary>") : document.index("</summary>")]
    assert f"<b>{plain.verdicts[0].id}</b>" in summary
    assert "0.80 [0.78, 0.83]" not in summary  # two hosts: each has its own, below
    single = page.render(replace(plain, verdicts=plain.verdicts[:1]))
    assert "0.80 [0.78, 0.83]" in single[: single.index("</summary>")]
    assert len(page.claims(plain.verdicts)) == 2


def test_many_runs_have_a_heading_of_their_names() -> None:
    sweeps = [
        replace(synthetic.sweep(blocks=2), name=f"s{n}", title=f"Sweep {n}") for n in range(3)
    ]
    runs = [synthetic.run(sweep, id=sweep.name) for sweep in sweeps]
    assert build(runs[:2]).title == "Sweep 0 | Sweep 1"
    assert build(runs).title == "3 runs: s0, s1, s2"


def test_the_raw_records_of_a_folder_of_runs_are_where_they_lie(tmp_path: Path) -> None:
    drawn = synthetic.run(synthetic.sweep(blocks=2))
    with Store.create(tmp_path / "runs" / "one", drawn.manifest) as store:
        store.extend(drawn.records)
    report = build([read_run(tmp_path / "runs" / "one")])
    (raw,) = files.raw_files(report, tmp_path / "runs")
    assert (raw.folder, raw.source) == ("one/", None)
    (copied,) = files.raw_files(report, tmp_path / "elsewhere")
    assert copied.source == tmp_path / "runs" / "one"


def test_many_findings_are_cut_off_and_counted(plain: Report) -> None:
    first = plain.verdicts[0]
    many = replace(first, findings=list(first.findings) * page.MOST_FINDINGS)
    document = page.render(replace(plain, verdicts=[many]))
    assert f"{page.MOST_FINDINGS} more findings are in findings.csv" in document


def test_warnings_of_one_kind_are_put_together(plain: Report) -> None:
    (run,) = plain.runs
    lines = ["not finished", *(f"interference: {n}" for n in range(9)), "overhead: much"]
    found = page.warnings([replace(run, warnings=lines)])
    assert [(w["kind"], len(w["first"]), len(w["more"])) for w in found] == [
        ("not finished", 1, 0), ("interference", 3, 6), ("overhead", 1, 0),
    ]  # fmt: skip


@pytest.mark.draws
def test_plots_are_drawn_as_files_and_raw_records_copied(tmp_path: Path) -> None:
    plan = synthetic.sweep(blocks=2)
    drawn = synthetic.run(plan, id="../../else/<where>")
    with Store.create(tmp_path / "run", drawn.manifest) as store:
        store.extend(drawn.records)
    report = replace(build([read_run(tmp_path / "run")]), verdicts=verdicts())
    paths = {str(path.relative_to(tmp_path)) for path in write(report, tmp_path / "out")}
    assert {path for path in paths if not path.startswith("out/")} == set()
    assert "out/raw/1-else-where/records.jsonl" in paths
    assert {"out/findings.csv", "out/index.html"} <= paths
    for plot in report.plots:
        svg = (tmp_path / f"out/plots/{plot.name}.svg").read_text()
        assert svg.startswith("<svg")
        assert plot.title in svg
        png = (tmp_path / f"out/plots/{plot.name}.png").read_bytes()
        assert png.startswith(b"\x89PNG")
        assert len(png) < 300_000
    found = pd.read_csv(tmp_path / "out/findings.csv")
    assert list(found["answer"].dropna()) == ["refuted", "holds", "refuted", "holds"]
    document = (tmp_path / "out/index.html").read_text()
    assert 'href="raw/1-else-where/records.jsonl"' in document
    assert len(document) < 1_500_000
    again = {path.name for path in write(report, tmp_path / "run")}
    assert "records.jsonl" not in again  # they lie there


def test_what_cannot_be_drawn_is_one_line(
    plain: Report, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def dies(*_: object) -> str:
        raise UsageError("plots cannot be drawn: no memory")

    monkeypatch.setattr(charts, "in_another_process", dies)
    with pytest.raises(UsageError, match="cannot be drawn"):
        write(plain, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.draws
def test_a_process_that_draws_and_dies_says_why() -> None:
    with pytest.raises(UsageError, match=r"plots cannot be drawn: .*JSON"):
        charts.in_another_process("pictures", "no JSON")


def behaviour(cell: str, values: dict[str, float], **where: object) -> Record:
    job: Job = next(iter(synthetic.run().records)).job
    job = replace(
        job,
        case=replace(job.case, cell=cell),
        implementation="jax/dynamic",
        mode="train",
        measure="behaviour",  # type: ignore[arg-type]
    )
    return replace(Record(job=job, block=0, status=Status.OK, values=values), **where)  # type: ignore[arg-type]


def test_gradients_are_medians_over_seeds_by_cell_and_bias() -> None:
    values = {f"gradient_norm/b1.0/s{seed}/d{d}": (seed + 1) * 0.5**d for seed in range(3)
              for d in (1, 4)}  # fmt: skip
    rnn = {"gradient_norm/b-/s0/d1": 0.3, "gradient_norm/b-/s0/d4": 0.0, "loss": 2.0}
    run = replace(
        synthetic.run(),
        records=[
            behaviour("lstm", values), behaviour("rnn", rnn),
            behaviour("lstm", {"gradient_norm/b9/s0/d1": 1.0}, status=Status.CRASHED),
        ],
    )  # fmt: skip
    layout = Layout.of([], several_runs=False)
    plot = decay([("drawn", run)], layout)
    assert plot is not None
    found = {(row["series"], row["x"]): row for row in plot.frame.to_dict("records")}
    assert set(found) == {("lstm, forget bias 1.0", 1), ("lstm, forget bias 1.0", 4), ("rnn", 1)}
    row = found["lstm, forget bias 1.0", 4]
    assert (row["low"], row["y"], row["high"], row["seeds"]) == (0.0625, 0.125, 0.1875, 3)
    assert decay([("drawn", synthetic.run())], layout) is None


def test_cannot_tell_has_a_sign_in_the_heat_map() -> None:
    report = build([synthetic.run(synthetic.sweep(blocks=1))])
    (heat,) = (plot for plot in report.plots if plot.kind == "heat")
    assert not heat.frame["decided"].any()
    assert heat.frame["text"].str.startswith("? ").all()


def test_an_implementation_looks_the_same_in_every_plot(plain: Report) -> None:
    names = charts.names_in(plain.plots)
    scales = [
        json.dumps(charts.specification(plot, names)["spec"]["layer"][2]["encoding"]["shape"])
        for plot in plain.plots
        if plot.kind == "lines"
    ]
    assert len(scales) == 5
    assert len(set(scales)) == 1
