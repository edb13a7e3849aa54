"""A plain ONNX classifier, imported by the command and served by a daemon."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from typing import TYPE_CHECKING

import pytest
from PIL import Image

pytest.importorskip("torch", reason="an import needs torch: delen[train]")

from tests.multiexit_models.imports.graphs import (
    LABELS,
    MEAN,
    STD,
    classifier,
    images,
    save,
    write_images,
    write_labels,
)

if TYPE_CHECKING:
    from tests.builders.daemon import Daemon, Launcher


@pytest.fixture(scope="module")
def served(launcher: Launcher, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with ``plain``, of one exit, and ``early``, of two."""
    folder = tmp_path_factory.mktemp("import")
    model = save(classifier(batch=1, ending="Softmax", flatten="constant", opset=11), folder)
    photos = write_images(folder / "photos", 240)
    given = [model, "--labels", write_labels(folder), "--calibration", photos, "--threads", 1]
    given += ["--mean", ",".join(map(str, MEAN)), "--std", ",".join(map(str, STD))]
    for name, more in (("plain", []), ("early", ["--exits", 2, "--epochs", 20, "--no-mirror"])):
        command = [sys.executable, "-m", "delen.commands.main", "import", *given, *more]
        command += ["--output", folder / "bundles" / name]
        ended = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
    daemon = launcher.start(
        {"models": {"path": str(folder / "bundles"), "load": ["plain", "early"]}}
    )
    yield daemon
    launcher.stop(daemon)


def test_bounds_choose_between_an_answer_and_a_refusal(served: Daemon) -> None:
    pixels, labels = images(20, seed=9)
    answers = [
        served.api.raw(image, "/v1/models/plain/infer", min_accuracy=0.6).json() for image in pixels
    ]
    assert {(answer["exit"], answer["exits"]) for answer in answers} == {(0, 1)}
    assert all(answer["receipt"]["accuracy"]["met"] for answer in answers)
    right = [
        answer["predictions"][0]["label"] == LABELS[label]
        for answer, label in zip(answers, labels, strict=True)
    ]
    assert sum(right) >= 14
    refused = served.api.raw(pixels[0], "/v1/models/plain/infer", min_accuracy=0.999)
    nearest = refused.error(422, "infeasible_bound")["nearest"]
    assert 0.6 < nearest["min_accuracy"] < 0.999


def test_early_exits_answer_what_is_easy(served: Daemon) -> None:
    pixels, _ = images(30, seed=9)
    path = "/v1/models/early/infer"
    reached = {served.api.raw(image, path, min_accuracy=0.6).json()["exit"] for image in pixels}
    assert 0 in reached
    assert served.api.get("/v1/models/early").json()["max_batch"] == 32


def test_an_encoded_image_is_answered(served: Daemon) -> None:
    pixels, _ = images(1)
    encoded = BytesIO()
    Image.fromarray(pixels[0]).save(encoded, "PNG")
    answer = served.api.post(
        "/v1/models/plain/infer", body=encoded.getvalue(), content_type="image/png"
    ).json()
    as_array = served.api.raw(pixels[0], "/v1/models/plain/infer").json()
    assert answer["predictions"] == as_array["predictions"]
