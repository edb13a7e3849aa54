"""The messages over gRPC are those of the protocol as Triton's client has them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tritonclient.grpc import model_config_pb2, service_pb2

import api.oip.grpc_messages as messages

SOURCE = Path(messages.__file__).with_name("inference.proto").read_text()
NAMES = re.findall(r"^message (\w+)", SOURCE, re.MULTILINE)


def _fields(descriptor: Any) -> dict[str, Any]:
    """Number and type of each field, nested messages with theirs."""
    return {
        field.name: (
            field.number,
            field.type,
            field.is_repeated,
            _fields(field.message_type)
            if field.message_type is not None and field.message_type.containing_type is not None
            else None,
            [(value.name, value.number) for value in field.enum_type.values]
            if field.enum_type is not None
            else None,
        )
        for field in descriptor.fields
    }


def _theirs(name: str) -> Any:
    source = service_pb2 if hasattr(service_pb2, name) else model_config_pb2
    return getattr(source, name).DESCRIPTOR


def test_every_message_of_the_source_is_compiled() -> None:
    assert len(NAMES) > 30
    for name in NAMES:
        body = SOURCE.split(f"message {name} {{")[1].split("\nmessage")[0].split("\nenum")[0]
        own = re.sub(r"  message .*?\n  }", "", body.split("\nservice")[0], flags=re.DOTALL)
        declared = set(re.findall(r"(\w+) = \d+;", own))
        assert {field.name for field in messages.message(name).DESCRIPTOR.fields} == declared


@pytest.mark.parametrize("name", NAMES)
def test_a_message_has_the_numbers_and_types_of_the_protocol(name: str) -> None:
    ours, theirs = _fields(messages.message(name).DESCRIPTOR), _fields(_theirs(name))
    assert {field: theirs.get(field) for field in ours} == ours


def test_methods_have_the_messages_of_the_protocol() -> None:
    theirs = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    for name, method in messages.METHODS.items():
        assert method.input_type.full_name == theirs[name].input_type.full_name
        assert method.output_type.full_name == theirs[name].output_type.full_name
        assert method.client_streaming == theirs[name].client_streaming
