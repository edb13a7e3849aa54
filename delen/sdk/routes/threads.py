"""The calls of a hub's client, made by whichever thread makes them."""

from __future__ import annotations

import threading
from contextlib import suppress

from delen.errors import DelenError
from delen.sdk.call import Call, Settle, T
from delen.sdk.connection import Connections
from delen.sdk.http import Late, Unanswered, Unconnected, of_https
from delen.sdk.pools import Pool
from delen.sdk.routes.router import R, Router, Steps


class RoutedThreads(Router[Pool]):
    """Renewals run in threads of their own, which end after one."""

    def __init__(
        self, url: str, tenant: str, timeout: float, token: str | None, ca_file: str | None
    ) -> None:
        super().__init__(
            url,
            tenant,
            lambda node: Connections(Pool, node, timeout, token, of_https(node, ca_file)),
            _start,
        )

    def answer(self, call: Call[T], timeout: float, settle: Settle) -> T:
        return _run(self.send(call, timeout, settle))

    def close(self) -> None:
        for connections in self.all_connections():
            if (pool := connections.close()) is not None:
                pool.close()


def _run(steps: Steps[R]) -> R:
    try:
        step = next(steps)
        while True:
            _, pool = step.connections.pool()
            try:
                reply = pool.exchange(step.request, step.timeout)
            except (Unconnected, Unanswered, Late, DelenError) as error:
                step = steps.throw(error)
            else:
                step = steps.send(reply)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]


def _start(steps: Steps[None]) -> None:
    threading.Thread(target=_run_beside, args=(steps,), name="delen-route", daemon=True).start()


def _run_beside(steps: Steps[None]) -> None:
    with suppress(DelenError):  # of a client that was closed meanwhile
        _run(steps)
