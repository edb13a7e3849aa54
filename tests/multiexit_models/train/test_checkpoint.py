from __future__ import annotations

import resource
import runpy
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch: delen[train]")

from delen.bundle.manifest import InputSpec  # noqa: E402
from delen.errors import InvalidInput  # noqa: E402
from multiexit_models.data.dataset import Labelled  # noqa: E402
from multiexit_models.train.state_dict import read_contents  # noqa: E402
from multiexit_models.train.training import train  # noqa: E402
from multiexit_models.train.weights import (  # noqa: E402
    digest,
    load_weights,
    read_weights,
    save_atomically,
)

SCRIPT = Path(__file__).with_name("stopped_training.py")


class Stopped(Exception):
    """Stands for whatever ends a training from within."""


@pytest.fixture(scope="module")
def training() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(SCRIPT)))


@pytest.fixture
def straight(training) -> dict[str, object]:
    """The weights of a training that nothing stopped and nothing saved."""
    return training.run(None, lambda *_: None).state_dict()


def stop_at(stop: int):
    def on_step(step: int, steps: int, loss: float) -> None:
        if step == stop:
            raise Stopped

    return on_step


def kill(checkpoint: Path, way: str, at: int) -> None:
    command = [sys.executable, str(SCRIPT), str(checkpoint), way, str(at)]
    ended = subprocess.run(
        command, cwd=SCRIPT.parents[3], env={"PYTHONPATH": "."}, capture_output=True, text=True
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr


def same(first, second) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def test_killed_within_an_epoch_it_ends_with_the_same_bits(training, straight, tmp_path) -> None:
    kill(tmp_path / "training.pt", "step", 8)
    steps = []
    resumed = training.run(tmp_path / "training.pt", lambda step, *_: steps.append(step))
    assert 5 < steps[0] <= 8
    assert steps == list(range(steps[0], training.STEPS + 1))
    assert same(straight, resumed.state_dict())


def test_killed_while_it_writes_the_checkpoint_before_is_whole(
    training, straight, tmp_path
) -> None:
    kill(tmp_path / "training.pt", "save", 2)
    (unfinished,) = tmp_path.glob(".training.pt.unfinished-*")
    assert unfinished.stat().st_size == 1000
    resumed = training.run(tmp_path / "training.pt", lambda *_: None)
    assert same(straight, resumed.state_dict())
    assert [file.name for file in tmp_path.iterdir()] == ["training.pt"]


@pytest.mark.parametrize("stop", range(1, 11))
def test_stopped_at_any_step_it_ends_with_the_same_bits(
    training, straight, tmp_path, stop: int
) -> None:
    with pytest.raises(Stopped):
        training.run(tmp_path / "training.pt", stop_at(stop))
    resumed = training.run(tmp_path / "training.pt", lambda *_: None)
    assert same(straight, resumed.state_dict())


def test_a_finished_training_is_only_loaded(training, straight, tmp_path) -> None:
    training.run(tmp_path / "training.pt", lambda *_: None)
    again = training.run(tmp_path / "training.pt", stop_at(1))
    assert same(straight, again.state_dict())


def test_weights_can_be_loaded_from_a_checkpoint(training, tmp_path) -> None:
    trained = training.run(tmp_path / "training.pt", lambda *_: None)
    network = training.make_network()
    origin = load_weights(network, read_weights(tmp_path / "training.pt"))
    assert origin.digest == digest(network) == digest(trained)
    assert origin.recipe["epochs"] == training.RECIPE.epochs


@pytest.fixture
def refused(training, tmp_path):
    """Resumes with something changed; returns the message with which it is refused."""
    file = tmp_path / "training.pt"
    with pytest.raises(Stopped):
        training.run(file, stop_at(5))

    def resume(**changed: object) -> str:
        given = {
            "network": training.make_network(),
            "data": training.make_data(),
            "recipe": training.RECIPE,
            "input": training.INPUT,
            **changed,
        }
        before, kept = digest(given["network"]), file.read_bytes()
        with pytest.raises(InvalidInput) as caught:
            train(
                given["network"],
                given["data"],
                given["recipe"],
                input=given["input"],
                checkpoint=file,
            )
        assert caught.value.field == "checkpoint"
        assert digest(given["network"]) == before
        assert file.read_bytes() == kept
        return str(caught.value)

    return resume


def test_another_recipe_is_refused(training, refused) -> None:
    message = refused(recipe=replace(training.RECIPE, epochs=3))
    assert "its recipe's epochs is 2, and here it is 3" in message


def test_another_network_is_refused(training, refused) -> None:
    wider = training.make_network()
    wider.heads[1][1] = torch.nn.Linear(16, 5)
    message = refused(network=wider)
    assert "heads.1.1.weight is float32 [4, 16], and here it is float32 [5, 16]" in message
    deeper = training.make_network()
    deeper.heads[1].append(torch.nn.Linear(4, 4))
    assert "heads.1.2.weight is absent" in refused(network=deeper)
    other = training.make_network()
    other.segments[1][2] = torch.nn.GELU()
    assert "the same weights in other modules" in refused(network=other)


def test_other_data_are_refused(training, refused) -> None:
    data = training.make_data()
    fewer = data.take(np.arange(80))
    assert "had 87 samples, and these have 80" in refused(data=fewer)
    changed = data.inputs.copy()
    changed[3, 2, 1, 0] ^= 1
    assert "as many samples" in refused(data=Labelled(changed, data.labels))
    relabelled = Labelled(data.inputs, (data.labels + 1) % 4)
    assert "as many samples" in refused(data=relabelled)


def test_another_input_is_refused(training, refused) -> None:
    message = refused(input=InputSpec("uint8", (8, 8, 3)))
    assert "its input's image is" in message


def test_another_frozen_backbone_is_refused(training, tmp_path) -> None:
    recipe = replace(training.RECIPE, frozen_backbone=True)
    given = {"input": training.INPUT, "checkpoint": tmp_path / "training.pt", "device": "cpu"}
    train(training.make_network(), training.make_data(), recipe, **given)
    other = training.make_network()
    with torch.no_grad():
        other.segments[1][1].weight += 0.1
    with pytest.raises(InvalidInput, match="began with other weights"):
        train(other, training.make_data(), recipe, **given)


@pytest.mark.parametrize("contents", [b"", b"not a checkpoint", None])
def test_a_file_that_is_no_checkpoint_is_refused(training, tmp_path, contents) -> None:
    file = tmp_path / "training.pt"
    if contents is None:
        torch.save({"weights": {}}, file)
    else:
        file.write_bytes(contents)
    with pytest.raises(InvalidInput, match=r"training\.pt"):
        training.run(file, lambda *_: None)


def test_a_checkpoint_of_a_later_schema_is_refused(training, tmp_path) -> None:
    file = tmp_path / "training.pt"
    torch.save({"format": "delen-training", "schema": 3}, file)
    with pytest.raises(InvalidInput, match="schema 3; this delen goes on from 2"):
        training.run(file, lambda *_: None)


def test_a_folder_that_is_not_there_is_refused(training, tmp_path) -> None:
    with pytest.raises(InvalidInput, match="nowhere does not exist"):
        training.run(tmp_path / "nowhere" / "training.pt", lambda *_: None)


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "c.checkpoint"
    save_atomically({"weights": torch.zeros(10)}, file)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError):
            save_atomically({"weights": torch.zeros(1_000_000)}, file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(read_contents(file, "checkpoint")["weights"]) == 10
    assert list(tmp_path.iterdir()) == [file]
