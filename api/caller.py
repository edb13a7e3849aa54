"""Where a request comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from flask import request

from api.server.asgi import Scope
from api.server.connection import KEY, Connection


class Caller(NamedTuple):
    """Where a request comes from, as its connection and its head say: ``peer`` is the address at
    the other end, None or empty of a Unix socket, and ``user`` asks the kernel whose process is
    there. What a protocol does not say is empty."""

    peer: str | None
    user: Callable[[], int | None] = lambda: None
    host: str = ""
    origin: str = ""
    authorization: str = ""
    content_type: str = ""

    @classmethod
    def of(cls, scope: Scope, headers: Mapping[bytes, bytes]) -> Caller:
        """Of a request over HTTP."""
        peer, connection = scope["client"], scope["state"][KEY]

        def text(name: bytes) -> str:
            return headers.get(name, b"").decode("latin-1")

        return cls(
            peer and peer[0],
            lambda: connection.user,
            text(b"host"),
            text(b"origin"),
            text(b"authorization"),
            text(b"content-type"),
        )

    @classmethod
    def of_flask(cls) -> Caller:
        """Of the request that Flask answers."""
        sender, headers = FlaskSender(), request.headers
        return cls(
            request.remote_addr,
            lambda: sender.user,
            headers.get("Host", ""),
            headers.get("Origin", ""),
            headers.get("Authorization", ""),
            headers.get("Content-Type", ""),
        )


def flask_connection() -> Connection | None:
    """That on which the request came that Flask answers; None of one that was made up."""
    scope = request.environ.get("asgi.scope")
    connection: Connection | None = None if scope is None else scope["state"][KEY]
    return connection


class FlaskSender:
    """Who sent the request that Flask answers."""

    @property
    def user(self) -> int | None:
        connection = flask_connection()
        return None if connection is None else connection.user
