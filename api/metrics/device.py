"""Prometheus metrics of the device's load, clocks, fans and temperatures; what is unknown is left
out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from delen.core.device_status import CpuStatus
from delen.core.energy_status import EnergyService

Values = Iterable[tuple[str | None, float | None]]
"""By label."""


class DeviceCollector(Collector):
    """Metrics of the device of ``service``."""

    def __init__(self, service: EnergyService) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        device = self._service.describe().device
        cores = (device.cpu or CpuStatus()).cores
        for name, unit in (("gpu", device.gpu), ("emc", device.emc)):
            what = "GPU" if name == "gpu" else "memory controller"
            load, clock = (None, None) if unit is None else (unit.load, unit.clock)
            yield _gauge(f"{name}_load_ratio", f"Load of the {what}", "", [(None, load)])
            yield _gauge(f"{name}_clock_hertz", f"Clock of the {what}", "", [(None, clock)])
        yield _gauge(
            "cpu_load_ratio", "Load of a core", "core", ((str(c.core), c.load) for c in cores)
        )
        yield _gauge(
            "cpu_clock_hertz", "Clock of a core", "core", ((str(c.core), c.clock) for c in cores)
        )
        fans, zones = device.fans, device.zones
        yield _gauge(
            "fan_speed_ratio", "Power given to a fan", "fan", ((f.name, f.speed) for f in fans)
        )
        yield _gauge("fan_rpm", "Turns of a fan a minute", "fan", ((f.name, f.rpm) for f in fans))
        yield _gauge(
            "temperature_celsius", "Thermal zone", "zone", ((z.name, z.celsius) for z in zones)
        )


def _gauge(name: str, text: str, label: str, values: Values) -> Metric:
    gauge = GaugeMetricFamily(f"delen_{name}", text, labels=[label] if label else [])
    for value, number in values:
        if number is not None:
            gauge.add_metric([] if value is None else [value], number)
    return gauge
