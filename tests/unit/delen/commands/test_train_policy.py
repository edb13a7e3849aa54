from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.bcedge import DEVICES
from benchmarks.profile_files import TX2_RESNET18
from delen.commands import train_policy
from delen.commands.main import main
from delen.errors import DelenError
from delen.profile.store import save_profile
from delen.simulate.fleet.train import AsetTraining
from delen.simulate.learning import bcedge
from policies.dispatch.published.bcedge import BCEdge
from policies.plugins import make_dispatch
from tests.unit.delen.commands.test_simulate_fleet import SITE


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    (tmp_path / "site.toml").write_text(SITE)
    files = ["--fleet", str(tmp_path / "site.toml"), "--output", str(tmp_path / "weights.py")]
    return ["train-policy", *files, "--episodes", "3"]


def test_it_writes_weights_and_the_learning_curve(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["policy"] == "aset"
    assert len(document["effective_accuracy"]) == 3
    assert min(document["effective_accuracy"]) > 0.5
    weights = (tmp_path / "weights.py").read_text()
    assert "3 episodes, seed 0" in weights
    assert {file.name for file in tmp_path.iterdir()} == {"site.toml", "weights.py"}
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "1 - 1" in printed and "3 - 3" in printed and "weights.py" in printed
    assert (tmp_path / "weights.py").read_text() == weights
    assert main([*command, "--seed", "1"]) == 0
    assert (tmp_path / "weights.py").read_text() != weights


def test_it_goes_on_where_it_was_cut_off(
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(command) == 0
    weights = (tmp_path / "weights.py").read_text()
    (tmp_path / "weights.py").unlink()
    step = AsetTraining.step

    def cut(training: AsetTraining) -> float:
        if len(training.curve) == 2:
            raise DelenError("cut off")
        return step(training)

    monkeypatch.setattr(AsetTraining, "step", cut)
    monkeypatch.setattr(train_policy, "SAVE_EVERY", 0.0)
    assert main(command) == 1
    monkeypatch.undo()
    capsys.readouterr()
    assert main(command) == 0
    assert "episode 2" in capsys.readouterr().err
    assert (tmp_path / "weights.py").read_text() == weights


def test_what_is_wrong_is_named(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command[:-3], str(tmp_path / "weights.txt")]) == 2
    assert "--output" in capsys.readouterr().err
    (tmp_path / "site.toml").write_text("seconds = 0")
    assert main(command) != 0
    assert "site.toml" in capsys.readouterr().err


def test_the_curve_is_drawn(command: list[str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert main([*command, "--plot", str(tmp_path / "curve.png")]) == 0
    assert (tmp_path / "curve.png").stat().st_size > 1000


def test_a_curve_that_cannot_be_drawn_is_refused_before_the_training(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    for plot in ("curve.foo", "nowhere/curve.png"):
        assert main([*command, "--plot", str(tmp_path / plot)]) == 2
        assert "--plot is" in capsys.readouterr().err
    assert not (tmp_path / "weights.py").exists()


@pytest.fixture
def of_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(bcedge, "REQUESTS", 40)
    monkeypatch.setattr(bcedge, "UPDATES", 2)
    save_profile(DEVICES["batches pay"], tmp_path / "board.json")
    files = ["--profile", str(tmp_path / "board.json"), "--output", str(tmp_path / "learnt.npz")]
    return ["train-policy", *files, "--episodes", "2"]


def test_a_dispatch_policy_is_trained_on_profiles(
    of_profile: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*of_profile, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["policy"] == "bcedge" and len(document["utility"]) == 2
    learnt = tmp_path / "learnt.npz"
    assert learnt.stat().st_size < 32_000
    assert isinstance(make_dispatch(f"bcedge:{learnt}"), BCEdge)
    assert {file.name for file in tmp_path.iterdir()} == {"board.json", "learnt.npz"}


def test_profiles_without_a_choice_or_in_a_wrong_place_are_refused(
    of_profile: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*of_profile, "--output", str(tmp_path / "nowhere" / "learnt.npz")]) == 2
    assert "--output" in capsys.readouterr().err
    assert main([*of_profile, "--output", str(tmp_path / "learnt.txt")]) == 2
    assert ".npz or .py" in capsys.readouterr().err
    assert main([*of_profile, "--profile", str(TX2_RESNET18)]) == 2
    assert "delen profile --instances" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*of_profile, "--fleet", "site.toml"])
    assert "not allowed with" in capsys.readouterr().err
    assert main([*of_profile, "--profile", str(tmp_path / "none.json")]) == 1
    assert "none.json" in capsys.readouterr().err
