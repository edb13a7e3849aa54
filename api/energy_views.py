"""The views of power, its history, tenants and settled requests."""

from __future__ import annotations

from collections.abc import Callable

from flask import Response, request

from api.caller import Caller, FlaskSender
from api.exchange import ESCAPED_SLASH
from api.guard import Guard, guarded
from api.parse import AnyRequest, query_text, read_query, read_request
from api.reply import reply
from api.tenant_access import TenantAccess
from delen.core.bounds import check_name
from delen.core.energy_status import EnergyService
from delen.errors import NotFound
from delen.wire.answers import SettledRequest
from delen.wire.power import Power, PowerHistory, Window
from delen.wire.requests import HistoryFields, NoFields, PowerChange, TenantChange
from delen.wire.tenants import Fairness, Tenant, Tenants


class EnergyViews:
    """Views over an EnergyService. Receipts of a tenant that is bound to users are shown to those
    ``tenants`` lets see them, and to whoever has the token of ``guard``."""

    def __init__(self, service: EnergyService, tenants: TenantAccess, guard: Guard) -> None:
        self._service = service
        self._access = tenants
        self._guard = guard

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
        read_query(NoFields, query_text())
        return reply(Power.of(self._service.describe()))

    @guarded
    def set_power(self) -> Response:
        """Change what is named, and answer as ``power`` does."""
        self._service.set_limits(_read(PowerChange).changes())
        return reply(Power.of(self._service.describe()))

    def power_history(self) -> Response:
        asked = read_query(HistoryFields, query_text())
        windows = self._service.history(asked.seconds, asked.step)
        return reply(PowerHistory(tuple(map(Window.of, windows))))

    def past_request(self, request_id: str) -> Response:
        read_query(NoFields, query_text())
        settled = self._service.receipt(request_id)
        if settled is None or not self._may_read(settled.tenant):
            raise NotFound(
                f"request {request_id!r} was not answered here, or its receipt is no longer kept"
            )
        return reply(SettledRequest.of(settled))

    def _may_read(self, tenant: str) -> bool:
        is_own = self._access.may_read(tenant, FlaskSender())
        return is_own or self._guard.is_operator(Caller.of_flask())

    def tenants(self) -> Response:
        read_query(NoFields, query_text())
        tenants = sorted(self._service.tenants().items())
        described = {name: Tenant.of(each) for name, each in tenants}
        return reply(Tenants(described, Fairness.of(self._service.fairness())))

    @guarded
    def set_tenant(self, tenant: str) -> Response:
        """Change what is named, and answer as ``tenants`` does of this one."""
        name = check_name(tenant.replace(ESCAPED_SLASH, "/"), "tenant")
        changes = _read(TenantChange).changes()
        return reply(Tenant.of(self._service.set_tenant(name, changes)))


def _read(kind: type[AnyRequest]) -> AnyRequest:
    return read_request(kind, query_text(), request.get_data())
