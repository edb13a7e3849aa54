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
from multiexit_models.data.folders import Kind, list_class_folders
from multiexit_models.data.gather import (
    UNREADABLE_SHARE,
    Gathering,
    OnFile,
    Source,
    gather,
    read_file,
    stamp,
)
from multiexit_models.data.splits import Shares, complete, groups_of

RESIZE = "bilinear"
IMAGES = Kind(
    "images",
    frozenset(
        (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
    ),
)
# Named, since of Pillow's other formats some start programs.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")


def image_way(shape: tuple[int, ...]) -> ImagePreprocessing:
    """How images are fitted to ``shape``, (height, width, channels): RGB, or L for one channel.

    Raises InvalidInput for another shape.
    """
    if len(shape) != 3 or shape[2] not in (1, 3) or min(shape) < 1:
        raise InvalidInput(
            f"images have a shape of height, width and 1 or 3 channels, not {list(shape)}", "shape"
        )
    return ImagePreprocessing("RGB" if shape[2] == 3 else "L", RESIZE)


def read_image_folder(
    path: Path,
    shape: tuple[int, ...],
    *,
    seed: int,
    shares: Shares | None = None,
    group_by: str | None = None,
    unreadable_share: float = UNREADABLE_SHARE,
    cache: Path | None = None,
    on_file: OnFile | None = None,
) -> Dataset:
    """Images in ``path/CLASS/``, or in ``path/train/CLASS/`` with val, calibration and test beside.

    Each is decoded and fitted to ``shape`` (height, width, channels) as the daemon does it, to
    uint8. The parts the folder does not have are taken out of train by ``shares``, with ``seed``;
    ``group_by`` is a regular expression that finds in a file's name what it has in common with
    others (a track, a person), which then stay in one part. Images that do not decode are skipped
    and named in ``skipped``, up to ``unreadable_share`` of all. ``cache`` is a folder for the
    decoded images, needed where they are more than memory holds; ``on_file`` is told of progress.

    Raises InvalidInput for another layout, an empty class folder, a class that train has not, or
    too many images that do not decode.
    """
    way = image_way(shape)
    size = (shape[1], shape[0])
    listing = list_class_folders(path, IMAGES)
    names = listing.names
    groups = None if group_by is None else groups_of(names, group_by)
    parts = complete(
        listing.given, listing.labels, listing.classes, shares or Shares(), seed, groups
    )
    sources = [
        Source(name, stamp(file), int(label), partial(_load, file, way, size))
        for name, file, label in zip(names, listing.files, listing.labels, strict=True)
    ]
    input = InputSpec("uint8", tuple(shape), image=way)
    gathering = Gathering(unreadable_share, cache, on_file)
    labelled, skipped = gather(sources, parts, input, listing.classes, gathering)
    name = path.resolve().name
    return Dataset(name, input, listing.classes, **labelled, skipped=skipped + listing.left_out)


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
        raise ValueError("it is no image of a known format") from None
    except (OSError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise ValueError(f"it does not decode: {error}") from error
