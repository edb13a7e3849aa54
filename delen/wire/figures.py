"""The device at a glance: ``GET /v1/figures``, and once a second the event ``figures``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from msgspec import field

from delen.wire.message import Megabytes, Message, Milli, Price, WattHours, about
from delen.wire.power import Power
from delen.wire.tenants import Missed


class Times(Message, frozen=True):
    """What half of the answers did not exceed, and what 95 and 99 of 100 did not."""

    p50: Milli
    p95: Milli
    p99: Milli


class Shares(Message, frozen=True):
    """The same of parts: 1 is the whole bound."""

    p50: float
    p95: float
    p99: float


class Outcomes(Message, frozen=True):
    """How often a bound was kept, and how often missed, since the start."""

    kept: int
    missed: int


class RecentAnswers(Message, frozen=True):
    """Answers of the last ``seconds``. Null is unknown: there was none."""

    seconds: float
    answers: int
    exits: Annotated[tuple[int, ...], about("answers by exit")]
    latency: Times | None = field(name="latency_ms")
    queue: Times | None = field(name="queue_ms")
    of_bound: Annotated[
        Shares | None, about("latency as a part of its bound, of the answers that had one")
    ]
    missed: Annotated[int, about("answers whose latency exceeded its bound; of no other bound")]
    over_plan: Annotated[
        float | None,
        about("expected accuracy of the answers less that of their plans: below 0 is lost to load"),
    ]


class ModelFigures(Message, frozen=True):
    """``jobs`` are inputs queued or running. Null is unknown, as of a model that is not loaded."""

    name: str
    default: bool
    state: str
    problem: str | None
    jobs: int
    slowdown: Annotated[float | None, about("measured over profiled time, recent mean")]
    memory: Annotated[Megabytes | None, about("of loaded segments, estimated")] = field(
        name="memory_mb"
    )
    bounds: Annotated[Mapping[str, Outcomes], about("by latency, accuracy and energy")]
    recent: RecentAnswers


class AppFigures(Message, frozen=True):
    """A tenant. Energies are dynamic and final; null is unknown."""

    answers: int
    refused: int
    missed: Missed
    today: WattHours | None = field(name="today_wh")
    total: WattHours | None = field(name="total_wh")
    price: Price = field(name="price_per_j")
    balance: float | None = field(name="balance_j")


class QueueFigures(Message, frozen=True):
    """What waits or runs, and how long until it is done."""

    jobs: int
    backlog: Milli = field(name="backlog_ms")
    lanes: int
    busy: int


class MemoryFigures(Message, frozen=True):
    """All models' segments, and the cap on them."""

    taken: Megabytes = field(name="taken_mb")
    cap: Megabytes = field(name="cap_mb")


class Finding(Message, frozen=True):
    """Something that is wrong, and what helps."""

    problem: str
    remedy: str


class Figures(Message, frozen=True):
    """The device at one moment. ``status`` is that of ``/healthz``; ``memory`` is null without
    ``models.memory_mb``."""

    time: Annotated[float, about("seconds since 1970")]
    node: str
    version: str
    status: str
    findings: tuple[Finding, ...]
    power: Power
    queue: QueueFigures
    memory: MemoryFigures | None
    models: tuple[ModelFigures, ...]
    apps: Annotated[Mapping[str, AppFigures], about("by name; the first hundred")]
