"""From what an app has in hand to a request's body: arrays, images, texts, paths, encoded bytes."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from delen.bundle.images import check_size, grey_of_16_bits, plain_errors
from delen.bundle.media import recognise
from delen.errors import InvalidInput, TooLarge

if TYPE_CHECKING:
    from PIL import Image

Input: TypeAlias = Any
"""A numpy array (a sample or a batch), a PIL image, a Text or a list of them (a batch), the path of
an image, a recording, an .npy or a .txt file, or the bytes of one of the first three. A str is a
path."""

_TAKEN = (
    "an image (JPEG, PNG, WebP, BMP, GIF, TIFF, PPM), a recording (WAV, FLAC, Ogg) or an .npy file"
)
_NPY = "application/x-npy"
_NUMBERS = "biufc"
_SENT_AS_PNG = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
_ORIENTATION = 0x0112
_LARGEST = 2_048_000_000
"""Bytes of the largest body that a daemon can be set to accept."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text as an input, where a plain str is the path of a file."""

    content: str

    def __post_init__(self) -> None:
        content = self.content
        if not isinstance(content, str):
            raise InvalidInput(f"the content of a Text must be a str, not {content!r}", "input")
        try:
            content.encode()
        except UnicodeEncodeError as error:
            raise InvalidInput(f"the text cannot be written in UTF-8: {error}", "input") from error


@dataclass(frozen=True, slots=True)
class EncodedInput:
    """``pieces``, one after the other, are the body."""

    media_type: str
    pieces: tuple[bytes | memoryview, ...]

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)


def encode(x: Input) -> EncodedInput:
    """The body and media type for ``x``. InvalidInput says what is taken when ``x`` is not.

    Of a .txt file line ends at its end are left out.
    """
    if isinstance(x, np.ndarray):
        return EncodedInput(_NPY, _npy(x))
    if isinstance(x, (bytes, bytearray, memoryview)):
        return _recognise(bytes(x), "the bytes are")
    if isinstance(x, (str, os.PathLike)):
        file = Path(x)
        try:
            contents = file.read_bytes()
        except (OSError, ValueError) as error:
            message = f"{file} cannot be read: {getattr(error, 'strerror', None) or error}"
            raise InvalidInput(message, "input") from error
        if file.suffix.lower() == ".txt":
            return EncodedInput("text/plain", (contents.rstrip(b"\r\n"),))
        return _recognise(contents, f"{file} is")
    if isinstance(x, Text):
        return EncodedInput("text/plain", (x.content.encode(),))
    if is_text_batch(x):
        document = json.dumps({"input": [text.content for text in x]})
        return EncodedInput("application/json", (document.encode(),))
    if callable(getattr(x, "save", None)) and hasattr(x, "mode"):
        return _encode_image(x)
    raise InvalidInput(
        f"input is {type(x).__name__}; it must be a numpy array, a PIL image, a delen.Text, a "
        f"path, or the bytes of {_TAKEN}",
        "input",
    )


def _npy(x: NDArray[Any]) -> tuple[bytes, memoryview]:
    """The .npy file of ``x``: its header, and the array itself if its rows follow each other."""
    if x.dtype.hasobject or x.dtype.names:
        held = "Python objects" if x.dtype.hasobject else "records"
        raise InvalidInput(f"the array holds {held}; it must hold numbers", "input")
    if x.nbytes > _LARGEST:
        raise TooLarge(
            f"the array has {x.nbytes / 1e6:.0f} MB; no daemon accepts more than "
            f"{_LARGEST / 1e6:.0f} MB in one request: send it in parts",
            "input",
        )
    x = np.ascontiguousarray(x).reshape(x.shape)  # a number alone keeps its shape
    is_plain = x.size and x.dtype.kind in _NUMBERS
    contents = x.reshape(-1).view(np.uint8).data if is_plain else memoryview(x.tobytes())
    return _npy_header(x.dtype, x.shape), contents


@lru_cache(256)
def _npy_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    buffer = BytesIO()
    header = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": shape,
    }
    np.lib.format.write_array_header_2_0(buffer, header)
    return buffer.getvalue()


def is_text_batch(x: Input) -> bool:
    """Whether ``x`` is a list or tuple of Texts, and not an empty one."""
    return isinstance(x, (list, tuple)) and bool(x) and all(isinstance(t, Text) for t in x)


def _recognise(contents: bytes, what: str) -> EncodedInput:
    media_type = _NPY if contents.startswith(b"\x93NUMPY") else recognise(contents)
    if media_type is None:
        raise InvalidInput(f"{what} not {_TAKEN}", "input")
    return EncodedInput(media_type, (contents,))


def _encode_image(image: Image.Image) -> EncodedInput:
    """A PIL image without loss, so that the daemon makes of it what it makes of the same file."""
    from PIL import Image

    buffer = BytesIO()
    with plain_errors():
        try:
            check_size(image)
            orientation = image.getexif().get(_ORIENTATION, 1)
            if image.mode == "F":
                image.save(buffer, format="TIFF", tiffinfo={_ORIENTATION: orientation})
                return EncodedInput("image/tiff", (buffer.getvalue(),))
            if image.mode.startswith("I"):
                image = Image.fromarray(grey_of_16_bits(image))
            elif image.mode not in _SENT_AS_PNG:
                image = image.convert("RGBA" if image.has_transparency_data else "RGB")
            exif = Image.Exif()
            exif[_ORIENTATION] = orientation
            image.save(buffer, format="PNG", compress_level=1, exif=exif)
        except SystemError as error:  # Pillow's for pixels that are not there
            raise ValueError(str(error)) from error
    return EncodedInput("image/png", (buffer.getvalue(),))
