"""NVML: power and energy of a discrete NVIDIA GPU, through its driver.

Optional extra ``nvml``. On a Jetson NVML opens, but reports no power.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

from delen.errors import MissingExtra, SensorAbsent, SensorDenied, SensorFailed
from power.sources.source import PowerReading

NAME = "nvml"
SCOPE = "gpu"
VISIBLE = "CUDA_VISIBLE_DEVICES"
ORDER = "CUDA_DEVICE_ORDER"
_INTERVAL = 0.1


class Nvml:
    """Watts of the GPU that segments run on, and its energy counter where it has one.

    Power is the momentary one where the driver reports it, else its own average (over a second on
    many GPUs). With several GPUs it is the one that ``CUDA_VISIBLE_DEVICES`` of ``environment``
    names first, as CUDA does.

    The constructor probes a reading: SensorAbsent without driver, GPU or power (a Jetson), or
    where it is unclear which GPU is meant; SensorDenied, SensorFailed; MissingExtra where
    nvidia-ml-py is not installed.
    """

    name = NAME
    kind: Literal["measured", "estimated"] = "measured"
    scope = SCOPE
    interval = _INTERVAL

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        try:
            import pynvml
        except ModuleNotFoundError as error:
            raise MissingExtra("nvidia-ml-py", "nvml") from error
        self._library: Any = pynvml
        self._ask(pynvml.nvmlInit)
        try:
            self._device = self._choose(environment)
            self._watts = self._choose_power()
            self._first_joules = self._counter()
        except BaseException:
            self.close()
            raise

    def read(self) -> PowerReading:
        now = time.monotonic()
        watts = self._watts()
        joules = None if self._first_joules is None else self._counter()
        if joules is not None and self._first_joules is not None:
            joules -= self._first_joules
        return PowerReading(now, {SCOPE: watts}, watts, joules)

    def close(self) -> None:
        try:
            self._ask(self._library.nvmlShutdown)
        except SensorAbsent:
            return  # it was closed already

    def _choose(self, environment: Mapping[str, str]) -> Any:
        library = self._library
        count = self._ask(library.nvmlDeviceGetCount)
        first = environment.get(VISIBLE, "").split(",")[0].strip()
        if first.startswith(("GPU-", "MIG-")):
            if first.startswith("MIG-"):
                raise SensorAbsent(
                    f"{VISIBLE} is {first}: a slice of a GPU has no power of its own"
                )
            return self._ask(library.nvmlDeviceGetHandleByUUID, first)
        handles = [self._ask(library.nvmlDeviceGetHandleByIndex, index) for index in range(count)]
        if not handles:
            raise SensorAbsent("NVML sees no GPU")
        names = {self._ask(library.nvmlDeviceGetName, handle) for handle in handles}
        if len(names) > 1 and environment.get(ORDER) != "PCI_BUS_ID":
            raise SensorAbsent(
                f"the {count} GPUs differ, and it is unknown which one CUDA calls its first",
                f"set {ORDER}=PCI_BUS_ID, or {VISIBLE} to the GPU's UUID (nvidia-smi -L)",
            )
        if first and not (first.isdecimal() and int(first) < count):
            raise SensorAbsent(f"{VISIBLE} is {first!r}, which is not one of the {count} GPUs")
        return handles[int(first or 0)]

    def _choose_power(self) -> Callable[[], float]:
        """The way to read watts that works on this GPU. Raises where there is none."""
        try:
            self._instant()
        except (SensorAbsent, AttributeError):
            self._average()
            return self._average
        return self._instant

    def _instant(self) -> float:
        library = self._library
        field = library.NVML_FI_DEV_POWER_INSTANT
        value = self._ask(library.nvmlDeviceGetFieldValues, self._device, [field])[0]
        if value.nvmlReturn != library.NVML_SUCCESS:
            raise self._translate(library.NVMLError(value.nvmlReturn))
        return float(value.value.uiVal) / 1e3

    def _average(self) -> float:
        return float(self._ask(self._library.nvmlDeviceGetPowerUsage, self._device)) / 1e3

    def _counter(self) -> float | None:
        """Joules since the driver was loaded, None where the GPU does not count them."""
        ask = self._library.nvmlDeviceGetTotalEnergyConsumption
        try:
            return float(self._ask(ask, self._device)) / 1e3
        except SensorAbsent:
            return None

    def _ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except self._library.NVMLError as error:
            raise self._translate(error) from error

    def _translate(self, error: Any) -> SensorAbsent | SensorDenied | SensorFailed:
        library = self._library
        message = f"NVML: {error}"
        if isinstance(error, library.NVMLError_NoPermission):
            return SensorDenied(message, "let the user of the daemon open /dev/nvidia*")
        if isinstance(error, library.NVMLError_NotSupported):
            return SensorAbsent(
                message, "this GPU does not report its power; on a Jetson see ina3221"
            )
        if isinstance(
            error,
            (
                library.NVMLError_LibraryNotFound,
                library.NVMLError_DriverNotLoaded,
                library.NVMLError_FunctionNotFound,
                library.NVMLError_NotFound,
                library.NVMLError_Uninitialized,
            ),
        ):
            return SensorAbsent(
                message, "install NVIDIA's driver, if this machine has an NVIDIA GPU"
            )
        return SensorFailed(message)
