from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delen.bundle.images import decode_image, fit_image
from delen.bundle.manifest import ImagePreprocessing
from delen.bundle.media import recognise
from delen.errors import InvalidInput, TooLarge
from delen.sdk.inputs import Text, encode

Image = pytest.importorskip("PIL.Image", reason="images need Pillow: delen[daemon]")

WAY = ImagePreprocessing("RGB", "bilinear")


def encoded(form: str) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (4, 4), (200, 10, 10)).save(buffer, format=form)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.uint8).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(12, dtype=np.float32)[::2],
        np.zeros((0, 3), np.int16),
        np.float32([1.5]).reshape(()),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_an_array_is_sent_as_npy(array: np.ndarray) -> None:
    sent = encode(array)
    back = np.load(BytesIO(sent.body), allow_pickle=False)
    assert sent.media_type == "application/x-npy"
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_an_array_of_objects_is_refused() -> None:
    with pytest.raises(InvalidInput, match="Python objects"):
        encode(np.array([object()]))


@pytest.mark.parametrize(("form", "media_type"), [("JPEG", "image/jpeg"), ("PNG", "image/png")])
def test_encoded_images_are_sent_as_they_are(form: str, media_type: str, tmp_path: Path) -> None:
    contents = encoded(form)
    file = tmp_path / "picture"
    file.write_bytes(contents)
    for x in (contents, bytearray(contents), memoryview(contents), file, str(file)):
        sent = encode(x)
        assert (sent.media_type, sent.body) == (media_type, contents)


def test_the_bytes_of_an_npy_file_are_recognised() -> None:
    buffer = BytesIO()
    np.save(buffer, np.arange(3))
    assert encode(buffer.getvalue()).media_type == "application/x-npy"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "HSV"])
def test_a_pil_image_is_sent_as_png(mode: str) -> None:
    image = Image.new(mode, (5, 3))
    sent = encode(image)
    back = Image.open(BytesIO(sent.body))
    assert sent.media_type == "image/png"
    assert back.size == (5, 3)
    np.testing.assert_array_equal(np.asarray(back.convert("RGB")), np.asarray(image.convert("RGB")))


def deep_image(form: str) -> Any:
    """One grey picture of 16 bits in a mode of Pillow's."""
    grey = np.random.default_rng(0).integers(0, 65_536, (4, 4)).astype(np.uint16)
    if form == "F":
        return Image.fromarray((grey >> 8).astype(np.float32) / 255)
    image = Image.fromarray(grey)
    if form == "opened":
        buffer = BytesIO()
        image.save(buffer, "PNG")
        return Image.open(buffer)
    return image.convert(form) if form == "I" else image


@pytest.mark.parametrize("form", ["I;16", "I", "opened", "F"])
def test_an_image_of_more_than_8_bits_is_sent_whole(form: str) -> None:
    expected = fit_image(deep_image("I;16"), WAY, (4, 4, 3))
    sent = encode(deep_image(form))
    np.testing.assert_array_equal(decode_image(sent.body, WAY, (4, 4, 3)), expected)
    assert recognise(sent.body) == sent.media_type


@pytest.mark.parametrize("mode", ["L", "RGB", "F", "I;16"])
def test_an_image_is_sent_with_its_orientation(mode: str) -> None:
    image = Image.new(mode, (6, 4))
    image.getexif()[0x0112] = 6
    sent = encode(image)
    assert Image.open(BytesIO(sent.body)).getexif().get(0x0112) == 6 or mode == "F"
    assert fit_image(image, WAY, (6, 4, 3)).shape == decode_image(sent.body, WAY, (6, 4, 3)).shape


@pytest.mark.parametrize("mode", ["PA", "La", "RGBa", "RGBX", "LAB"])
def test_images_of_rare_modes_are_sent_or_refused(mode: str) -> None:
    try:
        sent = encode(Image.new(mode, (4, 4)))
    except InvalidInput as error:
        assert error.field == "input"
    else:
        assert sent.media_type == "image/png"


def test_an_image_cut_off_closed_or_empty_is_refused() -> None:
    whole = BytesIO()
    Image.effect_noise((100, 100), 50).save(whole, "PNG")
    closed = Image.open(BytesIO(whole.getvalue()))
    closed.close()
    cut_off = Image.open(BytesIO(whole.getvalue()[:3000]))
    for image in (closed, cut_off, Image.new("RGB", (0, 4))):
        with pytest.raises(InvalidInput, match="the image") as caught:
            encode(image)
        assert caught.value.field == "input"


@pytest.mark.parametrize("value", [-1, 65_536])
def test_whole_numbers_beyond_16_bits_are_refused(value: int) -> None:
    with pytest.raises(InvalidInput, match="beyond 16 bits"):
        encode(Image.fromarray(np.full((4, 4), value, np.int32)))


@pytest.mark.parametrize(
    "x", [None, 3, [], [[1, 2]], ["hi"], {"a": 1}, pytest.param(object(), id="object")]
)
def test_other_inputs_are_refused_with_what_is_taken(x: object) -> None:
    with pytest.raises(InvalidInput, match="it must be a numpy array, a PIL image") as caught:
        encode(x)
    assert caught.value.field == "input"
    assert type(x).__name__ in str(caught.value)


@pytest.mark.parametrize("contents", [b"", b"GIF", b"PK\x03\x04", b"RIFF\0\0\0\0AVI "])
def test_other_bytes_are_refused(contents: bytes, tmp_path: Path) -> None:
    file = tmp_path / "thing"
    file.write_bytes(contents)
    with pytest.raises(InvalidInput, match=r"not an image .*, a recording .* or an \.npy file"):
        encode(contents)
    with pytest.raises(InvalidInput, match=str(file)):
        encode(file)


@pytest.mark.parametrize("path", ["none.png", "a\0b", "x" * 10_000])
def test_a_path_that_cannot_be_read_is_named(path: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read") as caught:
        encode(str(tmp_path / path))
    assert caught.value.field == "input"


def test_a_folder_is_no_input(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        encode(tmp_path)


def test_the_bytes_of_a_recording_are_recognised(tmp_path: Path) -> None:
    contents = b"RIFF\x2c\0\0\0WAVEfmt " + b"\0" * 32
    file = tmp_path / "recording"
    file.write_bytes(contents)
    for x in (contents, file):
        sent = encode(x)
        assert (sent.media_type, sent.body) == ("audio/wav", contents)
    with pytest.raises(InvalidInput, match="recording"):
        encode(b"RIFF\x2c\0\0\0AVI LIST")


def test_a_text_is_sent_in_utf_8(tmp_path: Path) -> None:
    file = tmp_path / "note.TXT"
    file.write_bytes("Dělen\r\n".encode())
    for x in (Text("Dělen"), file, str(file)):
        sent = encode(x)
        assert (sent.media_type, sent.body) == ("text/plain", "Dělen".encode())


@pytest.mark.parametrize("form", [list, tuple])
def test_texts_are_sent_as_a_batch(form: type) -> None:
    sent = encode(form([Text("Dělen"), Text("")]))
    assert sent.media_type == "application/json"
    assert json.loads(sent.body) == {"input": ["Dělen", ""]}


def test_half_a_character_is_no_text() -> None:
    with pytest.raises(InvalidInput, match="cannot be written in UTF-8"):
        Text("\ud800")


@pytest.mark.parametrize("content", [5, None, b"a"])
def test_a_text_is_a_str(content: Any) -> None:
    with pytest.raises(InvalidInput, match="the content of a Text must be a str"):
        Text(content)


def test_an_array_that_no_daemon_accepts_is_refused_before_it_is_copied() -> None:
    with pytest.raises(TooLarge) as caught:
        encode(np.broadcast_to(np.zeros((32, 32, 3), np.uint8), (10**9, 32, 32, 3)))
    assert caught.value.field == "input"
