"""The infer addresses, on the event loop: read, check, submit, await, answer."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any, Protocol, TypeVar

from api.exchange import HttpRequest
from api.parse import InferRequest, asked_in_query, read_infer, read_media_type, read_query
from api.readers import Readers
from api.reply import JSON, Reply
from api.server.body import SMALL, ClientGone, RequestBody, unpack
from api.tenant_access import UNBOUND, TenantAccess
from delen.bundle.manifest import InputSpec
from delen.core.bounds import DEFAULT_TENANT, Options
from delen.core.result import Result
from delen.engine import inputs
from delen.engine.job import Job
from delen.engine.runtime import Runtime
from delen.errors import DelenError, Overloaded, TooLarge
from delen.wire.answers import Result as ResultMessage
from delen.wire.answers import Results, SharedMemory
from delen.wire.requests import NoFields

T = TypeVar("T")

READ_AT_ONCE = {JSON: 16_384, inputs.TEXT: 65_536, inputs.RAW: 1_000_000, inputs.NPY: 1_000_000}
"""Bytes of a body up to which it is read on the event loop: less than a millisecond's work."""
_READ_IN_PLACE = (inputs.RAW, inputs.NPY)
"""What is a tensor in memory that a client shares is used there: a client that changes it
meanwhile gets another answer, and nobody else does. All else is copied before it is read."""
_SUBMIT_AT_ONCE = 16
_LOCK_SECONDS = 0.005
_JSON_BASE, _JSON_NUMBER = 1_000_000, 32
"""Bytes that a JSON body may have in any case, and besides for each number of one sample."""


class Client(Protocol):
    """Who waits for an answer. ``arrived`` is when its request began to come (``time.monotonic``),
    and ``receiving`` for how many seconds it came, None if unknown; ``on_gone`` is called once when
    it leaves before its answer, and ``is_gone`` is true then."""

    arrived: float
    receiving: float | None
    is_gone: bool
    on_gone: Callable[[], None] | None

    @property
    def user(self) -> int | None:
        """Its user on this machine, if the kernel knows one."""


class InferAddress:
    """Answers inputs over ``runtime``, and is what the infer addresses of other protocols answer
    with. ``readers`` read what takes long, ``threads`` submit what may have to wait for a lock or
    for a model. ``failed`` is called with the model and the seconds of each request that
    ends with an error. ``tenants`` says whose requests may be whose."""

    def __init__(
        self,
        runtime: Runtime,
        max_body: int,
        readers: Readers,
        threads: Executor,
        failed: Callable[[str, float], None],
        tenants: TenantAccess = UNBOUND,
    ) -> None:
        self._runtime = runtime
        self._max_body = max_body
        self._readers = readers
        self._threads = threads
        self._failed = failed
        self._tenants = tenants

    async def answer(self, request: HttpRequest, model: str) -> Reply:
        """The answer to an input for ``model``; raises the errors of ``submit_batch``."""
        waited = time.monotonic() - request.connection.arrived
        spec = self._runtime.input_of(model)
        content_type = request.headers.get(b"content-type", b"").decode("latin-1")
        media_type = read_media_type(content_type)
        limit = self.limit(media_type, spec)
        _check_json(request.body, media_type, limit)
        tenant_of = partial(self.tenant_of, client=request.connection)
        payer = tenant_of(asked_in_query(request.query)[1].tenant)
        _check_patience(request)
        raw: inputs.Contents | None = request.body.shared
        is_packed = request.body.is_packed
        is_in_place = raw is not None and media_type in _READ_IN_PLACE and not is_packed
        if raw is None or not is_in_place:
            raw = await request.body.read(limit)
        read = partial(_read, media_type, request.query, spec, limit, is_packed, raw)
        is_quick = len(raw) <= READ_AT_ONCE.get(media_type, -1) and not is_packed
        asked, spent = await self.decode(
            request.connection,
            media_type,
            read,
            payer,
            lambda asked: tenant_of(asked.options.tenant),
            is_quick or is_in_place,
        )
        waited += spent
        try:
            jobs = await self.run(request.connection, model, asked, waited)
        except Overloaded as error:
            request.connection.refused = (request.target, time.monotonic() + error.retry_after)
            raise
        return self._compose(jobs, asked.is_batch)

    def own_options(self, named: Options, client: Client) -> Options:
        """``named`` options, of the tenant that ``client`` is; as ``tenant_of``."""
        tenant = self.tenant_of(named.tenant, client)
        return named if tenant == named.tenant else replace(named, tenant=tenant)

    def tenant_of(self, named: str, client: Client) -> str:
        """Whose request of ``client`` it is that names the tenant ``named``."""
        return self._tenants.tenant(named, client)

    async def decode(
        self,
        client: Client,
        media_type: str,
        read: Callable[[], T],
        payer: str = DEFAULT_TENANT,
        payer_of: Callable[[T], str] | None = None,
        is_quick: bool = False,
    ) -> tuple[T, float]:
        """What ``read`` returns, and for how many seconds it waited first. It is called on another
        thread unless it ``is_quick``, and its processor time is charged to the tenant ``payer``, or
        to the one that is ``payer_of`` what it returns."""
        if is_quick:
            self._readers.notice()
            return read(), 0.0
        return await self._readers.read(client, payer, media_type, read, payer_of)

    async def run(
        self, client: Client, model: str, asked: InferRequest, waited: float
    ) -> list[Job]:
        """The jobs of ``asked`` once they are done, or one of them has failed; they end early where
        ``client`` leaves. The request ``waited`` so many seconds for others since it arrived.
        Forbidden for a tenant that the client's user may not be."""
        submit = partial(
            self._runtime.submit_batch,
            model,
            asked.samples,
            asked.bounds,
            self.own_options(asked.options, client),
            client.arrived,
            waited,
            client.receiving,
        )
        return await self.run_jobs(client, model, submit, len(asked.samples) <= _SUBMIT_AT_ONCE)

    async def run_jobs(
        self, client: Client, model: str, submit: Callable[[], list[Job]], is_quick: bool = True
    ) -> list[Job]:
        """As ``run``, of the jobs that ``submit`` submits; that is quick where nobody holds the
        engine's lock, if it ``is_quick``."""
        if client.is_gone:
            raise ClientGone
        try:
            if is_quick and self._runtime.is_free(_LOCK_SECONDS):
                jobs = submit()
            else:
                jobs = await self._on(self._threads, submit)
        except DelenError:
            self._failed(model, time.monotonic() - client.arrived)
            raise
        await self._until_ended(client, jobs)
        return jobs

    def results(self, jobs: Sequence[Job]) -> list[Result]:
        """What ``run`` came to: the results of all ``jobs``, or what one of them raises."""
        try:
            if len(jobs) > 1:
                for job in jobs:
                    if job.future.done():
                        job.future.result()
            return [job.future.result() for job in jobs]
        except BaseException:
            self._failed(jobs[0].model.name, time.monotonic() - jobs[0].arrived)
            if len(jobs) > 1:  # the others end, as nobody waits for them
                self._threads.submit(self._runtime.cancel, jobs)
            raise

    def limit(self, media_type: str, spec: InputSpec) -> int:
        """Bytes that a body with an input of ``spec`` may have."""
        if media_type != JSON:
            return self._max_body
        return min(self._max_body, _JSON_BASE + _JSON_NUMBER * prod(spec.shape))

    async def _until_ended(self, client: Client, jobs: Sequence[Job]) -> None:
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

        client.on_gone = give_up
        if client.is_gone:
            give_up()
        when_ended([job.future for job in jobs], tell)
        try:
            await ended
        except asyncio.CancelledError:
            give_up()
            raise
        client.on_gone = None

    def _compose(self, jobs: Sequence[Job], is_batch: bool) -> Reply:
        results = tuple(map(ResultMessage.of, self.results(jobs)))
        return Reply.of(Results(results) if is_batch else results[0])

    async def _on(self, threads: Executor, call: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(threads, call, *arguments)


def answer_memory(request: HttpRequest) -> Reply:
    """How much memory the client shares with this daemon, over the connection that asks."""
    read_query(NoFields, request.query)
    return Reply.of(SharedMemory(len(request.connection.memory)))


def _check_json(body: RequestBody, media_type: str, limit: int) -> None:
    if media_type == JSON and body.length is not None and body.length > limit:
        raise TooLarge(
            f"the JSON body has {body.length} bytes; at most {limit} are read for this model: send "
            f"{inputs.RAW} or {inputs.NPY}"
        )


def _check_patience(request: HttpRequest) -> None:
    """Overloaded, with nothing read, for a large body that its client sends again before its
    Retry-After."""
    target, until = request.connection.refused
    left = until - time.monotonic()
    is_small = request.body.length is not None and request.body.length <= SMALL
    if left > 0 and target == request.target and not is_small:
        raise Overloaded("the request came again before its Retry-After", retry_after=left)


def _read(
    media_type: str,
    query: str,
    spec: InputSpec,
    limit: int,
    is_packed: bool,
    raw: inputs.Contents,
) -> InferRequest:
    return read_infer(media_type, query, unpack(bytes(raw), limit) if is_packed else raw, spec)


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
