"""The addresses of the Open Inference Protocol."""

from __future__ import annotations

from api.openapi.operation import GUARDED, Operation
from delen.engine.inputs import RAW
from delen.wire.oip import (
    IndexQuery,
    InferAnswer,
    InferQuery,
    ModelConfig,
    ModelIndex,
    ModelMetadata,
    ModelReady,
    Region,
    RegionQuery,
    RepositoryQuery,
    ServerLive,
    ServerMetadata,
    ServerReady,
    Statistics,
)

_MEMORY = "/v2/systemsharedmemory"
_REPOSITORY = "/v2/repository"


def _of_model(rest: str) -> tuple[str, ...]:
    return (f"/v2/models/{{model}}{rest}", f"/v2/models/{{model}}/versions/{{version}}{rest}")


OIP_OPERATIONS = (
    Operation("get", ("/v2/health/live",), "The process works", (ServerLive,), is_told_why=True),
    Operation(
        "get", ("/v2/health/ready",), "Requests are accepted", (ServerReady,), is_told_why=True
    ),
    Operation("get", ("/v2",), "The server and its extensions", (ServerMetadata,)),
    Operation("get", _of_model(""), "A model's tensors", (ModelMetadata,), errors=(404,)),
    Operation("get", _of_model("/ready"), "A model answers", (ModelReady,), is_told_why=True),
    Operation(
        "get", _of_model("/config"), "A model's configuration", (ModelConfig,), errors=(404,)
    ),
    Operation("get", _of_model("/stats"), "A model's statistics", (Statistics,), errors=(404,)),
    Operation("get", ("/v2/models/stats",), "Statistics of all models", (Statistics,)),
    Operation(
        "post",
        _of_model("/infer"),
        "Answer tensors, in JSON or in bytes after it",
        (InferAnswer,),
        body=InferQuery,
        samples=(RAW,),
        headers=("Inference-Header-Content-Length",),
        errors=(403, 404, 422, 429, 501, 507),
    ),
    Operation(
        "post",
        (f"{_REPOSITORY}/index",),
        "The models",
        (list[ModelIndex],),
        body=IndexQuery,
    ),
    Operation(
        "post",
        (f"{_REPOSITORY}/models/{{model}}/load",),
        "Load a model",
        body=RepositoryQuery,
        errors=(*GUARDED, 404, 501, 507),
        is_empty=True,
    ),
    Operation(
        "post",
        (f"{_REPOSITORY}/models/{{model}}/unload",),
        "Unload a model",
        body=RepositoryQuery,
        errors=(*GUARDED, 404, 501),
        is_empty=True,
    ),
    Operation(
        "get",
        (f"{_MEMORY}/status", f"{_MEMORY}/region/{{name}}/status"),
        "The user's regions of shared memory",
        (list[Region],),
        errors=(403, 404),
    ),
    Operation(
        "post",
        (f"{_MEMORY}/region/{{name}}/register",),
        "Register a region of shared memory",
        body=RegionQuery,
        errors=(403,),
        is_empty=True,
    ),
    Operation(
        "post",
        (f"{_MEMORY}/unregister", f"{_MEMORY}/region/{{name}}/unregister"),
        "Forget regions of shared memory",
        errors=(403,),
        is_empty=True,
    ),
)
