"""What a manifest says of a host: enough to tell two CPUs of one name apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import machine
from bench.hosts import host_differences
from bench.report import build
from bench.resume import differences
from tests import synthetic

_TWO_CPUS = """\
processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC
stepping\t: 1
flags\t\t: fpu sse2 avx avx2 avx512f smep fma hypervisor

processor\t: 1
model\t\t: 49
flags\t\t: fpu
"""


@pytest.fixture
def described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(_TWO_CPUS)
    parsed = machine._cpu(cpuinfo)
    monkeypatch.setattr(machine, "_cpu", lambda: parsed)
    return machine.describe()


def test_the_first_cpu_is_described_by_more_than_its_name(described: dict[str, object]) -> None:
    assert described["cpu"] == "AMD EPYC"
    assert described["cpu_model"] == "25/17/1"
    assert described["vectors"] == ["avx", "avx2", "avx512f", "fma"]
    assert described["virtual"] is True


def test_a_kernel_that_says_nothing_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert machine._cpu(tmp_path / "nowhere") == {}
    assert machine._caches(tmp_path / "nowhere") == {}
    monkeypatch.setattr(machine, "_cpu", dict)
    assert machine.describe()["vectors"] == []


def test_caches_are_read_by_level_and_kind(tmp_path: Path) -> None:
    for number, (level, kind, size) in enumerate([("1", "Data", "32K"), ("3", "Unified", "32M")]):
        folder = tmp_path / f"index{number}"
        folder.mkdir()
        for name, text in (("level", level), ("type", kind), ("size", size)):
            (folder / name).write_text(text + "\n")
    (tmp_path / "index7").mkdir()
    assert machine._caches(tmp_path) == {"L1 Data": "32K", "L3 Unified": "32M"}


@pytest.mark.parametrize(
    ("name", "other"),
    [("cpu_model", "25/1/1"), ("vectors", ["avx", "avx2", "fma"]), ("caches", {"L3": "256M"})],
)
def test_another_cpu_of_the_same_name_is_another_host(
    described: dict[str, object], name: str, other: object
) -> None:
    one, two = {"host": described}, {"host": {**described, name: other}}
    assert host_differences(one, one) == differences(one, one) == []
    (difference,) = host_differences(one, two)
    assert difference.startswith(name.replace("_", " "))
    (difference,) = differences(one, two)
    assert difference.startswith(f"host {name}")


def test_a_report_tells_the_model(described: dict[str, object]) -> None:
    report = build([synthetic.run(host=described)])
    assert "AMD EPYC, family/model/stepping 25/17/1, avx2 avx512f" in report.runs[0].facts["host"]
