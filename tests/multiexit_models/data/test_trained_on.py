"""Samples that weights were trained on are recognised, whatever they are called by now."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multiexit_models.data.audio import read_fsdd
from multiexit_models.data.cifar import read_cifar10
from multiexit_models.data.dataset import Dataset, Labelled
from multiexit_models.data.images import read_image_folder
from multiexit_models.data.reading import Reading
from multiexit_models.data.text import read_texts
from multiexit_models.data.trained_on import TrainedOn

SHAPE = (8, 10, 3)
TRACK = r"track\d"


def read(path: Path, shape: tuple[int, ...] = SHAPE, **settings: Any) -> Dataset:
    return read_image_folder(path, Reading(shape=shape, **settings))


def trained_on(data: Dataset, seed: int = 0, group_by: str | None = None) -> TrainedOn:
    return TrainedOn.training_part(data, seed, group_by, is_all=True)


@pytest.fixture
def tracks(tmp_path: Path, write_image: Callable[..., Path]) -> Path:
    """Two classes of 10 tracks of 6 frames each."""
    folder = tmp_path / "signs"
    for number in range(120):
        kind, track = ("stop", "yield")[number % 2], number // 2 % 10
        write_image(folder / kind / f"track{track}_{number}.png", number)
    return folder


def test_hashes_are_of_the_inputs_alone() -> None:
    inputs = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
    inputs[3] = inputs[1]
    hashes = Labelled(inputs, np.arange(4)).hashes
    assert (hashes.dtype, hashes.shape) == (np.uint64, (4,))
    assert hashes[1] == hashes[3]
    assert len(set(hashes.tolist())) == 3
    assert np.array_equal(hashes, Labelled(inputs[:, :, ::1], np.zeros(4, np.int64)).hashes)


def test_the_same_split_overlaps_in_nothing(image_folder: Path) -> None:
    seen = trained_on(read(image_folder))
    assert seen.overlap(read(image_folder)) == []
    assert len(seen.samples) == 36


def test_without_the_groups_of_that_training_their_frames_are_found(tracks: Path) -> None:
    data = read(tracks, group_by=TRACK)
    seen, now = trained_on(data, group_by=TRACK), read(tracks)
    found = seen.overlap(now)
    trained = {row.tobytes() for row in data.training.inputs}
    measured = [*now.calibration.inputs, *now.test.inputs]
    assert len(found) == sum(row.tobytes() in trained for row in measured) > 5
    assert all((tracks / name).is_file() for name in found)
    assert seen.overlap(data) == []


def test_a_file_is_recognised_under_another_name_and_in_another_format(
    image_folder: Path, tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    seen = trained_on(read(image_folder))
    trained = next(
        file
        for file in image_folder.rglob("*.png")
        if read(image_folder).training.inputs.tobytes().count(_decoded(file))
    )
    new = tmp_path / "new"
    shutil.copytree(image_folder, new / "train")
    for label in ("ant", "bee", "cat"):
        for number in range(3):
            write_image(
                new / "calibration" / label / f"{number}.png", 900 + 10 * number + ord(label[0])
            )
    again = new / "calibration" / "bee" / "renamed.bmp"
    _as_bmp(trained, again)
    data = read(new)
    assert data.own_calibration
    assert seen.overlap(replace(data, test=data.validation)) == ["calibration/bee/renamed.bmp"]


def _decoded(file: Path) -> bytes:
    from PIL import Image

    with Image.open(file) as image:
        return np.asarray(image.resize((SHAPE[1], SHAPE[0]), Image.Resampling.BILINEAR)).tobytes()


def _as_bmp(file: Path, target: Path) -> None:
    from PIL import Image

    with Image.open(file) as image:
        image.save(target)


def test_what_is_twice_in_the_data_is_no_overlap_of_their_own_split(
    image_folder: Path, tmp_path: Path
) -> None:
    for file in list(image_folder.rglob("*.png")):
        shutil.copy(file, file.with_name(f"again_{file.name}"))
    data = read(image_folder)
    seen = trained_on(data)
    assert np.isin(data.calibration.hashes, seen.samples).any()
    assert seen.overlap(data) == []
    assert seen.overlap(read(image_folder, seed=1))


def test_inputs_of_another_form_are_not_compared(image_folder: Path) -> None:
    seen = trained_on(read(image_folder))
    larger = read(image_folder, shape=(16, 16, 3), seed=1)
    assert not seen.is_comparable(larger)
    assert seen.overlap(larger) == []
    assert seen.is_comparable(read(image_folder, seed=1))


def test_lines_of_a_file_of_texts_are_named(tmp_path: Path) -> None:
    file = tmp_path / "texts.csv"
    lines = [f"the {number}th text,{number % 2}" for number in range(60)]
    file.write_text("\n".join(["text,label", *lines]))
    reading = Reading(shape=(32,))
    data = read_texts(file, reading)
    assert not data.own_calibration
    found = trained_on(data).overlap(read_texts(file, replace(reading, seed=1)))
    assert found
    assert all(name.startswith(f"{file}, line ") for name in found)


def test_samples_without_names_are_numbered(cifar_folder: Path) -> None:
    data = read_cifar10(cifar_folder, validation=20, calibration=20)
    other = read_cifar10(cifar_folder, validation=20, calibration=20, seed=1)
    found = trained_on(data).overlap(other)
    assert found
    assert all(name.startswith("calibration sample ") for name in found)


def test_a_calibration_part_is_the_datas_own_only_where_they_have_one(
    tmp_path: Path, image_folder: Path, write_wav: Callable[..., Path]
) -> None:
    assert not read(image_folder).own_calibration
    for speaker in ("ann", "bob", "eve"):
        for number in range(20):
            frames = np.random.default_rng(number).integers(-999, 999, 50, np.int16)
            write_wav(tmp_path / "digits" / f"{number % 2}_{speaker}_{number}.wav", frames)
    assert not read_fsdd(
        tmp_path / "digits", Reading(shape=(64,), sample_rate=8000)
    ).own_calibration
    rows = [f"text {n},{n % 2},{('train', 'val', 'calibration')[n % 3]}" for n in range(90)]
    file = tmp_path / "texts.csv"
    file.write_text("\n".join(["text,label,part", *rows]))
    assert read_texts(file, Reading(shape=(16,), split_column="part")).own_calibration
