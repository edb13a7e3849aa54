"""``GET /v1/events``: what happens, as server-sent events, on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from api.dashboard.feed import FiguresFeed
from api.exchange import HttpRequest
from api.parse import read_query
from api.reply import Headers, Reply
from delen.core.events import Event, EventBus
from delen.errors import InvalidInput, Overloaded
from delen.wire import events as wire
from delen.wire.message import Message, write
from delen.wire.requests import EventFields

EVENT_STREAM = "text/event-stream"

_HEADERS: Headers = (
    (b"content-type", EVENT_STREAM.encode()),
    (b"cache-control", b"no-store"),
)
_MOST_READERS = 64
_HEARTBEAT = 15.0
_BEGIN = b"retry: 2000\n\n"
_STILL_HERE = b":\n\n"


class EventAddress:
    """Streams what ``events`` publishes, and the figures of ``feed`` to who asks for them, to at
    most ``_MOST_READERS`` clients at once, until the daemon drains."""

    def __init__(self, events: EventBus, feed: FiguresFeed) -> None:
        self._events = events
        self._feed = feed
        self._readers = 0

    def answer(self, request: HttpRequest, http_version: str) -> Reply:
        figures = read_query(EventFields, request.query).figures
        if request.method == "HEAD":
            return Reply(b"", headers=_HEADERS)
        if http_version == "1.0":
            raise InvalidInput("events are streamed in chunks, which need HTTP/1.1")
        if self._readers >= _MOST_READERS:
            raise Overloaded(f"{_MOST_READERS} clients read events already", retry_after=1.0)
        self._readers += 1
        return Reply(b"", headers=_HEADERS, stream=self._stream(request, figures))

    async def _stream(self, request: HttpRequest, figures: bool) -> AsyncGenerator[bytes, None]:
        loop, has_news = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(has_news.set)

        last_id = request.headers.get(b"last-event-id", b"").decode("latin-1")
        reader = self._events.read(wake, last_id or None)
        request.connection.on_gone = has_news.set
        has_news.set()
        if figures:
            self._feed.join(has_news.set)
        seen = self._feed.count
        try:
            yield _BEGIN
            while not request.connection.is_gone:
                try:
                    await asyncio.wait_for(has_news.wait(), _HEARTBEAT)
                except asyncio.TimeoutError:
                    yield _STILL_HERE
                    continue
                has_news.clear()
                lost, events = reader.take()
                if lost:
                    yield _written("lost", wire.Lost(lost))
                for event in events:
                    yield self._write(event)
                    if event.name == "draining":
                        return
                if figures and self._feed.latest is not None and self._feed.count > seen:
                    seen = self._feed.count
                    yield _written("figures", self._feed.latest)
        finally:
            if figures:
                self._feed.leave(has_news.set)
            reader.close()
            self._readers -= 1

    def _write(self, event: Event) -> bytes:
        data = wire.Event(event.time, **event.fields)
        return b"id: %s\n" % self._events.id_of(event).encode() + _written(event.name, data)


def _written(name: str, data: Message) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), write(data))
