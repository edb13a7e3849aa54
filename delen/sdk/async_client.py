"""The SDK for asyncio: ``AsyncClient``."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

import httpx

from delen.core.bounds import Bounds, OnInfeasible
from delen.core.energy_status import UNCHANGED, Battery, Settled, Unchanged
from delen.core.guarantee import Feedback
from delen.core.plan import Preview
from delen.core.result import EnergyOutcome
from delen.sdk.inputs import Input
from delen.sdk.polling import wait_settled_async
from delen.sdk.requests import (
    RETRIES,
    Call,
    Calls,
    check_open,
    connection_settings,
    unix_path,
    unreachable,
)
from delen.wire.answers import feedback_from_json, preview_from_json
from delen.wire.power import settled_from_json


class AsyncClient:
    """``Client`` for asyncio: the same methods, awaited."""

    def __init__(
        self,
        url: str | None = None,
        *,
        model: str | None = None,
        tenant: str = "default",
        timeout: float = 30.0,
        token: str | None = None,
    ) -> None:
        self._calls = Calls(model, tenant)
        self.url, settings = connection_settings(url, timeout, token)
        transport = httpx.AsyncHTTPTransport(uds=unix_path(self.url), retries=RETRIES)
        self._http = httpx.AsyncClient(transport=transport, **settings)

    async def infer(
        self,
        x: Input,
        *,
        max_latency: float | None = None,
        min_accuracy: float | None = None,
        max_energy: float | None = None,
        model: str | None = None,
        stream: str | None = None,
        priority: int | None = None,
        top_k: int = 1,
        on_infeasible: OnInfeasible = "reject",
        timeout: float | None = None,
    ) -> Any:
        """As ``Client.infer``."""
        bounds = Bounds(max_latency=max_latency, min_accuracy=min_accuracy, max_energy=max_energy)
        call = self._calls.infer(
            x,
            model,
            bounds,
            timeout,
            stream=stream,
            priority=priority,
            top_k=top_k,
            on_infeasible=on_infeasible,
        )
        return self._calls.results(await self._send(call), self._settle)

    async def plan(
        self,
        *,
        max_latency: float | None = None,
        min_accuracy: float | None = None,
        max_energy: float | None = None,
        model: str | None = None,
    ) -> Preview:
        """As ``Client.plan``."""
        bounds = Bounds(max_latency=max_latency, min_accuracy=min_accuracy, max_energy=max_energy)
        return preview_from_json(await self._send(self._calls.plan(model, bounds)))

    async def feedback(
        self, labels: Mapping[str, int | str], *, model: str | None = None
    ) -> Feedback:
        """As ``Client.feedback``."""
        return feedback_from_json(await self._send(self._calls.feedback(model, labels)))

    async def models(self) -> list[dict[str, Any]]:
        """As ``Client.models``."""
        models: list[dict[str, Any]] = (await self._send(Call("GET", "/v1/models")))["models"]
        return models

    async def load(self, model: str) -> dict[str, Any]:
        """As ``Client.load``."""
        description: dict[str, Any] = await self._send(self._calls.change(model, "load"))
        return description

    async def unload(self, model: str) -> dict[str, Any]:
        """As ``Client.unload``."""
        description: dict[str, Any] = await self._send(self._calls.change(model, "unload"))
        return description

    async def power(self) -> dict[str, Any]:
        """As ``Client.power``."""
        description: dict[str, Any] = await self._send(Call("GET", "/v1/power"))
        return description

    async def power_history(self, seconds: float = 600.0) -> list[dict[str, Any]]:
        """As ``Client.power_history``."""
        call = self._calls.power_history(seconds)
        windows: list[dict[str, Any]] = (await self._send(call))["windows"]
        return windows

    async def set_power(
        self,
        *,
        watt_cap: float | Unchanged | None = UNCHANGED,
        battery: Battery | Unchanged | None = UNCHANGED,
        mode: str | Unchanged = UNCHANGED,
    ) -> dict[str, Any]:
        """As ``Client.set_power``."""
        call = self._calls.set_power(watt_cap, battery, mode)
        description: dict[str, Any] = await self._send(call)
        return description

    async def request(self, request_id: str) -> Settled:
        """As ``Client.request``."""
        return settled_from_json(await self._send(self._calls.request(request_id)))

    async def _settle(self, request_id: str, timeout: float) -> EnergyOutcome:
        return await wait_settled_async(lambda: self.request(request_id), request_id, timeout)

    async def tenants(self) -> dict[str, Any]:
        """As ``Client.tenants``."""
        tenants: dict[str, Any] = (await self._send(Call("GET", "/v1/tenants")))["tenants"]
        return tenants

    async def set_tenant(
        self,
        name: str,
        *,
        energy: float | Unchanged | None = UNCHANGED,
        period: float | Unchanged | None = UNCHANGED,
        weight: float | Unchanged | None = UNCHANGED,
        priority: int | Unchanged | None = UNCHANGED,
    ) -> dict[str, Any]:
        """As ``Client.set_tenant``."""
        call = self._calls.set_tenant(name, energy, period, weight, priority)
        description: dict[str, Any] = await self._send(call)
        return description

    async def _send(self, call: Call) -> Any:
        check_open(self._http.is_closed)
        try:
            response = await self._http.request(**call.arguments())
        except httpx.TransportError as error:
            raise unreachable(self.url, error) from error
        return self._calls.read(response)

    async def close(self) -> None:
        """Close the pooled connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
