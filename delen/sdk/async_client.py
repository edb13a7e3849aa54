"""The SDK for asyncio: ``AsyncClient``."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Concatenate

import httpx

from delen.core.result import EnergyOutcome
from delen.sdk.polling import wait_settled_async
from delen.sdk.requests import (
    RETRIES,
    Call,
    Calls,
    P,
    T,
    check_open,
    connection_settings,
    like,
    unix_path,
    unreachable,
)


def _sent(
    build: Callable[Concatenate[Calls, P], Call[T]],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    """The method that sends what ``build`` builds and returns its answer."""

    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._send(build(self._calls, *args, **kwargs))

    return like(build, method)


class AsyncClient:
    """``Client`` for asyncio: the same methods, awaited."""

    infer = _sent(Calls.infer)
    plan = _sent(Calls.plan)
    feedback = _sent(Calls.feedback)
    models = _sent(Calls.models)
    load = _sent(Calls.load)
    unload = _sent(Calls.unload)
    power = _sent(Calls.power)
    power_history = _sent(Calls.power_history)
    set_power = _sent(Calls.set_power)
    request = _sent(Calls.request)
    tenants = _sent(Calls.tenants)
    set_tenant = _sent(Calls.set_tenant)

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

    async def _send(self, call: Call[T]) -> T:
        check_open(self._http.is_closed)
        try:
            response = await self._http.request(**call.arguments())
        except httpx.TransportError as error:
            raise unreachable(self.url, error) from error
        return call.answer(response, self._settle)

    async def _settle(self, request_id: str, timeout: float) -> EnergyOutcome:
        return await wait_settled_async(lambda: self.request(request_id), request_id, timeout)

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
