"""A daemon as a replay's target.

It sends what was encoded before, over the connections of the SDK: a load generator that shares its
device with the daemon must not slow it down.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from delen.core.bounds import OnInfeasible, Options
from delen.core.result import Result
from delen.errors import DaemonUnreachable, DelenError
from delen.replay.inputs import Inputs
from delen.sdk.http import Endpoint, Request, Unanswered, Unconnected
from delen.sdk.pools import AsyncPool
from delen.sdk.requests import infer_target
from delen.simulate.trace import Arrival
from delen.wire import answers
from delen.wire.errors import read_error
from delen.wire.message import read_answer

_GONE = (ConnectionRefusedError, ConnectionResetError, FileNotFoundError)


class HttpTarget:
    """The daemon at ``url``; requests that name no model send inputs of ``default``.

    Connections are kept and used again; there are as many as there are requests under way.
    """

    def __init__(
        self,
        url: str,
        inputs: Mapping[str, Inputs],
        default: str,
        on_infeasible: OnInfeasible = "reject",
    ) -> None:
        self.url = url
        self._bodies = {name: of_model.bodies for name, of_model in inputs.items()}
        self._default = default
        self._on_infeasible = on_infeasible
        self._pool = AsyncPool(Endpoint.of(url, None))

    async def ask(self, arrival: Arrival, number: int) -> Result:
        body = self._bodies[arrival.model or self._default][number]
        options = Options(
            tenant=arrival.tenant,
            stream=arrival.stream,
            priority=arrival.priority,
            on_infeasible=self._on_infeasible,
        )
        address = infer_target(arrival.model, arrival.bounds, options)
        request = Request("POST", address, body.pieces, body.media_type)
        try:
            status, answer = await self._pool.exchange(request, None)
        except Unconnected as error:
            raise self._unreachable(error) from error
        except Unanswered as error:
            raise ConnectionError(str(error)) from error
        if status != 200:
            raise read_error(answer, status)
        try:
            return read_answer(answers.Result, answer).to(Result)
        except msgspec.DecodeError as error:
            raise DelenError(f"the daemon's answer is not as expected: {error}") from error

    async def check(self) -> None:
        try:
            await self._pool.connect()
        except Unconnected as error:
            raise self._unreachable(error) from error

    async def close(self) -> None:
        await self._pool.close()

    def _unreachable(self, error: Unconnected) -> Exception:
        if isinstance(error.__cause__, _GONE):
            return DaemonUnreachable(f"no daemon answers at {self.url} ({error})")
        return OSError(str(error))
