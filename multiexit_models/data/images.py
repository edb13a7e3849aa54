"""A folder of images, one folder a class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from delen.bundle.images import decode_image
from delen.bundle.manifest import ImagePreprocessing, InputSpec
from delen.bundle.media import IMAGE_ENDINGS
from delen.errors import InvalidInput
from multiexit_models.data.dataset import Dataset
from multiexit_models.data.folders import FileKind, read_class_folders
from multiexit_models.data.gather import read_file
from multiexit_models.data.reading import Reading

RESIZE = "bilinear"
IMAGES = FileKind("images", IMAGE_ENDINGS)


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

    def load(file: Path) -> NDArray[np.uint8]:
        return decode_image(read_file(file), way, input.shape)

    return read_class_folders(path, IMAGES, input, load, how)
