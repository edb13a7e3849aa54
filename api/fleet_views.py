"""The views of a daemon in a fleet: what it says of itself, and what it is asked to do."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from flask import Response, request
from msgspec import Raw

from api.guard import guarded
from api.parse import query_text, read_query, read_request
from api.reply import Reply
from delen.core.bounds import check_name, check_not_negative
from delen.engine.runtime import Runtime
from delen.engine.standing import ModelStanding, Points
from delen.errors import InvalidInput, ModelNotFound
from delen.wire.fleet import (
    Ceiling,
    Directives,
    DirectivesInForce,
    Standing,
    StandingModel,
    StandingPoint,
    TenantPrice,
)
from delen.wire.message import Milli, write_all
from delen.wire.requests import NoFields
from policies.fleet.api import Ceiling as CeilingInForce
from policies.fleet.api import Directive, Price

STANDING = "/v1/standing"
DIRECTIVES = "/v1/directives"
MOST_DIRECTIVES = 262_144
"""Bytes of a body that names as much as may be named, in names of 64 letters."""

Routes = Sequence[tuple[str, Callable[..., Response], list[str]]]


class FleetViews:
    """Views over a Runtime, and what they answer, for who asks once a second. What is said of a
    model's points is written once."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._written: dict[str, tuple[Points, Raw]] = {}

    def routes(self) -> Routes:
        return [
            (STANDING, self.standing, ["GET"]),
            (DIRECTIVES, self.directives, ["GET"]),
            (DIRECTIVES, self.set_directives, ["PUT"]),
        ]

    def standing(self) -> Response:
        return self.answer_standing(query_text()).to_flask()

    def directives(self) -> Response:
        return self.answer_directives(query_text()).to_flask()

    @guarded
    def set_directives(self) -> Response:
        return self.obey(query_text(), request.get_data()).to_flask()

    def answer_standing(self, query: str) -> Reply:
        read_query(NoFields, query)
        now = self._runtime.standing()
        message = Standing(
            node=self._runtime.node,
            time=time.time(),
            models=tuple(map(self._describe, now.models)),
            backlog=Milli(now.backlog),
            slowdown=now.slowdown,
            utilisation=now.utilisation,
            price=0.0,
            price_per_joule=now.price_per_joule,
        )
        return Reply.of(message)

    def _describe(self, model: ModelStanding) -> StandingModel:
        points, written = self._written.get(model.name, ((), Raw()))
        if points is not model.points:
            written = Raw(write_all(map(StandingPoint.of, model.points)))
            self._written[model.name] = model.points, written
        return StandingModel(
            name=model.name,
            bundle=model.bundle,
            resident=not model.load,
            load=Milli(model.load),
            points=cast("Any", written),
        )

    def answer_directives(self, query: str) -> Reply:
        read_query(NoFields, query)
        return Reply.of(self._in_force())

    def obey(self, query: str, body: bytes) -> Reply:
        """Obey what is named from now on, and answer as ``answer_directives`` does."""
        asked = read_request(Directives, query, body)
        try:
            self._runtime.directives.obey(self._directive(asked))
        except ModelNotFound as error:
            raise InvalidInput(f"resident: {error}", "resident") from None
        return Reply.of(self._in_force())

    def _directive(self, asked: Directives) -> Directive:
        names_something = asked.ceilings or asked.prices or asked.resident
        if names_something and asked.lease is None:
            raise InvalidInput("lease_s is needed: for how long the directives hold", "lease_s")
        for field in ("ceilings", "prices"):
            for tenant in getattr(asked, field):
                check_name(tenant, field)
        return Directive(
            self._runtime.node,
            time.monotonic(),
            asked.lease or 0.0,
            {
                tenant: CeilingInForce(ceiling.exit, ceiling.size)
                for tenant, ceiling in asked.ceilings.items()
            },
            {
                tenant: Price(
                    check_not_negative(price.per_second, "per_second"),
                    check_not_negative(price.per_joule, "per_joule"),
                )
                for tenant, price in asked.prices.items()
            },
            tuple(dict.fromkeys(asked.resident)),
        )

    def _in_force(self) -> DirectivesInForce:
        led = self._runtime.directives.in_force()
        if led is None:
            return DirectivesInForce(None, {}, {}, (), {})
        directive, left = led
        missing = {name: self._runtime.missing(name) for name in directive.resident}
        return DirectivesInForce(
            left=left,
            ceilings={name: Ceiling.of(each) for name, each in directive.ceilings.items()},
            prices={name: TenantPrice.of(each) for name, each in directive.prices.items()},
            resident=directive.resident,
            not_resident={name: why for name, why in missing.items() if why is not None},
        )
