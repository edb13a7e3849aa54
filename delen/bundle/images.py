"""How an image becomes a sample, the same at training, calibration and serving."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from delen.bundle.media import IMAGES
from delen.errors import DelenError, InvalidInput, MissingExtra, TooLarge

if TYPE_CHECKING:
    from PIL import Image

    from delen.bundle.manifest import ImagePreprocessing

MAX_PIXELS = 64_000_000
"""An image with more pixels than this is refused before it is decoded."""

_SERVED_PIXELS = 16_000_000
_TIMES_LARGER = 4
_MOST_SCANS = 12
"""Scans of all of a JPEG's pixels, at the limit of pixels; a smaller one may have more, up to
``_MOST_SHORT_SCANS``. A scan takes as long as decoding what is not progressive."""
_MOST_SHORT_SCANS = 100
_START_OF_SCAN = b"\xff\xda"
_TIFF_STRIPS, _TIFF_TILES = 273, 324
_TIMES_SLOWER = 16
"""What Pillow decodes in Python: runs of BMP, PPM in decimals or with 16 bits."""

_ORIENTATION = 0x0112
_GAP = 2
"""A JPEG is decoded at least this many times larger than it is needed."""
_SIDEWAYS = (5, 6, 7, 8)
_JPEGS = ("JPEG", "MPO", "TIFF")
"""What may hold what JPEG compresses. A TIFF does so in pieces."""


def decode_image(
    encoded: bytes,
    way: ImagePreprocessing,
    shape: tuple[int, ...],
    formats: Sequence[str] = tuple(IMAGES.values()),
    most_pixels: int = MAX_PIXELS,
    smaller: Sequence[tuple[int, ...]] = (),
) -> NDArray[np.uint8]:
    """An encoded image, of Pillow's ``formats``, as uint8 ``shape``: see ``fit_image``. One that
    does not fill it becomes the largest of the ``smaller`` shapes, which descend, that it fills, or
    the smallest.

    Raises InvalidInput for what does not decode, TooLarge for more than ``most_pixels`` or what
    takes far longer to decode than so many pixels should, MissingExtra without Pillow.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ModuleNotFoundError as error:
        raise MissingExtra("Pillow (to decode images)", "daemon") from error
    if not encoded:
        raise InvalidInput("the image is empty", "input")
    with plain_errors():
        try:
            image = Image.open(io.BytesIO(encoded), formats=tuple(formats))
        except UnidentifiedImageError:
            wanted = ", ".join(formats)
            raise InvalidInput(f"the image does not decode: it is not {wanted}", "input") from None
        with image:
            check_size(image, most_pixels)
            _check_work(encoded, image, most_pixels)
            return fit_image(image, way, filled_shape(image, way, (shape, *smaller)))


def filled_shape(
    image: Image.Image, way: ImagePreprocessing, shapes: Sequence[tuple[int, ...]]
) -> tuple[int, ...]:
    """The largest of the ``shapes``, which descend, that ``image`` fills, or the smallest."""
    return next((shape for shape in shapes[:-1] if _fills(image, way, shape)), shapes[-1])


def _fills(image: Image.Image, way: ImagePreprocessing, shape: tuple[int, ...]) -> bool:
    """Whether ``image`` is not scaled up to ``shape`` in height or width."""
    width, height = image.size
    if _is_sideways(image, way):
        width, height = height, width
    return height >= shape[0] and width >= shape[1]


def _is_sideways(image: Image.Image, way: ImagePreprocessing) -> bool:
    """Whether the EXIF orientation of ``image`` turns it by a quarter."""
    return way.orientation == "exif" and image.getexif().get(_ORIENTATION) in _SIDEWAYS


def scale_down(
    sample: NDArray[np.uint8], way: ImagePreprocessing, shape: tuple[int, ...]
) -> NDArray[np.uint8]:
    """``sample``, an input of one size, as one of the smaller ``shape``, by the filter that resizes
    images. Samples that calibrate a smaller size are made in the same way."""
    if sample.shape == shape:
        return sample
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise MissingExtra("Pillow (to scale images down)", "daemon") from error
    height, width, channels = shape
    pixels = Image.fromarray(sample if channels > 1 else sample[:, :, 0])
    scaled = pixels.resize((width, height), Image.Resampling[way.resize.upper()])
    return np.asarray(scaled, np.uint8).reshape(shape)


def served_pixels(shape: tuple[int, ...]) -> int:
    """How many pixels an image may have that a request sends for an input of ``shape``."""
    return max(_SERVED_PIXELS, _TIMES_LARGER * shape[0] * shape[1])


def fit_image(
    image: Image.Image, way: ImagePreprocessing, shape: tuple[int, ...]
) -> NDArray[np.uint8]:
    """``image``, open but perhaps not yet decoded, as uint8 ``shape``: height, width, channels.

    The first frame is taken, unless ``image`` stands at another. It is turned as its EXIF
    orientation says, brought to 8 bits (16 bits keep the upper eight, floats are 0 to 1), laid on
    the background where it is transparent, converted to the colour mode and resized. A JPEG much
    larger than ``shape`` is decoded at a fraction of its size, which changes a pixel by one or two
    of 255. Colour profiles are ignored.

    Raises InvalidInput for an image that does not decode, TooLarge for one of too many pixels.
    """
    from PIL import Image, ImageOps

    height, width, channels = shape
    with plain_errors():
        check_size(image)
        is_turned = way.orientation == "exif"
        wanted = (height, width) if _is_sideways(image, way) else (width, height)
        image.draft(way.mode, (_GAP * wanted[0], _GAP * wanted[1]))
        upright = ImageOps.exif_transpose(image) if is_turned else image
        pixels = _flattened(_of_8_bits(upright), way)
        if pixels.size != (width, height):
            pixels = pixels.resize((width, height), Image.Resampling[way.resize.upper()])
        return np.asarray(pixels, np.uint8).reshape(height, width, channels)


def check_size(image: Image.Image, most_pixels: int = MAX_PIXELS) -> None:
    """InvalidInput for an image without pixels, TooLarge for more than ``most_pixels``."""
    if not image.width * image.height:
        raise InvalidInput(f"the image is empty: {image.width} x {image.height} pixels", "input")
    if image.width * image.height > most_pixels:
        raise TooLarge(
            f"the image has {image.width} x {image.height} pixels; at most {most_pixels} are "
            "decoded: make it smaller first",
            "input",
        )


def _check_work(encoded: bytes, image: Image.Image, most_pixels: int) -> None:
    """TooLarge for an image that takes far longer to decode than others of its size."""
    from PIL import Image

    pixels = image.width * image.height
    tile = getattr(image, "tile", None)
    slow_pixels = most_pixels // _TIMES_SLOWER
    if pixels > slow_pixels and tile and tile[0][0] in Image.DECODERS:
        raise TooLarge(
            f"the image has {image.width} x {image.height} pixels; at most {slow_pixels} are "
            f"decoded of this kind of {image.format}: save it in another form",
            "input",
        )
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    pieces = len(tags.get(_TIFF_STRIPS) or tags.get(_TIFF_TILES) or (0,))
    most_scans = min(_MOST_SHORT_SCANS, _MOST_SCANS * most_pixels // pixels)
    scans = encoded.count(_START_OF_SCAN)
    if image.format in _JPEGS and scans > most_scans * pieces:
        raise TooLarge(
            f"the image has {scans} scans; at most {most_scans * pieces} are decoded: save it with "
            "fewer, or not as progressive",
            "input",
        )


@contextmanager
def plain_errors() -> Iterator[None]:
    """What Pillow raises for an image that does not decode becomes InvalidInput or TooLarge. It
    does not check all that it reads, and stumbles over wrong values in many ways."""
    from PIL import Image

    try:
        yield
    except DelenError:
        raise
    except Image.DecompressionBombError:
        raise TooLarge(
            f"the image has more than {MAX_PIXELS} pixels: make it smaller first", "input"
        ) from None
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise InvalidInput(f"the image does not decode: {reason}", "input") from error


def grey_of_16_bits(image: Image.Image) -> NDArray[np.uint16]:
    """The values of an image of whole numbers. ValueError for those beyond 16 bits."""
    values = np.asarray(image)
    if values.min(initial=0) < 0 or values.max(initial=0) > 65_535:
        raise ValueError(f"it has values from {values.min()} to {values.max()}, beyond 16 bits")
    return values.astype(np.uint16)


def _of_8_bits(image: Image.Image) -> Image.Image:
    """``image`` with 8 bits a channel. Pillow's own conversion cuts off what is above 255."""
    from PIL import Image

    if image.mode.startswith("I"):
        return Image.fromarray((grey_of_16_bits(image) >> 8).astype(np.uint8))
    if image.mode == "F":
        values = np.asarray(image)
        if not ((values >= 0) & (values <= 1)).all():
            raise ValueError(
                f"its floats are from {values.min():g} to {values.max():g}; they must be from 0, "
                "black, to 1, white"
            )
        return Image.fromarray(np.rint(values * np.float32(255)).astype(np.uint8))
    return image


def _flattened(image: Image.Image, way: ImagePreprocessing) -> Image.Image:
    """``image`` in the colour mode, on the background where it is transparent."""
    from PIL import Image

    if way.background is None or not image.has_transparency_data:
        return image.convert(way.mode)
    layer = image.convert("RGBA")
    canvas = Image.new("RGBA", layer.size, (*way.background, 255))
    return Image.alpha_composite(canvas, layer).convert(way.mode)
