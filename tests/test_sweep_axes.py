"""Axes -> jobs, presets from hostile files, and the narrowing of both."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends import IMPLEMENTATIONS
from bench import plan, selection
from bench.axes import RANKED
from bench.conftest import narrowed
from bench.errors import UsageError
from bench.estimate import runnable
from bench.preset import load_preset, preset_names
from bench.record import MEASURES
from bench.sweep import Sweep

VALID: Mapping[str, Mapping[str, Any]] = {
    "axes": {
        "cell": ["lstm", "gru"],
        "seq_len": [5, 10],
        "batch": [4],
        "layers": [1],
        "hidden": [32],
        "inputs": [16],
        "lengths": ["full"],
        "dtype": ["float32"],
        "device": ["cpu"],
        "mode": ["forward", "train"],
        "backend": ["jax"],
        "strategy": ["static", "dynamic"],
    },
    "sampling": {
        "blocks": 3,
        "cold_blocks": 2,
        "memory_blocks": 1,
        "steady_s": 0.1,
        "warmup_s": 0.1,
    },
    "caps": {"jax/static": 5},
}


def toml(value: object) -> str:
    """A value as TOML; whatever is not a number, a list or a table becomes a string."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)  # nan, inf and 1e+16 are the same in both
    return json.dumps(str(value))


def document(tables: Mapping[str, object]) -> str:
    return "".join(f"{json.dumps(name)} = {toml(value)}\n" for name, value in tables.items())


@pytest.fixture(scope="session")
def preset_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("presets") / "hostile.toml"


def load(path: Path, text: str) -> Sweep | None:
    """The sweep, or None where the file was refused in a line."""
    path.write_text(text)
    try:
        return load_preset(str(path))
    except UsageError:
        return None


@pytest.mark.parametrize("name", preset_names())
def test_each_preset_loads_and_has_jobs(name: str) -> None:
    sweep = load_preset(name)
    assert sweep.name == name
    assert sweep.title != name
    for measure in MEASURES:
        assert runnable(sweep, measure, absent=())


def test_the_helper_writes_what_the_loader_reads(preset_file: Path) -> None:
    sweep = load(preset_file, document(VALID))
    assert sweep is not None
    assert sweep.axes.seq_len == (5, 10)
    assert [entry.name for entry in sweep.implementations()] == ["jax/static", "jax/dynamic"]


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs", "Cc")), max_size=8)
    | st.sampled_from(["lstm", "cpu", "full", "jax", "static", "forward", "torch/static"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("abcé /.\"'\n", max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
PLACES = [
    *((table, None) for table in VALID),
    *((table, key) for table, entries in VALID.items() for key in entries),
    ("title", None),
    ("caps", "torch/static"),
    ("caps", "no/such"),
    ("extra", None),
]


@given(place=st.sampled_from(PLACES), value=VALUES)
def test_a_hostile_value_anywhere_is_refused_or_a_sweep(
    preset_file: Path, place: tuple[str, str | None], value: object
) -> None:
    table, key = place
    changed = value if key is None else {**VALID.get(table, {}), key: value}
    sweep = load(preset_file, document({**VALID, table: changed}))
    if sweep is not None:
        for measure in MEASURES:
            for job in sweep.jobs(measure):
                sweep.cap(job)
        json.dumps(sweep.to_json())


@given(st.text(max_size=60))
def test_hostile_text_is_refused(preset_file: Path, text: str) -> None:
    preset_file.write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(UsageError):
        load_preset(str(preset_file))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\xff\xfe", "hostile.toml"),
        (b"a = " + b"[" * 5000, "hostile.toml"),
        (b"a = " + b"9" * 5000, "hostile.toml"),
    ],
)
def test_a_file_that_breaks_parsers_is_refused(preset_file: Path, data: bytes, said: str) -> None:
    preset_file.write_bytes(data)
    with pytest.raises(UsageError, match=said):
        load_preset(str(preset_file))


def test_a_folder_is_no_preset(tmp_path: Path) -> None:
    folder = tmp_path / "preset.toml"
    folder.mkdir()
    with pytest.raises(UsageError, match=r"preset\.toml"):
        load_preset(str(folder))


def test_what_is_named_takes_the_place_of_the_presets_axis() -> None:
    base = load_preset("smoke")
    sweep = selection.select("smoke", {"cell": ("gru",), "hidden": (8, 16)})
    assert sweep.axes == replace(base.axes, cell=("gru",), hidden=(8, 16))
    assert sweep.axes.inputs == base.axes.inputs
    assert sweep.sampling == base.sampling
    assert sweep.caps == base.caps
    assert selection.select("smoke", {}, capped=False).caps == {}
    assert replace(selection.select("smoke", {}), twinned=None) == base


def test_blocks_are_given_to_every_kind_of_job() -> None:
    counts = selection.select("smoke", {}, sampling={"blocks": 1}).sampling.counts()
    assert counts == {"steady": 1, "cold": 1, "memory": 1}
    assert selection.select("smoke", {}, sampling={"blocks": 7}).sampling.counts()["steady"] == 7


def test_jobs_are_the_product_of_the_axes() -> None:
    axes = {"cell": ("rnn", "gru"), "seq_len": (3, 4), "batch": (1, 2), "strategy": ("static",)}
    sweep = selection.select("smoke", axes)
    jobs = [job for job in sweep.jobs("cold") if not job.replica]
    assert len(jobs) == len(set(jobs)) == 2 * 2 * 2 * 2 * len(sweep.implementations())
    assert {job.implementation.split("/")[1] for job in jobs} == {"static"}
    limits = [job for job in sweep.jobs("steady") if job.implementation.endswith("/products")]
    assert len(limits) == 2 * 2 * 2 * 2 * len(sweep.limits())
    assert not [job for job in jobs if IMPLEMENTATIONS[job.implementation].kind == "limit"]


def test_workers_are_counted_as_the_engine_starts_them() -> None:
    axes = {"backend": ("jax",), "strategy": ("static", "dynamic"), "mode": ("forward",)}
    sweep = selection.select("smoke", axes, sampling={"blocks": 2})
    counts = sweep.sampling.counts()
    # A block has two workers for jax, of which one holds the twin of the other's, and one for the
    # limit; cold and memory jobs have their own, and one of them is there twice.
    assert plan.workers(sweep) == 3 * 2 + 3 * counts["cold"] + 3 * counts["memory"]
    assert plan.workers(sweep, absent=["jax"]) == 2


@given(st.data())
def test_a_narrowed_sweep_has_the_jobs_and_nothing_of_other_axes(data: st.DataObject) -> None:
    axes = {"cell": ("lstm", "gru"), "seq_len": (3, 4), "batch": (1, 2)}
    sweep = selection.select("smoke", axes)
    # Twins are no items: they come with what they are twins of.
    jobs = [job for job in sweep.jobs("steady") + sweep.jobs("cold") if not job.replica]
    chosen = data.draw(st.lists(st.sampled_from(jobs), min_size=1, max_size=4))
    small = narrowed(sweep, chosen)
    assert set(chosen) <= set(small.jobs("steady") + small.jobs("cold"))
    assert set(small.axes.cell) == {job.case.cell for job in chosen}
    assert set(small.axes.seq_len) == {job.case.seq_len for job in chosen}
    assert set(small.axes.mode) == {job.mode for job in chosen}
    ranked = [
        e for e in (IMPLEMENTATIONS[job.implementation] for job in chosen) if e.kind in RANKED
    ]
    assert set(small.axes.backend) >= {entry.backend for entry in ranked}
    limits = {job.implementation.split("/")[0] for job in chosen} if ranked else set()
    assert set(small.axes.backend) == limits - {"reference"}
