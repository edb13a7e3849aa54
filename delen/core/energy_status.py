"""What energy accounting and control report, and what can be set of them.

Joules, watts and seconds throughout. The API writes these to the wire; the EnergyService makes
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import NoneType
from typing import Final, Literal, Protocol

import msgspec

from delen.core.bounds import check_cap, check_not_negative, check_text
from delen.core.device_status import DeviceStatus
from delen.core.fairness import Fairness
from delen.core.result import Reason, Receipt
from delen.core.tenant import TenantSettings
from delen.errors import InvalidInput

SourceHealth = Literal["ok", "degraded", "none"]
"""``none`` where there is no source; ``degraded`` while one gives no good readings."""

FinalKind = Literal["attributed", "estimated"]
"""How joules are known once they are final, and known at all."""

SHORTEST_HISTORY = 1.0
LONGEST_HISTORY = 86_400.0
"""Seconds for which windows are kept and can be read; older than an hour, as minutes."""


Unchanged = msgspec.UnsetType
UNCHANGED: Final = msgspec.UNSET
"""In changes: what is not named stays as it is. None takes a limit away."""


SHORTEST_PERIOD, LONGEST_PERIOD = 5.0, 31_622_400.0
"""Seconds. In less, what requests took is not known yet when it counts no more; a leap year."""


def check_period(value: object, field: str) -> float:
    """``value`` as the seconds of a budget's period; InvalidInput unless it can be one."""
    seconds = check_cap(value, field)
    if not SHORTEST_PERIOD <= seconds <= LONGEST_PERIOD:
        raise InvalidInput(
            f"{field} is {seconds:g}; it must be from {SHORTEST_PERIOD:g} to {LONGEST_PERIOD:.0f} "
            "seconds",
            field,
        )
    return seconds


@dataclass(frozen=True, slots=True)
class Budget:
    """Joules that a tenant may spend in every ``period`` seconds. InvalidInput unless the joules
    are above 0 and the period is from 5 s to a year."""

    joules: float
    period: float

    def __post_init__(self) -> None:
        check_cap(self.joules, "joules")
        check_period(self.period, "period")


@dataclass(frozen=True, slots=True)
class Battery:
    """``joules`` in the battery now, of which ``reserve`` are to be left after ``last`` seconds.

    InvalidInput unless the reserve is at least 0 and less than the joules.
    """

    joules: float
    reserve: float
    last: float

    def __post_init__(self) -> None:
        check_cap(self.joules, "joules")
        check_cap(self.last, "last")
        check_not_negative(self.reserve, "reserve")
        if self.reserve >= self.joules:
            raise InvalidInput("reserve must be below what is in the battery", "reserve")


@dataclass(frozen=True, slots=True)
class PowerChanges:
    """New limits and mode. What is ``UNCHANGED`` stays; None as a limit means none. InvalidInput
    for values out of range."""

    watt_cap: float | Unchanged | None = UNCHANGED
    battery: Battery | Unchanged | None = UNCHANGED
    mode: str | Unchanged = UNCHANGED

    def __post_init__(self) -> None:
        if self.watt_cap is not None and self.watt_cap is not UNCHANGED:
            check_cap(self.watt_cap, "watt_cap")
        if not isinstance(self.battery, (Battery, Unchanged, NoneType)):
            raise InvalidInput(
                f"battery must be a Battery or None, not {self.battery!r}", "battery"
            )
        if self.mode is not UNCHANGED:
            check_text(self.mode, "mode", "the name or number of a mode")


@dataclass(frozen=True, slots=True)
class TenantChanges:
    """New settings of a tenant. What is ``UNCHANGED`` stays; None takes it away. InvalidInput for
    values out of range."""

    budget: Budget | Unchanged | None = UNCHANGED
    weight: float | Unchanged | None = UNCHANGED
    priority: int | Unchanged | None = UNCHANGED

    def __post_init__(self) -> None:
        self.applied(TenantSettings())

    def applied(self, settings: TenantSettings) -> TenantSettings:
        """``settings`` after them."""
        return TenantSettings(
            settings.weight if isinstance(self.weight, Unchanged) else self.weight,
            settings.priority if isinstance(self.priority, Unchanged) else self.priority,
        )


@dataclass(frozen=True, slots=True)
class ConstraintStatus:
    """One constraint on energy as it stands now.

    ``value`` is compared with ``limit``, both in ``unit`` (``W``, ``J``, ``s``, ``degC``);
    ``headroom`` is what is left between them. None is unknown or does not apply. ``price``
    (accuracy per joule) is what the constraint demands, infinite where it demands the least
    energy; ``binding`` says whether it sets the price in force. ``explanation`` is a sentence.
    """

    name: str
    unit: str
    limit: float | None
    value: float | None
    headroom: float | None
    price: float
    binding: bool
    explanation: str


@dataclass(frozen=True, slots=True)
class BatteryStatus:
    """The battery as it is counted down: ``left`` joules, of which ``reserve`` are not to be used,
    ``last`` seconds that it still has to serve, ``allowed`` watts to spend evenly until then, and
    ``lasts``, seconds until the reserve is reached at the present draw (None: unknown)."""

    left: float
    reserve: float
    last: float
    allowed: float | None
    lasts: float | None


@dataclass(frozen=True, slots=True)
class ModeStatus:
    """The power mode: its number and name where the device has such, its clock bucket, whether
    jetson_clocks holds the clocks (None: unknown), and what is throttled, as sentences."""

    id: int | None
    name: str
    clocks: str
    jetson_clocks: bool | None
    throttling: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WindowStatus:
    """One closed window, or several merged: the ``seconds`` before ``time`` (seconds since 1970).

    ``watts`` and ``rails`` are means of the readings, None and empty where there were none.
    ``attributed``, ``idle`` and ``other`` are joules as in ``delen.core.work.Split``; ``price`` and
    ``state`` are those at its end.
    """

    time: float
    seconds: float
    watts: float | None
    rails: Mapping[str, float]
    attributed: float
    idle: float | None
    other: float | None
    kind: FinalKind
    price: float
    state: SourceHealth


@dataclass(frozen=True, slots=True)
class BoardEnergy:
    """Joules since the start by where they went, over all measured windows."""

    attributed: float = 0.0
    idle: float = 0.0
    other: float = 0.0


@dataclass(frozen=True, slots=True)
class SegmentStatus:
    """By how much the joules of a ``segment`` differ from those predicted, and the relative
    standard deviation of that (None: unknown)."""

    model: str
    segment: int
    factor: float
    relative_sd: float | None


@dataclass(frozen=True, slots=True)
class AttributionStatus:
    """How far attribution can be believed.

    It is ``explained`` while readings are as they were predicted before they were learnt from;
    ``share`` is the part of their variation over the last blocks that was predicted, ``delay`` by
    how many seconds they are behind the power. None is unknown.
    """

    explained: bool
    share: float | None
    delay: float | None
    segments: tuple[SegmentStatus, ...] = ()


@dataclass(frozen=True, slots=True)
class PowerStatus:
    """What ``GET /v1/power`` reports.

    ``watts`` and ``rails`` are the latest reading, which is ``age`` seconds old, and unknown while
    the source is degraded; ``kind`` says whether it was measured. ``warning`` says what limits on
    watts do not see. ``since`` is how many seconds ``state`` has held. ``static``,
    ``dynamic`` and ``other`` are watts: what the device draws without requests as far as that is
    learnt, and what requests and others drew in the last ``window``. ``time_constant`` is the
    sensor's in seconds. ``price`` is accuracy per joule. ``errors`` counts failed readings and
    ``windows`` closed windows since the start; ``attribution`` is None where nothing is measured.
    ``device`` is its load and temperature. None is unknown.
    """

    source: str | None
    scope: str | None
    kind: Literal["measured", "estimated", "unknown"]
    watts: float | None
    rails: Mapping[str, float]
    state: SourceHealth
    since: float
    problem: str | None
    warning: str | None
    age: float | None
    board: str | None
    mode: ModeStatus
    static: float | None
    dynamic: float | None
    other: float | None
    time_constant: float | None
    price: float
    controller: str
    constraints: tuple[ConstraintStatus, ...]
    battery: BatteryStatus | None
    window: WindowStatus | None
    errors: int = 0
    windows: int = 0
    board_energy: BoardEnergy = field(default_factory=BoardEnergy)
    attribution: AttributionStatus | None = None
    device: DeviceStatus = field(default_factory=DeviceStatus)


@dataclass(frozen=True, slots=True)
class DayEnergy:
    """Joules of a tenant's answers that became final on one day, by how they are known. ``date`` is
    as in 2026-11-30, by local time; None where the clock has not been set."""

    date: str | None
    attributed: float = 0.0
    estimated: float = 0.0


@dataclass(frozen=True, slots=True)
class TenantStatus:
    """A tenant's budget, its ``balance`` in joules (negative after an overrun), the joules of its
    answers by how they came to be known at last, how many requests were answered, and how many
    refused or failed, by the error's code.

    ``weight`` and ``priority`` are None where they are not set. ``missed`` are answers that broke a
    bound, by the bound. ``seconds`` of the device were used; ``share`` is its part of what all used
    in the last minute, None where it requested nothing. It ``is_behind`` while it has used more
    than its share. ``days`` are the last ones that it used energy on, oldest first."""

    budget: Budget | None
    balance: float | None
    attributed: float
    estimated: float
    answers: int
    refused: Mapping[str, int]
    price: float
    weight: float | None = None
    priority: int | None = None
    missed: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    share: float | None = None
    is_behind: bool = False
    days: tuple[DayEnergy, ...] = ()

    @property
    def is_set(self) -> bool:
        """Whether anything of it was set."""
        return not (self.budget is None and self.weight is None and self.priority is None)


@dataclass(frozen=True, slots=True)
class EnergyTotal:
    """Joules of one tenant's settled answers of one model at one exit."""

    tenant: str
    model: str
    exit: int
    kind: FinalKind
    joules: float


@dataclass(frozen=True, slots=True)
class Settled:
    """An answered request as it is known by now. Once it is ``settled`` its energy is final."""

    request_id: str
    model: str
    tenant: str
    exit: int
    reason: Reason
    receipt: Receipt
    settled: bool


class EnergyService(Protocol):
    """What the API needs of the accounting of energy and tenants. Safe for many threads.

    All but the ``set_`` methods change nothing but what is on the disk.
    """

    def describe(self) -> PowerStatus: ...

    def history(self, seconds: float, step: float = 0.0) -> list[WindowStatus]:
        """The windows that ended in the last ``seconds``, oldest first. Those of more than an hour
        ago are merged to minutes, all to at least ``step`` seconds."""

    def receipt(self, request_id: str) -> Settled | None:
        """None for a request that is unknown, not yet answered, or forgotten."""

    def tenants(self) -> Mapping[str, TenantStatus]: ...

    def totals(self) -> list[EnergyTotal]:
        """Joules of all settled answers, those before a restart too. They are on the disk by
        now, where they are kept."""

    def fairness(self) -> Fairness:
        """How evenly the device was shared out in the last minute."""

    def set_tenant(self, name: str, changes: TenantChanges) -> TenantStatus: ...

    def set_limits(self, changes: PowerChanges) -> None:
        """Raises PowerError where the mode cannot be had; then nothing has changed."""
