"""From gRPC's calls to the methods of the service, and from their errors to gRPC's statuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError

from api.oip import grpc_messages as messages
from api.refusals import Refusals
from api.server.body import BodyMemory
from delen.errors import InvalidInput
from delen.wire.errors import Error
from delen.wire.message import write

T = TypeVar("T")
R = TypeVar("R")

_AT_ONCE = 32
"""Requests of one stream that are under way."""
ERROR = "delen-error-bin"
"""The metadata after an error: the JSON that HTTP has of it."""
_STATUS = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.FAILED_PRECONDITION,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
}
_RESPONSE = messages.message("ModelInferResponse")


class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]  # of grpc, which has no types
    """Finds the handler of a call among ``methods`` by its name. Messages count in ``memory`` as
    bodies do."""

    def __init__(
        self, refusals: Refusals, methods: dict[str, Callable[..., Any]], memory: BodyMemory
    ) -> None:
        self._refusals = refusals
        self._memory = memory
        self._handlers = {
            f"/{messages.SERVICE}/{name}": self._unary(name, call) for name, call in methods.items()
        }
        self._handlers[f"/{messages.SERVICE}/ModelStreamInfer"] = self._stream(
            methods["ModelInfer"]
        )

    def service(self, details: Any) -> Any:
        if found := self._handlers.get(details.method):
            return found
        method = details.method.rpartition("/")[2]

        async def refuse(_: Any, context: Any) -> None:
            await context.abort(
                grpc.StatusCode.UNIMPLEMENTED, f"this server does not offer {method}"
            )

        return grpc.unary_unary_rpc_method_handler(refuse)

    def _unary(self, name: str, call: Callable[..., Any]) -> Any:
        asked, answered = _types(name)

        async def answer(raw: bytes, context: Any) -> Any:
            try:
                with self._memory.holding(len(raw)):
                    found = call(_parsed(asked, raw), context)
                    if asyncio.iscoroutine(found):
                        found = await found
            except Exception as error:
                refusal = self._refusals.counted(error, f"gRPC {name}")
                context.set_trailing_metadata(((ERROR, write(Error.of(refusal))),))
                status = _STATUS.get(refusal.status, grpc.StatusCode.INTERNAL)
                await context.abort(status, str(refusal))
            return found if isinstance(found, answered) else messages.filled(answered, found)

        return grpc.unary_unary_rpc_method_handler(
            answer, response_serializer=answered.SerializeToString
        )

    def _stream(self, infer: Callable[..., Any]) -> Any:
        asked, answered = _types("ModelStreamInfer")

        async def answer_one(raw: bytes, context: Any) -> Any:
            request = asked()
            try:
                with self._memory.holding(len(raw)):
                    request = _parsed(asked, raw)
                    return answered(infer_response=await infer(request, context))
            except Exception as error:
                refusal = self._refusals.counted(error, "gRPC ModelStreamInfer")
                failed = _RESPONSE(model_name=request.model_name, id=request.id)
                return answered(error_message=str(refusal), infer_response=failed)

        async def answer(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[Any]:
            async for answer in as_they_end(requests, lambda raw: answer_one(raw, context)):
                yield answer

        return grpc.stream_stream_rpc_method_handler(
            answer, response_serializer=answered.SerializeToString
        )


async def as_they_end(
    asked: AsyncIterator[T], answer: Callable[[T], Coroutine[Any, Any, R]]
) -> AsyncIterator[R]:
    """What ``answer`` makes of each of ``asked``, as soon as it is there. At most ``_AT_ONCE`` are
    under way; the next is read once one of them has ended. All end where nobody takes answers."""
    free, answers = asyncio.Semaphore(_AT_ONCE), asyncio.Queue[asyncio.Task[R] | None]()
    under_way: set[asyncio.Task[R]] = set()

    async def read() -> None:
        async for each in asked:
            await free.acquire()
            task = asyncio.create_task(answer(each))
            under_way.add(task)
            task.add_done_callback(answers.put_nowait)

    reading = asyncio.create_task(read())
    reading.add_done_callback(lambda _: answers.put_nowait(None))
    try:
        while not reading.done() or under_way:
            if (ended := await answers.get()) is not None:
                under_way.discard(ended)
                yield ended.result()
                free.release()
        reading.result()
    finally:
        for task in (reading, *under_way):
            task.cancel()


def _parsed(kind: Any, raw: bytes) -> Any:
    """The message of ``kind`` in ``raw``. grpc itself would log a stack trace for one that is
    none."""
    try:
        return kind.FromString(raw)
    except DecodeError as error:
        raise InvalidInput(f"the message cannot be read: {error}") from None


def _types(name: str) -> tuple[Any, Any]:
    method = messages.METHODS[name]
    return messages.message(method.input_type.name), messages.message(method.output_type.name)
