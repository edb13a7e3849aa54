"""Tenants, what is set of them and what they got."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from msgspec import field

from delen.core.energy_status import TenantStatus
from delen.wire.message import Message, Price, WattHours, about


class Budget(Message, frozen=True):
    """Joules in every period, and those left of them, negative after an overrun."""

    energy: float = field(name="energy_j")
    period: float = field(name="period_s")
    balance: float | None = field(name="balance_j")


class Missed(Message, frozen=True):
    """Answers that broke a bound."""

    latency: int = 0
    accuracy: int = 0
    energy: int = 0


class TenantEnergy(Message, frozen=True):
    """Joules of a tenant's answers by how they are known."""

    attributed: float
    estimated: float


class DeviceTime(Message, frozen=True):
    """How much of the device a tenant used."""

    seconds: float
    share: Annotated[float | None, about("its part of what all used in the last minute")]
    is_behind: Annotated[bool, about("it has used more than its share")] = field(name="behind")


class Day(Message, frozen=True):
    """Energy of a tenant's answers that became final on one day."""

    date: Annotated[str | None, about("by local time; null: before the clock was set")]
    attributed: WattHours = field(name="attributed_wh")
    estimated: WattHours = field(name="estimated_wh")


class Tenant(Message, frozen=True):
    """What is set of a tenant, null where nothing is, and what it got."""

    weight: Annotated[float | None, about("its part of the device against others'; null counts 1")]
    priority: Annotated[
        int | None, about("of its requests that name none, and the most urgent they may have")
    ]
    budget: Budget | None
    requests: int
    answers: int
    refused: int
    refused_why: Annotated[Mapping[str, int], about("by the error's code")]
    missed: Missed
    energy: TenantEnergy = field(name="energy_j")
    price: Price = field(name="price_per_j")
    device: DeviceTime
    days: Annotated[tuple[Day, ...], about("the last 31 on which it used energy, oldest first")]

    @classmethod
    def of(cls, status: TenantStatus) -> Tenant:  # type: ignore[override]  # of nothing else
        budget, refused = status.budget, sum(status.refused.values())
        return cls(
            weight=status.weight,
            priority=status.priority,
            budget=None if budget is None else Budget(budget.joules, budget.period, status.balance),
            requests=status.answers + refused,
            answers=status.answers,
            refused=refused,
            refused_why=status.refused,
            missed=Missed(**status.missed),
            energy=TenantEnergy.of(status),
            price=Price(status.price),
            device=DeviceTime.of(status),
            days=tuple(map(Day.of, status.days)),
        )


class Fairness(Message, frozen=True):
    """How evenly the device was shared out in the last minute."""

    time: float | None
    energy: float | None


class Tenants(Message, frozen=True):
    """The tenants that were seen or of which something is set."""

    tenants: dict[str, Tenant]
    fairness: Fairness
