"""The resume addresses, on the event loop: jobs that another node has begun."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from functools import partial

from api.exchange import HttpRequest
from api.infer import READ_AT_ONCE, InferAddress
from api.parse import read_media_type, read_query_anew
from api.reply import Reply
from api.server.body import unpack
from delen.bundle.features import FEATURES, decode, encoded_size
from delen.core.bounds import DEFAULT_ENCODING
from delen.core.handover import Part, Past
from delen.engine.handover import check_digest, features_shape
from delen.engine.inputs import RAW
from delen.engine.runtime import Runtime
from delen.errors import InvalidInput, UnsupportedMediaType
from delen.wire.answers import Result as ResultMessage
from delen.wire.requests import BUNDLE, PARTS, Parts, ResumeFields


class ResumeAddress:
    """Goes on with jobs over ``runtime``, with what ``infer`` has for all requests; bodies have at
    most ``max_body`` bytes. Of a job with parts before, the time until its features are here is the
    link's."""

    def __init__(self, runtime: Runtime, infer: InferAddress, max_body: int) -> None:
        self._runtime = runtime
        self._infer = infer
        self._max_body = max_body

    async def answer(self, request: HttpRequest, model: str) -> Reply:
        """The answer to the features of a job; raises the errors of ``Runtime.resume``."""
        client, body = request.connection, request.body
        waited = time.monotonic() - client.arrived
        _check_media_type(request.headers)
        fields = read_query_anew(ResumeFields, request.query)
        bounds, options = fields.bounds(), self._infer.own_options(fields.options(), client)
        past = _read_past(fields, request.headers)
        manifest = self._runtime.manifest_of(model)
        shape = features_shape(manifest, past.exit, past.size)
        if (digest := self._runtime.digest_of(model)) is not None:
            check_digest(model, digest, past.bundle)
        encoding = fields.encoding or DEFAULT_ENCODING
        size = encoded_size(shape, encoding)
        if body.length is not None and not body.is_packed and body.length != size:
            raise InvalidInput(
                f"the body has {body.length} bytes; after exit {past.exit} of {model}, {encoding} "
                f"features of shape {list(shape)} have {size}",
                FEATURES,
            )
        raw = body.shared if body.shared is not None else await body.read(self._max_body)
        arrived = client.arrived
        if past.parts:
            arrived, waited = time.monotonic(), 0.0
            past = past.carried(arrived - client.arrived)

        def read() -> bytes | memoryview:
            return unpack(bytes(raw), self._max_body) if body.is_packed else raw

        is_quick = size <= READ_AT_ONCE[RAW] and not body.is_packed
        features, spent = await self._infer.decode(
            client, RAW, lambda: decode(read(), shape, encoding), options.tenant, None, is_quick
        )

        submit = partial(
            self._runtime.resume,
            model,
            features,
            past,
            bounds,
            options,
            arrived,
            waited + spent,
        )
        jobs = await self._infer.run_jobs(client, model, lambda: [submit()])
        (result,) = self._infer.results(jobs)
        return Reply.of(ResultMessage.of(result))


def _check_media_type(headers: Mapping[bytes, bytes]) -> None:
    given = read_media_type(headers.get(b"content-type", b"").decode("latin-1"))
    if given != RAW:
        raise UnsupportedMediaType(f"Content-Type is {given!r}; features are {RAW}")


def _read_past(fields: ResumeFields, headers: Mapping[bytes, bytes]) -> Past:
    bundle = headers.get(BUNDLE.lower().encode(), b"").decode("latin-1").strip()
    if not bundle:
        raise InvalidInput(
            f"{BUNDLE} is missing: it is the SHA-256 of the bundle's manifest.json", BUNDLE
        )
    return Past(
        exit=fields.exit,
        bundle=bundle,
        size=fields.input_size(),
        threshold=fields.threshold,
        confidence=fields.confidence or 0.0,
        parts=_read_parts(headers.get(PARTS.lower().encode())),
    )


def _read_parts(raw: bytes | None) -> tuple[Part, ...]:
    """What the job has taken, as the header has it: a JSON list."""
    if raw is None:
        return ()
    try:
        given = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{PARTS} is not JSON: {error}", PARTS) from None
    try:
        return Parts.read({"parts": given}).given()
    except InvalidInput as error:
        raise InvalidInput(f"{PARTS}: {error}", PARTS) from None
