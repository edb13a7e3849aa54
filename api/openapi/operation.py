"""One address as the OpenAPI description has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from api.reply import JSON
from delen.wire.message import Message, Request
from delen.wire.requests import NoFields

GUARDED = (401, 403)
"""Statuses of an address that not everybody may use."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of an address. ``answers`` are the messages of a good answer, or lists of them;
    none: any object, or with ``is_empty`` nothing. One of another ``media_type`` than JSON is a
    text, which may have those messages in it. ``samples`` are the types of a body that may be an
    input beside JSON; ``headers`` are numbers that may come with it, ``text_headers`` texts.
    ``errors`` are the statuses that it may have beside those of all; with ``is_told_why`` the body
    of such an answer may be a good one's, too."""

    method: str
    paths: tuple[str, ...]
    summary: str
    answers: tuple[Any, ...] = ()
    query: type[Request] = NoFields
    body: type[Message] | None = None
    samples: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    text_headers: tuple[str, ...] = ()
    media_type: str = JSON
    errors: tuple[int, ...] = ()
    is_told_why: bool = False
    is_empty: bool = False
