"""The SDK: ``infer`` and ``Client``, over TCP or a Unix socket."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate

from delen.core.result import EnergyOutcome
from delen.sdk.address import URL_VARIABLE, given_url, is_hub
from delen.sdk.call import Call, P, Settle, T, like, of_class
from delen.sdk.connection import Connections
from delen.sdk.http import Answer, Late, Transport, Unanswered, Unconnected
from delen.sdk.inputs import Input
from delen.sdk.meter import Meter, Meters
from delen.sdk.polling import wait_settled
from delen.sdk.pools import Pool
from delen.sdk.requests import Calls

if TYPE_CHECKING:
    from delen.sdk.routes.route import TakenRoute
    from delen.sdk.routes.threads import RoutedThreads


def _sent(build: Callable[Concatenate[Calls, P], Call[T]]) -> Callable[Concatenate[Client, P], T]:
    """The method that sends what ``build`` builds and returns its answer."""
    build = of_class("Client", build)

    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._send(build(self._calls, *args, **kwargs))

    return like(build, method)


class _OneDaemon:
    """The calls of a client of one daemon."""

    route = None

    def __init__(
        self, url: str | None, timeout: float, token: str | None, ca_file: str | None
    ) -> None:
        self._connections = Connections(Pool, url, timeout, token, ca_file)
        self.timeout = self._connections.timeout

    @property
    def url(self) -> str:
        return self._connections.url

    @property
    def transport(self) -> Transport:
        return self._connections.transport

    def answer(self, call: Call[T], timeout: float, settle: Settle) -> T:
        try:
            reply = self._exchange(call, timeout)
        except (Unconnected, Unanswered, Late) as error:
            raise self._connections.unreachable(error) from error
        return call.answer(reply, settle)

    def _exchange(self, call: Call[T], timeout: float) -> Answer:
        request, (endpoint, pool) = call.request, self._connections.pool()
        try:
            return pool.exchange(request, timeout)
        except Unconnected:
            if not self._connections.look_again(endpoint.url):
                raise
        _, pool = self._connections.pool()
        return pool.exchange(request, timeout)

    def close(self) -> None:
        if (pool := self._connections.close()) is not None:
            pool.close()


class Client:
    """A connection pool to one daemon, or to all daemons of a hub. Safe to share between threads,
    and with forked processes, which open connections of their own.

    ``url`` is ``http://HOST:PORT``, ``https://HOST:PORT``, ``unix:///PATH`` or
    ``hub://HOST:PORT``; by default ``DELEN_URL``, the daemon's sockets, and TCP port 8000 are tried
    in this order, and again when the daemon is not there any more. ``timeout`` is how many seconds
    to wait for an answer, queueing included. ``token`` (by default from the file that
    ``DELEN_TOKEN_FILE`` names) opens guarded addresses. https trusts the certificates in
    ``ca_file``, by default in the file that ``DELEN_CA_FILE`` names, else the system's. Every
    method raises DaemonUnreachable when there is no answer, and the daemon's own error when it
    refuses.
    """

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

    def meter(self) -> Meter:
        """Joules and seconds of a block of calls: ``with client.meter() as m:``."""
        return Meter(self._meters)

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

    def _send(self, call: Call[T]) -> T:
        timeout = self._way.timeout if call.timeout is None else call.timeout
        answer = self._way.answer(call, timeout, self._settle)
        self._meters.take(answer)
        return answer

    def _settle(self, request_id: str, timeout: float) -> EnergyOutcome:
        return wait_settled(lambda: self.request(request_id), request_id, timeout)

    def close(self) -> None:
        """Close the pooled connections."""
        self._way.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _way(
    url: str | None, tenant: str, timeout: float, token: str | None, ca_file: str | None
) -> _OneDaemon | RoutedThreads:
    where = given_url(url)
    if not is_hub(where):
        return _OneDaemon(url, timeout, token, ca_file)
    from delen.sdk.routes.threads import RoutedThreads

    return RoutedThreads(where, tenant, timeout, token, ca_file)


def infer(x: Input, **arguments: Any) -> Any:
    """``Client.infer`` on a client that is kept."""
    return _kept_client(os.environ.get(URL_VARIABLE)).infer(x, **arguments)


@lru_cache(maxsize=8)
def _kept_client(url: str | None) -> Client:
    return Client(url)
