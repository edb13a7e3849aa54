"""Traffic signs as people have them: tracks of frames, from their folder to floors that hold."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="building needs torch: delen[train]")
pytest.importorskip("onnxscript", reason="building needs onnxscript: delen[train]")
pytest.importorskip("imagehash", reason="near-duplicates need ImageHash: delen[train]")

from PIL import Image  # noqa: E402

from delen.bundle.manifest import Bundle, load_bundle  # noqa: E402
from delen.errors import InvalidInput  # noqa: E402
from multiexit_models.command import add_arguments, run  # noqa: E402
from multiexit_models.data.cifar import LABELS, load  # noqa: E402
from multiexit_models.data.dataset import Labelled  # noqa: E402
from multiexit_models.report import report_text  # noqa: E402
from policies.plan.thresholds import floor_without_error, highest_floor  # noqa: E402

TRACKS, FRAMES = 40, 4
HELD_OUT = 600
TRACK = "([^/]+/[^/_]+)[^/]*$"
DELTAS = (0.01, 0.05, 0.1, 0.15, 0.2)
BACKBONE = """
from torch import nn

def make():
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU(),
        nn.Conv2d(12, 24, 3, 2, 1), nn.BatchNorm2d(24), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(96, 10),
    )
"""


@pytest.fixture(scope="module")
def benchmarks() -> Any:
    """The grouped study of ``benchmarks guarantee``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).resolve().parents[2])
        return importlib.import_module("benchmarks.guarantee")


@pytest.fixture(scope="module")
def images(cifar_zip: Path) -> Labelled:
    """Pictures for the tracks of the folder, class by class, and below them the held-out ones."""
    whole = load(cifar_zip, "test")
    order = np.argsort(whole.labels, kind="stable").reshape(len(LABELS), -1)
    held_out = order[:, TRACKS : TRACKS + HELD_OUT // len(LABELS)]
    return whole.take(np.concatenate([order[:, :TRACKS].reshape(-1), held_out.reshape(-1)]))


@pytest.fixture(scope="module")
def signs(images: Labelled, benchmarks: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CLASS/TRACK_FRAME.png, named as the German traffic signs are."""
    folder = tmp_path_factory.mktemp("signs")
    count = TRACKS * len(LABELS)
    frames = benchmarks.group_guarantee.tracks(images.take(np.arange(count)), FRAMES)
    for row, (pixels, label) in enumerate(zip(frames.inputs, frames.labels, strict=True)):
        track, frame = divmod(row, FRAMES)
        file = folder / f"{label:05d}" / f"{track % TRACKS:05d}_{frame:05d}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(file)
    return folder


@pytest.fixture(scope="module")
def build(signs: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Bundle]:
    folder = tmp_path_factory.mktemp("bundles")
    (folder / "net.py").write_text(BACKBONE)

    def build(name: str, *options: str) -> Bundle:
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        arguments = ["--data", str(signs), "--output", str(folder / name), "--size", "32x32"]
        arguments += ["--backbone", f"{folder / 'net.py'}:make", "--at", "2", "--epochs", "4"]
        arguments += ["--batch-size", "32", "--no-mirror", "--threads", "1", "--unseen-calibration"]
        assert run(parser.parse_args([*arguments, *options])) == 0
        return load_bundle(folder / name)

    return build


@pytest.fixture(scope="module")
def grouped(build: Callable[..., Bundle]) -> Bundle:
    return build("grouped", "--group-by", TRACK)


def test_floors_over_groups_hold_on_held_out_groups(
    grouped: Bundle, images: Labelled, benchmarks: Any
) -> None:
    table = grouped.calibration
    assert table.groups is not None
    assert (table.units, table.samples) == (60, 240)
    unseen = images.take(np.arange(TRACKS * len(LABELS), len(images)))
    frames = benchmarks.group_guarantee.tracks(unseen, FRAMES, seed=1)
    truth = benchmarks.answers(grouped, frames)
    for exit in range(table.exits):
        assert 0.1 < highest_floor(table, exit, 0.99) < truth.accuracy(exit)
    made = benchmarks.group_guarantee.run("signs", truth, (60,), 200, DELTAS)
    assert len(made) == 3 * len(DELTAS)
    for outcome in made:
        if outcome.limit is not None:
            assert outcome.violated <= outcome.limit
    by_images = [outcome.violated for outcome in made if outcome.limit is None]
    assert by_images[1] > DELTAS[1] + 0.03  # what taking frames for independent promises too much


def test_the_report_counts_groups_beside_images(grouped: Bundle) -> None:
    report = report_text(grouped)
    best = floor_without_error(grouped.calibration, 0.95)
    assert "240 samples in 60 groups" in report
    assert f"at most {best:.2%}" in report
    assert "mean over groups" in report
    assert grouped.manifest.provenance["data"]["groups"]["calibration"] == 60
    assert grouped.manifest.provenance["data"]["notes"] == []


def test_a_floor_beyond_the_number_of_groups_is_refused_before_training(
    build: Callable[..., Bundle],
) -> None:
    with pytest.raises(InvalidInput, match=r"60 calibration groups .* needs 63") as caught:
        build("beyond", "--group-by", TRACK, "--floor", "0.95")
    assert caught.value.field == "floor"


def test_the_default_split_warns_and_names_the_right_command(
    build: Callable[..., Bundle], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InvalidInput, match="240 calibration samples are too few"):
        build("default", "--floor", "0.99")  # refused before the training, after the warnings
    said = capsys.readouterr().err
    assert f"--group-by '{TRACK}', which gives 400 groups" in said
    assert "% of the calibration images are near-duplicates of training images" in said


def test_notes_on_the_data_are_in_the_report(grouped: Bundle) -> None:
    provenance = {**grouped.manifest.provenance, "data": {"notes": ["names look like tracks"]}}
    noted = replace(grouped, manifest=replace(grouped.manifest, provenance=provenance))
    assert "- names look like tracks" in report_text(noted)
    assert "Notes on the data" not in report_text(grouped)
