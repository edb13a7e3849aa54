"""The protocol's infer address over HTTP, on the event loop: JSON, and raw tensors after it."""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
from numpy.typing import NDArray

from api.exchange import HttpRequest
from api.infer import READ_AT_ONCE, InferAddress
from api.oip.access import FindPlace, RegionAccess
from api.oip.answer import Tensor, receipt_parameters, write_tensors
from api.oip.query import Query, check_version, read_bytes, read_data, whole_input
from api.parse import read_query
from api.reply import JSON, Headers, Reply
from api.server.body import unpack
from delen.bundle.manifest import InputSpec, Manifest
from delen.core.json_words import in_json_words
from delen.engine.inputs import RAW
from delen.engine.job import Job
from delen.engine.runtime import Runtime
from delen.errors import InvalidInput, TooLarge
from delen.wire.message import write
from delen.wire.oip import InferAnswer, InferQuery, OutputTensor, Parameter
from delen.wire.requests import NoFields

_HEADER_LENGTH = b"inference-header-content-length"
_BINARY_HEADER: Headers = ((b"content-type", RAW.encode()),)
_QUERY = msgspec.json.Decoder(InferQuery)
_SMALL = 1024
"""Bytes of an answer up to which it is packed only where one coding alone is accepted."""
_PACKED_AT_ONCE = 65_536
_PACKERS = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}


@dataclass(frozen=True, slots=True)
class _Body:
    """An infer request as it came: what its JSON says, and the bytes after that."""

    query: Query
    spec: InputSpec
    binary: memoryview

    @property
    def is_quick(self) -> bool:
        """Whether ``read`` takes less than a millisecond."""
        if self.query.place is not None:
            return self.query.place.byte_size <= READ_AT_ONCE[RAW]
        return bool(self.binary) or len(self.query.input.data) <= READ_AT_ONCE[JSON]

    def read(self) -> NDArray[Any]:
        """The input's values. What is left over in the body is refused."""
        tensor, spec, place = self.query.input, self.spec, self.query.place
        announced = tensor.parameters.binary_data_size
        if (announced or 0) != len(self.binary):
            raise InvalidInput(
                f"binary_data_size is {announced or 0}, but {len(self.binary)} bytes follow the "
                "JSON",
                "inputs",
            )
        ways = (announced is not None, bool(tensor.data), place is not None)
        if sum(ways) > 1:
            raise InvalidInput("input has its values in more than one place", "inputs")
        if place is not None:
            return read_bytes(place.read(), tensor, spec)
        return (
            read_data(tensor, spec) if announced is None else read_bytes(self.binary, tensor, spec)
        )


class OipInfer:
    """Answers infer requests with ``infer``, from bodies of at most ``max_body`` bytes."""

    def __init__(
        self, runtime: Runtime, infer: InferAddress, max_body: int, access: RegionAccess
    ) -> None:
        self._runtime = runtime
        self._access = access
        self._infer = infer
        self._max_body = max_body

    async def answer(self, request: HttpRequest, model: str, version: str | None) -> Reply:
        """The answer to a request for ``model``; raises what ``InferAddress`` does."""
        client = request.connection
        waited = time.monotonic() - client.arrived
        manifest = self._runtime.manifest_of(model)
        check_version(manifest, version)
        read_query(NoFields, request.query)
        header = _header_length(request)
        limit = self._infer.limit(JSON, manifest.input) if header is None else self._max_body
        if request.body.length is not None and request.body.length > limit:
            raise TooLarge(
                f"the JSON body has {request.body.length} bytes; at most {limit} are read for this "
                "model: send binary data"
            )
        raw = await request.body.read(limit)
        find = self._access.places(lambda: self._access.user(client.socket))
        parse = partial(_parse, raw, request.body.is_packed, header, manifest, limit, find)
        json_size = len(raw) if header is None else header
        is_quick = json_size <= READ_AT_ONCE[JSON] and not request.body.is_packed
        kind = RAW if header is not None and header <= READ_AT_ONCE[JSON] else JSON
        tenant_of = partial(self._infer.tenant_of, client=client)
        body, parsing = await self._infer.decode(
            client,
            kind,
            parse,
            payer_of=lambda body: tenant_of(body.query.options.tenant),
            is_quick=is_quick,
        )
        payer = tenant_of(body.query.options.tenant)
        kind = JSON if body.query.place is None else RAW
        array, reading = await self._infer.decode(
            client, kind, body.read, payer, is_quick=body.is_quick
        )
        waited += parsing + reading
        asked = body.query.with_samples(array)
        jobs = await self._infer.run(client, model, asked, waited)
        parameters = receipt_parameters(self._infer.results(jobs))
        reply = _compose(body.query, jobs, parameters)
        accepted = request.headers.get(b"accept-encoding", b"")
        if not accepted or len(reply.body) <= _PACKED_AT_ONCE:
            return _packed(reply, accepted)
        pack = partial(_packed, reply, accepted)
        return (await self._infer.decode(client, RAW, pack, payer))[0]


def _header_length(request: HttpRequest) -> int | None:
    """How many bytes of the unpacked body are JSON; None where all are."""
    given = request.headers.get(_HEADER_LENGTH)
    if given is None:
        return None
    if not given.isdigit() or len(given) > 12:
        raise InvalidInput(
            f"Inference-Header-Content-Length is {given.decode('latin-1')!r}; it must be a number "
            "of bytes"
        )
    return int(given)


def _parse(
    raw: bytes,
    is_packed: bool,
    header: int | None,
    manifest: Manifest,
    limit: int,
    find: FindPlace,
) -> _Body:
    whole = memoryview(unpack(raw, limit) if is_packed else raw)
    if header == 0:
        return _Body(whole_input(manifest, len(whole)), manifest.input, whole)
    end = len(whole) if header is None else header
    if end > len(whole):
        raise InvalidInput(
            f"Inference-Header-Content-Length is {end}; the body has {len(whole)} bytes"
        )
    try:
        asked = _QUERY.decode(whole[:end])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        problem = in_json_words(error)
        raise InvalidInput(f"the request's JSON cannot be read: {problem}") from None
    return _Body(Query.of(asked, manifest, find), manifest.input, whole[end:])


def _compose(query: Query, jobs: Sequence[Job], parameters: dict[str, Parameter]) -> Reply:
    tensors = write_tensors(jobs, query.outputs)
    pieces: list[bytes] = []
    described = [_describe(tensor, pieces) for tensor in tensors]
    manifest = jobs[0].model.bundle.manifest
    answer = InferAnswer(query.id, manifest.name, manifest.version, parameters, described)
    head = write(answer)
    if not pieces:
        return Reply(head)
    length = (_HEADER_LENGTH, str(len(head)).encode())
    return Reply(b"".join([head, *pieces]), headers=(*_BINARY_HEADER, length))


def _describe(tensor: Tensor, pieces: list[bytes]) -> OutputTensor:
    """``tensor`` in JSON; its bytes, where they are wanted, join the ``pieces`` after it."""
    name = tensor.output.name
    if tensor.output.place is not None:
        return OutputTensor(name, tensor.datatype, tensor.shape, tensor.write())
    if not tensor.output.is_binary:
        return OutputTensor(name, tensor.datatype, tensor.shape, data=tensor.to_list())
    pieces.append(tensor.to_bytes())
    size: dict[str, Parameter] = {"binary_data_size": len(pieces[-1])}
    return OutputTensor(name, tensor.datatype, tensor.shape, size)


def _packed(reply: Reply, accepted: bytes) -> Reply:
    """``reply`` in a coding of the header Accept-Encoding, where that is worth it."""
    weighed = (each.replace(b" ", b"").partition(b";") for each in accepted.lower().split(b","))
    codings = [name for name, _, weight in weighed if weight not in (b"q=0", b"q=0.0")]
    coding = next((name for name in codings if name in _PACKERS), None)
    if coding is None or (len(reply.body) <= _SMALL and len(codings) > 1):
        return reply
    packer = zlib.compressobj(1, wbits=_PACKERS[coding])
    body = packer.compress(reply.body) + packer.flush()
    return Reply(body, reply.status, (*reply.headers, (b"content-encoding", coding)))
