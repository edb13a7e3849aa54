"""From a stranger's folder to a bundle, by the command that a user runs."""

from __future__ import annotations

import argparse
import errno
import json
import os
import re
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="building needs torch: delen[train]")
pytest.importorskip("onnxscript", reason="building needs onnxscript: delen[train]")

from PIL import Image  # noqa: E402
from torch import nn  # noqa: E402

from delen.bundle.calibration import Calibration  # noqa: E402
from delen.bundle.manifest import Bundle, load_bundle  # noqa: E402
from delen.commands.main import main  # noqa: E402
from delen.daemon.in_process import Engine  # noqa: E402
from delen.errors import BundleError, InvalidInput  # noqa: E402
from multiexit_models.command import add_arguments, run  # noqa: E402
from multiexit_models.data.images import read_image_folder  # noqa: E402
from multiexit_models.data.reading import Reading  # noqa: E402
from multiexit_models.export.bundle import rehearse, write_bundle  # noqa: E402
from multiexit_models.export.exported import Inaccurate  # noqa: E402
from multiexit_models.network import MultiExitNetwork  # noqa: E402
from multiexit_models.progress import Bar  # noqa: E402
from multiexit_models.report import report_text  # noqa: E402
from multiexit_models.spec import BuildSpec  # noqa: E402
from multiexit_models.train.weights import digest, read_weights  # noqa: E402
from multiexit_models.zoo.registry import zoo_entry  # noqa: E402
from tests.multiexit_models.tiny import INPUT, halving, head, normalise  # noqa: E402

COLOURS = {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (200, 50, 40)}
Build = Callable[..., Bundle]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 40 noisy plain images of several sizes."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / name).mkdir()
        for number in range(40):
            side = int(rng.integers(20, 40))
            noise = rng.normal(0, 30, (side, side, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def command(*arguments: str | Path) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args([str(argument) for argument in arguments]))


@pytest.fixture(scope="module")
def built(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle of the photos, and its weights beside it."""
    folder = tmp_path_factory.mktemp("built")
    arguments = ["--data", photos, "--output", folder / "photos", "--epochs", "2"]
    arguments += ["--batch-size", "16", "--save-weights", folder / "weights.pt", "--threads", "1"]
    assert command(*arguments) == 0
    return load_bundle(folder / "photos")


def test_bundle_is_whole_and_says_what_made_it(built: Bundle) -> None:
    manifest = built.manifest
    assert (manifest.name, manifest.labels) == ("photos", tuple(COLOURS))
    assert (manifest.runtime, manifest.precision) == ("onnx", "fp32")
    assert {entry.name for entry in built.path.iterdir()} == {
        *(f"segment{index}.onnx" for index in range(5)),
        *("calibration.npz", "manifest.json", "report.md", "report.png"),
    }
    origin = manifest.provenance
    assert origin["network"] == "residual-small"
    assert origin["recipe"]["epochs"] == 2
    counts = [origin["data"][part] for part in ("training", "validation", "calibration", "test")]
    assert sum(counts) == 120
    assert built.calibration.samples == origin["data"]["calibration"]
    for spec, figures, index in zip(built.exits, origin["exits"], range(5), strict=True):
        assert figures["macs"] == spec.macs
        assert figures["test_accuracy"] == spec.test_accuracy
        assert figures["calibration_accuracy"] == built.calibration.accuracy(index)
    assert not list(built.path.parent.glob("*.checkpoint"))


def test_floors_are_of_a_network_that_ends_before_the_last_exit(built: Bundle) -> None:
    exits = len(built.exits)
    correct = np.zeros((400, exits), bool)
    correct[:, 0] = True
    confidence = np.linspace(0, 1, 400, dtype=np.float32)[:, None].repeat(exits, 1)
    table = Calibration(confidence, correct, (~correct).astype(np.int32))
    report = report_text(replace(built, calibration=table))
    floors = report.partition("## Floors")[2].splitlines()
    cost = f"{built.exits[0].macs / built.exits[-1].macs:.1%}"
    assert sum(line.endswith(f"| {cost} |") for line in floors) == 5


def test_a_report_that_fails_leaves_the_bundle(
    tmp_path: Path,
    small: Bundle,
    of_own: list[str | Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(bundle: Bundle) -> None:
        raise RuntimeError("no ink")

    monkeypatch.setattr("multiexit_models.report.floor_table", fail)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    weights = small.path.with_name("weights.pt")
    assert command(*of_own, "--output", tmp_path / "made", "--weights", weights) == 0
    assert load_bundle(tmp_path / "made").calibration.samples == small.calibration.samples
    assert not list((tmp_path / "made").glob("report.*"))
    named, *said = [line for line in capsys.readouterr().err.splitlines() if "made" in line]
    assert named.endswith(str(tmp_path / "made"))
    assert "report.png" in said[0] and "matplotlib" in said[0]
    assert "report.md" in said[1] and "no ink" in said[1]


def test_a_report_without_its_figure_is_written(
    tmp_path: Path, small: Bundle, of_own: list[str | Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    weights = small.path.with_name("weights.pt")
    assert command(*of_own, "--output", tmp_path / "made", "--weights", weights) == 0
    report = (tmp_path / "made" / "report.md").read_text()
    assert "## Floors" in report
    assert "report.png" not in report


def test_report_of_an_older_bundle_says_what_it_lacks(built: Bundle) -> None:
    figures = [dict(exit) for exit in built.manifest.provenance["exits"]]
    low, high = figures[0].pop("calibration_error_interval")
    assert 0 <= low <= high <= 1
    provenance = {**built.manifest.provenance, "exits": figures}
    older = replace(built, manifest=replace(built.manifest, provenance=provenance))
    assert "| unknown |" in report_text(older)


def test_report_tells_of_exits_thresholds_and_floors(built: Bundle) -> None:
    report = (built.path / "report.md").read_text()
    for part in ("## Exits", "## Thresholds", "## Floors", "## Criteria", "(report.png)"):
        assert part in report
    assert Image.open(built.path / "report.png").width > 800


def test_bundle_is_served(built: Bundle, photos: Path, tmp_path: Path) -> None:
    with Engine(built.path, state=tmp_path) as engine:
        result = engine.infer(photos / "red" / "0.png", max_latency=10.0)
    assert result.label in COLOURS
    assert result.receipt.met


def test_saved_weights_make_the_same_calibration(
    small: Bundle, of_own: list[str | Path], tmp_path: Path, capsys: Any
) -> None:
    weights = small.path.with_name("weights.pt")
    arguments = [*of_own, "--output", tmp_path / "again", "--weights", weights, "--json"]
    assert command(*arguments) == 0
    printed = json.loads(capsys.readouterr().out)
    again = load_bundle(tmp_path / "again")
    assert printed["digest"] == again.digest
    assert [exit["macs"] for exit in printed["exits"]] == [exit.macs for exit in small.exits]
    before, after = small.manifest.provenance, again.manifest.provenance
    assert (after["weights_sha256"], after["recipe"]) == (
        before["weights_sha256"],
        before["recipe"],
    )
    assert np.array_equal(again.calibration.correct, small.calibration.correct)


def test_int8_carries_its_own_calibration(built: Bundle, photos: Path, tmp_path: Path) -> None:
    weights = built.path.parent / "weights.pt"
    arguments = ["--data", photos, "--output", tmp_path / "int8", "--weights", weights]
    assert command(*arguments, "--precision", "int8") == 0
    quantised = load_bundle(tmp_path / "int8")
    assert quantised.manifest.precision == "int8"
    assert not np.array_equal(quantised.calibration.confidence, built.calibration.confidence)
    before, after = (
        sum(entry.size for name, entry in bundle.manifest.files.items() if "segment" in name)
        for bundle in (built, quantised)
    )
    assert after < 0.4 * before


OWN = """
import torch
from torch import nn

def make():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    )

class FixedBatch(nn.Module):
    def forward(self, features):
        return features.reshape(int(features.shape[0]), -1) + torch.zeros(2, 8)

def fixed_batch():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), FixedBatch(), nn.Linear(8, 3),
    )

def no_network():
    return 3

def broken():
    return 1 / 0
"""
OF_OWN = ["--exits", "2", "--size", "32x32"]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("own") / "own_net.py"
    file.write_text(OWN)
    return file


@pytest.fixture(scope="module")
def of_own(photos: Path, own: Path) -> list[str | Path]:
    """The arguments of a build that takes seconds: two exits on a tiny backbone."""
    return ["--data", photos, "--backbone", f"{own}:make", *OF_OWN]


@pytest.fixture(scope="module")
def small(of_own: list[str | Path], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle of such a build, and its weights beside it."""
    folder = tmp_path_factory.mktemp("small")
    arguments = ["--output", folder / "photos", "--save-weights", folder / "weights.pt"]
    assert command(*of_own, *arguments, "--epochs", "1", "--batch-size", "16") == 0
    return load_bundle(folder / "photos")


@pytest.mark.parametrize(
    ("runtime", "where", "declared"),
    [
        ("onnx", ["--at", "1"], False),
        ("torch", ["--exits", "2", "--place", "probe", "--unseen-calibration"], True),
    ],
)
def test_own_backbone_gets_exits(
    photos: Path,
    tmp_path: Path,
    own: Path,
    runtime: str,
    where: list[str],
    declared: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "not" / "yet" / "own"
    arguments = ["--data", photos, "--output", output, "--size", "32x32"]
    arguments += ["--backbone", f"{own}:make", *where, "--epochs", "1", "--frozen"]
    arguments += ["--batch-size", "16", "--runtime", runtime]
    assert command(*arguments) == 0
    bundle = load_bundle(output)
    assert (len(bundle.exits), bundle.manifest.runtime) == (2, runtime)
    with Engine(bundle.path, state=tmp_path / "state") as engine:
        result = engine.infer(
            photos / "blue" / "1.png", min_accuracy=0.01, on_infeasible="best_effort"
        )
    assert result.label in COLOURS
    said, report = capsys.readouterr().err, (output / "report.md").read_text()
    accuracy = result.receipt.accuracy
    if declared:
        assert (bundle.manifest.held_out, accuracy.unguaranteed) == ("declared", None)
        assert "--unseen-calibration" in report and "warning" not in said
    else:
        assert (bundle.manifest.held_out, accuracy.guarantee) == ("unknown", None)
        assert accuracy.unguaranteed
        assert "not known" in report
        assert 0 < said.index("--unseen-calibration") < said.index("training ...")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--network", "resnet18x"], "residual-cifar"),
        (["--network", "text-bytes"], "is for text"),
        (["--at", "layer1"], "--at and --exits are for --backbone"),
        (["--backbone", "{own}:make"], "needs --at LAYERS or --exits N"),
        (["--backbone", "{own}:nothing", *OF_OWN], "no function 'nothing'"),
        (["--backbone", "{own}:no_network", *OF_OWN], "is an int, not a torch module"),
        (["--backbone", "{own}", *OF_OWN], "FILE.py:FUNCTION"),
        (["--backbone", "absent.py:make", *OF_OWN], "no Python file"),
        (["--head", "convolutional"], "--head is for --backbone"),
        (["--place", "cost"], "--place is for --exits"),
        (["--unseen-calibration"], "--unseen-calibration is for --backbone"),
        (["--network", "resnet18", "--pretrained", "--weights", "w"], "not both"),
        (["--backbone", "{own}:make", *OF_OWN, "--floor", "0.1"], "--unseen-calibration"),
        (["--size", "32"], "HEIGHTxWIDTH"),
        (["--size", "\u0663x3"], "HEIGHTxWIDTH"),
        (["--size", "\u00b2x3"], "HEIGHTxWIDTH"),
        (["--sample-rate", "8000"], "--sample-rate does nothing for the kind images"),
        (["--kind", "texts", "--group-by", "x"], "--group-by does nothing for the kind texts"),
        (["--name", "my photos"], "must be letters"),
        (["--runtime", "torch", "--precision", "fp16"], "--runtime torch needs --precision fp32"),
        (["--mean", "0,0,0"], "--mean and --std are for --backbone"),
        (["--backbone", "{own}:make", "--exits", "2"], "needs --size"),
        (["--backbone", "{own}:broken", *OF_OWN], "broken failed: ZeroDivisionError"),
        (["--kind", "smells"], "not 'smells'"),
        (["--backbone", "{own}:make", *OF_OWN, "--batch-size", "1000"], "batch"),
        (["--save-weights", "absent/weights.pt"], "absent is not a folder"),
    ],
)
def test_what_cannot_be_built_is_said(
    photos: Path, tmp_path: Path, own: Path, options: list[str], problem: str
) -> None:
    given = [option.replace("{own}", str(own)) for option in options]
    with pytest.raises(InvalidInput, match=problem):
        command("--data", photos, "--output", tmp_path / "bundle", "--epochs", "1", *given)
    assert not (tmp_path / "bundle").exists()


def test_weights_of_another_network_are_refused(photos: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.pt"
    torch.save(torch.nn.Linear(2, 2).state_dict(), foreign)
    exits = tmp_path / "exits.pt"
    torch.save({"segments.0.weight": torch.zeros(2)}, exits)
    for file, problem in [
        (tmp_path / "no.pt", "cannot be read"),
        (foreign, "another network"),
        (exits, "another network"),
    ]:
        with pytest.raises(InvalidInput, match=problem):
            command("--data", photos, "--output", tmp_path / "bundle", "--weights", file)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("option", ["--quick", "--frozen", "--no-mirror"])
def test_options_of_a_training_that_does_not_happen_are_refused(
    built: Bundle, photos: Path, tmp_path: Path, option: str
) -> None:
    weights = built.path.with_name("weights.pt")
    with pytest.raises(InvalidInput, match="training's options do nothing") as refused:
        command("--data", photos, "--output", tmp_path / "made", "--weights", weights, option)
    assert refused.value.field == "weights"


def test_torchvisions_own_state_dict_is_what_a_training_begins_with(
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("multiexit_models.build.rehearse", lambda *arguments: None)
    models = pytest.importorskip("torchvision.models", reason="torchvision: delen[train]")
    torch.manual_seed(4)
    own = models.resnet18(num_classes=7)
    file, kept = tmp_path / "r18.pt", tmp_path / "kept.pt"
    torch.save({"state_dict": {f"module.{k}": v for k, v in own.state_dict().items()}}, file)
    arguments = ["--data", photos, "--network", "resnet18", "--size", "32x32", "--seed", "0"]
    training = ["--weights", file, "--frozen", "--epochs", "1", "--batch-size", "16"]
    assert command(*arguments, *training, "--output", tmp_path / "r18", "--save-weights", kept) == 0
    said = capsys.readouterr().err
    assert 0 < said.index("7 outputs") < said.index("training ...")
    assert 0 < said.index("--unseen-calibration") < said.index("training ...")
    bundle = load_bundle(tmp_path / "r18")
    assert (len(bundle.exits), bundle.manifest.held_out) == (4, "unknown")
    assert bundle.manifest.provenance["recipe"]["epochs"] == 1
    stored = read_weights(kept)
    assert torch.equal(stored.tensors["segments.0.1.conv1.weight"], own.conv1.weight)
    assert stored.trained_on is not None and not stored.trained_on.is_all
    assert command(*arguments, "--weights", kept, "--output", tmp_path / "again") == 0
    again = load_bundle(tmp_path / "again").manifest
    assert again.held_out == "unknown"
    assert again.provenance["weights_sha256"] == bundle.manifest.provenance["weights_sha256"]
    with pytest.raises(InvalidInput, match="samples for calibration and test"):
        command(
            *arguments[:-1], "5", "--weights", kept, "--output", tmp_path / "other",
            "--unseen-calibration",
        )  # fmt: skip


def test_weights_calibrated_on_another_split_are_refused(
    built: Bundle, photos: Path, tmp_path: Path
) -> None:
    weights = built.path.parent / "weights.pt"
    arguments = ["--data", photos, "--output", tmp_path / "bundle", "--weights", weights]
    with pytest.raises(InvalidInput, match="--seed 0") as refused:
        command(*arguments, "--seed", "7")
    assert refused.value.field == "weights"
    (count, total), *_ = re.findall(r"on (\d+) of the (\d+) samples", str(refused.value))
    assert 0 < int(count) < int(total) == 36
    assert any(f"such as {name}/" in str(refused.value) for name in COLOURS)
    assert not (tmp_path / "bundle").exists()


def test_floor_beyond_the_calibration_set_is_refused(
    built: Bundle, photos: Path, tmp_path: Path
) -> None:
    arguments = ["--data", photos, "--output", tmp_path / "strict", "--floor", "0.99"]
    with pytest.raises(InvalidInput, match="too few: even without an error it needs"):
        command(*arguments, "--weights", built.path.parent / "weights.pt")
    assert list(tmp_path.iterdir()) == []


def test_existing_output_is_refused_before_any_work(built: Bundle, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="exists"):
        command("--data", tmp_path / "absent", "--output", built.path)


def test_data_of_no_kind_ask_for_it(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="give --kind: cifar10"):
        command("--data", tmp_path, "--output", tmp_path / "bundle")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--quick", "--epochs", "4"],
        ["--epochs", "0"],
        ["--at", "a", "--exits", "2"],
    ],
)
def test_arguments_that_contradict_are_wrong_usage(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(["--data", "d", "--output", "o", *arguments])
    assert ended.value.code == 2


def test_training_that_diverges_is_a_failure_and_no_traceback(
    monkeypatch: Any, of_own: list[str | Path], tmp_path: Path, capsys: Any
) -> None:
    from multiexit_models import build

    def diverge(*_args: Any, **_options: Any) -> None:
        raise FloatingPointError("the loss is nan at step 3 of 9")

    monkeypatch.setattr(build, "train", diverge)
    assert command(*of_own, "--output", tmp_path / "bundle") == 1
    assert "nan at step 3" in capsys.readouterr().err


TRAINING = ("--epochs", "3", "--batch-size", "16", "--threads", "1")


def delen_build(*arguments: str | Path) -> int:
    """The exit status of ``delen build``."""
    try:
        return main(["build", *map(str, arguments)])
    except SystemExit as ended:
        return int(ended.code or 0)


def visible(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_what_cannot_be_exported_is_refused_before_the_training(
    monkeypatch: pytest.MonkeyPatch, photos: Path, tmp_path: Path, own: Path
) -> None:
    def train(*_args: Any, **_options: Any) -> None:
        pytest.fail("the training began")

    monkeypatch.setattr("multiexit_models.build.train", train)
    arguments = ["--data", photos, "--output", tmp_path / "bundle", "--at", "1", "--size", "32x32"]
    with pytest.raises((BundleError, InvalidInput)):
        command(*arguments, "--backbone", f"{own}:fixed_batch", "--epochs", "1")
    assert visible(tmp_path) == []


def of_photos() -> MultiExitNetwork:
    """Two exits over small photos, with new weights."""
    return MultiExitNetwork(
        [nn.Sequential(normalise(), halving(3, 8)), halving(8, 12)], [head(8, 3), head(12, 3)]
    )


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_rehearsal_leaves_the_network_as_it_was(
    photos: Path, tmp_path: Path, precision: str
) -> None:
    data = read_image_folder(photos, Reading(shape=INPUT.shape, seed=0))
    network = of_photos()
    before, flags = digest(network), [p.requires_grad for p in network.parameters()]
    spec = BuildSpec(data=photos, output=tmp_path / "bundle", precision=precision, floor=0.99)
    rehearse(network, data, spec, Bar())
    assert digest(network) == before
    assert [p.requires_grad for p in network.parameters()] == flags
    assert visible(tmp_path) == []


def test_logits_that_fp16_spoils_untrained_do_not_refuse_a_network(
    built: Bundle, photos: Path, tmp_path: Path
) -> None:
    input = built.manifest.input
    data = read_image_folder(photos, Reading(shape=input.shape, seed=0))
    network = zoo_entry("residual-small").make(3, input.shape, None)
    with torch.no_grad():
        for parameter in network.heads[0].parameters():
            parameter.fill_(6e4)
    spec = BuildSpec(data=photos, output=tmp_path / "bundle", precision="fp16")
    with pytest.raises(Inaccurate):
        write_bundle(network, data, spec, "", {}, Bar())
    rehearse(network, data, spec, Bar())


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_build_goes_on_and_says_from_where(
    monkeypatch: pytest.MonkeyPatch,
    of_own: list[str | Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    by: signal.Signals,
) -> None:
    arguments = [*of_own, "--output", tmp_path / "bundle", *TRAINING]
    shown = Bar.step

    def interrupt(bar: Bar, done: int, total: int, loss: float) -> None:
        shown(bar, done, total, loss)
        if done == total * 2 // 3:
            signal.raise_signal(by)

    with monkeypatch.context() as patch:
        patch.setattr(Bar, "step", interrupt)
        with pytest.raises(KeyboardInterrupt if by == signal.SIGINT else SystemExit) as ended:
            command(*arguments)
    assert visible(tmp_path) == ["bundle.checkpoint"]
    assert str(tmp_path / "bundle.checkpoint") in capsys.readouterr().err
    if by == signal.SIGTERM:
        assert ended.value.code == 143
        return
    assert command(*arguments) == 0
    assert "2 of 3 epochs" in capsys.readouterr().err
    assert visible(tmp_path) == ["bundle"]


@pytest.mark.parametrize(
    ("moment", "at", "by"),
    [
        ("loading torch", 1, signal.SIGINT),
        ("reading data", 1, signal.SIGTERM),
        ("exporting", 1, signal.SIGINT),
        ("calibrating", 1, signal.SIGTERM),
        ("checking", 1, signal.SIGINT),
        ("file", 2, signal.SIGTERM),
        ("file", 3, signal.SIGINT),
        ("reporting", 1, signal.SIGTERM),
    ],
)
def test_an_interrupted_build_leaves_nothing_hidden(
    monkeypatch: pytest.MonkeyPatch,
    small: Bundle,
    of_own: list[str | Path],
    tmp_path: Path,
    moment: str,
    at: int,
    by: signal.Signals,
) -> None:
    (tmp_path / "made").mkdir()
    wait = Bar.stage

    def stage(bar: Bar, name: str) -> None:
        wait(bar, name)
        if name == moment:
            signal.raise_signal(by)

    def file(bar: Bar, done: int, total: int) -> None:
        if moment == "file" and total == len(small.manifest.files) and done == at:
            signal.raise_signal(by)

    monkeypatch.setattr(Bar, "stage", stage)
    monkeypatch.setattr(Bar, "file", file)
    arguments = [*of_own, "--output", tmp_path / "made", "--overwrite"]
    status = delen_build(*arguments, "--weights", small.path.with_name("weights.pt"))
    assert status == 128 + by
    assert visible(tmp_path) == ["made"]
    assert (tmp_path / "made" / "manifest.json").exists() == (moment == "reporting")


def test_a_second_interrupt_leaves_nothing_hidden_either(
    monkeypatch: pytest.MonkeyPatch, small: Bundle, of_own: list[str | Path], tmp_path: Path
) -> None:
    remove, calls = shutil.rmtree, []

    def rmtree(folder: Path, **options: Any) -> None:
        calls.append(folder)
        if len(calls) == 1:
            signal.raise_signal(signal.SIGINT)
        remove(folder, **options)

    def file(bar: Bar, done: int, total: int) -> None:
        if total == len(small.manifest.files):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("multiexit_models.export.folder.shutil.rmtree", rmtree)
    monkeypatch.setattr(Bar, "file", file)
    arguments = [*of_own, "--output", tmp_path / "made"]
    assert delen_build(*arguments, "--weights", small.path.with_name("weights.pt")) == 130
    assert visible(tmp_path) == []


def test_a_full_disk_in_the_training_leaves_the_last_checkpoint(
    monkeypatch: pytest.MonkeyPatch,
    of_own: list[str | Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [*of_own, "--output", tmp_path / "bundle", *TRAINING]
    shown, before = Bar.step, resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(bar: Bar, done: int, total: int, loss: float) -> None:
        shown(bar, done, total, loss)
        if done == total * 2 // 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, before[1]))

    with monkeypatch.context() as patch:
        patch.setattr(Bar, "step", fill)
        try:
            assert delen_build(*arguments) == 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    kept, failed = capsys.readouterr().err.splitlines()[-2:]
    assert str(tmp_path / "bundle.checkpoint") in kept
    assert failed == f"delen: {tmp_path / 'bundle.checkpoint'}: {os.strerror(errno.EFBIG)}"
    assert visible(tmp_path) == ["bundle.checkpoint"]
    assert delen_build(*arguments) == 0
    assert "2 of 3 epochs" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--data", "--weights", "--checkpoint", "--save-weights"])
def test_a_path_that_is_missing_is_one_sentence(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    absent = tmp_path / "absent" / "file"
    given = {"--data": photos, "--output": tmp_path / "bundle", option: absent}
    assert delen_build(*(part for pair in given.items() for part in pair)) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("delen: ")]
    assert len(said) == 1 and str(absent.parent) in said[0]
    assert visible(tmp_path) == []


def test_a_full_disk_after_the_training_keeps_the_checkpoint(
    monkeypatch: pytest.MonkeyPatch,
    of_own: list[str | Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [*of_own, "--output", tmp_path / "bundle", *TRAINING]
    write = Path.write_bytes

    def fill(file: Path, contents: bytes) -> int:
        if file.name == "segment1.onnx":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
        return write(file, contents)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", fill)
        with pytest.raises(OSError, match="No space"):
            command(*arguments)
    assert visible(tmp_path) == ["bundle.checkpoint"]
    assert str(tmp_path / "bundle.checkpoint") in capsys.readouterr().err
    assert command(*arguments) == 0
    assert visible(tmp_path) == ["bundle"]


def test_long_stages_show_how_far_they_are(
    monkeypatch: pytest.MonkeyPatch,
    small: Bundle,
    of_own: list[str | Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("multiexit_models.progress.SHOWN_AFTER_S", 0)
    weights = small.path.with_name("weights.pt")
    assert command(*of_own, "--output", tmp_path / "made", "--weights", weights) == 0
    said = capsys.readouterr().err
    samples = small.calibration.samples
    for count in ("120/120", "2/2", f"{samples}/{samples}"):
        assert count in said


def test_threads_are_restored(built: Bundle, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    with pytest.raises(InvalidInput) as caught:
        command("--data", tmp_path / "absent", "--output", tmp_path / "made", "--threads", "3")
    assert caught.value.field == "data"
    assert torch.get_num_threads() == before


def test_zoo_is_listed(capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        command("--list-networks")
    assert ended.value.code == 0
    listed = capsys.readouterr().out
    for name in ("resnet50", "efficientnet-b0", "msdnet", "wav2vec2", "residual-cifar"):
        assert name in listed


@pytest.fixture(scope="module")
def sized(photos: Path, own: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("sized") / "colours"
    assert command(
        "--data", photos, "--output", folder, "--backbone", f"{own}:make", "--exits", "2",
        "--sizes", "16,32", "--epochs", "1", "--batch-size", "16", "--threads", "1",
    ) == 0  # fmt: skip
    return load_bundle(folder)


def test_a_bundle_of_several_sizes_is_calibrated_at_each_and_served(
    sized: Bundle, tmp_path: Path
) -> None:
    assert sized.manifest.all_sizes == ((16, 16), (32, 32))
    small = sized.smaller[0]
    assert [exit.graph for exit in small.exits] == [exit.graph for exit in sized.exits]
    assert small.calibration.samples == sized.calibration.samples
    assert small.exits[-1].macs < sized.exits[-1].macs / 3
    assert sized.manifest.provenance["recipe"]["sizes"] == [[16, 16]]
    assert "| 16x16 | 0 |" in report_text(sized)
    image = np.full((32, 32, 3), 90, np.uint8)
    with Engine(sized.path, state=tmp_path) as engine:
        assert engine.infer(image).size == (32, 32)
        assert engine.infer(image[::2, ::2]).size == (16, 16)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("--sizes", "16,32", "--size", "32x32"), "not both"),
        (("--sizes", "2,32", "--quick"), "leave out the smallest"),
        (("--sizes", "16,24", "--kind", "texts"), "does nothing for the kind texts"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(
    given: tuple[str, ...], says: str, photos: Path, tmp_path: Path, capsys: Any
) -> None:
    assert main(["build", "--data", str(photos), "--output", str(tmp_path / "b"), *given]) == 1
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("sizes", ["", "0", "abc", "8,,16", "-8,16", "16;24", "24", "16,16"])
def test_sizes_that_are_none_are_wrong_usage(sizes: str, tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["build", "--data", str(tmp_path), "--output", "b", f"--sizes={sizes}"])
    assert ended.value.code == 2
    assert "16,24,32" in capsys.readouterr().err
