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

from backends import IMPLEMENTATIONS, refusal
from backends.api import CELL_NAMES, Case, Implementation
from bench import machine, plan, selection
from bench.axes import RANKED, RIDING
from bench.conftest import narrowed
from bench.errors import UsageError
from bench.estimate import runnable
from bench.preset import load_preset, preset_names
from bench.record import MEASURES
from bench.run import chosen_cpus
from bench.selection import select
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
    for measure in sweep.sampling.counts():
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
    ("source", None),
    ("published", None),
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
    assert selection.select("smoke", {}) == base


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
    assert {job.implementation for job in limits} == {"reference/products", "torch/products"}
    assert len(limits) == 2 * 2 * 2 * 2 * 2
    assert not [job for job in jobs if IMPLEMENTATIONS[job.implementation].kind == "limit"]


def test_workers_are_counted_as_the_engine_starts_them() -> None:
    axes = {"backend": ("jax",), "strategy": ("static", "dynamic"), "mode": ("forward",)}
    sweep = selection.select("smoke", axes, sampling={"blocks": 2})
    counts = sweep.sampling.counts()
    # Two implementations, the twin of one, and in steady blocks NumPy's products.
    assert plan.workers(sweep) == 4 * 2 + 3 * counts["cold"] + 3 * counts["memory"]
    assert plan.workers(sweep, absent=["jax"]) == 2


@given(st.data())
def test_a_narrowed_sweep_of_several_grids_has_the_jobs_and_no_other_cases(
    data: st.DataObject,
) -> None:
    sweep = selection.select("cells", {"backend": ("jax",), "strategy": ("dynamic",)})
    jobs = [job for job in sweep.jobs("steady") if not job.replica]
    chosen = data.draw(st.lists(st.sampled_from(jobs), min_size=1, max_size=4))
    small = narrowed(sweep, chosen)
    assert {job.case for job in chosen} <= set(small.cases()) <= set(sweep.cases())


# --- further grids --------------------------------------------------------------------------------


def more(*tables: Mapping[str, object]) -> str:
    return document(VALID) + "".join(f"\n[[more]]\n{document(table)}" for table in tables)


def test_further_cases_differ_from_the_axes_in_what_they_name(preset_file: Path) -> None:
    tables = ({"cell": ["lstm"], "direction": ["bidirectional"]}, {"layers": [2], "seq_len": [5]})
    sweep = load(preset_file, more(*tables))
    assert sweep is not None
    first, second = sweep.more
    assert first == replace(sweep.axes, cell=("lstm",), direction=("bidirectional",))
    assert second == replace(sweep.axes, layers=(2,), seq_len=(5,))
    cases = sweep.cases()
    assert len(cases) == len(set(cases)) == 4 + 2 + 2
    assert {job.case for job in sweep.jobs("steady")} == set(cases)
    assert Sweep.from_json(json.loads(json.dumps(sweep.to_json()))).cases() == cases


def test_what_is_refused_is_no_job_to_count_nor_a_twin(preset_file: Path) -> None:
    axes = {**VALID["axes"], "cell": ["gru", "lstm"], "backend": ["torch"], "strategy": ["fused"]}
    sweep = load(preset_file, document({**VALID, "axes": axes}))
    assert sweep is not None
    for measure in sweep.sampling.counts():
        ranked = [
            job
            for job in runnable(sweep, measure, absent=())
            if IMPLEMENTATIONS[job.implementation].kind in RANKED
        ]
        assert {job.case.cell for job in ranked} == {"lstm"}
        assert {job.case.cell for job in sweep.twins(measure)} == {"lstm"}


def test_twins_are_of_a_case_that_most_strategies_run(preset_file: Path) -> None:
    axes = {
        **VALID["axes"],
        "cell": ["grid", "lstm", "time-freq"],
        "inputs": [32],
        "backend": ["tensorflow"],
        "strategy": ["dynamic", "fused", "dynamic-block"],
    }
    sweep = load(preset_file, document({**VALID, "axes": axes}))
    assert sweep is not None
    assert {job.case.cell for job in sweep.twins("steady")} == {"lstm"}


def test_a_capacity_job_has_the_shortest_time_of_its_grid(preset_file: Path) -> None:
    memory = {**VALID["sampling"], "memory_limit_bytes": 10**9}
    text = document({**VALID, "sampling": memory})
    sweep = load(preset_file, text + '[[more]]\ncell = ["rnn"]\nseq_len = [7, 9]\n')
    assert sweep is not None
    found = {(job.case.cell, job.case.seq_len) for job in sweep.jobs("capacity")}
    assert found == {("lstm", 5), ("gru", 5), ("rnn", 7)}


def test_many_grids_are_no_way_around_the_number_of_cases(preset_file: Path) -> None:
    many = [{"seq_len": list(range(1, 400))}] * 2
    preset_file.write_text(more(*many))
    with pytest.raises(UsageError, match=r"axes: make 1,600 cases; allowed are 1,000"):
        load_preset(str(preset_file))


def test_a_case_that_is_in_two_grids_is_measured_once(preset_file: Path) -> None:
    sweep = load(preset_file, more({"cell": ["lstm"]}, {"seq_len": [5, 20]}))
    assert sweep is not None
    assert len(sweep.cases()) == len(set(sweep.cases())) == 4 + 2
    jobs = sweep.jobs("steady")
    assert len(jobs) == len(set(jobs))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (document(VALID) + "more = 1\n", r"more 1: must be tables \[\[more\]\]"),
        (more({"device": ["gpu"]}), r"unknown key in \[\[more\]\] of .* 'device'"),
        (more({"strategy": ["dynamic"]}), r"unknown key in \[\[more\]\] of .* 'strategy'"),
        (more({"cell": "lstm"}), "axis cell 'lstm': must be a list"),
        (more({"direction": ["sideways"]}), "direction.*sideways"),
        (more({"threads": [0]}), "threads 0: must be a whole number of 1 or more"),
        (more({"threads": ["two"]}), "threads 'two': must be a whole number"),
        (more({"threads": 2}), "axis threads 2: must be a list"),
        ("threads = 2\n" + document(VALID), "unknown key in .* 'threads'"),
        (more({"cell": ["residual-lstm"]}), "a residual adds inputs to outputs, and got 16 and 32"),
    ],
)
def test_further_cases_and_threads_that_are_none_are_refused(
    preset_file: Path, text: str, said: str
) -> None:
    preset_file.write_text(text)
    with pytest.raises(UsageError, match=said):
        load_preset(str(preset_file))


def test_a_preset_says_its_threads_and_whoever_names_others_has_those(
    preset_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "available_cpus", lambda: [0, 1, 2, 3])
    preset_file.write_text(more({"threads": [1, 3]}))
    sweep = select(str(preset_file), {})
    assert sweep.threads() == [1, 3]
    assert Sweep.from_json(sweep.to_json()) == sweep
    assert select(str(preset_file), {"threads": (4, 2)}).threads() == [2, 4]
    assert select("default", {}).threads() == [1]
    with pytest.raises(UsageError, match="threads 5: must be between 1 and 4, the CPUs here"):
        chosen_cpus(select("default", {"threads": (5,)}).threads()[-1])
    monkeypatch.setattr(machine, "available_cpus", lambda: [7])
    assert select(str(preset_file), {}).threads() == [1]


def test_naming_an_axis_leaves_out_the_grids_that_differ_in_it() -> None:
    """Or `--direction forward` would measure both ways all the same."""
    base = load_preset("cells")
    assert len(base.more) == 2
    named = selection.select("cells", {"direction": ("forward",)})
    assert [axes.cell for axes in named.more] == [("lstm", "lstm-shared", "mixed")]
    assert selection.select("cells", {"layers": (1,)}).more == ()
    both = selection.select("cells", {"seq_len": (7,)})
    assert {case.seq_len for case in both.cases()} == {7}
    assert len(both.more) == 2


def test_the_preset_of_cells_has_every_cell() -> None:
    assert {case.cell for case in load_preset("cells").cases()} == set(CELL_NAMES)


def test_what_is_not_measured_has_no_blocks(preset_file: Path) -> None:
    none = {**VALID["sampling"], "cold_blocks": 0, "memory_blocks": 0}
    sweep = load(preset_file, document({**VALID, "sampling": none}))
    assert sweep is not None
    assert sweep.sampling.counts() == {"steady": 3}
    assert sweep.sampling.but(blocks=5).counts() == {"steady": 5}
    assert plan.workers(sweep) > 0
    for value in (-1, True, 1.5):
        text = document({**VALID, "sampling": {**none, "cold_blocks": value}})
        assert load(preset_file, text) is None


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


# --- strategies of GPUs ---------------------------------------------------------------------------


def test_a_sweep_without_a_gpu_leaves_out_what_needs_one() -> None:
    """Or every run on a CPU would have rows that say so, and those published before would lack."""
    alone = {entry.name for entry in IMPLEMENTATIONS.values() if entry.strategy.of_gpus}
    assert alone == {
        "torch/graphed",
        "jax/fused",
        "tensorflow/cudnn",
        "tensorflow/keras-cudnn",
    }
    cpu = selection.select("default", {})
    gpu = selection.select("default", {"device": ("gpu",)})
    both = selection.select("default", {"device": ("cpu", "gpu")})
    on_cpu, on_gpu, on_both = (
        {entry.name for entry in sweep.implementations()} for sweep in (cpu, gpu, both)
    )
    assert on_cpu == on_gpu - alone
    # Keras is in no sweep but those that ask for it.
    assert alone - {"tensorflow/keras-cudnn"} < on_gpu == on_both
    assert not [job for job in cpu.jobs("steady") if job.implementation in alone]
    plan = Sweep.from_json(json.loads(json.dumps(gpu.to_json())))
    assert plan.jobs("steady") == gpu.jobs("steady")


@pytest.mark.parametrize(
    "entry",
    [entry for entry in IMPLEMENTATIONS.values() if entry.kind not in RIDING],
    ids=lambda entry: entry.name,
)
def test_what_is_of_gpus_is_refused_on_a_cpu_and_no_other_is(entry: Implementation) -> None:
    case = Case(cell="lstm", seq_len=2, batch=2, inputs=8, hidden=8)
    reason = refusal(entry.name, case, "forward")
    assert (reason or "").startswith("device cpu: ") == entry.strategy.of_gpus
    assert refusal(entry.name, replace(case, device="gpu"), "forward") is None
