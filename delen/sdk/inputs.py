"""From what an app has in hand to a request's body: arrays, images, texts, paths, encoded bytes."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from delen.errors import InvalidInput

Input: TypeAlias = Any
"""A numpy array (a sample or a batch), a PIL image, a Text or a list of them (a batch), the path of
a JPEG, PNG, .npy, WAV or .txt file, or the bytes of one of the first four. A str is a path."""

_TAKEN = "JPEG, PNG, .npy or WAV file"
_SIGNATURES = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\x93NUMPY", "application/x-npy"),
)


@dataclass(frozen=True, slots=True)
class Text:
    """A text as an input, where a plain str is the path of a file."""

    content: str


@dataclass(frozen=True, slots=True)
class EncodedInput:
    media_type: str
    body: bytes


def encode(x: Input) -> EncodedInput:
    """The body and media type for ``x``. InvalidInput says what is taken when ``x`` is not.

    Of a .txt file line ends at its end are left out.
    """
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
        if file.suffix.lower() == ".txt":
            return EncodedInput("text/plain", contents.rstrip(b"\r\n"))
        return _recognise(contents, str(file))
    if isinstance(x, Text):
        return EncodedInput("text/plain", _utf_8(x))
    if is_text_batch(x):
        document = json.dumps({"input": [text.content for text in x]})
        return EncodedInput("application/json", document.encode())
    if callable(getattr(x, "save", None)) and hasattr(x, "mode"):
        buffer = BytesIO()
        image = x if x.mode in ("1", "L", "LA", "P", "RGB", "RGBA") else x.convert("RGB")
        image.save(buffer, format="PNG", compress_level=1)
        return EncodedInput("image/png", buffer.getvalue())
    raise InvalidInput(
        f"input is {type(x).__name__}; it must be a numpy array, a PIL image, a delen.Text, a "
        f"path, or the bytes of a {_TAKEN}",
        "input",
    )


def is_text_batch(x: Input) -> bool:
    """Whether ``x`` is a list or tuple of Texts, and not an empty one."""
    return isinstance(x, (list, tuple)) and bool(x) and all(isinstance(t, Text) for t in x)


def _utf_8(text: Text) -> bytes:
    try:
        return text.content.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"the text cannot be written in UTF-8: {error}", "input") from error


def _recognise(contents: bytes, what: str) -> EncodedInput:
    for signature, media_type in _SIGNATURES:
        if contents.startswith(signature):
            return EncodedInput(media_type, contents)
    if contents.startswith(b"RIFF") and contents[8:12] == b"WAVE":
        return EncodedInput("audio/wav", contents)
    raise InvalidInput(f"{what} is no {_TAKEN}", "input")
