"""Records on disk: nothing lost, nothing doubled, nothing foreign believed."""

from __future__ import annotations

import json
import math
import os
import zlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.api import Case
from bench.errors import UsageError
from bench.older import merged
from bench.record import Job, Record, Status, to_frame
from bench.store import MAX_FAULTS, SCHEMA, Store, line_of, read_run

DATA = Path(__file__).parent / "data"

CASE = Case(cell="lstm", seq_len=5, batch=2, inputs=3, hidden=4)
JOB = Job(implementation="jax/dynamic", case=CASE, mode="forward", measure="steady")
RECORD = Record(
    job=JOB,
    block=0,
    status=Status.OK,
    samples={"steady": [0.001, 0.002]},
    inner=3,
    values={"program_equations": 12},
    errors={"outputs": {"absolute": 1e-7, "relative": 2e-7}},
    worker={"pid": 1},
)


def written(folder: Path, *records: Record) -> None:
    with Store.create(folder, {"id": "x"}) as store:
        for record in records:
            store.append(record)


def _line(data: object) -> bytes:
    """A line of any record with the checksum that belongs to it, as schema 1 wrote it."""
    body = json.dumps(data, sort_keys=True)
    return f'{{"crc32": {zlib.crc32(body.encode())}, "record": {body}}}\n'.encode()


def add(folder: Path, line: bytes) -> None:
    with (folder / "records.jsonl").open("ab") as file:
        file.write(line)


def test_what_is_appended_is_read_back(tmp_path: Path) -> None:
    records = [replace(RECORD, block=block) for block in range(3)]
    written(tmp_path / "run", *records)
    run = read_run(tmp_path / "run")
    assert run.records == records
    assert run.faults == []
    assert run.manifest["schema"] == SCHEMA


@given(
    reason=st.text(),
    samples=st.dictionaries(st.text(), st.lists(st.floats(allow_nan=False))),
    status=st.sampled_from(Status),
)
def test_any_record_survives_json(
    reason: str, samples: dict[str, list[float]], status: Status
) -> None:
    record = replace(RECORD, reason=reason, samples=samples, status=status)
    assert Record.from_json(json.loads(json.dumps(record.to_json()))) == record


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe\x00",
        '{"crc32": 0, "record": {}}'.encode("utf-16"),
        b"\x7fELF" + bytes(range(128, 256)),
        b"\0" * 4096,
        b"[" * 10_000,
        b"[" * 500 + b"]" * 500,
        b'{"crc32": ' + b"9" * 5000 + b"}",
        b'{"crc32": 0, "record": {}}',
        b'{"record": {"job": 1}}',
        b'{"crc32": 1, "record": {"job": {"case": {}}}}',
    ],
)
def test_a_foreign_line_is_set_aside_and_the_rest_is_read(tmp_path: Path, damage: bytes) -> None:
    written(tmp_path / "run", RECORD)
    add(tmp_path / "run", damage + b"\n")
    add(tmp_path / "run", line_of(replace(RECORD, block=1).to_json()))
    run = read_run(tmp_path / "run")
    assert [record.block for record in run.records] == [0, 1]
    assert len(run.faults) == 1
    assert "line 2: set aside" in run.faults[0]


def test_a_torn_last_line_and_a_changed_value_are_set_aside(tmp_path: Path) -> None:
    written(tmp_path / "run", RECORD, replace(RECORD, block=1))
    path = tmp_path / "run" / "records.jsonl"
    first, second = path.read_bytes().splitlines()
    path.write_bytes(first.replace(b"0.001", b"0.009") + b"\n" + second[:-9])
    run = read_run(tmp_path / "run")
    assert run.records == []
    assert "checksum does not match" in run.faults[0]
    assert len(run.faults) == 2


def test_a_job_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    written(tmp_path / "run", RECORD, replace(RECORD, samples={"steady": [9.0, 9.0]}))
    run = read_run(tmp_path / "run")
    assert run.records == [RECORD]
    assert "a second time" in run.faults[0]


def test_a_run_without_records_is_named(tmp_path: Path) -> None:
    written(tmp_path / "run")
    (tmp_path / "run" / "records.jsonl").unlink()
    with pytest.raises(UsageError, match=r"no readable records\.jsonl"):
        read_run(tmp_path / "run")


def test_a_later_schema_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "run")
    path = tmp_path / "run" / "manifest.json"
    path.write_text(json.dumps({"schema": SCHEMA + 1}))
    with pytest.raises(UsageError, match=f"schema {SCHEMA + 1}.*reads up to {SCHEMA}"):
        read_run(tmp_path / "run")


@pytest.mark.parametrize(
    "text",
    [
        *("", "{}", "[]", "null", "\0", "[" * 10_000, '{"schema": ' + "9" * 5000 + "}"),
        *('{"schema": "x"}', '{"schema": "1"}', '{"schema": true}', '{"schema": 1.0}'),
        *('{"schema": 0}', '{"schema": NaN}', '{"schema": Infinity}', '{"schema": 1e400}'),
    ],
    ids=lambda text: text[:20],
)
def test_a_folder_without_a_manifest_is_no_run(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(UsageError, match="no readable manifest"):
        read_run(tmp_path)


def test_jobs_that_differ_anywhere_have_other_keys() -> None:
    others = [
        replace(JOB, implementation="jax/static"),
        replace(JOB, mode="train"),
        replace(JOB, measure="cold"),
        replace(JOB, replica=1),
        replace(JOB, case=replace(CASE, seed=1)),
        replace(JOB, case=replace(CASE, seq_len=6)),
    ]
    assert len({job.key for job in [JOB, *others]}) == len(others) + 1
    assert replace(JOB).key == JOB.key


def test_the_frame_has_one_row_a_record() -> None:
    frame = to_frame([RECORD, replace(RECORD, block=1)])
    assert list(frame["block"]) == [0, 1]
    row = frame.iloc[0]
    assert (row["backend"], row["strategy"], row["seq_len"]) == ("jax", "dynamic", 5)
    assert row["steady_s"] == [0.001, 0.002]
    assert row["outputs_absolute_error"] == 1e-7


def test_files_of_schema_1_are_read(tmp_path: Path) -> None:
    run = read_run(DATA / "schema-1")
    assert run.manifest["schema"] == 1
    assert run.faults == []
    assert len(run.records) == 10
    lines = (DATA / "schema-1" / "records.jsonl").read_bytes().splitlines()
    for record, line in zip(run.records, lines, strict=True):
        before = json.loads(line)["record"]
        # Written again they are the same, and their jobs have the keys that they had.
        assert record.job.key == before["key"]
        after = record.to_json()
        assert after.pop("attempt") == 0
        if "steady" in after["samples"]:
            after["samples"]["steady"] = before["samples"]["steady"]
            assert list(record.samples["steady"]) == merged(before["samples"]["steady"])
        assert after["job"].pop("replica") == 0
        assert after["job"]["case"].pop("direction") == "forward"
        assert after["job"]["case"].pop("tf32") == "off"
        assert after["job"]["case"].pop("threads") == 1
        assert json.loads(json.dumps(after)) == before


def test_bare_tokens_of_schema_1_are_read(tmp_path: Path) -> None:
    written(tmp_path / "run")
    data = RECORD.to_json() | {"samples": {"steady": [math.nan, math.inf, -math.inf]}}
    line = _line(data)
    assert b"[NaN, Infinity, -Infinity]" in line
    add(tmp_path / "run", line)
    (record,) = read_run(tmp_path / "run").records
    assert str(record.samples["steady"]) == "[nan, inf, -inf]"


def test_what_is_not_finite_is_written_as_a_word_and_read_back_as_a_number(tmp_path: Path) -> None:
    odd = replace(
        RECORD,
        samples={"steady": [math.nan, 1.0]},
        values={"peak_bytes": math.inf},
        errors={"outputs": {"absolute": math.nan, "relative": -math.inf}},
        worker={"load": math.nan},
    )
    written(tmp_path / "run", odd)

    def refuse(token: str) -> None:
        raise AssertionError(f"{token} is no JSON")

    text = (tmp_path / "run" / "records.jsonl").read_text()
    json.loads(text, parse_constant=refuse)
    (record,) = read_run(tmp_path / "run").records
    assert str(record.samples) == str(odd.samples)
    assert str(record.values) == str(odd.values)
    assert str(record.errors) == str(odd.errors)
    assert record.worker == {"load": "NaN"}


def test_a_name_that_is_no_unicode_is_written_with_its_escape(tmp_path: Path) -> None:
    """A file name in a traceback: bytes that are no UTF-8 are lone surrogates in Python."""
    name = os.fsdecode(b"caf\xe9.py")
    written(tmp_path / "run", replace(RECORD, reason=f"in {name}", worker={name: name}))
    (record,) = read_run(tmp_path / "run").records
    assert record.reason == r"in caf\udce9.py"
    assert record.worker == {r"caf\udce9.py": r"caf\udce9.py"}


CHANGES: list[tuple[str, Any]] = [
    ("job", None),
    ("job", {}),
    ("job", {**asdict(JOB), "replica": True}),
    ("job", {**asdict(JOB), "replica": 4}),
    ("job", {**asdict(JOB), "replica": -1}),
    ("job", {**asdict(JOB), "mode": "backward"}),
    ("job", {**asdict(JOB), "measure": ["steady"]}),
    ("job", {**asdict(JOB), "implementation": "jax"}),
    ("job", {**asdict(JOB), "implementation": "jax/\x1b[31mstatic"}),
    ("job", {**asdict(JOB), "implementation": "jax/\ud800"}),
    ("job", {**asdict(JOB), "implementation": 5}),
    ("job", {**asdict(JOB), "implementation": f"jax/{'x' * 1_000_000}"}),
    ("job", {**asdict(JOB), "more": 5}),
    ("job", {**asdict(JOB), "case": []}),
    *(
        ("job", {**asdict(JOB), "case": {**asdict(CASE), name: value}})
        for name, value in [
            ("cell", "lstn"),
            ("cell", None),
            ("seq_len", 0),
            ("seq_len", "5"),
            ("seq_len", 5.0),
            ("seq_len", True),
            ("layers", 10**30),
            ("device", ""),
            ("forget_bias", "NaN"),
            ("forget_bias", 10**400),
            ("dtype", {"float32": 1}),
            ("more", 1),
        ]
    ),
    ("block", -1),
    ("block", 0.0),
    ("block", True),
    ("block", "0"),
    ("block", None),
    ("block", 2**63),
    ("status", "fine"),
    ("status", None),
    ("status", ["ok"]),
    ("status", "ok" * 100_000),
    ("reason", 5),
    ("samples", []),
    ("samples", None),
    ("samples", {"steady": 0.5}),
    ("samples", {"steady": "NaN"}),
    ("samples", {"steady": [0.5, "x"]}),
    ("samples", {"steady": [0.5, None]}),
    ("samples", {"steady": [0.5, True]}),
    ("samples", {"steady": [[0.5]]}),
    ("samples", {"steady": [10**400]}),
    ("inner", 0),
    ("inner", 1.5),
    ("values", {"peak_bytes": "much"}),
    ("values", [1]),
    ("errors", {"outputs": 1.0}),
    ("errors", {"outputs": {}}),
    ("errors", {"outputs": {"absolute": 1.0}}),
    ("errors", {"outputs": {"absolute": 1.0, "relative": None}}),
    ("worker", []),
    ("worker", {"a": [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}),
]


@pytest.mark.parametrize(("name", "value"), CHANGES, ids=lambda value: str(value)[:40])
def test_a_value_of_another_type_is_set_aside_with_a_reason(
    name: str, value: object, tmp_path: Path
) -> None:
    written(tmp_path / "run", RECORD)
    add(tmp_path / "run", _line({**RECORD.to_json(), "block": 1, name: value}))
    run = read_run(tmp_path / "run")
    assert run.records == [RECORD]
    (fault,) = run.faults
    assert fault.startswith("records.jsonl line 2: set aside (")
    assert len(fault) < 300


@pytest.mark.parametrize("name", ["job", "block", "status"])
def test_a_record_that_lacks_what_it_must_have_is_set_aside(name: str, tmp_path: Path) -> None:
    written(tmp_path / "run")
    add(tmp_path / "run", _line({k: v for k, v in RECORD.to_json().items() if k != name}))
    run = read_run(tmp_path / "run")
    assert run.records == []
    assert name in run.faults[0]


def test_an_empty_file_has_no_records_and_no_faults(tmp_path: Path) -> None:
    written(tmp_path / "run")
    run = read_run(tmp_path / "run")
    assert (run.records, run.faults) == ([], [])


def test_a_line_of_50_mb_is_set_aside(tmp_path: Path) -> None:
    written(tmp_path / "run", RECORD)
    add(tmp_path / "run", b"x" * 50_000_000)
    add(tmp_path / "run", b"\n" + line_of(replace(RECORD, block=1).to_json()))
    run = read_run(tmp_path / "run")
    assert [record.block for record in run.records] == [0, 1]
    assert len(run.faults) == 1


def test_a_file_of_faults_does_not_drown_the_report(tmp_path: Path) -> None:
    written(tmp_path / "run", RECORD)
    add(tmp_path / "run", b"\n" * 1000)
    run = read_run(tmp_path / "run")
    assert len(run.faults) == MAX_FAULTS + 1
    assert run.faults[-1] == f"records.jsonl: {1000 - MAX_FAULTS} more lines set aside"


@pytest.mark.parametrize("name", ["manifest.json", "records.jsonl"])
def test_what_is_no_file_is_not_read(name: str, tmp_path: Path) -> None:
    """Opening a pipe would wait for a writer, for ever."""
    written(tmp_path / "run")
    (tmp_path / "run" / name).unlink()
    os.mkfifo(tmp_path / "run" / name)
    with pytest.raises(UsageError, match=f"no readable {name}.*is not a file"):
        read_run(tmp_path / "run")


def test_the_manifest_says_this_schema_whatever_it_is_given(tmp_path: Path) -> None:
    with Store.create(tmp_path / "run", {"schema": 99, "load_before": math.nan}) as store:
        assert read_run(tmp_path / "run").manifest == {"schema": SCHEMA, "load_before": "NaN"}
        store.write_manifest({"id": "y"})
    assert read_run(tmp_path / "run").manifest == {"schema": SCHEMA, "id": "y"}
