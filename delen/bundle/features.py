"""Features as they are sent from one node to another.

- ``fp32``: the values as they are, little-endian.
- ``fp16``: rounded to half precision.
- ``int8``: a byte each, between the least and the greatest value of their channel (the first
  dimension). Two fp32 a channel go before them: the least value, and the step.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delen.core.bounds import Encoding
from delen.errors import InvalidInput

_FLOAT, _HALF = np.dtype("<f4"), np.dtype("<f2")
_LARGEST_HALF = float(np.finfo(np.float16).max)
_STEPS = 255
FEATURES = "features"


def encode(features: NDArray[np.float32], encoding: Encoding) -> tuple[Encoding, bytes]:
    """``features`` in ``encoding``; in fp32 where a value is too large for fp16."""
    if encoding == "int8":
        return encoding, _pack(features)
    if encoding == "fp16" and float(np.abs(features).max()) <= _LARGEST_HALF:
        return encoding, features.astype(_HALF).tobytes()
    return "fp32", features.astype(_FLOAT).tobytes()


def encoded_size(shape: tuple[int, ...], encoding: Encoding) -> int:
    """Bytes of the features of one sample."""
    values = prod(shape)
    if encoding == "int8":
        return values + 2 * _FLOAT.itemsize * _channels(shape)
    return values * (_HALF if encoding == "fp16" else _FLOAT).itemsize


def decode(
    raw: bytes | memoryview, shape: tuple[int, ...], encoding: Encoding
) -> NDArray[np.float32]:
    """What was encoded. InvalidInput for another length, and for values that are not finite."""
    size = encoded_size(shape, encoding)
    if len(raw) != size:
        raise InvalidInput(
            f"the features have {len(raw)} bytes; {encoding} of shape {list(shape)} has {size}",
            FEATURES,
        )
    if encoding == "int8":
        features = _unpack(raw, shape)
    else:
        dtype = _HALF if encoding == "fp16" else _FLOAT
        features = np.frombuffer(raw, dtype).reshape(shape).astype(np.float32)
    if not np.isfinite(features).all():
        raise InvalidInput("the features hold numbers that are not finite", FEATURES)
    return features


def _channels(shape: tuple[int, ...]) -> int:
    return shape[0] if len(shape) > 1 else 1


def _pack(features: NDArray[np.float32]) -> bytes:
    rows = features.reshape(_channels(features.shape), -1).astype(np.float32)
    least, greatest = rows.min(axis=1, keepdims=True), rows.max(axis=1, keepdims=True)
    step = (greatest - least) / _STEPS
    levels = np.rint((rows - least) / np.where(step > 0, step, 1)).astype(np.uint8)
    head: NDArray[Any] = np.concatenate([least, step], axis=1).astype(_FLOAT)
    return b"".join([head.tobytes(), levels.tobytes()])


def _unpack(raw: bytes | memoryview, shape: tuple[int, ...]) -> NDArray[np.float32]:
    channels = _channels(shape)
    head = np.frombuffer(raw, _FLOAT, 2 * channels).reshape(channels, 2, 1)
    levels = np.frombuffer(raw, np.uint8, offset=head.nbytes).reshape(channels, -1)
    with np.errstate(over="ignore", invalid="ignore"):
        features: NDArray[np.float32] = (head[:, 0] + levels * head[:, 1]).astype(np.float32)
    return features.reshape(shape)
