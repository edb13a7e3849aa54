"""``delen.AsyncFused``: ``Fused`` for asyncio, with tasks."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from numpy.typing import NDArray

from delen.core.result import Result
from delen.errors import DaemonUnreachable
from delen.streams.fused_core import (
    PATIENCE,
    FusedCore,
    FusedCounts,
    FusedResult,
    Sending,
)
from delen.streams.place import AsyncAnswerer, AsyncPlace
from policies.client.fusion import PERIOD, THRESHOLD


class AsyncFused(FusedCounts):
    """``Fused`` for asyncio, with the same settings. ``local`` and ``remote`` are an
    ``AsyncClient`` each, or an engine, which answers in a thread. Frames are answered in the order
    of the calls."""

    def __init__(
        self,
        local: AsyncAnswerer,
        remote: AsyncAnswerer,
        *,
        period: int = PERIOD,
        threshold: float = THRESHOLD,
        alpha: float | Literal["similarity"] | None = None,
        patience: float = PATIENCE,
        in_flight: int = 2,
    ) -> None:
        super().__init__(
            FusedCore(
                period=period,
                threshold=threshold,
                alpha=alpha,
                patience=patience,
                in_flight=in_flight,
            )
        )
        self._local = AsyncPlace(local, "local")
        self._remote = AsyncPlace(remote, "remote")
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def infer(
        self,
        frame: Any,
        *,
        feature: NDArray[Any] | None = None,
        max_latency: float | None = None,
        min_accuracy: float | None = None,
        max_energy: float | None = None,
    ) -> FusedResult:
        """As ``Fused.infer``."""
        core = self._core
        async with self._turn:
            here = await asyncio.to_thread(core.take, frame, feature)
            sending = core.due(here)
            self._send(sending)
            try:
                result = await self._local.infer(
                    here.content,
                    max_latency=max_latency,
                    min_accuracy=min_accuracy,
                    max_energy=max_energy,
                    on_infeasible="best_effort",
                )
            except BaseException:
                core.failed(sending)
                raise
            fused, settled = core.answered(here, result, sending, self._local.classes)
            self._send(settled)
            return fused

    def result(self, frame: int) -> FusedResult:
        """What is believed of frame number ``frame`` by now. InvalidInput where it is forgotten."""
        return self._core.result(frame, self._local.classes)

    async def wait(self) -> None:
        """Until no frame is under way to the remote network: ``patience`` seconds at most."""
        if self._tasks:
            await asyncio.wait(self._tasks)  # whoever gives up waiting ends none of them

    def _send(self, sending: Sending | None) -> None:
        """Begin to ask the remote network."""
        if sending is None:
            return
        task = asyncio.create_task(self._ask(sending))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, sending: Sending) -> None:
        """Ask the remote network, which may fail in whatever way it likes."""
        outcome: Result | Exception = DaemonUnreachable("the frame's task was cancelled")
        try:
            arguments = self._remote.within(self._core.patience)
            outcome = await self._remote.infer(sending.content, **arguments)
        except Exception as error:
            outcome = error
        finally:
            self._core.ended(sending, outcome, self._remote.classes, self._local.classes)
