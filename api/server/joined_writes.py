"""A transport that sends the head of an answer together with what follows it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


class JoinedWrites(asyncio.Transport):
    """Writes to ``transport``. A head waits for the next piece, or for the loop's next turn: alone
    it would cost a second system call, and wake the client twice.

    ``has_answered`` once any of an answer was written. While it ``is_muted`` nothing is; then
    ``was_refused`` says that something was to be.
    """

    def __init__(
        self, transport: asyncio.Transport, call_soon: Callable[[Callable[[], None]], object]
    ) -> None:
        super().__init__()
        self._transport = transport
        self._call_soon = call_soon
        self._head = b""
        self.has_answered = self.is_muted = self.was_refused = False
        self.get_extra_info = transport.get_extra_info  # type: ignore[method-assign]
        self.is_closing = transport.is_closing  # type: ignore[method-assign]
        self.pause_reading = transport.pause_reading  # type: ignore[method-assign]
        self.resume_reading = transport.resume_reading  # type: ignore[method-assign]

    def write(self, data: Any) -> None:
        if self.is_muted:
            self.was_refused = True
            return
        self.has_answered = self.has_answered or not data.startswith(b"HTTP/1.1 1")
        if self._head:
            data, self._head = self._head + data, b""
        elif data.endswith(b"\r\n\r\n") and not data.startswith(b"HTTP/1.1 1"):
            self._head = data
            self._call_soon(self._flush)
            return
        self._transport.write(data)

    def close(self) -> None:
        if self.is_muted:
            return
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)
