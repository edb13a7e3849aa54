"""From an HTTP request to samples, bounds and options, everything checked before any is queued."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray
from werkzeug.http import parse_options_header

from api.reply import JSON
from delen.bundle.manifest import InputSpec
from delen.core.bounds import Bounds, Options
from delen.engine import inputs
from delen.errors import InvalidInput, RequestTimeout, TooLarge, UnsupportedMediaType
from delen.wire.message import Request
from delen.wire.requests import InferBody, InferFields, NoFields, PlanFields

AnyRequest = TypeVar("AnyRequest", bound=Request)

UTF_8 = "utf-8"
MEDIA_TYPES = (JSON, *inputs.BODY_TYPES)


@dataclass(frozen=True, slots=True)
class InferRequest:
    """``sending`` are the seconds in which the body was read."""

    samples: list[NDArray[Any]]
    is_batch: bool
    bounds: Bounds
    options: Options
    sending: float


def refuse_large_body(environ: Mapping[str, Any], limit: int) -> None:
    """TooLarge, before anything is read, for a body announced as larger than ``limit`` bytes."""
    announced = int(environ.get("CONTENT_LENGTH") or 0)
    if announced > limit:
        raise TooLarge(f"the body has {announced} bytes; the limit is {limit}")


def read_body(environ: Mapping[str, Any], limit: int) -> bytes:
    """The whole body. InvalidInput when it is cut short, RequestTimeout when no more of it comes;
    TooLarge when it comes in chunks that are more than ``limit`` bytes together."""
    chunked = environ.get("wsgi.input_terminated", False)
    announced = 0 if chunked else max(0, int(environ.get("CONTENT_LENGTH") or 0))
    wanted = limit + 1 if chunked else announced
    try:
        body: bytes = environ["wsgi.input"].read(wanted) if wanted else b""
    except TimeoutError:
        raise RequestTimeout("no more of the body came, and the wait for it is over") from None
    except (OSError, ValueError) as error:
        raise InvalidInput(f"the body could not be read to its end: {error}") from error
    if len(body) < announced:
        raise InvalidInput(f"the body ends after {len(body)} of {announced} bytes")
    if len(body) > limit:
        raise TooLarge(f"the body is larger than the limit of {limit} bytes")
    return body


def read_json(raw: bytes) -> dict[str, Any]:
    """The JSON object in ``raw``; an empty body is an empty object."""
    if not raw:
        return {}
    try:
        document = json.loads(raw, object_pairs_hook=_object_once)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"the body is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidInput(f"the body must be a JSON object, not {type(document).__name__}")
    return document


def _object_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        twice, times = Counter(name for name, _ in pairs).most_common(1)[0]
        raise InvalidInput(f"{twice} is given {times} times", twice)
    return fields


@lru_cache(maxsize=256)
def read_query(kind: type[AnyRequest], text: str) -> AnyRequest:
    """The fields of a query string, each given once. What was read is kept: apps ask the same
    thing again and again."""
    fields = _object_once(parse_qsl(text, keep_blank_values=True))
    return kind.read_query(fields)


def read_request(kind: type[AnyRequest], environ: Mapping[str, Any], limit: int) -> AnyRequest:
    """The request in a JSON body; its address has no query."""
    read_query(NoFields, environ["QUERY_STRING"])
    return kind.read(read_json(read_body(environ, limit)))


@lru_cache(maxsize=256)
def _asked_in_query(text: str) -> tuple[Bounds, Options]:
    fields = read_query(InferFields, text)
    return fields.bounds(), fields.options()


def read_infer(environ: Mapping[str, Any], spec: InputSpec, limit: int) -> InferRequest:
    """The samples and what is asked of them, from any of the content types."""
    media_type = _read_media_type(environ.get("CONTENT_TYPE", ""))
    query = environ["QUERY_STRING"]
    began = time.monotonic()
    body = read_body(environ, limit)
    sending = time.monotonic() - began
    if media_type == JSON:
        fields = InferBody.read(read_json(body)).joined(read_query(InferFields, query))
        array = inputs.decode_json(fields.input, spec)
        bounds, options = fields.bounds(), fields.options()
    else:
        bounds, options = _asked_in_query(query)
        array = inputs.decode_body(body, media_type, spec)
    samples, is_batch = inputs.split_batch(np.asarray(array), spec)
    return InferRequest(samples, is_batch, bounds, options, sending)


@lru_cache(maxsize=64)
def _read_media_type(text: str) -> str:
    """The media type that a Content-Type names. UnsupportedMediaType for one that is not taken,
    or a text in another encoding than UTF-8."""
    media_type, options = parse_options_header(text)
    media_type = media_type.lower()
    if media_type not in MEDIA_TYPES:
        given = repr(media_type) if media_type else "none"
        raise UnsupportedMediaType(f"Content-Type is {given}; taken: {', '.join(MEDIA_TYPES)}")
    charset = options.get("charset", UTF_8)
    if media_type == inputs.TEXT and charset.lower() != UTF_8:
        raise UnsupportedMediaType(f"the text's charset is {charset!r}; texts must be in {UTF_8}")
    return media_type


def read_plan(environ: Mapping[str, Any], limit: int) -> tuple[Bounds, str]:
    """Bounds and the tenant who would set them, from a JSON body and the query string."""
    body = PlanFields.read(read_json(read_body(environ, limit)))
    fields = body.joined(read_query(PlanFields, environ["QUERY_STRING"]))
    return fields.bounds(), fields.options().tenant
