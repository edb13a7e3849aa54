"""Folders of real image and sound files, small enough to write anew for each test."""

from __future__ import annotations

import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray


@pytest.fixture
def write_image() -> Callable[..., Path]:
    """Writes a picture that ``number`` alone decides, uint8 [9, 12, 3] or ``size`` (width,
    height), in the format of the file's ending."""
    pillow = pytest.importorskip("PIL.Image", reason="images need Pillow: delen[train]")

    def write(file: Path, number: int = 0, size: tuple[int, int] = (12, 9)) -> Path:
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)
        pillow.fromarray(pixels).save(file)
        return file

    return write


@pytest.fixture
def image_folder(tmp_path: Path, write_image: Callable[..., Path]) -> Path:
    """Three classes of 10, 20 and 30 images."""
    folder = tmp_path / "pets"
    for label, (name, count) in enumerate((("ant", 10), ("bee", 20), ("cat", 30))):
        for number in range(count):
            write_image(folder / name / f"{number:02d}.png", 100 * label + number)
    return folder


@pytest.fixture
def write_wav() -> Callable[..., Path]:
    """Writes PCM: ``frames`` int16 or uint8, [n] or [n, channels]."""

    def write(file: Path, frames: NDArray[np.int16 | np.uint8], rate: int = 8000) -> Path:
        file.parent.mkdir(parents=True, exist_ok=True)
        with wave.open(str(file), "wb") as out:
            out.setnchannels(1 if frames.ndim == 1 else frames.shape[1])
            out.setsampwidth(frames.itemsize)
            out.setframerate(rate)
            out.writeframes(frames.tobytes())
        return file

    return write
