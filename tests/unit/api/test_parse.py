"""Large JSON bodies are read as small ones are, and refused before they cost anything."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from api.parse import LARGE_JSON, read_infer, read_json, read_query
from delen.bundle.manifest import InputSpec
from delen.errors import InvalidInput
from delen.wire.requests import ResumeFields

SHAPE = (32, 32, 3)
BYTES = InputSpec("uint8", SHAPE)
FLOATS = InputSpec("float32", SHAPE)
IMAGES = np.random.default_rng(0).integers(0, 256, (12, *SHAPE), np.uint8)


def body(value: Any, **fields: Any) -> bytes:
    raw = json.dumps({"input": value, **fields}).encode()
    assert len(raw) > LARGE_JSON
    return raw


def read(raw: bytes, spec: InputSpec = BYTES) -> Any:
    return read_infer("application/json", "", raw, spec)


@pytest.mark.parametrize("spec", [BYTES, FLOATS])
def test_a_large_body_is_a_batch_and_its_bounds(spec: InputSpec) -> None:
    asked = read(body(IMAGES.tolist(), min_accuracy=0.5, tenant="a:1"), spec)
    assert asked.is_batch and asked.bounds.min_accuracy == 0.5 and asked.options.tenant == "a:1"
    assert asked.samples[0].dtype == np.dtype(spec.dtype)
    np.testing.assert_array_equal(np.stack(asked.samples), IMAGES)


def test_blanks_around_a_body_do_not_count() -> None:
    raw = json.dumps({"input": IMAGES[0].tolist()}).encode()
    asked = read(b" \n" + raw.ljust(2 * LARGE_JSON))
    np.testing.assert_array_equal(asked.samples, IMAGES[:1])


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (body(np.random.default_rng(0).random((4, *SHAPE)).tolist()), "input"),
        (body([*IMAGES.tolist(), IMAGES[0, :31].tolist()]), "input"),
        (body([*IMAGES.tolist(), np.full(SHAPE, 256).tolist()]), "input"),
        (body([[]] * 100_000), "input"),
        (body(["a" * 10_000] + [""] * 50_000), "input"),
        (body("a" * 100_000), "input"),
        (body(IMAGES.tolist(), speed=1), "speed"),
        (body(IMAGES.tolist(), tenant="x" * 20_000), None),
        (body(IMAGES.tolist())[:-1], None),
        (body(IMAGES.tolist())[:-1] + b', "top_k": 1, "top_k": 2}', "top_k"),
        (body(IMAGES.tolist())[:-1] + b"," + body(IMAGES.tolist())[1:], None),
        (b"[" * 200_000, None),
        (b'{"input": ' + b"[" * 200_000, None),
        (b'{"min_accuracy": 0.5' + b" " * 200_000 + b"}", "input"),
        (b"\xff" * 200_000, None),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_no_input_is_refused(raw: bytes, field: str | None) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(raw)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"[" + b"1," * 50_000 + b"1]", "it must be an object, not a list"),
        (
            body([*IMAGES.tolist(), np.full(SHAPE, None).tolist()]),
            "must be a whole number, not null",
        ),
    ],
    ids=["list", "null"],
)
def test_types_in_a_large_body_are_called_as_json_calls_them(raw: bytes, says: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(raw)
    assert says in str(caught.value)


@pytest.mark.parametrize("text", [r'{"a\ud800": 1}', r'{"tenant": "\uDC00"}', r'["\ud800\ud800"]'])
def test_half_a_character_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="JSON"):
        read_json(text.encode())
    assert read_json(rb'{"a": "\ud83d\ude00"}') == {"a": "\N{GRINNING FACE}"}


@pytest.mark.parametrize("raw", [b'{"top_k": ' + b"9" * 5000 + b"}", b'{"a": ' * 5000])
def test_what_is_too_long_or_deep_is_told_without_the_limits_of_python(raw: bytes) -> None:
    with pytest.raises(InvalidInput, match="JSON") as caught:
        read_json(raw)
    assert not any(word in str(caught.value) for word in ("sys.", "recursion", "Exceeds"))


@pytest.mark.parametrize(("raw", "named"), [(b"null", "null"), (b"true", "true"), (b"[1]", "[1]")])
def test_what_is_no_object_is_named_as_json_has_it(raw: bytes, named: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_json(raw)
    assert str(caught.value).endswith(f"not {named}")


def test_what_a_query_lacks_is_not_looked_for_in_a_body() -> None:
    with pytest.raises(InvalidInput, match="the query lacks 'exit'") as caught:
        read_query(ResumeFields, "tenant=a")
    assert caught.value.field == "exit"
