"""Features on their way to another node."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from delen.bundle.features import decode, encode, encoded_size
from delen.core.bounds import Encoding
from delen.errors import InvalidInput

SHAPES = [(8, 4, 4), (6, 5), (7,), (1,)]
ENCODINGS: list[Encoding] = ["fp32", "fp16", "int8"]


def features(shape: tuple[int, ...], scale: float = 3.0) -> NDArray[np.float32]:
    values = np.random.default_rng(3).normal(0.0, scale, shape).astype(np.float32)
    return np.maximum(values, 0.0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_is_decoded_is_near_to_what_was_encoded(
    shape: tuple[int, ...], encoding: Encoding
) -> None:
    sent = features(shape)
    named, raw = encode(sent, encoding)
    assert (named, len(raw)) == (encoding, encoded_size(shape, encoding))
    received = decode(raw, shape, encoding)
    assert (received.dtype, received.shape) == (np.float32, shape)
    assert received.flags.writeable
    step = {"fp32": 0.0, "fp16": 2.0**-11, "int8": 1 / 255}[encoding]
    assert float(np.abs(received - sent).max()) <= step * float(sent.max())


def test_int8_takes_the_range_of_each_channel() -> None:
    sent = np.stack([np.linspace(0, 1, 16), np.linspace(-100, 100, 16)]).astype(np.float32)
    received = decode(encode(sent, "int8")[1], sent.shape, "int8")
    assert float(np.abs(received - sent)[0].max()) <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize("value", [0.0, -2.5])
def test_a_channel_of_one_value_is_kept(value: float) -> None:
    sent = np.full((3, 4, 4), value, np.float32)
    np.testing.assert_array_equal(decode(encode(sent, "int8")[1], sent.shape, "int8"), sent)


def test_what_is_too_large_for_fp16_goes_as_fp32() -> None:
    sent = np.array([1.0, 70_000.0], np.float32)
    named, raw = encode(sent, "fp16")
    assert named == "fp32"
    np.testing.assert_array_equal(decode(raw, sent.shape, named), sent)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("extra", [-1, 1])
def test_another_length_is_refused_with_the_right_one(encoding: Encoding, extra: int) -> None:
    size = encoded_size((4, 3), encoding)
    with pytest.raises(InvalidInput, match=rf"\[4, 3\] has {size}") as refusal:
        decode(bytes(size + extra), (4, 3), encoding)
    assert refusal.value.field == "features"


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_numbers_that_are_not_finite_are_refused(encoding: Encoding, number: float) -> None:
    raw = bytearray(encoded_size((2, 3), encoding))
    dtype = np.float16 if encoding == "fp16" else np.float32
    raw[: dtype().itemsize] = dtype(number).tobytes()
    with pytest.raises(InvalidInput, match="not finite"):
        decode(bytes(raw), (2, 3), encoding)
