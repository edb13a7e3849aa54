"""What systemd is told of the daemon (sd_notify(3)), where systemd started it."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import MutableMapping

log = logging.getLogger("delen")

_EXTENSION = 30_000_000
"""Microseconds by which a start or a stop that goes on asks for more time, each time."""


class Notifier:
    """Sends to the socket that ``environment`` names, which no child of this process inherits;
    nowhere without one. What cannot be sent is lost: nobody may wait for a supervisor."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        address = environment.pop("NOTIFY_SOCKET", "")
        watched = environment.pop("WATCHDOG_USEC", "")
        process = environment.pop("WATCHDOG_PID", "")
        is_mine = process in ("", str(os.getpid()))
        self._watchdog = int(watched) / 1e6 if is_mine and watched.isdecimal() else None
        self._status = ""
        self._socket: socket.socket | None = None
        if not address.startswith(("/", "@")):
            return
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        opened.setblocking(False)
        try:
            opened.connect(f"\0{address[1:]}" if address.startswith("@") else address)
        except OSError as error:
            opened.close()
            log.warning("systemd cannot be told of the daemon: %s: %s", address, error)
            return
        self._socket = opened

    @property
    def feeds_every(self) -> float | None:
        """Seconds between two calls of ``feed``, half of what the watchdog waits; None without a
        watchdog."""
        return None if self._watchdog is None else self._watchdog / 2

    def starting(self, status: str) -> None:
        """The start goes on, and takes a while yet."""
        self._send(f"EXTEND_TIMEOUT_USEC={_EXTENSION}", *self._news(status))

    def ready(self, status: str) -> None:
        """Requests are served, at first or after a reload."""
        self._status = ""
        self._send("READY=1", *self._news(status))

    def status(self, status: str) -> None:
        """What the daemon does now, for people; sent when it changes."""
        self._send(*self._news(status))

    def reloading(self) -> None:
        """A reload begins, which ``ready`` ends."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str) -> None:
        self._send("STOPPING=1", *self._news(status))

    def feed(self) -> None:
        """All goes on: the watchdog is to wait anew."""
        if self._watchdog is not None:
            self._send("WATCHDOG=1")

    def _news(self, status: str) -> list[str]:
        is_news, self._status = status != self._status, status
        return [f"STATUS={' '.join(status.split())}"] if is_news else []

    def _send(self, *fields: str) -> None:
        if self._socket is None or not fields:
            return
        try:
            self._socket.send("\n".join(fields).encode())
        except OSError as error:
            log.debug("systemd was not told %s: %s", fields, error)
