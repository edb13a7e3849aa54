"""Infer requests of the protocol that were damaged: each is read, or refused with a sentence."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import numpy as np
import pytest

from api.oip.infer import _parse
from api.oip.query import INPUT
from delen.bundle.manifest import read_manifest
from delen.daemon.build_model import SHIPPED_BUNDLES
from delen.errors import DelenError, InvalidInput
from delen.wire.oip import RegionPart

MANIFEST, _ = read_manifest(SHIPPED_BUNDLES / "cifar10-resnet")
LIMIT = 100_000
SIZE = 32 * 32 * 3
PARAMETERS = {
    "max_latency_ms": 5, "tenant": "a", "timeout": 4, "priority": 3, "sequence_id": 0,
    "min_accuracy": "0.5", "binary_data_output": True,
}  # fmt: skip
OUTPUTS = [{"name": "logits", "parameters": {"binary_data": True, "classification": 3}}]
SHAPED = {"name": INPUT, "datatype": "UINT8", "shape": [1, 32, 32, 3]}
PLACE = {"shared_memory_region": "r", "shared_memory_byte_size": SIZE}
REQUESTS: list[tuple[dict[str, Any], bytes]] = [
    (
        {
            "id": "a",
            "inputs": [{**SHAPED, "parameters": {"binary_data_size": SIZE}}],
            "outputs": OUTPUTS,
            "parameters": PARAMETERS,
        },
        bytes(SIZE),
    ),
    ({"inputs": [{**SHAPED, "data": [1] * SIZE}], "parameters": PARAMETERS}, b""),
    ({"inputs": [{**SHAPED, "parameters": PLACE}], "outputs": OUTPUTS}, b""),
]
STRANGE: list[Any] = [
    None, True, -1, 0, 1, 2**31, 2**63, 2**64, 10**30, 1.5, 1e308, "", "x", "\ud800", "1e999",
    "nan", "9" * 400, [], {}, [[]], [None],
]  # fmt: skip


def _places(document: Any) -> list[tuple[Any, Any]]:
    """Each container in ``document`` with each of its keys; of long lists none."""
    if isinstance(document, dict):
        keys: list[Any] = [*document]
    elif isinstance(document, list) and len(document) < 100:
        keys = [*range(len(document))]
    else:
        return []
    inner = [place for key in keys for place in _places(document[key])]
    return [(document, key) for key in keys] + inner


def _damaged(document: dict[str, Any], chance: random.Random) -> bytes:
    document = copy.deepcopy(document)
    for _ in range(chance.randint(0, 3)):
        container, key = chance.choice(_places(document) or [(document, "id")])
        if isinstance(container, dict) and chance.random() < 0.2:
            container.pop(key, None)
        else:
            container[key] = copy.deepcopy(chance.choice(STRANGE))
    text = bytearray(json.dumps(document).encode())
    if chance.random() < 0.3:
        for _ in range(chance.randint(1, 4)):
            text[chance.randrange(len(text))] = chance.randrange(256)
    return bytes(text)


def _find(part: RegionPart) -> None:
    if part.region is not None:
        raise InvalidInput("there is no shared memory", "shared_memory_region")


@pytest.mark.parametrize(
    ("size", "shape"),
    [
        (20 * 20 * 3, (1, 20, 20, 3)),
        (24 * 24 * 3, (1, 24, 24, 3)),
        (SIZE, (1, 32, 32, 3)),
        (2 * SIZE, (2, 32, 32, 3)),
    ],
)
def test_a_bare_body_is_a_sample_of_any_size_or_a_batch_of_the_largest(
    size: int, shape: tuple[int, ...]
) -> None:
    assert _parse(bytes(size), False, 0, MANIFEST, LIMIT, _find).read().shape == shape


def test_whether_outputs_are_binary_is_true_or_false() -> None:
    document = {"inputs": [{**SHAPED, "data": [1] * SIZE}]}
    for value in ("yes", 1, 0.5):
        body = json.dumps({**document, "parameters": {"binary_data_output": value}}).encode()
        with pytest.raises(InvalidInput) as caught:
            _parse(body, False, None, MANIFEST, LIMIT, _find)
        assert caught.value.field == "binary_data_output"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"inputs": None}, "cannot be read: inputs must be a list, not null"),
        ({"id": 7}, "id must be a string, not a whole number"),
        ({"inputs": [{**SHAPED, "shape": [True]}]}, "must be a whole number, not true or false"),
        ({"inputs": [{**SHAPED, "data": [None]}]}, "must be lists of whole numbers, nested 1 or 4"),
        ({"inputs": [{**SHAPED, "data": [None]}]}, "[0] must be a whole number, not null"),
    ],
)
def test_types_are_called_as_json_calls_them(changes: dict[str, Any], says: str) -> None:
    body = json.dumps({"inputs": [SHAPED], **changes}).encode()
    with pytest.raises(InvalidInput) as caught:
        _parse(body, False, None, MANIFEST, LIMIT, _find).read()
    assert says in str(caught.value)


def test_a_damaged_request_is_read_or_refused() -> None:
    chance = random.Random(0)
    outcomes: dict[str, int] = {}
    for _ in range(4000):
        document, binary = chance.choice(REQUESTS)
        head = _damaged(document, chance)
        body = head + binary
        length = len(head) if binary else None
        if chance.random() < 0.1:
            body = body[: chance.randrange(len(body) + 1)]
        if chance.random() < 0.1:
            length = chance.choice([0, 1, len(body), len(body) + 1])
        try:
            array = _parse(body, False, length, MANIFEST, LIMIT, _find).read()
            assert array.shape[1:] in MANIFEST.input.shapes
            assert array.dtype == np.uint8
            outcome = "read"
        except DelenError as error:
            assert error.status in (400, 501), error
            assert str(error).strip()
            outcome = error.code
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    assert outcomes["read"] > 100
    assert outcomes["invalid_input"] > 1000
