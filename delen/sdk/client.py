"""The SDK: ``infer`` and ``Client``, over TCP or a Unix socket."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from types import TracebackType
from typing import Any, Concatenate

import httpx

from delen.core.result import EnergyOutcome
from delen.sdk.inputs import Input
from delen.sdk.polling import wait_settled
from delen.sdk.requests import (
    RETRIES,
    Call,
    Calls,
    P,
    T,
    check_open,
    connection_settings,
    find_url,
    like,
    unix_path,
    unreachable,
)


def _sent(build: Callable[Concatenate[Calls, P], Call[T]]) -> Callable[Concatenate[Client, P], T]:
    """The method that sends what ``build`` builds and returns its answer."""

    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._send(build(self._calls, *args, **kwargs))

    return like(build, method)


class Client:
    """A connection pool to one daemon. Safe to share between threads.

    ``url`` is ``http://HOST:PORT`` or ``unix:///PATH``; by default ``DELEN_URL``, the daemon's
    sockets, and TCP port 8000 are tried in this order. ``timeout`` is how many seconds to wait
    for an answer, queueing included. ``token`` (by default from the file that
    ``DELEN_TOKEN_FILE`` names) opens guarded addresses. Every method raises DaemonUnreachable
    when there is no answer, and the daemon's own error when it refuses.
    """

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
        transport = httpx.HTTPTransport(uds=unix_path(self.url), retries=RETRIES)
        self._http = httpx.Client(transport=transport, **settings)

    def _send(self, call: Call[T]) -> T:
        check_open(self._http.is_closed)
        try:
            response = self._http.request(**call.arguments())
        except httpx.TransportError as error:
            raise unreachable(self.url, error) from error
        return call.answer(response, self._settle)

    def _settle(self, request_id: str, timeout: float) -> EnergyOutcome:
        return wait_settled(lambda: self.request(request_id), request_id, timeout)

    def close(self) -> None:
        """Close the pooled connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def infer(x: Input, **arguments: Any) -> Any:
    """``Client.infer`` on a client that is kept for this process."""
    return _kept_client(find_url(), os.getpid()).infer(x, **arguments)


@lru_cache(maxsize=8)
def _kept_client(url: str, process: int) -> Client:
    return Client(url)
