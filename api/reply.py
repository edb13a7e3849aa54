"""JSON answers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from flask import Response

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

JSON = "application/json"


def reply(document: dict[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(document), status, content_type=JSON)


class Answer:
    """A JSON answer as a bare WSGI application, for what Flask has nothing more to do with."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._body = json.dumps(document).encode()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        length = str(len(self._body))
        start_response("200 OK", [("Content-Type", JSON), ("Content-Length", length)])
        return [self._body]
