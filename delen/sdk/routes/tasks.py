"""The calls of a hub's client, made in the event loop that runs."""

from __future__ import annotations

from asyncio import AbstractEventLoop, Task, get_running_loop
from contextlib import suppress

from delen.errors import DelenError
from delen.sdk.call import Call, Settle, T
from delen.sdk.connection import Connections
from delen.sdk.http import Late, Unanswered, Unconnected, of_https
from delen.sdk.pools import AsyncPool
from delen.sdk.routes.router import R, Router, Steps


class RoutedTasks(Router[AsyncPool]):
    """Renewals are tasks of the loop, which ends them where it ends first."""

    def __init__(
        self, url: str, tenant: str, timeout: float, token: str | None, ca_file: str | None
    ) -> None:
        super().__init__(
            url,
            tenant,
            lambda node: Connections(AsyncPool, node, timeout, token, of_https(node, ca_file)),
            self._begin,
        )
        self._tasks: set[Task[None]] = set()

    async def answer(self, call: Call[T], timeout: float, settle: Settle) -> T:
        return await _run(self.send(call, timeout, settle), get_running_loop())

    async def close(self) -> None:
        loop = get_running_loop()
        for task in [task for task in self._tasks if task.get_loop() is loop]:
            task.cancel()
        for connections in self.all_connections():
            if (pool := connections.close(loop)) is not None:
                await pool.close()

    def _begin(self, steps: Steps[None]) -> None:
        loop = get_running_loop()
        task = loop.create_task(_run_beside(steps, loop), name="delen-route")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _run(steps: Steps[R], loop: AbstractEventLoop) -> R:
    try:
        step = next(steps)
        while True:
            _, pool = step.connections.pool(loop)
            try:
                reply = await pool.exchange(step.request, step.timeout)
            except (Unconnected, Unanswered, Late, DelenError) as error:
                step = steps.throw(error)
            else:
                step = steps.send(reply)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]


async def _run_beside(steps: Steps[None], loop: AbstractEventLoop) -> None:
    with suppress(DelenError):  # of a client that was closed meanwhile
        await _run(steps, loop)
