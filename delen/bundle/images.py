"""How an image is fitted to a model, the same at training and at serving."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image


def fit_image(
    image: Image.Image, mode: str, size: tuple[int, int], resize: str
) -> NDArray[np.uint8]:
    """``image``, open but perhaps not yet decoded, as uint8 ``[height, width, channels]``.

    ``mode`` is RGB (3 channels) or L (1); ``size`` is ``(width, height)`` in pixels; ``resize``
    is bilinear, bicubic or nearest. A JPEG much larger than ``size`` is decoded at a fraction of
    its size; 16-bit grey keeps its upper eight bits. Raises Pillow's errors for an image that does
    not decode: OSError, SyntaxError or ValueError.
    """
    from PIL import Image

    image.draft(mode, size)
    pixels = _of_16_bits(image).convert(mode)
    if pixels.size != size:
        pixels = pixels.resize(size, Image.Resampling[resize.upper()])
    width, height = size
    return np.asarray(pixels, np.uint8).reshape(height, width, len(mode))


def _of_16_bits(image: Image.Image) -> Image.Image:
    """``image`` with 8 bits a channel. Pillow's own conversion cuts grey of 16 bits off at 255."""
    from PIL import Image

    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image)
    if values.min(initial=0) < 0 or values.max(initial=0) > 65_535:
        raise ValueError(f"it has values from {values.min()} to {values.max()}, beyond 16 bits")
    return Image.fromarray((values >> 8).astype(np.uint8))
