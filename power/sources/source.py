"""The protocol of a power source: what it reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class PowerReading:
    """Watts at ``time`` (seconds, ``time.monotonic``): of each rail, and in total.

    ``total`` is None where the source does not report it. ``joules`` is what a hardware energy
    counter has counted since the source was opened, None where there is none.
    """

    time: float
    rails: Mapping[str, float]
    total: float | None
    joules: float | None = None


class PowerSource(Protocol):
    """Something that reports the device's power.

    ``kind`` is ``measured`` for a sensor and ``estimated`` for a model; ``scope`` names what the
    total covers. ``interval`` is the least time in seconds between readings that differ.
    ``read`` may block and raises PowerError when there is no reading, so it is kept off the path
    of requests. Opening a source (its constructor) raises PowerError where it cannot be used.
    """

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> Literal["measured", "estimated"]: ...
    @property
    def scope(self) -> str: ...
    @property
    def interval(self) -> float: ...

    def read(self) -> PowerReading: ...
    def close(self) -> None: ...
