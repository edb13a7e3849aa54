"""The infer addresses, on the event loop: read, check, submit, await, answer."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from functools import partial
from math import prod
from typing import Any, NamedTuple, TypeVar

from api.parse import InferRequest, read_infer, read_media_type
from api.reply import JSON, Reply
from api.server.body import ClientGone, RequestBody, gunzip
from api.server.connection import Connection
from delen.bundle.manifest import InputSpec
from delen.engine import inputs
from delen.engine.job import Job
from delen.engine.runtime import Runtime
from delen.errors import TooLarge
from delen.wire.answers import Result, Results

T = TypeVar("T")

_READ_AT_ONCE = {JSON: 16_384, inputs.TEXT: 65_536, inputs.RAW: 1_000_000, inputs.NPY: 1_000_000}
"""Bytes of a body up to which it is read on the event loop: less than a millisecond's work."""
_PAUSES, _LONGEST_PAUSE = 4.0, 0.25
"""After JSON was read there is a pause of so many times what it took, and of at most so many
seconds."""
_SUBMIT_AT_ONCE = 16
_LOCK_SECONDS = 0.005
_JSON_BASE, _JSON_NUMBER = 1_000_000, 32
"""Bytes that a JSON body may have in any case, and besides for each number of one sample."""


class HttpRequest(NamedTuple):
    """One request, its head read and its body not yet."""

    method: str
    path: str
    query: str
    headers: Mapping[bytes, bytes]
    body: RequestBody
    connection: Connection


class InferAddress:
    """Answers inputs over ``runtime``. ``decoders`` are the threads for what takes long to read,
    ``threads`` those for what may have to wait for a lock or for a model."""

    def __init__(
        self, runtime: Runtime, max_body: int, decoders: Executor, threads: Executor
    ) -> None:
        self._runtime = runtime
        self._max_body = max_body
        self._decoders = decoders
        self._threads = threads
        self._json_turn = asyncio.Semaphore(1)

    async def answer(self, request: HttpRequest, model: str) -> Reply:
        """The answer to an input for ``model``; raises the errors of ``submit_batch``."""
        waited = time.monotonic() - request.connection.arrived
        spec = self._runtime.input_of(model)
        content_type = request.headers.get(b"content-type", b"").decode("latin-1")
        media_type = read_media_type(content_type)
        limit = self._limit(media_type, spec)
        _check_json(request.body, media_type, limit)
        raw = await request.body.read(limit)
        read = partial(_read, media_type, request.query, spec, limit, request.body.is_gzip)
        if len(raw) <= _READ_AT_ONCE.get(media_type, -1) and not request.body.is_gzip:
            asked = read(raw)
        else:
            began = time.monotonic()
            asked, started = await self._decode(request.connection, media_type, partial(read, raw))
            waited += started - began
        if request.connection.is_gone:
            raise ClientGone
        jobs = await self._submit(request, model, asked, waited)
        await self._until_ended(request.connection, jobs)
        return self._compose(jobs, asked.is_batch)

    async def _decode(
        self, connection: Connection, media_type: str, read: Callable[[], InferRequest]
    ) -> tuple[InferRequest, float]:
        """What ``read`` returns, and when it began. Reading JSON holds the interpreter, so there is
        one at a time, and a pause after each, in which the lanes go on."""
        if media_type != JSON:
            return await self._on(self._decoders, _timed, read)
        await self._json_turn.acquire()
        began = time.monotonic()
        try:
            if connection.is_gone:
                raise ClientGone
            return await self._on(self._decoders, _timed, read)
        finally:
            pause = min(_LONGEST_PAUSE, _PAUSES * (time.monotonic() - began))
            asyncio.get_running_loop().call_later(pause, self._json_turn.release)

    def _limit(self, media_type: str, spec: InputSpec) -> int:
        if media_type != JSON:
            return self._max_body
        return min(self._max_body, _JSON_BASE + _JSON_NUMBER * prod(spec.shape))

    async def _submit(
        self, request: HttpRequest, model: str, asked: InferRequest, waited: float
    ) -> list[Job]:
        submit = partial(
            self._runtime.submit_batch,
            model,
            asked.samples,
            asked.bounds,
            asked.options,
            request.connection.arrived,
            waited,
        )
        if len(asked.samples) <= _SUBMIT_AT_ONCE and self._runtime.is_free(_LOCK_SECONDS):
            return submit()
        return await self._on(self._threads, submit)

    async def _until_ended(self, connection: Connection, jobs: Sequence[Job]) -> None:
        """Until all ``jobs`` are done or one has failed; cancel them if the client leaves."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()

        def finish() -> None:
            if not ended.done():
                ended.set_result(None)

        def tell() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(finish)

        def give_up() -> None:
            self._threads.submit(self._runtime.cancel, jobs)

        connection.on_gone = give_up
        if connection.is_gone:
            give_up()
        when_ended([job.future for job in jobs], tell)
        try:
            await ended
        except asyncio.CancelledError:
            give_up()
            raise
        connection.on_gone = None

    def _compose(self, jobs: Sequence[Job], is_batch: bool) -> Reply:
        if len(jobs) == 1 and not is_batch:
            return Reply.of(Result.of(jobs[0].future.result()))
        try:
            for job in jobs:
                if job.future.done():
                    job.future.result()
            results = tuple(Result.of(job.future.result()) for job in jobs)
        except BaseException:
            if len(jobs) > 1:  # the others end, as nobody waits for them
                self._threads.submit(self._runtime.cancel, jobs)
            raise
        return Reply.of(Results(results))

    async def _on(self, threads: Executor, call: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(threads, call, *arguments)


def _check_json(body: RequestBody, media_type: str, limit: int) -> None:
    if media_type == JSON and body.length is not None and body.length > limit:
        raise TooLarge(
            f"the JSON body has {body.length} bytes; at most {limit} are read for this model: send "
            f"{inputs.RAW} or {inputs.NPY}"
        )


def _read(
    media_type: str, query: str, spec: InputSpec, limit: int, is_gzip: bool, raw: bytes
) -> InferRequest:
    return read_infer(media_type, query, gunzip(raw, limit) if is_gzip else raw, spec)


def _timed(read: Callable[[], InferRequest]) -> tuple[InferRequest, float]:
    """What ``read`` returns, and when it began."""
    started = time.monotonic()
    return read(), started


def when_ended(futures: Sequence[Future[Any]], tell: Callable[[], None]) -> None:
    """Call ``tell`` once, as soon as all ``futures`` are done or one has failed: on this thread if
    that is now, else on the one that ends the last future."""
    if len(futures) == 1:
        futures[0].add_done_callback(lambda _: tell())
        return
    lock, left = threading.Lock(), len(futures)

    def ended(future: Future[Any]) -> None:
        nonlocal left
        with lock:
            was_open = left > 0
            left = 0 if future.exception() is not None else left - 1
            is_over = was_open and left <= 0
        if is_over:
            tell()

    for future in futures:
        future.add_done_callback(ended)
