"""From what an app has in hand to a request's body: arrays, PIL images, paths, encoded bytes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from delen.errors import InvalidInput

Input: TypeAlias = Any
"""A numpy array (a sample or a batch), a PIL image, a path, or the bytes of a JPEG, PNG or .npy."""

_SIGNATURES = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\x93NUMPY", "application/x-npy"),
)


@dataclass(frozen=True, slots=True)
class EncodedInput:
    media_type: str
    body: bytes


def encode(x: Input) -> EncodedInput:
    """The body and media type for ``x``. InvalidInput says what is taken when ``x`` is not."""
    if isinstance(x, np.ndarray):
        if x.dtype == object:
            raise InvalidInput("the array holds Python objects; it must hold numbers", "input")
        buffer = BytesIO()
        np.save(buffer, x, allow_pickle=False)
        return EncodedInput("application/x-npy", buffer.getvalue())
    if isinstance(x, (bytes, bytearray, memoryview)):
        return _recognise(bytes(x), "the bytes")
    if isinstance(x, (str, os.PathLike)):
        file = Path(x)
        try:
            contents = file.read_bytes()
        except (OSError, ValueError) as error:
            message = f"{file} cannot be read: {getattr(error, 'strerror', None) or error}"
            raise InvalidInput(message, "input") from error
        return _recognise(contents, str(file))
    if callable(getattr(x, "save", None)) and hasattr(x, "mode"):
        buffer = BytesIO()
        image = x if x.mode in ("1", "L", "LA", "P", "RGB", "RGBA") else x.convert("RGB")
        image.save(buffer, format="PNG", compress_level=1)
        return EncodedInput("image/png", buffer.getvalue())
    raise InvalidInput(
        f"input is {type(x).__name__}; it must be a numpy array, a PIL image, a path, or the bytes "
        "of a JPEG, PNG or .npy file",
        "input",
    )


def _recognise(contents: bytes, what: str) -> EncodedInput:
    for signature, media_type in _SIGNATURES:
        if contents.startswith(signature):
            return EncodedInput(media_type, contents)
    raise InvalidInput(f"{what} is no JPEG, PNG or .npy file", "input")
