"""A link in user space: TCP passes it at a rate that changes, with a delay, and losses as stalls.

It stands in for ``tc`` where namespaces or netem are not to be had. What is lost is not sent again
packet by packet, as TCP would: its connection stands still for a retransmission's time-out.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType

PACKET = 1448
"""Bytes that pass at once."""
RETRANSMISSION = 0.2
"""Least seconds after which Linux sends again what was lost."""

_LOOK_AGAIN = 0.01
_TICK = 0.001


class ThrottledLink:
    """A port of this machine behind which is ``host:port``; used with ``with``.

    What goes there passes one after the other at the rate that ``set_rate`` sets, and arrives
    ``delay`` seconds later; what comes back is delayed only. A packet is lost with the probability
    ``loss``.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        delay: float = 0.0,
        loss: float = 0.0,
        seed: int = 0,
    ) -> None:
        self._target = host, port
        self._rate = 1e9
        self._delay = delay
        self._loss = loss
        self._chance = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._free = 0.0
        self._passed = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def set_rate(self, bits: float) -> None:
        """Let ``bits`` a second through from now on; 0 lets nothing through."""
        self._rate = bits / 8

    def passed(self) -> int:
        """How many bytes it has let through."""
        return self._passed

    def __enter__(self) -> ThrottledLink:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            daemon, there = await asyncio.open_connection(*self._target)
            ways = [self._pass(client, there, self._up), self._pass(daemon, back, self._down)]
            await asyncio.gather(*ways)

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        arrival: Callable[[int], Awaitable[float]],
    ) -> None:
        """Everything from ``reader``, each packet at the time that ``arrival`` gives it."""
        arrived: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        delivery = asyncio.create_task(self._deliver(arrived, writer))
        with suppress(OSError):
            while packet := await reader.read(PACKET):
                arrived.put_nowait((await arrival(len(packet)), packet))
        arrived.put_nowait((self._loop.time() + self._delay, b""))
        await delivery

    async def _deliver(
        self, arrived: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            while True:
                at, packet = await arrived.get()
                await self._sleep_until(at)
                if not packet:
                    break
                writer.write(packet)
                await writer.drain()
        writer.close()

    async def _down(self, size: int) -> float:
        return self._loop.time() + self._delay

    async def _up(self, size: int) -> float:
        """Wait until ``size`` bytes are through; when they arrive."""
        left = float(size)
        while True:
            now = self._loop.time()
            start = max(now, self._free)
            rate = self._rate
            if rate * _LOOK_AGAIN >= left:
                break
            left -= max(0.0, rate * _LOOK_AGAIN)
            self._free = start + _LOOK_AGAIN
            await self._sleep_until(self._free)
        self._free = through = start + left / rate
        self._passed += size
        await self._sleep_until(through)
        is_lost = self._chance.random() < self._loss
        stall = max(RETRANSMISSION, 2 * self._delay) if is_lost else 0.0
        return through + self._delay + stall

    async def _sleep_until(self, at: float) -> None:
        if (left := at - self._loop.time()) > _TICK:
            await asyncio.sleep(left)
