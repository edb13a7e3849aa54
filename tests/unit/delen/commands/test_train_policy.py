from __future__ import annotations

import json
from pathlib import Path

import pytest

from delen.commands.main import main
from delen.errors import DelenError
from delen.simulate.fleet.train import Training
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
    step = Training.step

    def cut(training: Training) -> float:
        if len(training.curve) == 2:
            raise DelenError("cut off")
        return step(training)

    monkeypatch.setattr(Training, "step", cut)
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
