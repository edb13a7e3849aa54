"""NVIDIA's own binding, with the answers of a driver put in its place where there is no GPU."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from delen.errors import MissingExtra, PowerError, SensorAbsent, SensorDenied, SensorFailed
from power.sources.nvml import Nvml

pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py comes with delen[test]")


class Driver:
    """What a driver answers, as figures that a test sets: milliwatts and millijoules."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names = ["GPU"]
        self.instant: int | None = 50_000
        self.average: int | None = 48_000
        self.energy: int | None = 7_000_000
        self.error = pynvml.NVML_ERROR_NOT_SUPPORTED
        self.asked: list[Any] = []
        self.opened = 0
        answers: dict[str, Callable[..., Any]] = {
            "nvmlInit": lambda: self._open(1),
            "nvmlShutdown": lambda: self._open(-1),
            "nvmlDeviceGetCount": lambda: len(self.names),
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetHandleByUUID": lambda uuid: uuid,
            "nvmlDeviceGetName": lambda device: self.names[device],
            "nvmlDeviceGetFieldValues": self._fields,
            "nvmlDeviceGetPowerUsage": lambda device: self._figure(device, self.average),
            "nvmlDeviceGetTotalEnergyConsumption": lambda device: self._figure(device, self.energy),
        }
        for name, answer in answers.items():
            monkeypatch.setattr(pynvml, name, answer)

    def _open(self, step: int) -> None:
        self.opened += step

    def _figure(self, device: Any, figure: int | None) -> int:
        self.asked.append(device)
        if figure is None:
            raise pynvml.NVMLError(self.error)
        return figure

    def _fields(self, device: Any, fields: list[int]) -> list[Any]:
        assert fields == [pynvml.NVML_FI_DEV_POWER_INSTANT]
        code = self.error if self.instant is None else pynvml.NVML_SUCCESS
        return [SimpleNamespace(nvmlReturn=code, value=SimpleNamespace(uiVal=self.instant))]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    return Driver(monkeypatch)


def has_gpu() -> bool:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return False
    pynvml.nvmlShutdown()
    return True


@pytest.mark.skipif(has_gpu(), reason="this machine has an NVIDIA GPU")
def test_without_a_driver_it_is_absent() -> None:
    with pytest.raises(SensorAbsent, match="NVML"):
        Nvml({})


@pytest.mark.skipif(not has_gpu(), reason="this machine has no NVIDIA GPU")
def test_a_real_gpu_gives_readings() -> None:
    nvml = Nvml()
    try:
        first, second = nvml.read(), nvml.read()
    finally:
        nvml.close()
    assert first.total is not None and 0 < first.total < 2000
    assert second.time > first.time
    assert (second.joules or 0) >= (first.joules or 0) >= 0


def test_watts_are_momentary_and_joules_count_from_the_opening(driver: Driver) -> None:
    nvml = Nvml({})
    driver.instant, driver.energy = 60_000, 7_012_000
    reading = nvml.read()
    assert (reading.total, reading.rails, reading.joules) == (60.0, {"gpu": 60.0}, 12.0)
    nvml.close()
    assert driver.opened == 0


def test_a_driver_without_momentary_power_tells_its_average(driver: Driver) -> None:
    driver.instant = None
    assert Nvml({}).read().total == 48.0


def test_a_gpu_without_a_counter_has_watts_alone(driver: Driver) -> None:
    driver.energy = None
    reading = Nvml({}).read()
    assert (reading.total, reading.joules) == (50.0, None)


def test_a_jetsons_nvml_opens_but_is_absent(driver: Driver) -> None:
    driver.instant = driver.average = driver.energy = None
    with pytest.raises(SensorAbsent, match="Not Supported") as failure:
        Nvml({})
    assert "ina3221" in str(failure.value.remedy)
    assert driver.opened == 0


@pytest.mark.parametrize(
    ("code", "error"),
    [("NO_PERMISSION", SensorDenied), ("GPU_IS_LOST", SensorFailed), ("TIMEOUT", SensorFailed)],
)
def test_a_driver_that_refuses_or_fails_is_told_apart(
    driver: Driver, code: str, error: type[PowerError]
) -> None:
    nvml = Nvml({})
    driver.instant, driver.error = None, getattr(pynvml, f"NVML_ERROR_{code}")
    with pytest.raises(error, match="NVML"):
        nvml.read()


@pytest.mark.parametrize(
    ("names", "environment", "device"),
    [
        (["A", "A"], {}, 0),
        (["A", "A"], {"CUDA_VISIBLE_DEVICES": "1,0"}, 1),
        (["A", "B"], {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, 1),
        (["A", "B"], {"CUDA_VISIBLE_DEVICES": "GPU-12ab"}, "GPU-12ab"),
    ],
)
def test_of_several_gpus_it_is_the_one_that_cuda_takes(
    driver: Driver, names: list[str], environment: dict[str, str], device: int | str
) -> None:
    driver.names = names
    Nvml(environment)
    assert set(driver.asked) == {device}


@pytest.mark.parametrize(
    ("names", "visible", "problem"),
    [
        ([], "", "no GPU"),
        (["A", "B"], "", "differ"),
        (["A", "A"], "2", "'2'.* 2 GPUs"),
        (["A"], "MIG-12ab", "slice"),
    ],
)
def test_a_gpu_that_cannot_be_told_is_not_guessed(
    driver: Driver, names: list[str], visible: str, problem: str
) -> None:
    driver.names = names
    with pytest.raises(SensorAbsent, match=problem):
        Nvml({"CUDA_VISIBLE_DEVICES": visible})
    assert driver.opened == 0


def test_without_the_binding_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(MissingExtra, match=r"delen\[nvml\]"):
        Nvml({})
