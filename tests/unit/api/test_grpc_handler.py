"""Calls over gRPC: what they hold in memory, who pays for inputs, and what a stream answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

grpc = pytest.importorskip("grpc")

from api.infer import InferAddress  # noqa: E402
from api.metrics.requests import Metrics  # noqa: E402
from api.oip import grpc_handler  # noqa: E402
from api.oip import grpc_messages as messages  # noqa: E402
from api.oip.grpc_handler import Handler, as_they_end  # noqa: E402
from api.oip.grpc_service import GrpcService, _Caller, _read_query  # noqa: E402
from api.oip.query import Query  # noqa: E402
from api.readers import Readers  # noqa: E402
from api.refusals import Refusals  # noqa: E402
from api.server.body import BodyMemory  # noqa: E402
from delen.bundle.manifest import read_manifest  # noqa: E402
from delen.daemon.build_model import SHIPPED_BUNDLES  # noqa: E402

MANIFEST = read_manifest(SHIPPED_BUNDLES / "cifar10-resnet")[0]
NAME = "/inference.GRPCInferenceService/ModelInfer"


class Aborted(Exception):
    pass


class Context:
    def set_trailing_metadata(self, metadata: Any) -> None:
        pass

    async def abort(self, status: Any, text: str) -> None:
        raise Aborted(status, text)


def request(size: int) -> bytes:
    asked = messages.message("ModelInferRequest")(model_name="m")
    asked.raw_input_contents.append(bytes(size))
    raw: bytes = asked.SerializeToString()
    return raw


@pytest.mark.asyncio
async def test_messages_count_in_the_memory_of_bodies() -> None:
    opened = asyncio.Event()

    async def wait(asked: Any, context: Any) -> Any:
        await opened.wait()
        return messages.message("ModelInferResponse")(model_name=asked.model_name)

    memory = BodyMemory(150_000)
    handler = Handler(Refusals(Metrics()), {"ModelInfer": wait}, memory)
    call = handler.service(SimpleNamespace(method=NAME)).unary_unary
    first = asyncio.create_task(call(request(100_000), Context()))
    small = asyncio.create_task(call(request(100), Context()))
    await asyncio.sleep(0)
    with pytest.raises(Aborted) as refused:
        await call(request(100_000), Context())
    status, text = refused.value.args
    assert status is grpc.StatusCode.UNAVAILABLE
    assert "server.max_bodies_mb" in text
    opened.set()
    assert {(await first).model_name, (await small).model_name} == {"m"}
    assert (await call(request(100_000), Context())).model_name == "m", "room again"


@pytest.mark.asyncio
async def test_a_tenant_pays_for_its_typed_contents() -> None:
    charged: list[str] = []
    readers = Readers(1, lambda payer, seconds: charged.append(payer), lambda payer: True)
    with ThreadPoolExecutor(1) as threads:
        infer = InferAddress(
            SimpleNamespace(), 1_000_000, readers, threads, lambda model, seconds: None
        )
        service: Any = GrpcService.__new__(GrpcService)
        service._infer = infer
        asked = messages.message("ModelInferRequest")(model_name="m")
        given = asked.inputs.add(name="input", datatype="UINT8", shape=(8, 32, 32, 3))
        given.contents.uint_contents.extend([7] * 8 * 3072)
        asked.parameters["tenant"].string_param = "rpc"
        query = Query.of(_read_query(asked), MANIFEST, lambda part: None)
        array, _ = await service._read_input(_Caller(0.0), asked, query, MANIFEST)
    assert np.array_equal(array, np.full((8, 32, 32, 3), 7, np.uint8))
    assert charged == ["rpc"]


@pytest.mark.asyncio
async def test_a_stream_answers_what_ends_first_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_handler, "_AT_ONCE", 3)
    ends = {number: asyncio.Event() for number in range(5)}
    begun: list[int] = []

    async def ask() -> AsyncIterator[int]:
        for number in ends:
            yield number

    async def answer(number: int) -> int:
        begun.append(number)
        await ends[number].wait()
        return number

    answers = as_they_end(ask(), answer)
    ends[2].set()
    assert await anext(answers) == 2
    assert begun == [0, 1, 2], "no more are under way"
    ends[0].set()
    assert await anext(answers) == 0
    for end in ends.values():
        end.set()
    assert {each async for each in answers} == {1, 3, 4}


@pytest.mark.asyncio
async def test_what_a_stream_has_begun_ends_with_it() -> None:
    ended: list[int] = []

    async def ask() -> AsyncIterator[int]:
        yield 0
        yield 1
        await asyncio.Event().wait()

    async def answer(number: int) -> int:
        try:
            if number == 0:
                await asyncio.Event().wait()
            return number
        finally:
            ended.append(number)

    answers = as_they_end(ask(), answer)
    assert await anext(answers) == 1
    await answers.aclose()
    await asyncio.sleep(0)
    assert ended == [1, 0]
