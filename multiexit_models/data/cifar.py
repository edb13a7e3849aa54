"""CIFAR-10 (Krizhevsky, 2009) as arrays, from either form in which it is commonly kept."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from delen.bundle.manifest import ImagePreprocessing, InputSpec
from delen.errors import InvalidInput
from multiexit_models.data.dataset import Dataset, Labelled

LABELS = (
    "airplane", "automobile", "bird", "cat", "deer",
    "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
SIDE = 32
IMAGE_BYTES = SIDE * SIDE * 3
INPUT = InputSpec("uint8", (SIDE, SIDE, 3), image=ImagePreprocessing("RGB", "bilinear"))


def read_cifar10(
    path: Path, *, validation: int = 1000, calibration: int = 4000, seed: int = 0
) -> Dataset:
    """CIFAR-10 from ``path``, in a form that ``load`` reads, with its published test images.

    ``validation`` and then ``calibration`` of the training images are set aside at random by
    ``seed``; which images train depends on the sum of the two alone. Raises InvalidInput as
    ``load``, or where a part would be empty.
    """
    whole, test = load(path, "train"), load(path, "test")
    held_out = validation + calibration
    if validation < 1 or calibration < 1 or held_out >= len(whole):
        raise InvalidInput(
            f"validation and calibration must be above 0 and fewer than the {len(whole)} training "
            f"images together, not {validation} and {calibration}",
            "calibration",
        )
    order = np.random.default_rng(seed).permutation(len(whole))
    return Dataset(
        "cifar10",
        INPUT,
        LABELS,
        training=whole.take(np.sort(order[held_out:])),
        validation=whole.take(np.sort(order[:validation])),
        calibration=whole.take(np.sort(order[validation:held_out])),
        test=test,
    )


def load(path: Path, split: str) -> Labelled:
    """Read ``split`` ("train": 50,000 images, "test": 10,000): uint8 ``[n, 32, 32, 3]``.

    ``path`` is the folder of the dataset's binary version (``cifar-10-batches-bin``) or a zip
    of lossless mosaics with a ``manifest.json``. Raises InvalidInput naming what is wrong.
    """
    if path.is_dir():
        return _load_binary_version(path, split)
    if path.is_file() and zipfile.is_zipfile(path):
        return _load_mosaics(path, split)
    raise InvalidInput(
        f"no CIFAR-10 at {path}: give the folder cifar-10-batches-bin of the dataset's binary "
        "version, or a zip of mosaics",
        "data",
    )


def _load_binary_version(folder: Path, split: str) -> Labelled:
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] if split == "train" else ["test_batch.bin"]
    rows = np.concatenate([_read_records(folder / name) for name in names])
    if rows[:, 0].max() >= len(LABELS):
        raise InvalidInput(
            f"{folder}: {split} has the label {rows[:, 0].max()}; the labels of {len(LABELS)} "
            f"classes are 0 to {len(LABELS) - 1}",
            "data",
        )
    planes = rows[:, 1:].reshape(-1, 3, SIDE, SIDE)
    images = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
    return Labelled(images, rows[:, 0].astype(np.int64))


def _read_records(file: Path) -> NDArray[np.uint8]:
    """A label and three colour planes a row: uint8 ``[n, 1 + 3072]``."""
    try:
        raw = np.fromfile(file, np.uint8)
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read: {error.strerror or error}", "data") from error
    if raw.size == 0 or raw.size % (1 + IMAGE_BYTES):
        raise InvalidInput(
            f"{file}: {raw.size} bytes are not whole records of {1 + IMAGE_BYTES}", "data"
        )
    return raw.reshape(-1, 1 + IMAGE_BYTES)


def _load_mosaics(path: Path, split: str) -> Labelled:
    from PIL import Image

    with zipfile.ZipFile(path) as archive:
        if "manifest.json" not in archive.namelist():
            raise InvalidInput(f"{path} has no manifest.json: not a zip of mosaics", "data")
        try:
            count = json.loads(archive.read("manifest.json"))[split]["n"]
            tiles = []
            for index in range((count + 999) // 1000):
                encoded = archive.read(f"{split}/{index:03d}.webp")
                mosaic = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
                rows, columns = mosaic.shape[0] // SIDE, mosaic.shape[1] // SIDE
                grid = mosaic.reshape(rows, SIDE, columns, SIDE, 3).transpose(0, 2, 1, 3, 4)
                tiles.append(grid.reshape(-1, SIDE, SIDE, 3))
            labels = np.load(io.BytesIO(archive.read(f"{split}/meta.npz")))["labels"]
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
            raise InvalidInput(f"{path} is damaged: {error}", "data") from error
    return Labelled(np.concatenate(tiles)[:count], labels.astype(np.int64))
