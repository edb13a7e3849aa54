"""The protocol's gRPC service: each method reads its message, and answers from the common core."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from urllib.parse import unquote

import grpc
import msgspec
from numpy.typing import NDArray

from api.caller import Caller
from api.infer import READ_AT_ONCE, InferAddress
from api.oip import grpc_messages as messages
from api.oip.access import RegionAccess
from api.oip.answer import receipt_parameters, write_tensors
from api.oip.describe import Description, check_load, check_unload
from api.oip.grpc_handler import Handler
from api.oip.query import Query, check_version, read_bytes, read_list
from api.refusals import Refusals
from api.reply import JSON
from api.server.body import BodyMemory
from api.server.peer import local_user
from api.views import Service
from delen.bundle.manifest import Manifest
from delen.core.typed_reader import read
from delen.engine.inputs import RAW
from delen.engine.job import Job
from delen.errors import InvalidInput, TooLarge
from delen.wire.oip import (
    InferQuery,
    InputParameters,
    InputTensor,
    OutputParameters,
    Parameter,
    WantedOutput,
)
from delen.wire.oip import Region as RegionMessage

T = TypeVar("T")

_CONTENTS = {
    "UINT8": "uint_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}


_NUMBERS_AT_ONCE = 16_384
"""Numbers of typed contents up to which they are read on the event loop."""


@dataclass(slots=True)
class _Caller:
    """Who waits for an answer. Its request was there whole when it ``arrived``: how long it took to
    come is unknown."""

    arrived: float
    receiving: float | None = None
    is_gone: bool = False
    on_gone: Callable[[], None] | None = None
    find_user: Callable[[], int | None] = lambda: None

    @property
    def user(self) -> int | None:
        return self.find_user()

    def leave(self) -> None:
        self.is_gone = True
        if self.on_gone is not None:
            self.on_gone()


class GrpcService:
    """Answers the methods of the service, at ``port``. ``threads`` run what may have to wait.
    Bodies count in ``memory``."""

    def __init__(
        self,
        service: Service,
        infer: InferAddress,
        description: Description,
        refusals: Refusals,
        threads: Executor,
        port: int,
        access: RegionAccess,
        memory: BodyMemory,
    ) -> None:
        self._runtime = service.runtime
        self._memory = memory
        self._guard = service.guard
        self._refusals = refusals
        self._infer = infer
        self._described = description
        self._threads = threads
        self._port = port
        self._access = access

    def handler(self) -> grpc.GenericRpcHandler:
        """What grpc calls for each method; those that are not offered are refused."""
        return Handler(self._refusals, self._methods(), self._memory)

    def _methods(self) -> dict[str, Callable[..., Any]]:
        described = self._described
        return {
            "ServerLive": lambda _, __: described.live(),
            "ServerReady": lambda _, __: described.ready(),
            "ModelReady": lambda asked, _: described.model_ready(asked.name, asked.version),
            "ServerMetadata": lambda _, __: described.server(self._access.is_over_tcp),
            "ModelMetadata": lambda asked, _: described.model(asked.name, asked.version),
            "ModelConfig": lambda asked, _: {
                "config": msgspec.to_builtins(described.config(asked.name, asked.version))
            },
            "ModelStatistics": lambda asked, _: described.statistics(asked.name, asked.version),
            "RepositoryIndex": lambda asked, _: {
                "models": msgspec.to_builtins(described.index(asked.ready))
            },
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
            "ModelInfer": self._answer,
            "SystemSharedMemoryStatus": self._regions,
            "SystemSharedMemoryRegister": self._register,
            "SystemSharedMemoryUnregister": self._unregister,
        }

    async def _load(self, asked: Any, context: Any) -> dict[str, Any]:
        self._check(context)
        check_load(dict(asked.parameters))
        await self._on_thread(lambda: self._runtime.load(asked.model_name))
        return {}

    async def _unload(self, asked: Any, context: Any) -> dict[str, Any]:
        self._check(context)
        check_unload(asked.parameters)
        await self._on_thread(lambda: self._runtime.unload(asked.model_name))
        return {}

    def _regions(self, asked: Any, context: Any) -> dict[str, Any]:
        found = self._access.regions.list(self._caller(context), asked.name or None)
        regions = {each.name: msgspec.to_builtins(RegionMessage.of(each)) for each in found}
        return {"regions": regions}

    def _register(self, asked: Any, context: Any) -> dict[str, Any]:
        self._access.regions.register(
            self._caller(context), asked.name, asked.key, asked.offset, asked.byte_size
        )
        return {}

    def _unregister(self, asked: Any, context: Any) -> dict[str, Any]:
        self._access.regions.unregister(self._caller(context), asked.name or None)
        return {}

    def _caller(self, context: Any) -> int:
        return self._access.tcp_user(_address(context.peer()), self._port)

    def _find_user(self, context: Any) -> int | None:
        return local_user(_address(context.peer()), self._port)

    def _check(self, context: Any) -> None:
        given = dict(context.invocation_metadata() or ())
        self._guard.check_caller(
            Caller(
                _address(context.peer())[0],
                partial(self._find_user, context),
                authorization=str(given.get("authorization", "")),
            )
        )

    async def _on_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    async def _answer(self, asked: Any, context: Any) -> Any:
        caller = _Caller(time.monotonic(), find_user=partial(self._find_user, context))
        manifest = self._runtime.manifest_of(asked.model_name)
        check_version(manifest, asked.model_version)
        find = self._access.places(lambda: self._caller(context))
        query = Query.of(_read_query(asked), manifest, find)
        array, waited = await self._read_input(caller, asked, query, manifest)
        request = query.with_samples(array)
        running = asyncio.ensure_future(self._infer.run(caller, asked.model_name, request, waited))
        running.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            jobs = await asyncio.shield(running)
        except asyncio.CancelledError:
            caller.leave()
            raise
        results = self._infer.results(jobs)
        return _compose(query, jobs, receipt_parameters(results))

    async def _read_input(
        self, caller: _Caller, asked: Any, query: Query, manifest: Manifest
    ) -> tuple[NDArray[Any], float]:
        """The input's values, and for how many seconds reading them waited."""
        tensor, spec, place = query.input, manifest.input, query.place
        raw, contents = asked.raw_input_contents, asked.inputs[0].contents
        ways = (*raw, *([contents] if contents.ByteSize() else ()), place)
        if len([way for way in ways if way is not None]) > 1:
            raise InvalidInput("input has its values in more than one place", "inputs")
        payer = self._infer.tenant_of(query.options.tenant, caller)
        decode = partial(self._infer.decode, caller, payer=payer)
        if place is not None:
            return await decode(
                RAW,
                lambda: read_bytes(place.read(), tensor, spec),
                is_quick=place.byte_size <= READ_AT_ONCE[RAW],
            )
        if raw:
            return await decode(RAW, lambda: read_bytes(raw[0], tensor, spec), is_quick=True)
        if (field := _CONTENTS.get(tensor.datatype)) is None:
            raise InvalidInput(f"{tensor.datatype} is read from raw_input_contents only", "inputs")
        numbers = getattr(contents, field)
        if len(numbers) > self._infer.limit(JSON, spec) // 8:
            raise TooLarge(f"contents has {len(numbers)} numbers: send raw_input_contents")
        return await decode(
            JSON,
            lambda: read_list(list(numbers), tensor, spec),
            is_quick=len(numbers) <= _NUMBERS_AT_ONCE,
        )


def _read_query(asked: Any) -> InferQuery:
    return InferQuery(
        tuple(
            InputTensor(
                each.name,
                each.datatype,
                tuple(each.shape),
                _read_part(InputParameters, each.parameters),
            )
            for each in asked.inputs
        ),
        tuple(
            WantedOutput(each.name, _read_part(OutputParameters, each.parameters))
            for each in asked.outputs
        ),
        messages.read_parameters(asked.parameters),
        asked.id,
    )


def _read_part(kind: type[T], parameters: Any) -> T:
    return read(kind, messages.read_parameters(parameters)) if parameters else kind()


_RESPONSE = messages.message("ModelInferResponse")


def _compose(query: Query, jobs: list[Job], parameters: dict[str, Parameter]) -> Any:
    manifest = jobs[0].model.bundle.manifest
    answer = _RESPONSE(model_name=manifest.name, model_version=manifest.version, id=query.id)
    messages.write_parameters(parameters, answer.parameters)
    for tensor in write_tensors(jobs, query.outputs):
        described = answer.outputs.add(
            name=tensor.output.name, datatype=tensor.datatype, shape=tensor.shape
        )
        if tensor.output.place is None:
            answer.raw_output_contents.append(tensor.to_bytes())
        else:
            messages.write_parameters(tensor.write(), described.parameters)
    return answer


def _address(peer: str) -> tuple[str, int]:
    """Host and port in what grpc calls a peer: ipv4:127.0.0.1:5000, ipv6:%5B::1%5D:5000."""
    host, _, port = unquote(peer).partition(":")[2].rpartition(":")
    return host.strip("[]"), int(port)
