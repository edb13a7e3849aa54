from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from multiexit_models import cifar


def test_binary_version_is_read_in_order(cifar_folder: Path) -> None:
    data = cifar.load(cifar_folder, "train")
    assert data.images.shape == (100, 32, 32, 3)
    assert data.images.dtype == np.uint8
    assert data.labels.dtype == np.int64
    assert data.labels.tolist() == list(range(10)) * 10
    first = np.fromfile(cifar_folder / "data_batch_1.bin", np.uint8)[1:3073]
    assert data.images[0, 5, 7, 2] == first[2 * 1024 + 5 * 32 + 7]
    assert len(cifar.load(cifar_folder, "test")) == 40


def copy_with(folder: Path, target: Path, contents: bytes) -> Path:
    shutil.copytree(folder, target)
    (target / "data_batch_3.bin").write_bytes(contents)
    return target


def test_truncated_file_is_named(cifar_folder: Path, tmp_path: Path) -> None:
    damaged = copy_with(cifar_folder, tmp_path / "damaged", b"\0" * 5000)
    with pytest.raises(ValueError, match=r"data_batch_3\.bin: 5000 bytes"):
        cifar.load(damaged, "train")


def test_label_that_is_no_class_is_refused(cifar_folder: Path, tmp_path: Path) -> None:
    foreign = copy_with(cifar_folder, tmp_path / "foreign", b"\x0a" + b"\0" * 3072)
    with pytest.raises(ValueError, match="label 10"):
        cifar.load(foreign, "train")


def test_missing_file_is_named(cifar_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "incomplete"
    shutil.copytree(cifar_folder, folder)
    (folder / "test_batch.bin").unlink()
    with pytest.raises(FileNotFoundError, match="test_batch"):
        cifar.load(folder, "test")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="cifar-10-batches-bin"):
        cifar.load(tmp_path / "absent", "train")


def test_zip_of_something_else(tmp_path: Path) -> None:
    file = tmp_path / "other.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme.txt", "nothing")
    with pytest.raises(ValueError, match=r"manifest\.json"):
        cifar.load(file, "train")


def test_calibration_images_are_set_aside_once_and_for_all(cifar_folder: Path) -> None:
    data = cifar.load(cifar_folder, "train")
    training, calibration = cifar.split_calibration(data, 30, seed=0)
    again = cifar.split_calibration(data, 30, seed=0)[1]
    other = cifar.split_calibration(data, 30, seed=1)[1]

    def keys(part: cifar.LabelledImages) -> set[bytes]:
        return {image.tobytes() for image in part.images}

    assert (len(training), len(calibration)) == (70, 30)
    assert not keys(training) & keys(calibration)
    assert keys(training) | keys(calibration) == keys(data)
    assert keys(calibration) == keys(again) != keys(other)


def test_real_test_images(cifar_zip: Path) -> None:
    data = cifar.load(cifar_zip, "test")
    assert data.images.shape == (10_000, 32, 32, 3)
    assert np.bincount(data.labels).tolist() == [1000] * 10
    mean = data.images.reshape(-1, 3).mean(axis=0) / 255
    assert mean == pytest.approx((0.4942, 0.4851, 0.4504), abs=1e-3)
