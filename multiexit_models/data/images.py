"""A folder of images, one folder a class."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from delen.bundle.images import fit_image
from delen.bundle.manifest import ImagePreprocessing, InputSpec
from delen.errors import InvalidInput
from multiexit_models.data.dataset import Dataset
from multiexit_models.data.folders import FileKind, read_class_folders
from multiexit_models.data.gather import read_file
from multiexit_models.data.reading import Reading

RESIZE = "bilinear"
IMAGES = FileKind(
    "images",
    frozenset(
        (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
    ),
)
# Named, since some of Pillow's other formats start programs.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")


def image_input(shape: tuple[int, ...]) -> tuple[InputSpec, ImagePreprocessing]:
    """The input for images of ``shape``, (height, width, channels): RGB, or L for one channel.

    Raises InvalidInput for another shape.
    """
    if len(shape) != 3 or shape[2] not in (1, 3) or min(shape) < 1:
        raise InvalidInput(
            f"images have a shape of height, width and 1 or 3 channels, not {list(shape)}", "shape"
        )
    way = ImagePreprocessing("RGB" if shape[2] == 3 else "L", RESIZE)
    return InputSpec("uint8", tuple(shape), image=way), way


def read_image_folder(path: Path, how: Reading) -> Dataset:
    """Images in ``path/CLASS/``, or in ``path/train/CLASS/`` with val, calibration and test beside.

    Each is decoded and fitted to the shape as the daemon does it, to uint8. Raises InvalidInput as
    ``folders.read_class_folders``.
    """
    input, way = image_input(how.shape)
    size = (how.shape[1], how.shape[0])
    return read_class_folders(path, IMAGES, input, partial(_load, way=way, size=size), how)


def _load(file: Path, way: ImagePreprocessing, size: tuple[int, int]) -> NDArray[np.uint8]:
    from PIL import Image

    encoded = read_file(file)
    if not encoded:
        raise ValueError("it is empty")
    with plain_errors(), Image.open(io.BytesIO(encoded), formats=_FORMATS) as image:
        return fit_image(image, way.mode, size, way.resize)


@contextmanager
def plain_errors() -> Iterator[None]:
    """All that Pillow raises for an image that does not decode becomes a ValueError."""
    from PIL import Image, UnidentifiedImageError

    try:
        yield
    except UnidentifiedImageError:
        raise ValueError("it is not an image of a known format") from None
    except (OSError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise ValueError(f"it does not decode: {error}") from error
