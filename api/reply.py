"""Answers, whoever sends them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import NamedTuple

from flask import Response

from delen.wire.message import Message, write

JSON = "application/json"

Headers = tuple[tuple[bytes, bytes], ...]
CLOSE: Headers = ((b"connection", b"close"),)
_JSON_HEADER: Headers = ((b"content-type", JSON.encode()),)


class Reply(NamedTuple):
    """The answer to one request. Its length is added where it is sent, unless ``headers`` say it
    (``has_length``). What ``stream`` gives is sent after ``body`` as it comes, in chunks."""

    body: bytes
    status: int = 200
    headers: Headers = _JSON_HEADER
    has_length: bool = False
    stream: AsyncGenerator[bytes, None] | None = None

    @classmethod
    def of(cls, message: Message, status: int = 200, headers: Headers = ()) -> Reply:
        return cls(write(message), status, _JSON_HEADER + headers)

    def to_flask(self) -> Response:
        headers = [(name.decode().title(), value.decode()) for name, value in self.headers]
        return Response(self.body, self.status, headers)


def reply(message: Message, status: int = 200) -> Response:
    """A JSON answer of a Flask view."""
    return Response(write(message), status, content_type=JSON)
