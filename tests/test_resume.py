"""Going on with a run: only where everything is as it was, and only with what it lacks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import cli, run
from bench.errors import UsageError
from bench.resume import differences, require_same, sweep_of
from bench.store import Store, read_run
from tests import synthetic
from tests.test_record import DATA

MANIFEST: Mapping[str, Any] = synthetic.manifest(
    synthetic.sweep(),
    cpus=[1],
    commit="0123456789ab",
    environment={"torch": {"OMP_NUM_THREADS": "1"}},
    inherited={"XLA_FLAGS": "--a"},
)


def changed(*path: str, to: object) -> dict[str, Any]:
    """The manifest with one value replaced, or removed where it becomes None."""
    copy: dict[str, Any] = json.loads(json.dumps(MANIFEST))
    inner = copy
    for name in path[:-1]:
        inner = inner[name]
    if to is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = to
    return copy


def test_a_manifest_that_went_through_a_file_is_the_same(tmp_path: Path) -> None:
    with Store.create(tmp_path / "run", {**MANIFEST, "cpus": (1,)}):
        pass
    assert differences(read_run(tmp_path / "run").manifest, MANIFEST) == []


@pytest.mark.parametrize(
    ("path", "to", "said"),
    [
        (("cpus",), [0, 1], "cpus: 1 then, 2 now"),
        (("start",), "spawn", "start: fork then, spawn now"),
        (("commit",), "ba9876543210+", "commit: 0123456789ab then, ba9876543210+ now"),
        (("commit",), None, "commit: 0123456789ab then, none now"),
        (("host", "hostname"), "there", "host hostname: here then, there now"),
        (("host", "cpu"), "B", "host cpu: A CPU @ 2.50GHz then, B now"),
        (("host", "cores"), 8, "host cores: 4 then, 8 now"),
        (("host", "memory_bytes"), 1, "host memory_bytes: 16000000000 then, 1 now"),
        (("host", "system"), "Linux 7", "host system: Linux 6.1 then, Linux 7 now"),
        (("host", "python"), "3.12.1", "host python: 3.11.9 then, 3.12.1 now"),
        (("versions", "jax"), "0.11", "versions jax: 0.10.2 then, 0.11 now"),
        (("versions", "jax"), None, "versions jax: 0.10.2 then, none now"),
        (("versions", "numpy"), "2", "versions numpy: none then, 2 now"),
        (
            ("environment", "torch", "OMP_NUM_THREADS"),
            "2",
            "environment torch OMP_NUM_THREADS: 1 then, 2 now",
        ),
        (("inherited", "XLA_FLAGS"), "--b", "inherited XLA_FLAGS: --a then, --b now"),
        (("inherited", "OMP_DYNAMIC"), "1", "inherited OMP_DYNAMIC: none then, 1 now"),
    ],
)
def test_each_difference_is_a_line(path: tuple[str, ...], to: object, said: str) -> None:
    assert differences(MANIFEST, changed(*path, to=to)) == [said]


@pytest.mark.parametrize(
    ("path", "to"),
    [
        (("id",), "other"),
        (("created",), "later"),
        (("status",), "interrupted"),
        (("command",), "python -m bench run --resume x"),
        (("load_before",), 3.0),
        (("cpus",), [0]),
        (("host", "cpus_available"), [0]),
    ],
)
def test_what_may_differ_is_no_difference(path: tuple[str, ...], to: object) -> None:
    assert differences(MANIFEST, changed(*path, to=to)) == []


def test_everything_that_differs_is_said_at_once() -> None:
    other = {**changed("commit", to="ba9876543210+"), "start": "spawn"}
    with pytest.raises(UsageError) as caught:
        require_same(MANIFEST, other)
    line = str(caught.value)
    assert line.startswith("run drawn: cannot be resumed here; ")
    assert "start: fork then, spawn now; commit: 0123456789ab then, ba9876543210+ now" in line
    assert "\n" not in line
    require_same(MANIFEST, MANIFEST)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(place=st.sampled_from(sorted(MANIFEST)), value=JSON)
def test_any_manifest_can_be_compared(place: str, value: object) -> None:
    strange = {**MANIFEST, place: value}
    for line in differences(MANIFEST, strange) + differences(strange, MANIFEST):
        assert line.count(" then, ") >= 1
    if place == "sweep":
        with pytest.raises(UsageError, match="plan not readable"):
            sweep_of(strange)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("resumed", 5, "resumed is 5, must be a list"),
        ("resumed", None, "resumed is None, must be a list"),
        ("resumed", {"at": "x"}, "resumed is {'at': 'x'}, must be a list"),
        ("notes", 5, "notes is 5, must be an object"),
        ("backends", ["jax"], "backends is ['jax'], must be an object"),
        ("seed", "1", "seed is '1', must be a whole number"),
    ],
)
def test_a_manifest_that_cannot_be_gone_on_with_is_one_line(
    name: str,
    value: object,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What is not refused would measure for minutes.
    monkeypatch.setattr(run, "_measure", lambda *_, **__: pytest.fail("it is gone on with"))
    plan = synthetic.sweep()
    here = {**synthetic.manifest(plan), **run.conditions(plan, start="fork"), "seed": 1}
    folder = tmp_path / "run"
    with Store.create(folder, {**here, name: value}):
        pass
    before = (folder / "manifest.json").read_bytes()
    assert cli.main(["run", "--resume", str(folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"run {folder}: manifest not readable ({said}" in line
    assert (folder / "manifest.json").read_bytes() == before


def test_one_of_two_runs_that_took_turns_is_not_gone_on_with(tmp_path: Path) -> None:
    with Store.create(tmp_path / "old", {**MANIFEST, "session": "a"}):
        pass
    with pytest.raises(UsageError, match="old: is one of two that `versus` measured in turns"):
        run.resume(tmp_path / "old", progress=run.Silent())


def test_the_plan_of_a_run_is_its_sweep() -> None:
    plan = synthetic.sweep()
    manifest = json.loads(json.dumps(synthetic.manifest(plan)))
    # "All" has become the names of all, so that it is the same jobs and not the same object.
    assert sweep_of(manifest).jobs("steady") == plan.jobs("steady")
    assert sweep_of(manifest).sampling == plan.sampling
    assert sweep_of(manifest).caps == plan.caps


def test_the_plan_of_a_run_of_schema_1_is_read() -> None:
    run = read_run(DATA / "schema-1")
    jobs = {job.key for job in sweep_of(run.manifest).jobs("steady")}
    assert {record.job.key for record in run.records} <= jobs


@pytest.mark.parametrize(
    ("path", "to"),
    [
        ((), None),
        (("axes",), []),
        (("axes", "seq_len"), "10"),
        (("axes", "seq_len"), [10, 10]),
        (("axes", "seq_len"), [0]),
        (("axes", "seq_len"), []),
        (("axes", "seq_len"), None),
        (("axes", "cell"), [["lstm"]]),
        (("axes", "backend"), ["mxnet"]),
        (("axes", "more"), ["x"]),
        (("sampling",), None),
        (("sampling", "blocks"), -1),
        (("sampling", "more"), 1),
        (("caps",), [1]),
        (("caps", "torch/static"), "long"),
        (("caps", "torch/static"), {"backward": 1}),
        (("name",), 5),
        (("title",), None),
    ],
    ids=str,
)
def test_a_plan_that_is_none_is_refused_in_a_line(path: tuple[str, ...], to: object) -> None:
    with pytest.raises(UsageError, match=r"run drawn: plan not readable \(") as caught:
        sweep_of(changed("sweep", *path, to=to))
    assert "\n" not in str(caught.value)


def test_only_what_reaches_a_worker_is_called_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--xla_of_the_callers=1")
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    monkeypatch.setenv("TF_VAR_zone", "terraform's")
    inherited = run.conditions(synthetic.sweep(), start="fork")["inherited"]
    assert inherited["XLA_FLAGS"] == "--xla_of_the_callers=1"
    assert inherited["TF_ENABLE_ONEDNN_OPTS"] == "0"
    assert "OPENBLAS_NUM_THREADS" not in inherited  # every backend sets it
    assert "TF_VAR_zone" not in inherited
