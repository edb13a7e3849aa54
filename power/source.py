"""The protocol of a power source: what it reads, and how energy is accounted from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from delen.energy import EnergyAccount


@dataclass(frozen=True, slots=True)
class PowerReading:
    """Watts at ``time`` (seconds, ``time.monotonic``): of each rail, and in total.

    ``total`` is None where the source cannot tell it.
    """

    time: float
    rails: Mapping[str, float]
    total: float | None


class PowerSource(Protocol):
    """Something that tells the device's power.

    ``kind`` is ``measured`` for a sensor and ``estimated`` for a model; ``scope`` names what the
    total covers. ``read`` may block and raises DelenError when there is no reading, so it is kept
    off the path of requests. ``account`` prices the work of segments from this source.
    """

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> Literal["measured", "estimated"]: ...
    @property
    def scope(self) -> str: ...
    @property
    def account(self) -> EnergyAccount: ...

    def read(self) -> PowerReading: ...
    def close(self) -> None: ...
