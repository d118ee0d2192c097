"""Whatever is handed in: a normal result, or one line and nothing written."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from backends.api import Case
from backends.products import flops, products
from bench import stats
from bench.belief import LARGEST, LONGEST_S, SHORTEST_S, doubt
from benchmarks import hostile_inputs as hostile
from benchmarks.hostile import GOOD, attempt
from benchmarks.hostile_inputs import COMMAND_LINES, FOLDERS, KINDS, PRESETS
from tests.test_record import RECORD

PRESET, COMMAND_LINE, FOLDER = KINDS


def fails(kind: hostile.Kind, value: Any) -> str:
    """What was said by an input that ended badly; nothing of one that ended well."""
    ending, said = attempt(kind, value)
    return "" if ending in GOOD else f"{ending}: {said}"


@settings(max_examples=300)
@given(value=PRESETS)
def test_presets(value: bytes) -> None:
    assert not fails(PRESET, value)


@settings(max_examples=300)
@given(value=COMMAND_LINES)
def test_command_lines(value: list[str]) -> None:
    assert not fails(COMMAND_LINE, value)


@settings(
    max_examples=100, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(value=FOLDERS)
def test_run_folders(value: tuple[bytes, bytes]) -> None:
    assert not fails(FOLDER, value)


# What once went wrong


def preset(table: str, name: str, value: Any) -> bytes:
    """A preset that is valid but for one value."""
    tables = json.loads(json.dumps(hostile.VALID_PRESET))
    tables[table][name] = value
    return hostile.document(tables)


def folder(*, records: list[Any] | None = None, **manifest: Any) -> tuple[bytes, bytes]:
    """A run's files that are valid but for these values."""
    return (
        json.dumps({**hostile.VALID_MANIFEST, **manifest}).encode(),
        hostile.lines(hostile.VALID_RECORDS if records is None else records),
    )


def test_a_ratio_that_moves_by_any_factor_is_a_drift() -> None:
    """Two arms, of which one got slower as much as a clock can tell, and the other faster."""
    slower, faster = [SHORTEST_S] * 4 + [LONGEST_S] * 4, [LONGEST_S] * 4 + [SHORTEST_S] * 4
    assert stats.paired_drift(slower, faster) > 1e15
    assert -1 < stats.paired_drift(faster, slower) < -0.99


def with_numbers(samples: list[float], bytes_: float) -> list[Any]:
    """The valid records with these numbers in turn, block by block."""
    return [
        {
            **record,
            "samples": {
                phase: [samples[record["block"] % len(samples)]] * len(values)
                for phase, values in record["samples"].items()
            },
            "values": dict.fromkeys(record["values"], bytes_),
        }
        for record in hostile.VALID_RECORDS
    ]


def test_what_is_valid_is_accepted() -> None:
    assert attempt(PRESET, hostile.document(hostile.VALID_PRESET))[0] == "ok"
    assert attempt(COMMAND_LINE, ["--preset", "smoke", "--seq-len", "7,9"])[0] == "ok"
    assert attempt(FOLDER, folder())[0] == "ok"


@pytest.mark.parametrize(
    ("table", "name", "value", "said"),
    [
        ("axes", "seq_len", list(range(1, 5000)), "cases; allowed are 1,000"),
        ("axes", "seq_len", [16**5000], "digits"),
        ("sampling", "blocks", 16**5000, "digits"),
        ("sampling", "blocks", 10**400, "below 2^63"),
        ("axes", "layers", [2**63], "below 2^63"),
        ("caps", "jax/static", 2**63, "below 2^63"),
        ("axes", "cell", [["lstm"], ["lstm"]], "cell"),
    ],
    ids=["cases", "digits of T", "digits of blocks", "blocks", "layers", "cap", "lists"],
)
def test_a_preset_that_is_too_large_is_refused(
    table: str, name: str, value: object, said: str
) -> None:
    ending, line = attempt(PRESET, preset(table, name, value))
    assert ending == "refused"
    assert said in line


def test_a_title_moves_no_cursor() -> None:
    tables = {**hostile.VALID_PRESET, "title": "a\x1b[2Jb"}
    ending, said = attempt(PRESET, hostile.document(tables))
    assert ending == "ok"
    assert "hostile: a [2Jb" in said


@pytest.mark.parametrize("axis", ["--seq-len", "--batch", "--hidden", "--inputs", "--blocks"])
def test_a_dry_run_of_anything_large_ends(axis: str) -> None:
    assert attempt(COMMAND_LINE, ["--preset", "smoke", axis, "9" * 18])[0] == "ok"


def test_more_layers_than_memory_can_lay_out_are_refused() -> None:
    ending, said = attempt(COMMAND_LINE, ["--preset", "smoke", "--layers", "9" * 18])
    assert ending == "refused"
    assert f"layers={'9' * 18}: must be 1,000 or less" in said


@pytest.mark.parametrize("option", ["--out", "--resume", "--preset", "--cell"])
def test_a_nul_in_an_argument_is_refused(option: str) -> None:
    ending, said = attempt(COMMAND_LINE, [option, "a\0b"])
    assert ending == "refused"
    assert "NUL" in said


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("mode", ["forward", "train"])
def test_flops_of_many_layers_are_those_of_their_products(cell: Any, mode: Any) -> None:
    for layers in range(1, 5):
        case = Case(cell=cell, seq_len=7, batch=3, inputs=5, hidden=4, layers=layers)
        assert flops(case, mode) == sum(product.flops for product in products(case, mode))


@pytest.mark.parametrize(
    "manifest",
    [
        {"sweep": [1]},
        {"sweep": "lstm"},
        {"sweep": {"title": {"a": 1}}},
        {"backends": {"torch": []}},
        {"backends": {"torch": {"threads": 5, "devices": ["cpu"]}}},
        {"host": {"memory_bytes": 10**400}},
        {"host": {"memory_bytes": math.nan}},
        {"versions": ["torch"]},
        {"status": ["finished"]},
        {"id": {"a": 1}},
    ],
    ids=str,
)
def test_a_manifest_of_other_types_is_reported(manifest: dict[str, Any]) -> None:
    assert attempt(FOLDER, folder(**manifest))[0] == "ok"


@pytest.mark.parametrize(
    ("samples", "bytes_"),
    [
        ([1e-320], 1e-320),
        ([1e9, 1e-12], 1.0),
        ([1e9, 1e-320], 1e17),
        ([1.7e308], 1.7e308),
        ([-1.0], -1.0),
        ([0.0], 0),
        ([math.nan], math.inf),
    ],
    ids=str,
)
def test_numbers_that_no_clock_reads_are_reported(samples: list[float], bytes_: float) -> None:
    assert attempt(FOLDER, folder(records=with_numbers(samples, bytes_)))[0] == "ok"


def test_a_record_is_believed_up_to_what_can_be_measured() -> None:
    assert doubt(RECORD) is None
    assert doubt(replace(RECORD, samples={"steady": [LONGEST_S, SHORTEST_S]})) is None
    for bad in ([2 * LONGEST_S], [SHORTEST_S / 2], [], [math.nan], [-1.0]):
        assert "steady" in str(doubt(replace(RECORD, samples={"steady": bad})))
    assert "has no sample of steady" in str(doubt(replace(RECORD, samples={})))
    for value in (LARGEST, -LARGEST, math.nan, math.inf):
        assert "peak_bytes" in str(doubt(replace(RECORD, values={"peak_bytes": value})))
