"""What a driver tells of GPUs, by a binding that is scripted: there is no GPU here."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from bench import cli, gpus, hosts, run
from bench.preset import load_preset
from bench.resume import differences


class NVMLError(Exception):
    """What the binding raises."""


class Nvml:
    """Two GPUs; functions that are named in `untold` raise."""

    NVML_CLOCK_SM = 1
    NVMLError = NVMLError

    def __init__(self, *untold: str, driver: str | bytes = "570.1", count: int = 2) -> None:
        self.untold, self.driver, self.count, self.open = untold, driver, count, 0

    def _tell(self, name: str, value: Any) -> Any:
        if name in self.untold:
            raise NVMLError(name)
        assert self.open or name == "nvmlInit"
        return value

    def nvmlInit(self) -> None:
        self._tell("nvmlInit", None)
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlSystemGetDriverVersion(self) -> Any:
        return self._tell("driver", self.driver)

    def nvmlDeviceGetCount(self) -> Any:
        return self._tell("count", self.count)

    def nvmlDeviceGetHandleByIndex(self, number: int) -> Any:
        return self._tell("handle", number)

    def nvmlDeviceGetName(self, handle: int) -> Any:
        return self._tell("name", ["H200", b"A100"][handle])

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        memory = SimpleNamespace(total=(139 - handle) * 2**30, used=(handle + 1) * 1e9)
        return self._tell("memory", memory)

    def nvmlDeviceGetMaxClockInfo(self, handle: int, kind: int) -> Any:
        return self._tell("clock", 1980 + kind)

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: int) -> Any:
        return self._tell("power", 700_000)


def with_nvml(monkeypatch: pytest.MonkeyPatch, nvml: object) -> None:
    monkeypatch.setattr(gpus, "pynvml", nvml)


def test_gpus_are_told_in_order_and_the_driver_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = Nvml(driver=b"570.1")
    with_nvml(monkeypatch, nvml)
    one, two = gpus.found()
    assert one == gpus.Gpu(
        device="gpu",
        name="H200",
        driver="570.1",
        memory_bytes=139 * 2**30,
        clock_mhz=1981,
        power_limit_w=700.0,
    )
    assert (two.device, two.words) == ("gpu:1", "A100, 138 GiB, driver 570.1")
    assert nvml.open == 0


def test_what_a_gpu_does_not_tell_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = Nvml("memory", "clock", "power", "name", count=1)
    with_nvml(monkeypatch, nvml)
    (only,) = gpus.found()
    assert (only.memory_bytes, only.clock_mhz, only.power_limit_w) == (None, None, None)
    assert only.words == "a GPU without a name, driver 570.1"
    assert nvml.open == 0


def test_the_memory_of_the_gpu_that_frameworks_call_so(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = Nvml()
    with_nvml(monkeypatch, nvml)
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.delenv(name, raising=False)
    assert gpus.memory_bytes("gpu") == 139 * 2**30
    assert gpus.memory_bytes("gpu:1") == 138 * 2**30
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert gpus.memory_bytes("gpu") == 138 * 2**30
    assert gpus.memory_bytes("gpu:1") is None
    assert nvml.open == 0
    for silent in (None, Nvml("nvmlInit"), Nvml("handle"), Nvml("memory")):
        with_nvml(monkeypatch, silent)
        assert gpus.memory_bytes("gpu") is None


@pytest.mark.parametrize("nvml", [None, Nvml("nvmlInit")])
def test_without_a_binding_or_a_driver_there_is_nothing_to_tell(
    nvml: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_nvml(monkeypatch, nvml)
    assert gpus.found() == []


def test_another_gpu_is_another_host_and_a_run_on_the_cpu_does_not_ask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_nvml(monkeypatch, Nvml())
    on_cpu = load_preset("smoke")
    on_gpu = replace(on_cpu, axes=replace(on_cpu.axes, device=("cpu", "gpu")))

    def manifest(sweep: Any) -> Any:
        return json.loads(json.dumps(run.conditions(sweep, start="fork")))

    assert "gpus" not in manifest(on_cpu)["host"]
    one = manifest(on_gpu)
    assert [gpu["name"] for gpu in one["host"]["gpus"]] == ["H200", "A100"]
    with_nvml(monkeypatch, Nvml(count=1))
    other = manifest(on_gpu)
    assert hosts.host_differences(one, one) == []
    assert any(line.startswith("gpus ") for line in hosts.host_differences(one, other))
    assert any(line.startswith("host gpus") for line in differences(one, other))
    # Only a run on a GPU tells of it: one on the CPU is of the same host.
    assert hosts.host_differences(manifest(on_cpu), one) == []


def test_list_shows_what_the_driver_tells(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_nvml(monkeypatch, Nvml(count=1))
    monkeypatch.setattr(run, "describe_backends", lambda **_: {})
    assert cli.main(["list", "--devices"]) == 0
    assert "H200, 139 GiB, driver 570.1" in capsys.readouterr().out
