from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from delen.errors import InvalidInput
from multiexit_models.data import cifar
from multiexit_models.data.dataset import Labelled

pytest.importorskip("PIL.Image", reason="the mosaics need Pillow: delen[train]")


def test_binary_version_is_read_in_order(cifar_folder: Path) -> None:
    data = cifar.load(cifar_folder, "train")
    assert data.inputs.shape == (100, 32, 32, 3)
    assert data.inputs.dtype == np.uint8
    assert data.labels.dtype == np.int64
    assert data.labels.tolist() == list(range(10)) * 10
    first = np.fromfile(cifar_folder / "data_batch_1.bin", np.uint8)[1:3073]
    assert data.inputs[0, 5, 7, 2] == first[2 * 1024 + 5 * 32 + 7]
    assert len(cifar.load(cifar_folder, "test")) == 40


def copy_with(folder: Path, target: Path, contents: bytes) -> Path:
    shutil.copytree(folder, target)
    (target / "data_batch_3.bin").write_bytes(contents)
    return target


def test_truncated_file_is_named(cifar_folder: Path, tmp_path: Path) -> None:
    damaged = copy_with(cifar_folder, tmp_path / "damaged", b"\0" * 5000)
    with pytest.raises(InvalidInput, match=r"data_batch_3\.bin: 5000 bytes"):
        cifar.load(damaged, "train")


def test_label_that_is_no_class_is_refused(cifar_folder: Path, tmp_path: Path) -> None:
    foreign = copy_with(cifar_folder, tmp_path / "foreign", b"\x0a" + b"\0" * 3072)
    with pytest.raises(InvalidInput, match="label 10"):
        cifar.load(foreign, "train")


def test_missing_file_is_named(cifar_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "incomplete"
    shutil.copytree(cifar_folder, folder)
    (folder / "test_batch.bin").unlink()
    with pytest.raises(InvalidInput, match=r"test_batch.*No such file"):
        cifar.load(folder, "test")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cifar-10-batches-bin"):
        cifar.load(tmp_path / "absent", "train")


def test_zip_of_something_else(tmp_path: Path) -> None:
    file = tmp_path / "other.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme.txt", "nothing")
    with pytest.raises(InvalidInput, match=r"manifest\.json"):
        cifar.load(file, "train")


@pytest.mark.parametrize(
    "contents",
    [
        {"manifest.json": "{}"},
        {"manifest.json": '{"train": {"n": 1}}'},
        {"manifest.json": '{"train": {"n": 1}}', "train/000.webp": "no image"},
    ],
)
def test_damaged_mosaics_are_refused(contents: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "damaged.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in contents.items():
            archive.writestr(name, text)
    with pytest.raises(InvalidInput, match=r"damaged\.zip is damaged"):
        cifar.load(file, "train")


def keys(part: Labelled) -> set[bytes]:
    return {image.tobytes() for image in part.inputs}


def test_held_out_images_are_set_aside_once_and_for_all(cifar_folder: Path) -> None:
    whole = cifar.load(cifar_folder, "train")
    data = cifar.read_cifar10(cifar_folder, validation=10, calibration=20)
    again = cifar.read_cifar10(cifar_folder, validation=10, calibration=20)
    other = cifar.read_cifar10(cifar_folder, validation=10, calibration=20, seed=1)
    parts = (data.training, data.validation, data.calibration)
    assert [len(part) for part in (*parts, data.test)] == [70, 10, 20, 40]
    assert keys(whole) == set.union(*map(keys, parts))
    assert keys(data.calibration) == keys(again.calibration) != keys(other.calibration)
    order = np.random.default_rng(0).permutation(100)
    np.testing.assert_array_equal(data.validation.inputs, whole.inputs[np.sort(order[:10])])
    np.testing.assert_array_equal(data.calibration.labels, whole.labels[np.sort(order[10:30])])
    np.testing.assert_array_equal(data.training.inputs, whole.inputs[np.sort(order[30:])])


def test_how_the_held_out_images_are_divided_leaves_training_alone(cifar_folder: Path) -> None:
    one = cifar.read_cifar10(cifar_folder, validation=10, calibration=20)
    two = cifar.read_cifar10(cifar_folder, validation=5, calibration=25)
    np.testing.assert_array_equal(one.training.inputs, two.training.inputs)


@pytest.mark.parametrize(("validation", "calibration"), [(0, 20), (20, 0), (50, 50)])
def test_a_part_left_empty_is_refused(
    cifar_folder: Path, validation: int, calibration: int
) -> None:
    with pytest.raises(InvalidInput, match="fewer than the 100 training images"):
        cifar.read_cifar10(cifar_folder, validation=validation, calibration=calibration)


def test_real_test_images(cifar_zip: Path) -> None:
    data = cifar.load(cifar_zip, "test")
    assert data.inputs.shape == (10_000, 32, 32, 3)
    assert np.bincount(data.labels).tolist() == [1000] * 10
    mean = data.inputs.reshape(-1, 3).mean(axis=0) / 255
    assert mean == pytest.approx((0.4942, 0.4851, 0.4504), abs=1e-3)
