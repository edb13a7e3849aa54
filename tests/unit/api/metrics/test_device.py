from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from api.metrics.device import DeviceCollector
from delen.core.device_status import DeviceStatus

if TYPE_CHECKING:
    from tests.unit.api.conftest import MadeUpEnergy


def samples(energy: MadeUpEnergy) -> dict[tuple[str, ...], float]:
    registry = CollectorRegistry()
    registry.register(DeviceCollector(energy))
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


def test_what_is_known_of_the_device_is_shown_and_nothing_else(energy: MadeUpEnergy) -> None:
    assert samples(energy) == {
        ("delen_gpu_load_ratio",): 0.42,
        ("delen_gpu_clock_hertz",): 612e6,
        ("delen_emc_clock_hertz",): 2133e6,
        ("delen_cpu_load_ratio", "0"): 0.5,
        ("delen_cpu_clock_hertz", "0"): 1984e6,
        ("delen_cpu_clock_hertz", "1"): 729.6e6,
        ("delen_fan_speed_ratio", "pwmfan"): 0.2,
        ("delen_temperature_celsius", "cpu-thermal"): 51.5,
    }
    energy.status = replace(energy.status, device=DeviceStatus())
    assert samples(energy) == {}
