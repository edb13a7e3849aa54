"""How frames become what is sent, and what a daemon's plan says of each size."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from delen.bundle.manifest import ImagePreprocessing
from delen.core.plan import OperatingPoint
from delen.errors import InvalidInput
from delen.streams.model import StreamedModel, _is_remote

WAY = ImagePreprocessing("RGB", "bilinear")
SHAPE = (96, 96, 3)
FRAME = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)


def model(**how: Any) -> StreamedModel:
    return StreamedModel(SHAPE, WAY, **how)


def png(pixels: np.ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("how", "size", "is_jpeg"),
    [
        ({}, (96, 96), False),
        ({"leaves": True}, (96, 96), True),
        ({"leaves": True}, (32, 32), False),
        ({"encoding": "jpeg"}, (32, 32), True),
        ({"encoding": "raw", "leaves": True}, (96, 96), False),
    ],
)
def test_large_frames_that_leave_the_machine_are_compressed(
    how: dict[str, Any], size: tuple[int, int], is_jpeg: bool
) -> None:
    encoded = model(**how).encode(FRAME, size)
    assert isinstance(encoded.content, bytes) == is_jpeg
    if is_jpeg:
        with Image.open(BytesIO(encoded.content)) as image:
            assert (image.format, image.size) == ("JPEG", size)
        assert encoded.payload == len(encoded.content)
    else:
        assert encoded.content.shape == (*size, 3)
        assert encoded.payload == encoded.content.nbytes


def test_a_frame_of_any_kind_becomes_the_same(tmp_path: Path) -> None:
    file = tmp_path / "frame.png"
    file.write_bytes(png(FRAME))
    one = model().fit(FRAME)
    for other in (Image.fromarray(FRAME), png(FRAME), bytearray(png(FRAME)), file, str(file)):
        assert (model().fit(other) == one).all()
    exact = np.ascontiguousarray(FRAME[:96, :96])
    assert model().fit(exact) is exact


def test_grey_frames_and_grey_models() -> None:
    grey = StreamedModel((24, 24, 1), ImagePreprocessing("L", "bilinear"))
    assert grey.fit(FRAME).shape == (24, 24, 1)
    assert grey.fit(FRAME[..., 0]).shape == (24, 24, 1)
    assert grey.fit(FRAME[..., :1]).shape == (24, 24, 1)
    assert model().fit(FRAME[..., 0]).shape == SHAPE


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((0, 4, 3), np.uint8),
        np.zeros(7, np.uint8),
        np.zeros((4, 4, 7), np.uint8),
        b"no image",
        "nowhere.png",
        None,
    ],
)
def test_what_is_no_frame_is_refused(frame: Any) -> None:
    with pytest.raises(InvalidInput):
        model().encode(frame, (32, 32))


def test_frames_of_a_model_that_takes_no_images_are_sent_as_they_are() -> None:
    numbers = np.zeros(8, np.int16)
    encoded = StreamedModel((8,), None).encode(numbers, None)
    assert encoded.content is numbers
    assert encoded.payload == 16


def test_each_size_is_an_option_of_its_most_accurate_exit() -> None:
    def point(exit: int, accuracy: float, size: tuple[int, int]) -> OperatingPoint:
        return OperatingPoint(exit, accuracy, 0.001 * (exit + 1), None, False, size)

    points = [
        point(0, 0.8, (96, 96)),
        point(1, 0.9, (96, 96)),
        point(2, 0.9, (96, 96)),
        point(0, 0.7, (32, 32)),
    ]
    small, large = StreamedModel(SHAPE, WAY, points).options(FRAME)
    assert (small.size, small.payload, small.accuracy, small.exit) == ((32, 32), 3072, 0.7, 0)
    assert (large.size, large.payload, large.accuracy, large.exit) == ((96, 96), 27648, 0.9, 1)
    assert large.latency == pytest.approx(0.002)
    assert [each.payload for each in model(points=points).options(b"no image")] == [3072, 27648]


@pytest.mark.parametrize(
    ("url", "leaves"),
    [
        ("unix:///run/delen.sock", False),
        ("http://127.0.0.1:8000", False),
        ("http://localhost:8000", False),
        ("http://[::1]:8000", False),
        ("http://gpu-box:8000", True),
        ("https://10.0.0.7", True),
    ],
)
def test_what_leaves_this_machine(url: str, leaves: bool) -> None:
    assert _is_remote(url) == leaves
