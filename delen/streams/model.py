"""The model behind a stream: which sizes it is served at, and how a frame becomes what is sent."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from delen.bundle.images import decode_image, filled_shape, fit_image
from delen.bundle.manifest import ImagePreprocessing
from delen.core.plan import OperatingPoint, Preview
from delen.errors import InvalidInput, MissingExtra
from policies.client.api import FrameOption

Encoding = Literal["auto", "raw", "jpeg"]

_QUALITY = 90
_WORTH_JPEG = 16_384
"""Raw bytes from which a frame is compressed for a link: a smaller one is a few packets, and loses
more of its content than it saves."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A frame as ``infer`` takes it, its bytes, and its height and width, if it is an image."""

    content: Any
    payload: int
    size: tuple[int, int] | None = None


class StreamedModel:
    """How frames become a model's samples of ``shape``, and what each of its ``points`` needs.

    ``way`` is the preprocessing of an image model; frames of any other are sent as they are.
    ``encoding`` is ``raw`` or ``jpeg``, or ``auto``: JPEG where a large frame ``leaves`` this
    machine.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        way: ImagePreprocessing | None,
        points: Sequence[OperatingPoint] = (),
        encoding: Encoding = "auto",
        leaves: bool = False,
    ) -> None:
        self._shape = shape
        self._way = way
        self._points = points
        sizes = {size for point in points if (size := self._size(point)) is not None}
        self._sizes = sorted(sizes, reverse=True)
        self._encoding = encoding
        self._leaves = leaves
        if way is not None:
            with suppress(ModuleNotFoundError):  # the first frame would pay for loading it
                from PIL import Image

                Image.preinit()

    @classmethod
    def of(
        cls,
        models: Sequence[Mapping[str, Any]],
        preview: Preview,
        url: str,
        encoding: Encoding = "auto",
    ) -> StreamedModel:
        """The model of ``preview`` as the daemon at ``url`` describes it."""
        described = next(model for model in models if model["name"] == preview.model)["input"]
        way = described["image"]
        return cls(
            tuple(described["shape"]),
            None if way is None else _preprocessing(way),
            preview.points,
            encoding,
            _is_remote(url),
        )

    def options(self, frame: Any) -> list[FrameOption]:
        """What can be sent, ascending by payload, with the payloads of ``frame``.

        Each size's figures are of its deepest exit worth reaching.
        """
        deepest: dict[Any, OperatingPoint] = {}
        for point in self._points:
            size = self._size(point)
            if size not in deepest or point.accuracy > deepest[size].accuracy:
                deepest[size] = point
        options = [self._option(frame, size, point) for size, point in deepest.items()]
        return sorted(options, key=lambda option: option.payload)

    def fit(self, frame: Any) -> Any:
        """``frame`` as it is sent at the model's own size."""
        size = None if self._way is None else (self._shape[0], self._shape[1])
        return self.encode(frame, size).content

    def encode(self, frame: Any, size: tuple[int, int] | None) -> Encoded:
        """``frame`` scaled to ``size``, as it is sent, or to the largest smaller one that it fills.
        InvalidInput where it is not an image.

        What no image model takes is passed on as it is.
        """
        smaller = [] if size is None else [each for each in self._sizes if each < size]
        return self._encode(frame, size, smaller)

    def _encode(
        self, frame: Any, size: tuple[int, int] | None, smaller: Sequence[tuple[int, int]] = ()
    ) -> Encoded:
        if self._way is None or size is None:
            return Encoded(frame, _bytes_of(frame))
        if isinstance(frame, np.ndarray) and frame.dtype != np.uint8:
            return Encoded(frame, frame.nbytes, size)
        shapes = [(*each, self._shape[2]) for each in (size, *smaller)]
        pixels = _fitted(frame, self._way, shapes)
        size = pixels.shape[0], pixels.shape[1]
        if self._encoding == "raw" or (
            self._encoding == "auto" and not (self._leaves and pixels.nbytes >= _WORTH_JPEG)
        ):
            return Encoded(pixels, pixels.nbytes, size)
        encoded = _jpeg(pixels)
        return Encoded(encoded, len(encoded), size)

    def _option(
        self, frame: Any, size: tuple[int, int] | None, point: OperatingPoint
    ) -> FrameOption:
        try:
            self._encode(frame, size)  # the first time takes longer
            began = time.monotonic()
            payload = self._encode(frame, size).payload
            spent = time.monotonic() - began
        except InvalidInput:
            payload, spent = prod(self._shape if size is None else (*size, self._shape[2])), 0.0
        return FrameOption(size, payload, point.latency, point.accuracy, point.exit, spent)

    def _size(self, point: OperatingPoint) -> tuple[int, int] | None:
        if self._way is None:
            return None
        height, width = point.size or self._shape[:2]
        return height, width


def _preprocessing(way: Mapping[str, Any]) -> ImagePreprocessing:
    background = way["background"]
    return ImagePreprocessing(
        way["mode"],
        way["resize"],
        way["orientation"],
        None if background is None else tuple(background),
    )


def _is_remote(url: str) -> bool:
    """Whether what is sent to ``url`` leaves this machine."""
    host = urlsplit(url).hostname
    return host is not None and host not in ("localhost", "::1") and not host.startswith("127.")


def _fitted(
    frame: Any, way: ImagePreprocessing, shapes: Sequence[tuple[int, ...]]
) -> NDArray[np.uint8]:
    """``frame``, an array, a PIL image, encoded bytes or a path, as the daemon would fit it to the
    first of the ``shapes`` that it fills."""
    if isinstance(frame, np.ndarray):
        if frame.shape == shapes[0]:
            return frame
        if not (frame.ndim in (2, 3) and frame.size):
            raise InvalidInput(
                f"a frame has the shape {list(frame.shape)}; it must be [height, width] or "
                "[height, width, channels]",
                "frame",
            )
    if isinstance(frame, (str, os.PathLike)):
        try:
            with open(frame, "rb") as file:  # noqa: PTH123
                frame = file.read()
        except OSError as error:
            raise InvalidInput(
                f"frame {frame} cannot be read: {error.strerror}", "frame"
            ) from error
    if isinstance(frame, (bytes, bytearray, memoryview)):
        return decode_image(bytes(frame), way, shapes[0], smaller=shapes[1:])
    image = _image(frame)
    return fit_image(image, way, filled_shape(image, way, shapes))


def _image(frame: Any) -> Any:
    """``frame`` as a PIL image that may be changed."""
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise MissingExtra("Pillow (to scale frames)", "video") from error
    if isinstance(frame, np.ndarray):
        try:
            return Image.fromarray(frame[..., 0] if frame.shape[2:] == (1,) else frame)
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"the frame is not an image: {error}", "frame") from error
    if not isinstance(frame, Image.Image):
        raise InvalidInput(
            f"a frame is {type(frame).__name__}; it must be an array, a PIL image, a path or the "
            "bytes of an image",
            "frame",
        )
    return frame.copy()


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    _image(pixels).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def _bytes_of(frame: Any) -> int:
    if isinstance(frame, np.ndarray):
        return frame.nbytes
    return len(frame) if isinstance(frame, (bytes, bytearray)) else 0
