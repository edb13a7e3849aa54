"""Power now, what limits it, and its history."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import field

from delen.core.energy_status import SourceHealth
from delen.wire.message import Megahertz, Message, Milli, Price, WattHours, about

Rails = Mapping[str, float | None]


class Mode(Message, frozen=True):
    """The power mode; ``throttling`` says in sentences what is held back."""

    id: int | None
    name: str
    clocks: str
    jetson_clocks: bool | None
    throttling: tuple[str, ...]


class Constraint(Message, frozen=True):
    """A limit on energy: ``value`` is compared with ``limit``, both in ``unit``."""

    name: str
    unit: str
    limit: float | None
    value: float | None
    headroom: float | None
    price: Price = field(name="price_per_j")
    binding: Annotated[bool, about("whether it sets the price in force")]
    explanation: str


class Battery(Message, frozen=True):
    """The battery as it is counted down."""

    left: WattHours = field(name="left_wh")
    reserve: WattHours = field(name="reserve_wh")
    last: float = field(name="last_s")
    allowed: Annotated[float | None, about("to spend evenly until then")] = field(name="allowed_w")
    lasts: Annotated[float | None, about("until the reserve, at the present draw")] = field(
        name="lasts_s"
    )


class Window(Message, frozen=True):
    """One closed accounting window, or several of more than an hour ago, merged."""

    time: Annotated[float, about("its end, in seconds since 1970 by the present clock")]
    seconds: Annotated[float, about("its length")]
    watts: float | None
    rails: Rails
    attributed: float = field(name="attributed_j")
    idle: float | None = field(name="idle_j")
    other: float | None = field(name="other_j")
    kind: Literal["attributed", "estimated"]
    price: Price = field(name="price_per_j")
    state: SourceHealth


class BoardEnergy(Message, frozen=True):
    """Joules since the start by where they went."""

    attributed: float
    idle: float
    other: float


class SegmentAttribution(Message, frozen=True):
    """What a segment was measured to take: ``factor`` times its prediction, give or take
    ``relative_sd`` of it. Null is unknown."""

    model: str
    segment: int
    factor: float
    relative_sd: float | None


class Attribution(Message, frozen=True):
    """How far attribution can be believed. Null is unknown.

    Readings are ``explained`` while the last blocks of them were as predicted before they were
    learnt from; ``explained_share`` is the part of their variation that was predicted.
    """

    explained: bool
    share: float | None = field(name="explained_share")
    delay: Milli | None = field(name="delay_ms")
    segments: tuple[SegmentAttribution, ...]


Load = Annotated[float | None, about("the part of its time that it was busy, 0 to 1")]


class Unit(Message, frozen=True):
    """The GPU, or the memory controller."""

    load: Load
    clock: Megahertz | None = field(name="clock_mhz")


class Core(Message, frozen=True):
    """A processor core that is online."""

    core: int
    load: Load
    clock: Megahertz | None = field(name="clock_mhz")


class Cpu(Message, frozen=True):
    """All processor cores together, and each that is online."""

    load: Load
    clock: Annotated[Megahertz | None, about("the highest of the cores")] = field(name="clock_mhz")
    cores: tuple[Core, ...]


class Fan(Message, frozen=True):
    """A fan."""

    name: str
    speed: Annotated[float | None, about("the part of full power that it is given, 0 to 1")]
    rpm: float | None


class Zone(Message, frozen=True):
    """A thermal zone."""

    name: str
    celsius: Annotated[float | None, about("as last read; null ten seconds after that")]
    problem: Annotated[str | None, about("why it cannot be read now")]


class Device(Message, frozen=True):
    """What the device shows of its load and temperature. Null is unknown."""

    gpu: Unit | None
    cpu: Cpu | None
    emc: Annotated[Unit | None, about("the memory controller")]
    fans: tuple[Fan, ...]
    zones: tuple[Zone, ...]


class Power(Message, frozen=True):
    """Power now, its source, and what limits it. Null is unknown."""

    source: str | None
    scope: str | None
    kind: Literal["measured", "estimated", "unknown"]
    watts: float | None
    rails: Rails
    state: SourceHealth
    since: float = field(name="since_s")
    problem: str | None
    warning: Annotated[str | None, about("what limits on watts do not see")]
    age: Milli | None = field(name="age_ms")
    board: str | None
    mode: Mode
    device: Device
    static: float | None = field(name="static_w")
    dynamic: float | None = field(name="dynamic_w")
    other: float | None = field(name="other_w")
    time_constant: Milli | None = field(name="time_constant_ms")
    price: Price = field(name="price_per_j")
    controller: str
    constraints: tuple[Constraint, ...]
    battery: Battery | None
    window: Window | None
    errors: int
    windows: int
    board_energy: BoardEnergy = field(name="board_energy_j")
    attribution: Attribution | None


class PowerHistory(Message, frozen=True):
    """The last windows, oldest first."""

    windows: tuple[Window, ...]
