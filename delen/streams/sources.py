"""Where frames come from: ``reader`` for what reads as OpenCV does, ``video`` for a file, and
``camera`` for a V4L2 device. Each yields ``Frame``s with their time of capture."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Protocol

import numpy as np

from delen.errors import InvalidInput, MissingExtra
from delen.streams.frames import Frame

_CREDIBLE = 1.0
"""Seconds that a driver's time of capture may lie back; other times are another clock's."""


class Reader(Protocol):
    """What ``cv2.VideoCapture`` is: ``read`` says whether there was a frame, and gives it."""

    def read(self) -> tuple[bool, Any]: ...


def reader(capture: Reader, *, bgr: bool = True) -> Iterator[Frame]:
    """Frames of ``capture`` as they come, until it has none.

    OpenCV's are blue, green, red; ``bgr=False`` is for a reader whose are not. InvalidInput for
    what does not read as OpenCV does.
    """
    if not callable(getattr(capture, "read", None)):
        raise InvalidInput(f"capture is {capture!r}; it must have read()", "capture")
    return _read(capture, bgr)


def _read(capture: Reader, bgr: bool) -> Iterator[Frame]:
    while True:
        given: Any = capture.read()
        if not (isinstance(given, tuple) and len(given) == 2):
            raise InvalidInput(f"read() gave {given!r}; it must give (ok, frame)", "capture")
        there_is, pixels = given
        if not there_is:
            return
        if not isinstance(pixels, np.ndarray):
            raise InvalidInput(
                f"read() gave a frame that is {pixels!r}; it must be an array", "capture"
            )
        yield Frame(pixels[..., ::-1] if bgr and pixels.ndim == 3 else pixels, time.monotonic())


def video(path: str | os.PathLike[str], *, loop: bool = False) -> Iterator[Frame]:
    """Frames of a video file at the times that it gives them, as if it were a camera.

    ``loop`` begins again at the end. InvalidInput for what is not a video.
    """
    while True:
        begin, first = time.monotonic(), None
        for pixels, seconds in _decode(path, None, {}):
            if seconds is not None:
                first = seconds if first is None else first
                due = begin + seconds - first
                time.sleep(max(0.0, due - time.monotonic()))
            yield Frame(pixels, time.monotonic() if seconds is None else due)
        if not loop or first is None:
            return


def camera(
    device: str = "/dev/video0",
    *,
    size: tuple[int, int] | None = None,
    fps: float | None = None,
    format: str = "v4l2",
) -> Iterator[Frame]:
    """Frames of a camera as they come, with the driver's own times of capture where it gives them.

    ``size`` is (height, width) and ``fps`` the rate asked of the driver, which may give others.
    ``format`` is FFmpeg's name of another kind of input. InvalidInput where there is no camera.
    """
    options = {}
    if size is not None:
        options["video_size"] = f"{size[1]}x{size[0]}"
    if fps is not None:
        options["framerate"] = f"{fps:g}"
    for pixels, seconds in _decode(device, format, options):
        now = time.monotonic()
        is_credible = seconds is not None and now - _CREDIBLE < seconds <= now
        yield Frame(pixels, seconds if is_credible and seconds is not None else now)


def _decode(
    path: str | os.PathLike[str], format: str | None, options: dict[str, str]
) -> Iterator[tuple[Any, float | None]]:
    """The pixels (red, green, blue) of each frame, and its time in seconds."""
    try:
        import av
    except ModuleNotFoundError as error:
        raise MissingExtra("av (to read videos and cameras)", "video") from error
    try:
        with closing(av.open(os.fspath(path), format=format, options=options)) as container:
            if not container.streams.video:
                raise InvalidInput(f"{path} has no pictures", "frames")
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="rgb24"), frame.time
    except (av.error.FFmpegError, OSError) as error:
        raise InvalidInput(f"{path} cannot be read as a video: {error}", "frames") from error
