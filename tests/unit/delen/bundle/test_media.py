from __future__ import annotations

import io

import pytest

from delen.bundle.media import IMAGES, recognise

Image = pytest.importorskip("PIL.Image", reason="images need Pillow: delen[daemon]")


@pytest.mark.parametrize("media_type", IMAGES)
@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_images_are_recognised_by_how_they_begin(media_type: str, mode: str) -> None:
    buffer = io.BytesIO()
    image = Image.new("RGB" if IMAGES[media_type] == "WEBP" else mode, (3, 2))
    image.convert("L" if IMAGES[media_type] == "JPEG" else image.mode).save(
        buffer, IMAGES[media_type]
    )
    assert recognise(buffer.getvalue()) == media_type


@pytest.mark.parametrize(
    "contents", [b"", b"B", b"RIFF", b"RIFF\x04\0\0\0AVI ", b"P7\n", b"P", b"\xff\xfb\x90", b"PK"]
)
def test_other_files_are_not(contents: bytes) -> None:
    assert recognise(contents) is None
