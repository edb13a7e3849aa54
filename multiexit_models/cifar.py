"""CIFAR-10 (Krizhevsky, 2009) as arrays, from either form in which it is commonly kept."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LABELS = (
    "airplane", "automobile", "bird", "cat", "deer",
    "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
SIDE = 32
IMAGE_BYTES = SIDE * SIDE * 3


@dataclass(frozen=True)
class LabelledImages:
    """``images``: uint8 ``[n, 32, 32, 3]``; ``labels``: int64 ``[n]``."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.int64]) -> LabelledImages:
        return LabelledImages(self.images[indices], self.labels[indices])


def load(path: Path, split: str) -> LabelledImages:
    """Read ``split`` ("train": 50,000 images, "test": 10,000) from ``path``.

    ``path`` is the folder of the dataset's binary version (``cifar-10-batches-bin``) or a zip
    of lossless mosaics with a ``manifest.json``. Raises FileNotFoundError or ValueError naming
    what was looked for.
    """
    if path.is_dir():
        return _load_binary_version(path, split)
    if path.is_file() and zipfile.is_zipfile(path):
        return _load_mosaics(path, split)
    raise FileNotFoundError(
        f"no CIFAR-10 at {path}: give the folder cifar-10-batches-bin of the dataset's binary "
        "version, or a zip of mosaics"
    )


def _load_binary_version(folder: Path, split: str) -> LabelledImages:
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] if split == "train" else ["test_batch.bin"]
    records = []
    for name in names:
        file = folder / name
        raw = np.fromfile(file, np.uint8)
        if raw.size == 0 or raw.size % (1 + IMAGE_BYTES):
            raise ValueError(f"{file}: {raw.size} bytes are not whole records of {1 + IMAGE_BYTES}")
        records.append(raw.reshape(-1, 1 + IMAGE_BYTES))
    rows = np.concatenate(records)
    if rows[:, 0].max() >= len(LABELS):
        raise ValueError(f"{folder}: {split} has the label {rows[:, 0].max()}, which is no class")
    planes = rows[:, 1:].reshape(-1, 3, SIDE, SIDE)
    return LabelledImages(
        np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), rows[:, 0].astype(np.int64)
    )


def _load_mosaics(path: Path, split: str) -> LabelledImages:
    with zipfile.ZipFile(path) as archive:
        if "manifest.json" not in archive.namelist():
            raise ValueError(f"{path} has no manifest.json and so is no zip of mosaics")
        count = json.loads(archive.read("manifest.json"))[split]["n"]
        tiles = []
        for index in range((count + 999) // 1000):
            encoded = archive.read(f"{split}/{index:03d}.webp")
            mosaic = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
            rows, columns = mosaic.shape[0] // SIDE, mosaic.shape[1] // SIDE
            grid = mosaic.reshape(rows, SIDE, columns, SIDE, 3).transpose(0, 2, 1, 3, 4)
            tiles.append(grid.reshape(-1, SIDE, SIDE, 3))
        labels = np.load(io.BytesIO(archive.read(f"{split}/meta.npz")))["labels"]
    return LabelledImages(np.concatenate(tiles)[:count], labels.astype(np.int64))


def split_calibration(
    data: LabelledImages, count: int, seed: int
) -> tuple[LabelledImages, LabelledImages]:
    """Set ``count`` images aside at random: ``(training, calibration)``."""
    order = np.random.default_rng(seed).permutation(len(data))
    return data.take(np.sort(order[count:])), data.take(np.sort(order[:count]))
