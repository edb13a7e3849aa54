from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from delen.errors import InvalidInput
from delen.sdk.inputs import Text, encode

Image = pytest.importorskip("PIL.Image", reason="images need Pillow: delen[daemon]")


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


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "F", "HSV"])
def test_a_pil_image_is_sent_as_png(mode: str) -> None:
    image = Image.new(mode, (5, 3))
    sent = encode(image)
    back = Image.open(BytesIO(sent.body))
    assert sent.media_type == "image/png"
    assert back.size == (5, 3)
    np.testing.assert_array_equal(np.asarray(back.convert("RGB")), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize(
    "x", [None, 3, [], [[1, 2]], ["hi"], {"a": 1}, pytest.param(object(), id="object")]
)
def test_other_inputs_are_refused_with_what_is_taken(x: object) -> None:
    with pytest.raises(InvalidInput, match="it must be a numpy array, a PIL image") as caught:
        encode(x)
    assert caught.value.field == "input"
    assert type(x).__name__ in str(caught.value)


@pytest.mark.parametrize("contents", [b"", b"GIF89a", b"PK\x03\x04"])
def test_other_bytes_are_refused(contents: bytes, tmp_path: Path) -> None:
    file = tmp_path / "thing"
    file.write_bytes(contents)
    with pytest.raises(InvalidInput, match=r"no JPEG, PNG, \.npy or WAV file"):
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
    with pytest.raises(InvalidInput, match="WAV file"):
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
        encode(Text("\ud800"))
