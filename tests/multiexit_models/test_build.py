from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="building needs torch: delen[train]")
pytest.importorskip("onnx", reason="building needs onnx: delen[train]")
pytest.importorskip("onnxscript", reason="building needs onnxscript: delen[train]")

from delen.bundle import InputSpec, load_bundle  # noqa: E402
from delen.errors import BundleError, InvalidInput  # noqa: E402
from multiexit_models import export  # noqa: E402
from multiexit_models.build import Identity, build_bundle, build_cifar10  # noqa: E402
from multiexit_models.provenance import Evaluated  # noqa: E402
from multiexit_models.recipe import Recipe  # noqa: E402
from multiexit_models.train import predict  # noqa: E402

RECIPE = Recipe(epochs=1, batch_size=20, small_share=0.0)


class Watcher:
    def __init__(self) -> None:
        self.stages: list[str] = []
        self.steps: list[tuple[int, int]] = []

    def stage(self, name: str) -> None:
        self.stages.append(name)

    def step(self, done: int, total: int, loss: float) -> None:
        self.steps.append((done, total))


@pytest.fixture(scope="module")
def built(cifar_folder: Path, tmp_path_factory: pytest.TempPathFactory):
    """The bundle of a CIFAR-10 of 100 images, its trained weights and what the watcher saw."""
    folder, watcher = tmp_path_factory.mktemp("built"), Watcher()
    weights = folder / "weights.pt"
    bundle = build_cifar10(
        cifar_folder,
        folder / "bundle",
        recipe=RECIPE,
        calibration_images=40,
        save_weights_to=weights,
        progress=watcher,
    )
    return bundle, weights, watcher


def test_bundle_is_whole_and_says_what_made_it(built) -> None:
    bundle, _, watcher = built
    again = load_bundle(bundle.path)
    assert again.digest == bundle.digest
    assert {entry.name for entry in bundle.path.iterdir()} == {
        *(f"segment{index}.onnx" for index in range(5)),
        "calibration.npz",
        "manifest.json",
    }
    manifest = again.manifest
    assert (manifest.name, manifest.version, manifest.max_batch) == ("cifar10-resnet", "1", 32)
    assert (again.calibration.samples, again.calibration.exits) == (40, 5)
    origin = manifest.provenance
    assert origin["recipe"]["epochs"] == 1
    assert origin["data"] | {"name": ""} == {
        "name": "", "training": 60, "calibration": 40, "test": 40, "split_seed": 0,
    }  # fmt: skip
    assert len(origin["export"]["max_logit_difference"]) == 5
    for spec, figures, index in zip(again.exits, origin["exits"], range(5), strict=True):
        assert figures["macs"] == spec.macs
        assert figures["test_accuracy"] == spec.test_accuracy
        assert figures["calibration_accuracy"] == again.calibration.accuracy(index)
    assert watcher.steps == [(1, 3), (2, 3), (3, 3)]
    assert watcher.stages[:2] == ["reading data", "training"]


def test_saved_weights_make_the_same_bundle_by_command(built, cifar_folder, tmp_path, capsys):
    from multiexit_models.command import add_arguments, run

    bundle, weights, _ = built
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    output = tmp_path / "again"
    arguments = ["--data", str(cifar_folder), "--output", str(output), "--json"]
    arguments += ["--weights", str(weights), "--calibration-images", "40"]
    assert run(parser.parse_args(arguments)) == 0
    printed = json.loads(capsys.readouterr().out)
    again = load_bundle(output)
    assert printed["digest"] == again.digest
    assert [exit["macs"] for exit in printed["exits"]] == [exit.macs for exit in bundle.exits]
    before, after = bundle.manifest.provenance, again.manifest.provenance
    assert after["weights_sha256"] == before["weights_sha256"]
    assert after["recipe"] == before["recipe"]
    assert np.array_equal(again.calibration.correct, bundle.calibration.correct)


def test_existing_output_is_refused_before_any_work(built, cifar_folder: Path) -> None:
    watcher = Watcher()
    with pytest.raises(InvalidInput, match="exists"):
        build_cifar10(cifar_folder, built[0].path, recipe=RECIPE, progress=watcher)
    assert watcher.stages == []


@pytest.mark.parametrize("images", [0, 100])
def test_too_many_calibration_images_are_refused(cifar_folder, tmp_path, images: int) -> None:
    with pytest.raises(InvalidInput, match="set aside of 100"):
        build_cifar10(cifar_folder, tmp_path / "b", recipe=RECIPE, calibration_images=images)


def test_too_few_training_images_are_refused(cifar_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="10 training images"):
        build_cifar10(cifar_folder, tmp_path / "b", recipe=RECIPE, calibration_images=90)


def test_unusable_data_and_weights_are_refused(cifar_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no CIFAR-10"):
        build_cifar10(tmp_path / "absent", tmp_path / "b", recipe=RECIPE)
    damaged, foreign = tmp_path / "damaged.pt", tmp_path / "foreign.pt"
    damaged.write_bytes(b"no weights")
    torch.save(torch.nn.Linear(2, 2).state_dict(), foreign)
    for file, problem in [(damaged, "holds no weights"), (foreign, "of another network")]:
        with pytest.raises(InvalidInput, match=problem):
            build_cifar10(
                cifar_folder, tmp_path / "b", recipe=RECIPE, calibration_images=40, weights=file
            )
    assert not (tmp_path / "b").exists()


@pytest.fixture
def tiny_bundle(tiny_network):
    """Builds the bundle of a network that is no image model, into a given folder."""
    network = tiny_network().eval()
    images = np.random.default_rng(1).integers(0, 256, (64, 8, 8, 3), dtype=np.uint8)
    logits = predict(network, torch.from_numpy(images)).numpy()
    identity = Identity("tiny", "7", "", InputSpec("uint8", (8, 8, 3), None), 2, None, 4)
    evaluated = Evaluated(logits, np.arange(64) % 2)

    def build(folder: Path, **options):
        return build_bundle(network, identity, evaluated, None, images, folder, **options)

    return build


def test_any_network_can_be_built_without_test_data(tiny_bundle, tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tiny", training={"by": "hand"})
    assert [exit.test_accuracy for exit in bundle.exits] == [None, None]
    assert bundle.exits[0].features == (8, 4, 4)
    assert bundle.manifest.provenance["by"] == "hand"
    assert tiny_bundle(tmp_path / "tiny", overwrite=True).name == "tiny"


def test_failed_build_leaves_nothing(tiny_bundle, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    with pytest.raises(BundleError, match="differs from torch"):
        tiny_bundle(tmp_path / "tiny")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [["--quick", "--epochs", "4"], ["--weights", "w", "--quick"], ["--epochs", "0"]],
)
def test_arguments_that_contradict_are_wrong_usage(arguments: list[str]) -> None:
    from multiexit_models.command import add_arguments

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(["--data", "d", "--output", "o", *arguments])
    assert ended.value.code == 2


def test_unwritable_places_are_refused_before_any_work(cifar_folder, tmp_path) -> None:
    watcher = Watcher()
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="is no folder"):
        build_cifar10(cifar_folder, tmp_path / "file" / "bundle", recipe=RECIPE, progress=watcher)
    with pytest.raises(InvalidInput, match="absent is no folder"):
        build_cifar10(
            cifar_folder,
            tmp_path / "bundle",
            recipe=RECIPE,
            save_weights_to=tmp_path / "absent" / "weights.pt",
            progress=watcher,
        )
    assert watcher.stages == []


def test_quick_trains_few_epochs(monkeypatch, built, capsys) -> None:
    from multiexit_models import build
    from multiexit_models.command import add_arguments, run

    asked = []
    monkeypatch.setattr(
        build, "build_cifar10", lambda *_, **options: asked.append(options) or built[0]
    )
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    for option in (["--quick"], ["--epochs", "7"], []):
        assert run(parser.parse_args(["--data", "d", "--output", "o", "--seed", "5", *option])) == 0
    assert [options["recipe"] for options in asked] == [
        Recipe(epochs=3, seed=5),
        Recipe(epochs=7, seed=5),
        Recipe(seed=5),
    ]
    table = capsys.readouterr().out.splitlines()
    assert table[1].split()[:4] == ["exit", "MMAC", "share", "calibration"]
    assert table[6].split()[:3] == ["4", f"{built[0].exits[4].macs / 1e6:.2f}", "100.0%"]


def test_training_that_diverges_is_a_failure_and_no_traceback(monkeypatch, capsys) -> None:
    from multiexit_models import build
    from multiexit_models.command import add_arguments, run

    def diverge(*_args, **_options):
        raise FloatingPointError("the loss is nan at step 3 of 9")

    monkeypatch.setattr(build, "build_cifar10", diverge)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert run(parser.parse_args(["--data", "d", "--output", "o"])) == 1
    assert "nan at step 3" in capsys.readouterr().err
    assert "tqdm" in sys.modules
