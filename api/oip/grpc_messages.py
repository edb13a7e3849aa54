"""The messages of the protocol over gRPC, made of ``inference.proto``, and ours as those.

They are in a pool of their own, so that a process may load Triton's or KServe's beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

from delen.wire.message import Message
from delen.wire.oip import Parameter

SERVICE = "inference.GRPCInferenceService"
_FIELDS = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}


def _load() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    compiled = Path(__file__).with_name("inference.desc").read_bytes()
    for file in descriptor_pb2.FileDescriptorSet.FromString(compiled).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


_POOL = _load()
METHODS: Mapping[str, Any] = _POOL.FindServiceByName(SERVICE).methods_by_name
"""The descriptors of the service's methods, by name."""


def message(name: str) -> Any:
    """The class of the message ``name``."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"inference.{name}"))


def filled(kind: Any, source: Message | Mapping[str, Any]) -> Any:
    """A message of ``kind`` with what ``source`` says in fields of the same names."""
    return json_format.ParseDict(msgspec.to_builtins(source), kind(), ignore_unknown_fields=True)


def read_parameters(given: Mapping[str, Any]) -> dict[str, Parameter]:
    """The values of a map of InferParameter."""
    return {
        name: getattr(value, value.WhichOneof("parameter_choice") or "string_param")
        for name, value in given.items()
    }


def write_parameters(values: Mapping[str, Parameter], target: Any) -> None:
    """Put ``values`` into the map ``target`` of InferParameter."""
    for name, value in values.items():
        setattr(target[name], _FIELDS[type(value)], value)
