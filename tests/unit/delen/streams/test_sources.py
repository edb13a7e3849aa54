"""Where frames come from: OpenCV's readers, video files, cameras."""

from __future__ import annotations

import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delen.errors import InvalidInput
from delen.streams.sources import camera, reader, video


class Capture:
    """Reads as ``cv2.VideoCapture`` does: three frames, blue at the upper left."""

    def __init__(self) -> None:
        self.left = 3

    def read(self) -> tuple[bool, np.ndarray | None]:
        self.left -= 1
        if self.left < 0:
            return False, None
        pixels = np.zeros((4, 6, 3), np.uint8)
        pixels[0, 0] = (255, 0, 0)
        return True, pixels


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Six grey frames of 64 x 48 in 0.3 s, brighter and brighter."""
    av = pytest.importorskip("av", reason="videos are read with av: delen[video]")
    file = tmp_path / "film.mkv"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mjpeg", rate=20)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for number in range(6):
            pixels = np.full((48, 64, 3), 40 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return file


def test_a_reader_gives_red_first_and_ends() -> None:
    frames = list(reader(Capture()))
    assert [tuple(frame.content[0, 0]) for frame in frames] == [(0, 0, 255)] * 3
    captured = [frame.captured for frame in frames]
    assert captured == sorted(captured)
    (first, *_) = reader(Capture(), bgr=False)
    assert tuple(first.content[0, 0]) == (255, 0, 0)


@pytest.mark.parametrize("given", [None, 5, (True,), (True, None)])
def test_what_does_not_read_as_opencv_does_is_refused(given: Any) -> None:
    class Strange:
        def read(self) -> Any:
            return given

    with pytest.raises(InvalidInput) as caught:
        next(reader(Strange()))
    assert caught.value.field == "capture"


def test_what_does_not_read_at_all_is_refused_at_once() -> None:
    wrong: Any = 5
    with pytest.raises(InvalidInput) as caught:
        reader(wrong)
    assert caught.value.field == "capture"


def test_a_reader_of_grey_frames() -> None:
    class Grey(Capture):
        def read(self) -> tuple[bool, np.ndarray | None]:
            there_is, pixels = super().read()
            return there_is, None if pixels is None else pixels[..., 0]

    assert [frame.content.shape for frame in reader(Grey())] == [(4, 6)] * 3


def test_a_video_is_played_at_its_own_pace(film: Path) -> None:
    frames = list(video(film))
    assert [frame.content.shape for frame in frames] == [(48, 64, 3)] * 6
    brightness = [float(frame.content.mean()) for frame in frames]
    assert brightness == pytest.approx([0, 40, 80, 120, 160, 200], abs=4)
    steps = np.diff([frame.captured for frame in frames])
    assert steps == pytest.approx([0.05] * 5, abs=0.002)
    assert frames[-1].captured <= time.monotonic()


def test_a_video_begins_anew(film: Path) -> None:
    frames = list(islice(video(film, loop=True), 8))
    assert float(frames[6].content.mean()) == pytest.approx(0, abs=4)
    captured = [frame.captured for frame in frames]
    assert captured == sorted(captured)


def test_a_camera_gives_frames_of_the_size_and_rate_that_it_is_asked_for() -> None:
    pytest.importorskip("av", reason="cameras are read with av: delen[video]")
    made = list(islice(camera("life=s=32x16:r=50", format="lavfi"), 3))
    assert [frame.content.shape for frame in made] == [(16, 32, 3)] * 3
    now = time.monotonic()
    assert all(now - 10 < frame.captured <= now for frame in made)


@pytest.mark.parametrize("content", [None, b"", b"no video at all" * 100])
def test_what_is_no_video_is_refused(tmp_path: Path, content: bytes | None) -> None:
    pytest.importorskip("av", reason="videos are read with av: delen[video]")
    file = tmp_path / "film.mp4"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InvalidInput, match=r"film\.mp4") as caught:
        list(video(file))
    assert caught.value.field == "frames"


def test_a_video_that_is_cut_off_ends(film: Path) -> None:
    film.write_bytes(film.read_bytes()[:-400])
    assert 1 <= len(list(video(film))) < 6


def test_a_camera_that_is_not_there_is_named() -> None:
    pytest.importorskip("av", reason="cameras are read with av: delen[video]")
    with pytest.raises(InvalidInput, match="/dev/video99"):
        next(camera("/dev/video99", size=(48, 64), fps=10))


def test_a_camera_is_asked_for_a_size(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="cameras are read with av: delen[video]")
    file = tmp_path / "frames.yuv"
    file.write_bytes(bytes(3 * 32 * 16 * 3 // 2))
    made = list(camera(str(file), size=(16, 32), fps=10, format="rawvideo"))
    assert [frame.content.shape for frame in made] == [(16, 32, 3)] * 3
