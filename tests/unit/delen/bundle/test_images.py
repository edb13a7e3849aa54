"""One picture, however it is stored, is one sample."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest

from delen.bundle.images import decode_image, fit_image, served_pixels
from delen.bundle.manifest import ImagePreprocessing
from delen.errors import InvalidInput, TooLarge

Image = pytest.importorskip("PIL.Image", reason="images need Pillow: delen[daemon]")

RGB = ImagePreprocessing("RGB", "bilinear")
GREY = ImagePreprocessing("L", "bilinear")
TRANSPOSED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How a camera's sensor sees an upright scene that it stores with an EXIF orientation."""


def encoded(image: Any, form: str = "PNG", **how: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=form, **how)
    return buffer.getvalue()


def picture(width: int = 12, height: int = 8, channels: int = 3) -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return values[:, :, 0] if channels == 1 else values


def oriented(image: Any, orientation: int, form: str, **how: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image.transpose(TRANSPOSED[orientation]), form, exif=exif, **how)


@pytest.mark.parametrize("orientation", TRANSPOSED)
@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
def test_a_turned_picture_is_its_upright_self(orientation: int, form: str) -> None:
    upright = Image.fromarray(picture())
    how = {"lossless": True} if form == "WEBP" else {}
    turned = oriented(upright, orientation, form, **how)
    for shape in ((8, 12, 3), (5, 3, 3)):
        expected = decode_image(encoded(upright), RGB, shape)
        np.testing.assert_array_equal(decode_image(turned, RGB, shape), expected)


@pytest.mark.parametrize("orientation", TRANSPOSED)
def test_a_large_jpeg_is_turned_too(orientation: int) -> None:
    y, x = np.mgrid[0:400, 0:1200]
    scene = Image.fromarray(np.stack([x / 5, y / 2, 0 * x], axis=2).astype(np.uint8))
    expected = decode_image(encoded(scene, "JPEG"), RGB, (20, 60, 3)).astype(int)
    turned = decode_image(oriented(scene, orientation, "JPEG"), RGB, (20, 60, 3))
    assert np.abs(turned - expected).max() <= 4


def test_as_stored_a_picture_stays_turned() -> None:
    stored = ImagePreprocessing("RGB", "bilinear", "stored", None)
    turned = oriented(Image.fromarray(picture()), 3, "PNG")
    np.testing.assert_array_equal(decode_image(turned, stored, (8, 12, 3)), picture()[::-1, ::-1])


@pytest.mark.parametrize("way", [RGB, GREY])
def test_16_bits_keep_the_upper_eight_in_every_form(way: ImagePreprocessing) -> None:
    deep = np.random.default_rng(1).integers(0, 65_536, (8, 12)).astype(np.uint16)
    shape = (8, 12, len(way.mode))
    expected = np.repeat((deep >> 8).astype(np.uint8)[:, :, None], shape[2], axis=2)
    image = Image.fromarray(deep)
    big_endian = b"P5 12 8 65535\n" + deep.astype(">u2").tobytes()
    for contents in (encoded(image), encoded(image, "TIFF"), big_endian):
        np.testing.assert_array_equal(decode_image(contents, way, shape), expected)
    for same in (image, image.convert("I"), Image.open(io.BytesIO(encoded(image)))):
        np.testing.assert_array_equal(fit_image(same, way, shape), expected)


def test_16_bits_of_colour_keep_the_upper_eight_too() -> None:
    deep = np.random.default_rng(1).integers(0, 65_536, (8, 12, 3)).astype(">u2")
    contents = b"P6 12 8 65535\n" + deep.tobytes()
    decoded = decode_image(contents, RGB, (8, 12, 3)).astype(int)
    assert np.abs(decoded - (deep >> 8)).max() <= 1


def test_floats_are_from_black_to_white() -> None:
    grey = picture(channels=1)
    floats = Image.fromarray((grey / 255).astype(np.float32))
    for decoded in (
        fit_image(floats, GREY, (8, 12, 1)),
        decode_image(encoded(floats, "TIFF"), GREY, (8, 12, 1)),
    ):
        np.testing.assert_array_equal(decoded[:, :, 0], grey)


@pytest.mark.parametrize("value", [-0.1, 1.5, 255.0, np.nan, np.inf])
def test_other_floats_are_refused(value: float) -> None:
    image = Image.fromarray(np.full((4, 4), value, np.float32))
    with pytest.raises(InvalidInput, match=r"floats are from .*; they must be from 0") as caught:
        fit_image(image, RGB, (4, 4, 3))
    assert caught.value.field == "input"


@pytest.mark.parametrize("value", [-1, 65_536])
def test_whole_numbers_beyond_16_bits_are_refused(value: int) -> None:
    image = Image.fromarray(np.full((4, 4), value, np.int32))
    with pytest.raises(InvalidInput, match="beyond 16 bits"):
        fit_image(image, RGB, (4, 4, 3))


def transparent_pictures() -> dict[str, bytes]:
    """Red that is opaque at the left and hidden at the right."""
    layer = Image.new("RGBA", (4, 2), (255, 0, 0, 255))
    layer.paste((0, 255, 0, 0), (2, 0, 4, 2))
    grey = Image.new("LA", (4, 2), (255, 255))
    palette = Image.new("P", (4, 2), 0)
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.paste(1, (2, 0, 4, 2))
    keyed = layer.convert("RGB")
    grey.paste((0, 0), (2, 0, 4, 2))
    return {
        "RGBA": encoded(layer),
        "WebP": encoded(layer, "WEBP", lossless=True, exact=True),
        "TIFF": encoded(layer, "TIFF"),
        "palette": encoded(palette, transparency=1),
        "GIF": encoded(palette, "GIF", transparency=1),
        "key colour": encoded(keyed, transparency=(0, 255, 0)),
    }


@pytest.mark.parametrize("form", transparent_pictures())
@pytest.mark.parametrize("background", [(255, 255, 255), (10, 20, 30)])
def test_what_is_transparent_shows_the_background(
    form: str, background: tuple[int, int, int]
) -> None:
    way = ImagePreprocessing("RGB", "nearest", background=background)
    decoded = decode_image(transparent_pictures()[form], way, (2, 4, 3))
    assert decoded[:, :2].reshape(-1, 3).tolist() == [[255, 0, 0]] * 4
    assert decoded[:, 2:].reshape(-1, 3).tolist() == [list(background)] * 4


def test_grey_is_laid_on_the_background_and_half_shows_half() -> None:
    image = Image.new("LA", (2, 2), (0, 128))
    assert np.unique(decode_image(encoded(image), GREY, (2, 2, 1))).tolist() == [127]


def test_without_a_background_the_stored_colour_shows() -> None:
    way = ImagePreprocessing("RGB", "nearest", "exif", None)
    decoded = decode_image(transparent_pictures()["RGBA"], way, (2, 4, 3))
    assert decoded[0, 3].tolist() == [0, 255, 0]


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_a_moving_image_is_taken(form: str) -> None:
    frames = [Image.new("RGB", (4, 4), (value,) * 3) for value in (200, 90, 10)]
    how = {"lossless": True} if form == "WEBP" else {}
    moving = encoded(frames[0], form, save_all=True, append_images=frames[1:], **how)
    assert np.unique(decode_image(moving, RGB, (4, 4, 3))).tolist() == [200]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_images_of_any_mode_are_converted(mode: str) -> None:
    assert fit_image(Image.new(mode, (4, 6)), RGB, (6, 4, 3)).shape == (6, 4, 3)


@pytest.mark.parametrize("form", ["EPS", "PDF", "ICO"])
def test_formats_that_are_not_named_are_refused(form: str) -> None:
    with pytest.raises(InvalidInput, match="it is not JPEG, PNG, WEBP"):
        decode_image(encoded(Image.new("RGB", (16, 16)), form), RGB, (4, 4, 3))


def test_an_image_cut_off_closed_or_empty_is_refused() -> None:
    whole = encoded(Image.fromarray(picture(100, 100)))
    closed = Image.open(io.BytesIO(whole))
    closed.close()
    for image in (
        Image.open(io.BytesIO(whole[: len(whole) // 2])),
        closed,
        Image.new("RGB", (0, 4)),
    ):
        with pytest.raises(InvalidInput, match="the image") as caught:
            fit_image(image, RGB, (4, 4, 3))
        assert caught.value.field == "input"
    with pytest.raises(InvalidInput, match="the image is empty"):
        decode_image(b"", RGB, (4, 4, 3))


@pytest.mark.parametrize("side", [14_000, 60_000])
def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(side: int) -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    bomb = bytearray(encoded(Image.new("RGB", (4, 6))))
    bomb[12:33] = header + struct.pack(">I", zlib.crc32(header))
    with pytest.raises(TooLarge, match=r"pixels.* smaller first"):
        decode_image(bytes(bomb), RGB, (4, 4, 3))


def test_the_limit_names_what_the_image_has() -> None:
    image = encoded(Image.new("RGB", (4, 6)))
    with pytest.raises(TooLarge, match="4 x 6 pixels; at most 23"):
        decode_image(image, RGB, (4, 4, 3), most_pixels=23)
    decode_image(image, RGB, (4, 4, 3), most_pixels=24)


def test_the_limit_of_a_request_follows_from_the_input() -> None:
    assert served_pixels((32, 32, 3)) == 16_000_000
    assert served_pixels((4000, 3000, 3)) == 48_000_000


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
@pytest.mark.parametrize(("repeats", "is_refused"), [(0, False), (20, False), (200, True)])
def test_scans_are_decoded_up_to_a_number(form: str, repeats: int, is_refused: bool) -> None:
    """The last scan once more is a scan that changes nothing, and takes as long as any."""
    options = {"progressive": True} if form == "JPEG" else {"compression": "jpeg"}
    whole = encoded(Image.new("RGB", (64, 48), "red"), form, **options)
    begin = whole.rindex(b"\xff\xda")
    last = whole[begin : whole.rindex(b"\xff\xd9")]
    bomb = whole[:begin] + last * repeats + whole[begin:]
    if is_refused:
        with pytest.raises(TooLarge, match="scans"):
            decode_image(bomb, RGB, (4, 4, 3))
    elif form == "JPEG":
        assert decode_image(bomb, RGB, (4, 4, 3))[0, 0, 0] > 250


def test_a_large_image_may_have_few_scans() -> None:
    whole = encoded(Image.new("L", (3000, 3000)), "JPEG", progressive=True)
    decode_image(whole, RGB, (4, 4, 3), most_pixels=9_000_000)
    begin = whole.rindex(b"\xff\xda")
    bomb = whole[:begin] + whole[begin:-2] * 12 + whole[begin:]
    with pytest.raises(TooLarge, match="at most 12"):
        decode_image(bomb, RGB, (4, 4, 3), most_pixels=9_000_000)


@pytest.mark.parametrize("side", [20, 1100])
def test_what_is_decoded_in_python_has_a_lower_limit(side: int) -> None:
    plain = b"P2 %d %d 255\n" % (side, side) + b"7 " * side * side
    if side > 1000:
        with pytest.raises(TooLarge, match="another form"):
            decode_image(plain, RGB, (4, 4, 3), most_pixels=16_000_000)
    else:
        assert decode_image(plain, RGB, (4, 4, 3))[0, 0, 0] == 7


def test_whatever_pillow_stumbles_over_is_refused() -> None:
    """A TIFF that gives the place of its strip as a fraction."""
    whole = bytearray(encoded(Image.new("RGB", (4, 6)), "TIFF"))
    place = whole.index(struct.pack("<HH", 273, 4))
    whole[place + 2] = 5
    with pytest.raises(InvalidInput, match="does not decode"):
        decode_image(bytes(whole), RGB, (4, 4, 3))
