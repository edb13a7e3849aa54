"""The views of power, its history, tenants and settled requests."""

from __future__ import annotations

from collections.abc import Callable

from flask import Response, request

from api.guard import Guard
from api.parse import read_body, read_json, read_query
from api.reply import reply
from delen.core.bounds import check_name
from delen.core.energy_status import LONGEST_HISTORY, SHORTEST_HISTORY, EnergyService
from delen.errors import InvalidInput, NotFound
from delen.wire.power import parse_changes, power_to_json, settled_to_json, window_to_json
from delen.wire.requests import check_known
from delen.wire.tenants import fairness_to_json, parse_tenant_changes, tenant_to_json

_DEFAULT_HISTORY = 600.0


class EnergyViews:
    """Views over an EnergyService. What changes something is behind ``guard``."""

    def __init__(self, service: EnergyService, guard: Guard, max_body: int) -> None:
        self._service = service
        self._guard = guard
        self._max_body = max_body

    def routes(self) -> list[tuple[str, Callable[..., Response], list[str]]]:
        return [
            ("/v1/power", self.power, ["GET"]),
            ("/v1/power", self.set_power, ["PUT"]),
            ("/v1/power/history", self.power_history, ["GET"]),
            ("/v1/requests/<request_id>", self.past_request, ["GET"]),
            ("/v1/tenants", self.tenants, ["GET"]),
            ("/v1/tenants/<path:tenant>", self.set_tenant, ["PUT"]),
        ]

    def power(self) -> Response:
        read_query(request.environ["QUERY_STRING"])
        return reply(power_to_json(self._service.describe()))

    def set_power(self) -> Response:
        """Change what is named, and answer as ``power`` does."""
        self._service.set_limits(parse_changes(self._read_change()))
        return reply(power_to_json(self._service.describe()))

    def power_history(self) -> Response:
        fields = read_query(request.environ["QUERY_STRING"], "seconds")
        seconds = fields.get("seconds", _DEFAULT_HISTORY)
        if not SHORTEST_HISTORY <= seconds <= LONGEST_HISTORY:
            raise InvalidInput(
                f"seconds is {seconds:g}; it must be from {SHORTEST_HISTORY:g} to "
                f"{LONGEST_HISTORY:g}",
                "seconds",
            )
        windows = self._service.history(seconds)
        return reply({"windows": [window_to_json(window) for window in windows]})

    def past_request(self, request_id: str) -> Response:
        read_query(request.environ["QUERY_STRING"])
        settled = self._service.receipt(request_id)
        if settled is None:
            raise NotFound(
                f"request {request_id!r} was not answered here, or its receipt is no longer kept"
            )
        return reply(settled_to_json(settled))

    def tenants(self) -> Response:
        read_query(request.environ["QUERY_STRING"])
        tenants = self._service.tenants()
        return reply(
            {
                "tenants": {name: tenant_to_json(each) for name, each in sorted(tenants.items())},
                "fairness": fairness_to_json(self._service.fairness()),
            }
        )

    def set_tenant(self, tenant: str) -> Response:
        """Change what is named, and answer as ``tenants`` does of this one."""
        check_name(tenant, "tenant")
        changes = parse_tenant_changes(self._read_change())
        return reply(tenant_to_json(self._service.set_tenant(tenant, changes)))

    def _read_change(self) -> dict[str, object]:
        self._guard.check(request)
        check_known(request.args)
        return read_json(read_body(request.environ, self._max_body))
