"""From an HTTP request to samples, bounds and options, everything checked before any is queued."""

from __future__ import annotations

import json
import re
from collections import Counter
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl

import msgspec
import numpy as np
from flask import request
from numpy.typing import NDArray
from werkzeug.http import parse_options_header

from api.reply import JSON
from delen.bundle.manifest import InputSpec
from delen.core.bounds import Bounds, Options
from delen.core.json_words import in_json_words
from delen.core.typed_reader import shown
from delen.engine import inputs
from delen.errors import InvalidInput, UnsupportedMediaType
from delen.wire.message import Request
from delen.wire.requests import InferBody, NoFields, PlanFields, SuspendableFields

AnyRequest = TypeVar("AnyRequest", bound=Request)

LARGE_JSON = 65_536
_MOST_BESIDE = 16_384
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_SURROGATE = re.compile(rb"\\[uU][dD][89a-fA-F]")
_OPENING = re.compile(rb"[\[\s]*")
UTF_8 = "utf-8"
MEDIA_TYPES = (JSON, *inputs.BODY_TYPES)


class InferRequest(NamedTuple):
    """What is to be inferred, and under which bounds."""

    samples: list[NDArray[Any]]
    is_batch: bool
    bounds: Bounds
    options: Options


def query_text() -> str:
    """The query string of the request that Flask answers."""
    return request.query_string.decode("latin-1")


def read_json(raw: bytes) -> dict[str, Any]:
    """The JSON object in ``raw``; an empty body is an empty object."""
    if not raw:
        return {}
    try:
        document = json.loads(raw, object_pairs_hook=_object_once)
        if _SURROGATE.search(raw):  # half a character cannot be written into an answer
            json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"the body is not JSON: {_why(error)}") from None
    if not isinstance(document, dict):
        raise InvalidInput(f"the body must be a JSON object, not {shown(document)}")
    return document


def _why(error: ValueError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return "a number has too many digits" if type(error) is ValueError else str(error)


def _object_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        twice, times = Counter(name for name, _ in pairs).most_common(1)[0]
        raise InvalidInput(f"{twice} is given {times} times", twice)
    return fields


@lru_cache(maxsize=256)
def read_query(kind: type[AnyRequest], text: str) -> AnyRequest:
    """As ``read_query_anew``. What was read is kept: apps ask the same thing again and again."""
    return read_query_anew(kind, text)


def read_query_anew(kind: type[AnyRequest], text: str) -> AnyRequest:
    """The fields of a query string, each given once."""
    fields = _object_once(parse_qsl(text, keep_blank_values=True))
    return kind.read_query(fields)


def read_request(kind: type[AnyRequest], query: str, body: bytes) -> AnyRequest:
    """The request in a JSON body; its address has no query."""
    read_query(NoFields, query)
    return kind.read(read_json(body))


@lru_cache(maxsize=256)
def asked_in_query(text: str) -> tuple[Bounds, Options]:
    """The bounds and options in a query string."""
    fields = read_query(SuspendableFields, text)
    return fields.bounds(), fields.options()


def read_infer(media_type: str, query: str, body: inputs.Contents, spec: InputSpec) -> InferRequest:
    """The samples and what is asked of them, from any of the content types."""
    if media_type == JSON:
        body = bytes(body)
        document = _read_large(body, spec) if len(body) > LARGE_JSON else read_json(body)
        fields = InferBody.read(document).joined(read_query(SuspendableFields, query))
        array = inputs.decode_json(fields.input, spec)
        bounds, options = fields.bounds(), fields.options()
    else:
        bounds, options = asked_in_query(query)
        array = inputs.decode_body(body, media_type, spec)
    samples, is_batch = inputs.split_batch(np.asarray(array), spec)
    return InferRequest(samples, is_batch, bounds, options)


def _read_large(raw: bytes, spec: InputSpec) -> dict[str, Any]:
    """The JSON object in ``raw``, most of which is its input. That is read as numbers in lists
    alone, which takes a fraction of the time; anything else in it ends the reading."""
    try:
        value = bytes(_FIELDS.decode(raw)["input"])
    except KeyError:
        raise InvalidInput("input is missing", "input") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"the body is not a JSON object: {in_json_words(error)}") from None
    others = raw.strip().replace(value, b"null", 1)
    if len(others) > _MOST_BESIDE:
        raise InvalidInput(f"the body has more than {_MOST_BESIDE} bytes beside input")
    fields = read_json(others)
    if spec.text is None:
        fields["input"] = read_numbers(value, spec, (len(spec.shape), len(spec.shape) + 1))
        return fields
    try:
        fields["input"] = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        problem = in_json_words(error)
        raise InvalidInput(
            f"input must be a text, or a list of texts: {problem}", "input"
        ) from None
    return fields


def read_numbers(raw: bytes, spec: InputSpec, depths: tuple[int, int]) -> Any:
    """The JSON lists in ``raw``, nested as deep as one of ``depths``, with numbers such as ``spec``
    has and nothing else in them."""
    kind = "float" if np.dtype(spec.dtype).kind == "f" else "int"
    numbers = "numbers" if kind == "float" else "whole numbers"
    wanted = f"input must be lists of {numbers}, nested {depths[0]} or {depths[1]} deep"
    begin = _OPENING.match(raw)
    levels = 0 if begin is None else begin[0].count(b"[")
    if levels not in depths:
        raise InvalidInput(f"{wanted}; it begins with {levels} levels of lists", "input")
    try:
        return _decoder(kind, levels).decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"{wanted}: {in_json_words(error)}", "input") from None


@lru_cache(maxsize=16)
def _decoder(kind: str, levels: int) -> msgspec.json.Decoder[Any]:
    """Of so many levels of lists of int or float."""
    nested: Any = int if kind == "int" else float
    for _ in range(levels):
        nested = list[nested]
    return msgspec.json.Decoder(nested)


@lru_cache(maxsize=64)
def read_media_type(text: str) -> str:
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


def read_plan(query: str, body: bytes) -> tuple[Bounds, str]:
    """Bounds and the tenant who would set them, from a JSON body and the query string."""
    fields = PlanFields.read(read_json(body)).joined(read_query(PlanFields, query))
    return fields.bounds(), fields.options().tenant
