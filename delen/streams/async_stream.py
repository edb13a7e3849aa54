"""``delen.AsyncStream``: ``Stream`` for asyncio, with tasks."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from contextlib import suppress
from queue import SimpleQueue
from types import TracebackType
from typing import Any

from delen.errors import DelenError
from delen.sdk.async_client import AsyncClient
from delen.streams.core import PATIENCE, StreamCore, StreamCounts, check_given
from delen.streams.frames import Frame, FrameResult
from delen.streams.model import Encoding, StreamedModel
from policies.client.api import ClientController

_END = object()


class AsyncStream(StreamCounts):
    """``Stream`` for asyncio, with the same settings: enter it and iterate with ``async``.

    ``frames`` may be an asynchronous iterator; any other runs in a thread. ``put`` and ``end`` are
    called in the event loop, once the stream is entered.
    """

    def __init__(
        self,
        client: AsyncClient,
        frames: AsyncIterable[Any] | Iterable[Any] | None = None,
        *,
        deadline: float = 0.1,
        fps: float = 30.0,
        controller: str | ClientController = "expected",
        in_flight: int | None = None,
        patience: float = PATIENCE,
        encoding: Encoding = "auto",
        name: str | None = None,
        priority: int | None = None,
        min_accuracy: float | None = None,
        max_energy: float | None = None,
    ) -> None:
        check_given(client, AsyncClient, frames, (AsyncIterable, Iterable))
        self._client = client
        self._frames = frames
        super().__init__(
            StreamCore(
                deadline=deadline,
                fps=fps,
                controller=controller,
                in_flight=in_flight,
                patience=patience,
                encoding=encoding,
                name=name,
                priority=priority,
                min_accuracy=min_accuracy,
                max_energy=max_energy,
            )
        )
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._reader: asyncio.Task[None] | None = None
        self._failure: BaseException | None = None
        self._is_closed = False

    def put(self, frame: Any) -> None:
        """A new frame, which must not change afterwards."""
        if self._frames is not None:
            raise DelenError("this stream takes its frames from its iterator, not by put()")
        if not self._core.has_begun:
            raise DelenError("enter this stream with `async with` before it takes frames")
        self._put(frame)

    def end(self) -> None:
        """No more frames come. Iterating ends after the last result."""
        self._core.state.end()
        self._changed.set()

    async def close(self) -> None:
        """Send nothing more, and wait for what is under way."""
        self._is_closed = True
        self.end()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def __aiter__(self) -> AsyncStream:
        return self

    async def __anext__(self) -> FrameResult:
        while True:
            self._changed.clear()
            if (result := self._core.take()) is not None:
                return result
            if self._is_closed or self._core.state.is_finished:
                if (failure := self._failure) is not None:
                    self._failure = None
                    raise failure
                raise StopAsyncIteration
            try:
                await asyncio.wait_for(self._changed.wait(), self._core.wait())
            except asyncio.TimeoutError:
                continue

    async def __aenter__(self) -> AsyncStream:
        if self._is_closed or self._core.state.is_finished:
            raise DelenError("this stream has ended; make another one")
        core, client = self._core, self._client
        preview = await client.plan()
        began = time.monotonic()
        models = await client.models()
        round_trip = time.monotonic() - began
        core.begin(StreamedModel.of(models, preview, client.url, core.encoding), round_trip)
        if self._frames is not None:
            self._reader = asyncio.create_task(self._read(self._frames))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _read(self, frames: AsyncIterable[Any] | Iterable[Any]) -> None:
        """Take what the source gives, as long as anybody wants it."""
        try:
            due = time.monotonic()
            async for frame in _async(frames):
                if not isinstance(frame, Frame):
                    await asyncio.sleep(due - time.monotonic())
                if self._core.state.has_ended:
                    return
                self._put(frame)
                due = max(due, time.monotonic() - self._core.period) + self._core.period
        except Exception as error:
            self._failure = self._failure or error
        finally:
            self.end()

    def _put(self, frame: Any) -> None:
        self._core.put(frame)
        self._send()

    def _send(self) -> None:
        """Begin to send what can be sent now."""
        while not self._is_closed and (sending := self._core.send()) is not None:
            task = asyncio.create_task(self._exchange(sending))
            self._tasks.add(task)
            task.add_done_callback(self._end_exchange)

    async def _exchange(self, sending: Any) -> None:
        outcome: Any
        try:
            encoded = await asyncio.to_thread(self._core.encode, sending)
            arguments = self._core.arguments(sending, encoded)
            outcome = await self._client.infer(encoded.content, **arguments)
        except DelenError as error:
            outcome = error
        self._core.ended(sending, outcome)

    def _end_exchange(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)
        else:
            try:
                self._send()
            except Exception as error:
                self._fail(error)
        self._changed.set()

    def _fail(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self._is_closed = True
        self._core.state.end()


async def _async(frames: AsyncIterable[Any] | Iterable[Any]) -> AsyncIterator[Any]:
    """``frames``, one whenever it is asked for. The thread of an iterator that stalls keeps no
    process from ending."""
    if isinstance(frames, AsyncIterable):
        async for frame in frames:
            yield frame
        return
    loop = asyncio.get_running_loop()
    asked: SimpleQueue[asyncio.Future[Any] | None] = SimpleQueue()
    threading.Thread(
        target=_give, args=(iter(frames), asked, loop), name="delen-source", daemon=True
    ).start()
    try:
        while True:
            given = loop.create_future()
            asked.put(given)
            if (frame := await given) is _END:
                return
            yield frame
    finally:
        asked.put(None)


def _give(
    frames: Iterator[Any],
    asked: SimpleQueue[asyncio.Future[Any] | None],
    loop: asyncio.AbstractEventLoop,
) -> None:
    """Answer each future with the next frame, or with what the source raised."""

    def settle(future: asyncio.Future[Any], frame: Any, error: Exception | None) -> None:
        if future.cancelled():
            return
        if error is None:
            future.set_result(frame)
        else:
            future.set_exception(error)

    while (future := asked.get()) is not None:
        frame, error = None, None
        try:
            frame = next(frames, _END)
        except Exception as raised:
            error = raised
        with suppress(RuntimeError):  # the loop may be closed by now
            loop.call_soon_threadsafe(settle, future, frame, error)
