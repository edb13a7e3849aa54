"""An ONNX classifier and images become a bundle that holds what it says."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="an import needs torch: delen[train]")

from delen.bundle.manifest import Bundle, load_bundle
from delen.errors import InvalidInput
from multiexit_models.calibrate.temperature import softmax
from multiexit_models.export.chain import all_rows, open_segment, walk
from multiexit_models.imports.command import add_arguments
from multiexit_models.imports.run import import_model
from multiexit_models.imports.spec import ImportSpec
from multiexit_models.progress import Bar
from multiexit_models.report import report_text
from tests.multiexit_models.imports.graphs import (
    LABELS,
    MEAN,
    STD,
    classifier,
    images,
    joined_to_a_constant,
    save,
    write_images,
    write_labels,
)

REPOSITORY = Path(__file__).resolve().parents[3]
IMAGES = 240


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data") / "photos", IMAGES)


def make(folder: Path, photos: Path, model: Any = None, **options: Any) -> Bundle:
    spec = ImportSpec(
        model=save(classifier() if model is None else model, folder),
        labels=write_labels(folder, options.pop("labels", LABELS)),
        calibration=photos,
        output=folder / "colours",
        mean=MEAN,
        std=STD,
        **options,
    )
    return import_model(spec, Bar())


def logits(bundle: Bundle, pixels: Any) -> list[Any]:
    chain = [open_segment(bundle.graph(k), "onnx") for k in range(len(bundle.exits))]
    return [outputs[0] for _, outputs in walk(chain, pixels, all_rows)]


@pytest.fixture(scope="module")
def one_exit(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make(tmp_path_factory.mktemp("one"), photos)


@pytest.fixture(scope="module")
def two_exits(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make(tmp_path_factory.mktemp("two"), photos, exits=2, epochs=20, no_mirror=True)


def test_a_bundle_of_one_exit_says_what_it_is(one_exit: Bundle) -> None:
    manifest = one_exit.manifest
    assert load_bundle(one_exit.path).digest == one_exit.digest
    assert (manifest.labels, manifest.classes, len(manifest.exits)) == (LABELS, 3, 1)
    assert (manifest.input.dtype, manifest.input.shape) == ("uint8", (8, 8, 3))
    assert manifest.input.image is not None
    assert manifest.max_batch == 32
    assert manifest.held_out == "declared"
    assert manifest.exits[0].macs == 4 * 4 * 6 * 27 + 2 * 2 * 8 * 54 + 3 * 8
    assert manifest.provenance["network"] == "colours.onnx"
    assert manifest.provenance["imported"]["trained_on"] == "unknown"
    assert manifest.provenance["recipe"] is None
    assert (one_exit.path / "report.md").is_file()


def test_without_heads_to_train_their_images_calibrate(one_exit: Bundle) -> None:
    data = one_exit.manifest.provenance["data"]
    parts = [data[part] for part in ("training", "validation", "calibration", "test")]
    assert parts == [0, IMAGES / 10, IMAGES * 3 // 4, IMAGES * 3 // 20]
    assert one_exit.calibration.samples == IMAGES * 3 // 4


def test_images_that_train_heads_do_not_calibrate(two_exits: Bundle) -> None:
    data = two_exits.manifest.provenance["data"]
    parts = [data[part] for part in ("training", "validation", "calibration", "test")]
    assert parts == [IMAGES * 3 // 5, IMAGES / 10, IMAGES * 3 // 20, IMAGES * 3 // 20]
    assert two_exits.calibration.samples == IMAGES * 3 // 20
    assert two_exits.manifest.provenance["recipe"]["frozen_backbone"] is True


def test_the_last_exit_answers_as_the_file_does(one_exit: Bundle, two_exits: Bundle) -> None:
    pixels, labels = images(60, seed=9)
    (alone,) = logits(one_exit, pixels)
    early, last = logits(two_exits, pixels)
    assert np.abs(alone - last).max() < 1e-5
    right = (last.argmax(1) == labels).mean()
    assert right > 0.7
    assert (early.argmax(1) == labels).mean() > 0.6


def test_a_fixed_softmax_file_makes_the_same_bundle(
    tmp_path: Path, photos: Path, one_exit: Bundle
) -> None:
    model = classifier(batch=1, ending="Softmax", flatten="constant", opset=11)
    bundle = make(tmp_path, photos, model)
    assert bundle.manifest.max_batch == 32
    pixels, _ = images(20, seed=9)
    assert (
        np.abs(softmax(logits(bundle, pixels)[0]) - softmax(logits(one_exit, pixels)[0])).max()
        < 1e-5
    )
    assert bundle.exits[0].temperature == pytest.approx(one_exit.exits[0].temperature, rel=1e-3)


def test_a_file_for_single_images_gets_early_exits_too(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make(tmp_path, photos, joined_to_a_constant(), exits=2, epochs=1)
    assert bundle.manifest.max_batch == 1
    assert "one by one" in capsys.readouterr().err


def test_heads_that_were_trained_are_not_trained_again(
    tmp_path: Path, photos: Path, two_exits: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"exits": 2, "epochs": 20, "no_mirror": True}
    with pytest.raises(InvalidInput, match="cannot be guaranteed"):
        make(tmp_path, photos, floor=0.91, **options)
    checkpoint = tmp_path / "colours.checkpoint"
    assert f"{checkpoint} keeps what was trained" in capsys.readouterr().err
    bundle = make(tmp_path, photos, **options)
    assert "20 of 20 epochs" in capsys.readouterr().err
    assert not checkpoint.exists()
    assert bundle.graph(0) == two_exits.graph(0)


def test_labels_without_images_are_counted(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two = tmp_path / "two"
    two.mkdir()
    for label in ("blue", "green"):
        (two / label).symlink_to(photos / label)
    bundle = make(tmp_path, two)
    assert bundle.manifest.labels == LABELS
    assert bundle.calibration.correct.mean() > 0.5
    assert "1 of 3 labels have no images" in capsys.readouterr().err


def test_guessing_is_said(tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path, photos, labels=("blue", "red", "green"))
    said = capsys.readouterr().err
    assert "check the order of the labels" in said
    assert "--mean" in said


def test_a_divided_folder_keeps_its_parts(tmp_path: Path) -> None:
    folder = tmp_path / "divided"
    for seed, (part, count) in enumerate([("train", 60), ("val", 30), ("calibration", 45)]):
        write_images(folder / part, count, seed)
    data = make(tmp_path, folder).manifest.provenance["data"]
    assert (data["calibration"], data["validation"]) == (45, 30)


def test_groups_of_images_are_in_the_table(tmp_path: Path) -> None:
    photos = write_images(tmp_path / "photos", IMAGES)
    for number, file in enumerate(sorted(photos.glob("*/*"))):
        group = file.parent / f"scene{number // 3}"
        group.mkdir(exist_ok=True)
        file.rename(group / file.name)
    scenes = len({folder.name for folder in photos.glob("*/*")})
    bundle = make(tmp_path, photos)
    data, table = bundle.manifest.provenance["data"], bundle.calibration
    assert table.units == data["groups"]["calibration"]
    assert table.units + data["groups"]["validation"] + data["groups"]["test"] == scenes
    assert f"{table.samples} samples in {table.units} groups" in report_text(bundle)


def test_help_needs_neither_torch_nor_onnx() -> None:
    program = (
        "import argparse, sys\n"
        "from multiexit_models.imports.command import add_arguments\n"
        "add_arguments(argparse.ArgumentParser())\n"
        "print([name for name in ('torch', 'onnx', 'tqdm', 'PIL') if name in sys.modules])\n"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == "[]"
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    text = parser.format_help()
    options = ("--labels", "--calibration", "--exits", "--size", "--head", "--name")
    places = [text.index(f"\n  {option}") for option in options]
    assert places == sorted(places)


def test_the_command_prints_its_figures(tmp_path: Path, photos: Path) -> None:
    command = [sys.executable, "-m", "delen.commands.main", "import"]
    command += [str(save(classifier(), tmp_path)), "--labels", str(write_labels(tmp_path))]
    command += ["--calibration", str(photos), "--name", "mine", "--json", "--threads", "1"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert ended.returncode == 0, ended.stderr
    figures = json.loads(ended.stdout)
    assert figures["model"] == "mine"
    assert load_bundle(tmp_path / "mine").digest == figures["digest"]
    counts = "24 choose temperatures and criterion, 180 make the calibration table, 36 test"
    assert f"240 images: {counts}" in ended.stderr
