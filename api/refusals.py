"""From an error to the answer that says it: the one place for all addresses."""

from __future__ import annotations

import logging
import math
from typing import Protocol

from werkzeug.exceptions import HTTPException

from api.reply import CLOSE, Headers, Reply
from api.server.body import CODINGS, UnsupportedCoding
from delen.errors import (
    BudgetExhausted,
    DelenError,
    Draining,
    InvalidInput,
    MethodNotAllowed,
    NotFound,
    NotOffered,
    Overloaded,
    RequestTimeout,
)
from delen.wire.errors import Error

log = logging.getLogger("delen.api")


class FramingError(InvalidInput):
    """What follows on this connection may not be a request."""


class ErrorCounter(Protocol):
    """Counts refused and failed requests by the error's ``code``."""

    def refused(self, code: str) -> None: ...


class Refusals:
    """Answers errors, and counts them in ``metrics``."""

    def __init__(self, metrics: ErrorCounter) -> None:
        self._metrics = metrics

    def of(self, error: BaseException, method: str, path: str) -> Reply:
        """The answer of a request to ``path`` that ended with ``error``."""
        headers: Headers = ()
        if isinstance(error, HTTPException):
            offered = ", ".join(sorted(getattr(error, "valid_methods", None) or ()))
            headers = ((b"allow", offered.encode()),) if offered else ()
            error = _translated(error, method, path, offered)
        elif isinstance(error, UnsupportedCoding) and path.startswith("/v2/"):
            headers += ((b"accept-encoding", b", ".join(CODINGS)),)
            error = NotOffered(str(error))
        error = self.counted(error, f"{method} {path}")
        if isinstance(error, (BudgetExhausted, Overloaded)):
            wait = max(1, math.ceil(error.retry_after))
            headers += ((b"retry-after", str(wait).encode()),)
        if error.status == 401:
            headers += ((b"www-authenticate", b"Bearer"),)
        if isinstance(error, (Draining, FramingError, RequestTimeout)):
            headers += CLOSE
        return Reply.of(Error.of(error), error.status, headers)

    def counted(self, error: BaseException, what: str) -> DelenError:
        """``error`` of a request for ``what``, as one of delen's."""
        if not isinstance(error, DelenError):
            log.error("%s failed", what, exc_info=error)
            error = DelenError(f"the server failed: {type(error).__name__}; see its log")
        self._metrics.refused(error.code)
        return error


def _translated(error: HTTPException, method: str, path: str, offered: str) -> DelenError:
    """What Flask itself refuses, as one of delen's errors."""
    if error.code == 404:
        return NotFound(f"there is nothing at {path}")
    if error.code == 405:
        return MethodNotAllowed(f"{method} is not offered at {path}; offered: {offered}")
    return InvalidInput(error.description or error.name)
