"""JSON answers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from flask import Response

from delen.wire.message import Message, write

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

JSON = "application/json"


def reply(message: Message, status: int = 200) -> Response:
    return Response(write(message), status, content_type=JSON)


class Answer:
    """A JSON answer as a bare WSGI application, for what Flask has nothing more to do with."""

    def __init__(self, message: Message) -> None:
        self._body = write(message)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        length = str(len(self._body))
        start_response("200 OK", [("Content-Type", JSON), ("Content-Length", length)])
        return [self._body]
