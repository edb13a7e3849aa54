"""What REST requests ask for: bounds and options, labels, and changes of limits and tenants."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import UNSET, Meta, UnsetType, field, structs

from delen.core.bounds import (
    HIGHEST_PRIORITY,
    LOWEST_PRIORITY,
    Bounds,
    Encoding,
    OnInfeasible,
    Options,
)
from delen.core.energy_status import (
    LONGEST_HISTORY,
    LONGEST_PERIOD,
    SHORTEST_HISTORY,
    SHORTEST_PERIOD,
    PowerChanges,
    TenantChanges,
)
from delen.core.handover import Part
from delen.core.tenant import LEAST_WEIGHT, MOST_WEIGHT
from delen.core.variant import Size, size_of
from delen.errors import InvalidInput
from delen.wire.message import Milli, Request, WattHours, about

if TYPE_CHECKING:
    from typing_extensions import Self

MOST_LABELS = 100_000
BUNDLE, PARTS = "X-Delen-Bundle", "X-Delen-Parts"
"""Headers of a job that comes from another node: the digest of its bundle, and its ``Parts``."""
_OPTIONS = {each.name: each.default for each in fields(Options)}
_POSITIVE = about(exclusiveMinimum=0)
_PRIORITIES: dict[str, Any] = {"minimum": HIGHEST_PRIORITY, "maximum": LOWEST_PRIORITY}


class NoFields(Request, frozen=True):
    """A request that is all said by its address."""


class PlanFields(Request, frozen=True):
    """Bounds, and the tenant who would set them, in the query string or a body. Null: not set."""

    max_latency: Annotated[
        Milli | None,
        about("from the request's arrival to the answer's leaving", exclusiveMinimum=0),
    ] = field(name="max_latency_ms", default=None)
    min_accuracy: Annotated[float | None, about(minimum=0, maximum=1)] = None
    max_energy: Annotated[
        Milli | None, about("dynamic energy of this request", exclusiveMinimum=0)
    ] = field(name="max_energy_mj", default=None)
    tenant: str | None = None

    @classmethod
    def asking(cls, bounds: Bounds, options: Options | None = None) -> Self:
        """The fields of what differs from the defaults."""
        asked: dict[str, Any] = {
            name: value
            for name, default in _OPTIONS.items()
            if options and (value := getattr(options, name)) != default
        }
        return cls(
            max_latency=None if bounds.max_latency is None else Milli(bounds.max_latency),
            min_accuracy=bounds.min_accuracy,
            max_energy=None if bounds.max_energy is None else Milli(bounds.max_energy),
            **asked,
        )

    def bounds(self) -> Bounds:
        return self.to(Bounds)

    def options(self) -> Options:
        asked = {name: getattr(self, name, None) for name in _OPTIONS}
        return Options(**{name: value for name, value in asked.items() if value is not None})

    def joined(self, others: PlanFields) -> Self:
        """These fields and those of ``others``, none of which is set twice."""
        added = {name: v for name, v in structs.asdict(others).items() if v is not None}
        for name in added:
            if getattr(self, name) is not None:
                written = self.written(name)
                raise InvalidInput(f"{written} is given in the body and in the query", written)
        return structs.replace(self, **added)


class InferFields(PlanFields, frozen=True):
    """Bounds and options, in the query string or beside the input."""

    stream: str | None = None
    priority: Annotated[
        int | None,
        about(
            "1 is served first; beside other tenants no more urgent than its tenant's",
            **_PRIORITIES,
        ),
    ] = None
    top_k: Annotated[int | None, about("how many predictions to list", minimum=1)] = None
    on_infeasible: OnInfeasible | None = None
    probabilities: bool | None = None


class SuspendableFields(InferFields, frozen=True):
    """Bounds and options of an infer request, and whether another node is to go on with it."""

    suspend_at: Annotated[
        int | None,
        about(
            "where no exit up to this one is confident, it ends there with its features for "
            "another node",
            minimum=0,
        ),
    ] = None
    encoding: Annotated[Encoding | None, about("of these features; fp16")] = None

    def options(self) -> Options:
        if self.encoding is not None and self.suspend_at is None:
            raise InvalidInput(
                "encoding is that of features, which only a request with suspend_at gives",
                "encoding",
            )
        return PlanFields.options(self)


class InferBody(SuspendableFields, frozen=True, kw_only=True):
    """The JSON body of an infer request."""

    input: Annotated[Any, about(type=["array", "string"])]


class ResumeFields(InferFields, frozen=True, kw_only=True):
    """Bounds and options of a job that another node began, and where it stands. The bounds are the
    whole job's."""

    exit: Annotated[int, about("the last one that it has reached", minimum=0)]
    encoding: Annotated[Encoding | None, about("of the features; fp16")] = None
    size: Annotated[
        str | None, about("HEIGHTxWIDTH of a model that has several input sizes; the largest")
    ] = None
    threshold: Annotated[
        float | None,
        about("confidence at which it would have stopped; left out: at none", minimum=0, maximum=1),
    ] = None
    confidence: Annotated[
        float | None, about("how sure the exit was; it matters in a queue", minimum=0, maximum=1)
    ] = None

    def input_size(self) -> Size | None:
        """InvalidInput for what is no size."""
        if self.size is None:
            return None
        found = size_of(f"@{self.size}")
        if found is None:
            raise InvalidInput(f"size is {self.size!r}; it must be HEIGHTxWIDTH", "size")
        return found


class PartGiven(Request, frozen=True, kw_only=True):
    """What a node, or a link, took of a job until it came here."""

    node: str
    exits: tuple[int, ...] = ()
    latency: Annotated[Milli, about(minimum=0)] = field(name="latency_ms")
    energy: Annotated[Milli | None, about(minimum=0)] = field(name="energy_mj", default=None)


class Parts(Request, frozen=True):
    """All that a job took until it came here, in order."""

    parts: tuple[PartGiven, ...]

    def given(self) -> tuple[Part, ...]:
        return tuple(each.to(Part) for each in self.parts)


class HistoryFields(Request, frozen=True):
    """How far back to look, and by how many seconds at a time; 0: by each window."""

    seconds: Annotated[float, Meta(ge=SHORTEST_HISTORY, le=LONGEST_HISTORY)] = 600.0
    step: Annotated[float, Meta(ge=0, le=LONGEST_HISTORY)] = 0.0


class EventFields(Request, frozen=True):
    """What to stream beside what happens."""

    figures: Annotated[bool, about("the event ``figures``, once a second")] = False


class Labels(Request, frozen=True):
    """The class of each answer by its request_id, as an index or a name."""

    labels: Annotated[
        dict[str, Annotated[Any, about(type=["integer", "string"])]], Meta(max_length=MOST_LABELS)
    ]


class BatteryChange(Request, frozen=True):
    """A battery to make last."""

    joules: Annotated[WattHours, _POSITIVE] = field(name="energy_wh")
    last: Annotated[float, _POSITIVE] = field(name="last_s")
    reserve: Annotated[WattHours, about(minimum=0)] = field(  # type: ignore[assignment]
        name="reserve_wh",
        default_factory=float,  # plain, as what is read is
    )


class PowerChange(Request, frozen=True):
    """New limits and mode. What is left out stays; null takes a limit away."""

    watt_cap: Annotated[float | None | UnsetType, _POSITIVE] = field(
        name="watt_cap_w", default=UNSET
    )
    battery: BatteryChange | None | UnsetType = UNSET
    mode: Annotated[str | UnsetType, about("name of a power mode, or its number as text")] = UNSET

    def changes(self) -> PowerChanges:
        return self.to(PowerChanges)


class BudgetChange(Request, frozen=True):
    """Joules that may be spent in every period."""

    joules: Annotated[float, _POSITIVE] = field(name="energy_j")
    period: Annotated[float, about(minimum=SHORTEST_PERIOD, maximum=LONGEST_PERIOD)] = field(
        name="period_s"
    )


class TenantChange(Request, frozen=True):
    """New settings of a tenant. What is left out stays; null takes it away."""

    budget: BudgetChange | None | UnsetType = field(name="energy_budget", default=UNSET)
    weight: Annotated[
        float | None | UnsetType, about(minimum=LEAST_WEIGHT, maximum=MOST_WEIGHT)
    ] = UNSET
    priority: Annotated[int | None | UnsetType, about(**_PRIORITIES)] = UNSET

    def changes(self) -> TenantChanges:
        """InvalidInput where nothing is named."""
        if self == TenantChange():
            names = self.__struct_encode_fields__
            raise InvalidInput(f"the body must name one of {', '.join(names)}", names[0])
        return self.to(TenantChanges)
