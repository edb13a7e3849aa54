from __future__ import annotations

import csv
import pickle
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from delen.bundle.manifest import ImagePreprocessing
from delen.errors import InvalidInput, MissingExtra
from multiexit_models.data.dataset import Dataset
from multiexit_models.data.reading import Reading
from multiexit_models.data.splits import PARTS
from multiexit_models.data.torchvision_sets import SETS, read_torchvision

pytest.importorskip("torchvision", reason="its sets need torchvision: delen[train]")


def pictures(count: int, seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def labels_of(count: int, classes: int = 10) -> np.ndarray:
    return (np.arange(count) % classes).astype(np.uint8)


def write_idx(file: Path, array: np.ndarray) -> None:
    """The format of LeCun's MNIST: two zeros, type, dimensions, big-endian sizes, the bytes."""
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(head + array.tobytes())


@pytest.fixture
def fashion(tmp_path: Path) -> Path:
    raw = tmp_path / "FashionMNIST" / "raw"
    for stem, count, seed in (("train", 100, 0), ("t10k", 30, 1)):
        write_idx(raw / f"{stem}-images-idx3-ubyte", pictures(count, seed, (28, 28)))
        write_idx(raw / f"{stem}-labels-idx1-ubyte", labels_of(count))
    return tmp_path


def counts(data: Dataset) -> list[int]:
    return [len(getattr(data, part)) for part in PARTS]


def test_published_parts_are_kept(fashion: Path) -> None:
    data = read_torchvision("FashionMNIST", fashion, Reading(shape=(28, 28, 1)))
    assert (data.name, len(data.classes)) == ("fashionmnist", 10)
    assert data.classes[0] == "T-shirt/top"
    assert data.input.image == ImagePreprocessing("L", "bilinear", "exif", (255, 255, 255))
    assert counts(data) == [75, 10, 15, 30]
    np.testing.assert_array_equal(data.test.inputs[..., 0], pictures(30, 1, (28, 28)))
    assert data.test.labels.tolist() == labels_of(30).tolist()
    published = zip(pictures(100, 0, (28, 28)), labels_of(100), strict=True)
    first = {row.tobytes(): label for row, label in published}
    for part in PARTS[:3]:
        labelled = getattr(data, part)
        found = [first[row.tobytes()] for row in labelled.inputs]
        assert found == labelled.labels.tolist()


def test_images_are_fitted(fashion: Path) -> None:
    data = read_torchvision("FashionMNIST", fashion, Reading(shape=(16, 20, 3)))
    source = Image.fromarray(pictures(30, 1, (28, 28))[4]).convert("RGB")
    expected = np.asarray(source.resize((20, 16), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(data.test.inputs[4], expected)


def test_a_cache_is_used(fashion: Path, tmp_path: Path) -> None:
    told: list[int] = []
    for _ in range(2):
        how = Reading(
            shape=(28, 28, 1),
            cache=tmp_path / "cache",
            on_file=lambda done, total: told.append(total),
        )
        data = read_torchvision("FashionMNIST", fashion, how)
        assert isinstance(data.training.inputs.base, np.memmap)
    assert told == [130] * 130


def test_road_signs_stay_with_their_track(tmp_path: Path) -> None:
    """GTSRB as it is published: 30 frames a track, of 43 classes; here 2 frames, 4 tracks."""
    base = tmp_path / "gtsrb"
    for label in range(43):
        for track in range(4):
            shade = np.full((6, 6, 3), (label, track, 0), np.uint8)
            for frame in range(2):
                name = f"{track:05d}_{frame:05d}.ppm"
                file = base / "GTSRB" / "Training" / f"{label:05d}" / name
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(shade).save(file)
    tests = base / "GTSRB" / "Final_Test" / "Images"
    tests.mkdir(parents=True)
    with (base / "GT-final_test.csv").open("w", newline="") as file:
        rows = csv.writer(file, delimiter=";")
        rows.writerow(["Filename", "ClassId"])
        for number in range(5):
            Image.fromarray(pictures(1, number, (6, 6, 3))[0]).save(tests / f"{number:05d}.ppm")
            rows.writerow([f"{number:05d}.ppm", number])
    data = read_torchvision("GTSRB", tmp_path, Reading(shape=(6, 6, 3)))
    assert data.classes[:3] == ("0", "1", "2")
    assert counts(data)[3] == 5
    tracks = [
        {tuple(pixel) for pixel in getattr(data, part).inputs[:, 0, 0].tolist()}
        for part in PARTS[:3]
    ]
    assert sum(map(len, tracks)) == len(set.union(*tracks)) == 43 * 4
    assert data.calibration.group_count == len(tracks[2])


def test_flowers_have_three_parts(tmp_path: Path) -> None:
    scipy_io = pytest.importorskip("scipy.io", reason="Flowers102 needs scipy: delen[train]")
    torchvision = pytest.importorskip("torchvision.datasets")
    base = tmp_path / "flowers-102"
    (base / "jpg").mkdir(parents=True)
    count = 102 * 7
    for number in range(1, count + 1):
        Image.fromarray(pictures(1, number, (5, 5, 3))[0]).save(
            base / "jpg" / f"image_{number:05d}.jpg"
        )
    ids = np.arange(1, count + 1)
    scipy_io.savemat(base / "imagelabels.mat", {"labels": (ids - 1) % 102 + 1})
    splits = {"trnid": ids[: 102 * 5], "valid": ids[102 * 5 : 102 * 6], "tstid": ids[102 * 6 :]}
    scipy_io.savemat(base / "setid.mat", splits)
    with pytest.MonkeyPatch.context() as patch:
        # The published files' checksums are not those of the small ones here.
        patch.setattr(torchvision.Flowers102, "_check_integrity", lambda self: True)
        data = read_torchvision("Flowers102", tmp_path, Reading(shape=(4, 4, 3)))
    assert counts(data) == [434, 102, 76, 102]
    assert len(data.classes) == 102
    assert data.classes[0] == "pink primrose"
    assert data.validation.labels.tolist() == list(range(102))


@pytest.mark.parametrize("contents", [None, b"", b"\0\0\x08\x01", b"\0\0\x08\x01\0\0\0\x64ab"])
def test_a_set_with_a_damaged_file_is_refused(contents: bytes | None, fashion: Path) -> None:
    file = fashion / "FashionMNIST" / "raw" / "train-labels-idx1-ubyte"
    if contents is None:
        file.unlink()
    else:
        file.write_bytes(contents)
    with pytest.raises(InvalidInput, match=r"FashionMNIST is not complete below .*download=True"):
        read_torchvision("FashionMNIST", fashion, Reading(shape=(28, 28, 1)))


@pytest.mark.parametrize("name", sorted(SETS))
def test_absent_data_say_how_to_get_them(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=f"{name} is not complete below .*put its files there"):
        read_torchvision(name, tmp_path, Reading(shape=(8, 8, 3)))


def test_a_list_of_foreign_checksums_is_not_taken_for_the_set(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    batch = {"data": pictures(10, 0, (3072,)), "labels": labels_of(10).tolist()}
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        (folder / name).write_bytes(pickle.dumps(batch))
    with pytest.raises(InvalidInput, match="CIFAR10 is not complete"):
        read_torchvision("CIFAR10", tmp_path, Reading(shape=(32, 32, 3)))


def test_an_unknown_set_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"no set 'Cats'; known: CIFAR10, .*STL10"):
        read_torchvision("Cats", tmp_path, Reading(shape=(8, 8, 3)))


def test_without_torchvision_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(MissingExtra, match=r"delen\[train\]"):
        read_torchvision("MNIST", tmp_path, Reading(shape=(8, 8, 3)))
