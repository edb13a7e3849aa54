"""The SDK for asyncio: ``AsyncClient``."""

from __future__ import annotations

from asyncio import get_running_loop
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate

from delen.core.result import EnergyOutcome
from delen.sdk.address import given_url, is_hub
from delen.sdk.call import Call, P, Settle, T, like, of_class
from delen.sdk.connection import Connections
from delen.sdk.http import Answer, Late, Transport, Unanswered, Unconnected
from delen.sdk.meter import AsyncMeter, Meters
from delen.sdk.polling import wait_settled_async
from delen.sdk.pools import AsyncPool
from delen.sdk.requests import Calls

if TYPE_CHECKING:
    from delen.sdk.routes.route import TakenRoute
    from delen.sdk.routes.tasks import RoutedTasks


def _sent(
    build: Callable[Concatenate[Calls, P], Call[T]],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    """The method that sends what ``build`` builds and returns its answer."""
    build = of_class("AsyncClient", build)

    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._send(build(self._calls, *args, **kwargs))

    return like(build, method)


class _OneDaemon:
    """The calls of a client of one daemon."""

    route = None

    def __init__(
        self, url: str | None, timeout: float, token: str | None, ca_file: str | None
    ) -> None:
        self._connections = Connections(AsyncPool, url, timeout, token, ca_file)
        self.timeout = self._connections.timeout

    @property
    def url(self) -> str:
        return self._connections.url

    @property
    def transport(self) -> Transport:
        return self._connections.transport

    async def answer(self, call: Call[T], timeout: float, settle: Settle) -> T:
        try:
            reply = await self._exchange(call, timeout)
        except (Unconnected, Unanswered, Late) as error:
            raise self._connections.unreachable(error) from error
        return call.answer(reply, settle)

    async def _exchange(self, call: Call[T], timeout: float) -> Answer:
        loop = get_running_loop()
        request, (endpoint, pool) = call.request, self._connections.pool(loop)
        try:
            return await pool.exchange(request, timeout)
        except Unconnected:
            if not self._connections.look_again(endpoint.url):
                raise
        _, pool = self._connections.pool(loop)
        return await pool.exchange(request, timeout)

    async def close(self) -> None:
        if (pool := self._connections.close(get_running_loop())) is not None:
            await pool.close()


class AsyncClient:
    """``Client`` for asyncio: the same methods, awaited. Every event loop has its own connections,
    so that one client serves several ``asyncio.run``."""

    infer = _sent(Calls.infer)
    resume = _sent(Calls.resume)
    plan = _sent(Calls.plan)
    feedback = _sent(Calls.feedback)
    models = _sent(Calls.models)
    load = _sent(Calls.load)
    unload = _sent(Calls.unload)
    power = _sent(Calls.power)
    power_history = _sent(Calls.power_history)
    set_power = _sent(Calls.set_power)
    request = _sent(Calls.request)
    figures = _sent(Calls.figures)
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
        ca_file: str | None = None,
    ) -> None:
        self._calls = Calls(model, tenant)
        self._meters = Meters()
        self._way = _way(url, tenant, timeout, token, ca_file)

    def meter(self) -> AsyncMeter:
        """Joules and seconds of a block of calls: ``with client.meter() as m:``."""
        return AsyncMeter(self._meters)

    @property
    def url(self) -> str:
        """Where the daemon is, or the hub."""
        return self._way.url

    @property
    def transport(self) -> Transport:
        """How large inputs go there: ``shm`` through shared memory, ``unix`` or ``tcp``. The daemon
        is asked where that is not known yet."""
        return self._way.transport

    @property
    def route(self) -> TakenRoute | None:
        """Where a hub's client had its last answer from; None before that, and without a hub."""
        return self._way.route

    async def _send(self, call: Call[T]) -> T:
        timeout = self._way.timeout if call.timeout is None else call.timeout
        answer = await self._way.answer(call, timeout, self._settle)
        self._meters.take(answer)
        return answer

    async def _settle(self, request_id: str, timeout: float) -> EnergyOutcome:
        return await wait_settled_async(lambda: self.request(request_id), request_id, timeout)

    async def close(self) -> None:
        """Close the pooled connections of this event loop, and open no more."""
        await self._way.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


def _way(
    url: str | None, tenant: str, timeout: float, token: str | None, ca_file: str | None
) -> _OneDaemon | RoutedTasks:
    where = given_url(url)
    if not is_hub(where):
        return _OneDaemon(url, timeout, token, ca_file)
    from delen.sdk.routes.tasks import RoutedTasks

    return RoutedTasks(where, tenant, timeout, token, ca_file)
