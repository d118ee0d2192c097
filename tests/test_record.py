"""Records on disk: nothing lost, nothing doubled, nothing foreign believed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.api import Case
from bench.errors import UsageError
from bench.record import SCHEMA, Job, Record, Status, Store, read_run, to_frame

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


def _store(folder: Path) -> Store:
    return Store.create(folder, {"id": "x"})


def test_what_is_appended_is_read_back(tmp_path: Path) -> None:
    store = _store(tmp_path / "run")
    records = [replace(RECORD, block=block) for block in range(3)]
    for record in records:
        store.append(record)
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
        b'{"crc32": 0, "record": {}}',
        b'{"record": {"job": 1}}',
        b'{"crc32": 1, "record": {"job": {"case": {}}}}',
    ],
)
def test_a_foreign_line_is_set_aside_and_the_rest_is_read(tmp_path: Path, damage: bytes) -> None:
    store = _store(tmp_path / "run")
    store.append(RECORD)
    with (tmp_path / "run" / "records.jsonl").open("ab") as file:
        file.write(damage + b"\n")
    store.append(replace(RECORD, block=1))
    run = read_run(tmp_path / "run")
    assert [record.block for record in run.records] == [0, 1]
    assert len(run.faults) == 1
    assert "line 2: set aside" in run.faults[0]


def test_a_torn_last_line_and_a_changed_value_are_set_aside(tmp_path: Path) -> None:
    store = _store(tmp_path / "run")
    store.append(RECORD)
    store.append(replace(RECORD, block=1))
    path = tmp_path / "run" / "records.jsonl"
    first, second = path.read_bytes().splitlines()
    path.write_bytes(first.replace(b"0.001", b"0.009") + b"\n" + second[:-9])
    run = read_run(tmp_path / "run")
    assert run.records == []
    assert "checksum does not match" in run.faults[0]
    assert len(run.faults) == 2


def test_a_job_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    store = _store(tmp_path / "run")
    store.append(RECORD)
    store.append(replace(RECORD, samples={"steady": [9.0, 9.0]}))
    run = read_run(tmp_path / "run")
    assert run.records == [RECORD]
    assert "a second time" in run.faults[0]


def test_a_folder_that_holds_anything_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds other files"):
        _store(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    _store(tmp_path / "run")
    with pytest.raises(UsageError, match="holds another run"):
        _store(tmp_path / "run")


def test_a_file_in_the_way_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UsageError, match="is a file"):
            _store(folder)


def test_a_run_without_records_is_named(tmp_path: Path) -> None:
    _store(tmp_path / "run")
    (tmp_path / "run" / "records.jsonl").unlink()
    with pytest.raises(UsageError, match=r"no readable records\.jsonl"):
        read_run(tmp_path / "run")


def test_a_later_schema_is_refused(tmp_path: Path) -> None:
    _store(tmp_path / "run")
    path = tmp_path / "run" / "manifest.json"
    path.write_text(json.dumps({"schema": SCHEMA + 1}))
    with pytest.raises(UsageError, match=f"schema {SCHEMA + 1}.*reads up to {SCHEMA}"):
        read_run(tmp_path / "run")


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"schema": "x"}'])
def test_a_folder_without_a_manifest_is_no_run(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(UsageError, match="no readable manifest"):
        read_run(tmp_path)


def test_jobs_that_differ_anywhere_have_other_keys() -> None:
    others = [
        replace(JOB, implementation="jax/static"),
        replace(JOB, mode="train"),
        replace(JOB, measure="cold"),
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
