"""The messages of the Open Inference Protocol, version 2, and of the extensions that are offered.

Their fields are named as the protocol names them, in JSON and in gRPC's messages alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType, field

from delen.wire.message import Message, Request

Parameter: TypeAlias = str | int | float | bool
Size = Annotated[int, Meta(ge=0)]


class RegionPart(Request, frozen=True):
    """What is said of a tensor in a shared memory region."""

    region: str | None = field(name="shared_memory_region", default=None)
    byte_size: Size = field(name="shared_memory_byte_size", default=0)
    offset: Size = field(name="shared_memory_offset", default=0)


class InputParameters(RegionPart, frozen=True):
    binary_data_size: Size | None = None


class OutputParameters(RegionPart, frozen=True):
    binary_data: bool | None = None
    classification: Annotated[int, Meta(ge=1)] | None = None


class InputTensor(Request, frozen=True):
    """``data`` is JSON that was not read yet; there is none where the tensor is elsewhere."""

    name: str
    datatype: str
    shape: tuple[Size, ...]
    parameters: InputParameters = InputParameters()
    data: msgspec.Raw = field(default_factory=msgspec.Raw)


class WantedOutput(Request, frozen=True):
    name: str
    parameters: OutputParameters = OutputParameters()


class InferQuery(Request, frozen=True):
    """An infer request. Its ``parameters`` are bounds and options, and those of the protocol."""

    inputs: tuple[InputTensor, ...]
    outputs: tuple[WantedOutput, ...] = ()
    parameters: Mapping[str, Parameter] = {}
    id: str = ""


class OutputTensor(Message, frozen=True, omit_defaults=True):
    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: Mapping[str, Parameter] = {}
    data: Sequence[float | str] | UnsetType = UNSET


class InferAnswer(Message, frozen=True, omit_defaults=True):
    id: str = ""
    model_name: str = field(default="")
    model_version: str = ""
    parameters: Mapping[str, Parameter] = {}
    outputs: list[OutputTensor] | None = None


class ServerLive(Message, frozen=True):
    live: bool


class ServerReady(Message, frozen=True):
    ready: bool


class ModelReady(Message, frozen=True):
    name: str
    ready: bool


class ServerMetadata(Message, frozen=True):
    name: str
    version: str
    extensions: tuple[str, ...]


class TensorMetadata(Message, frozen=True):
    name: str
    datatype: str
    shape: tuple[int, ...]


class ModelMetadata(Message, frozen=True):
    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]


class TensorConfig(Message, frozen=True):
    name: str
    data_type: str
    dims: tuple[int, ...]


class QueuePolicy(Message, frozen=True):
    allow_timeout_override: bool = True


class DynamicBatching(Message, frozen=True):
    priority_levels: int
    default_priority_level: int
    default_queue_policy: QueuePolicy = QueuePolicy()


class ModelConfig(Message, frozen=True):
    name: str
    platform: str
    backend: str
    max_batch_size: int
    input: tuple[TensorConfig, ...]
    output: tuple[TensorConfig, ...]
    dynamic_batching: DynamicBatching


class IndexQuery(Request, frozen=True):
    ready: bool = False


class ModelIndex(Message, frozen=True):
    name: str
    version: str
    state: str
    reason: str


class RepositoryQuery(Request, frozen=True):
    parameters: Mapping[str, Parameter] = {}


class Duration(Message, frozen=True):
    """How often, and for how long in all."""

    count: int = 0
    ns: int = 0


class InferStatistics(Message, frozen=True):
    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration


class BatchStatistics(Message, frozen=True):
    batch_size: int
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration


class ModelStatistics(Message, frozen=True):
    name: str
    version: str
    last_inference: int
    inference_count: int
    execution_count: int
    inference_stats: InferStatistics
    batch_stats: tuple[BatchStatistics, ...]


class Statistics(Message, frozen=True):
    model_stats: tuple[ModelStatistics, ...]


class RegionQuery(Request, frozen=True):
    key: str
    byte_size: Annotated[int, Meta(ge=1)]
    offset: Size = 0


class Region(Message, frozen=True):
    name: str
    key: str
    offset: int
    byte_size: int
