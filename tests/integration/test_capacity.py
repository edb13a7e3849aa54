"""``delen capacity`` on a profile alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from delen.commands import capacity as command
from delen.commands.main import main
from delen.profile.profile import Profile

Command = Callable[..., int]


@pytest.fixture
def capacity(tmp_path: Path, make_profile: Callable[..., Profile]) -> Command:
    """A device that takes 20 ms for a frame at least, and 60 ms for a whole run."""
    document = json.loads(make_profile(0.02, 0.02, 0.02, spread=0.1, model="slow").to_json())
    document["accuracies"] = [0.5, 0.7, 0.8]
    file = tmp_path / "slow.json"
    file.write_text(json.dumps(document))

    def run(*arguments: str | Path, app: str = "10 fps, 100 ms") -> int:
        given = ["--app", app, "--profile", file, "--duration", "2s", "--seeds", "2", *arguments]
        return main(["capacity", *map(str, given)])

    return run


def found(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    (line,) = capsys.readouterr().out.splitlines()
    document: dict[str, Any] = json.loads(line)
    return document


def test_one_more_camera_breaks_the_limit(
    capacity: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert capacity("--json") == 0
    document = found(capsys)
    trials = {trial["cameras"]: trial for trial in document["trials"]}
    cameras = document["cameras"]
    assert 1 <= cameras <= 12, "the device runs some 100 frames a second to its first exit"
    assert trials[cameras]["violations"]["mean"] <= 0.01 < trials[cameras + 1]["violations"]["mean"]
    low, high = document["interval"]
    assert low <= cameras <= high
    assert trials[1]["effective_accuracy"]["mean"] > 0.6
    assert document["violations"] == 0.01
    assert document["seeds"] == [0, 1]


def test_a_profile_may_be_a_pipe_that_can_be_read_once(
    capacity: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert capacity("--json") == 0
    document = found(capsys)
    reader, writer = os.pipe()
    with ThreadPoolExecutor(1) as pool, os.fdopen(reader), os.fdopen(writer, "wb") as pipe:
        pool.submit(lambda: (pipe.write((tmp_path / "slow.json").read_bytes()), pipe.close()))
        assert capacity("--json", "--profile", f"/dev/fd/{reader}") == 0
    assert found(capsys) == document


def test_what_is_asked_for_has_its_effect(
    capacity: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    def cameras(*arguments: str, app: str = "10 fps, 100 ms") -> int:
        assert capacity("--json", "--seeds", "1", *arguments, app=app) == 0
        return int(found(capsys)["cameras"])

    usual = cameras()
    assert cameras("--violations", "20%") > usual
    assert cameras("--slowdown", "0:10:2.0") < usual
    assert cameras(app="5 fps, 100 ms") > usual
    assert cameras(app="10 fps, 100 ms, min-accuracy=0.75") < usual
    assert cameras(app="10 fps, 1 ms") == 0


def test_the_table_and_the_progress_name_policies_and_cameras(
    capacity: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert capacity("--policy", "edf", "fifo", app="20 fps, 100 ms") == 0
    said = capsys.readouterr()
    _, columns, edf, fifo = said.out.splitlines()
    assert columns.split()[:2] == ["policy", "cameras"]
    assert edf.split()[0] == "edf" and int(edf.split()[1]) >= 1
    assert fifo.split()[0] == "fifo"
    assert "edf, 1 camera: " in said.err and "fifo, 2 cameras: " in said.err


def test_what_was_found_is_shown_though_another_policy_has_no_limit(
    capacity: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    capacity("--json", "--policy", "value", "fifo", app="20 fps, 100 ms")
    value, fifo = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert value["cameras"] > fifo["cameras"]
    monkeypatch.setattr(command, "_MOST_REQUESTS", 40 * value["cameras"])
    assert capacity("--policy", "value", "fifo", app="20 fps, 100 ms") == 1
    said = capsys.readouterr()
    assert said.out.splitlines()[-1].split()[:2] == ["fifo", str(fifo["cameras"])]
    assert f"{value['cameras']} cameras are not too many for value" in said.err


def test_the_plot_has_all_trials(
    capacity: Command,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot", reason="plots take delen[plot]")
    drawn: list[Any] = []
    monkeypatch.setattr(pyplot, "close", drawn.append)
    file = tmp_path / "capacity.png"
    assert capacity("--json", "--plot", file) == 0
    monkeypatch.undo()
    document = found(capsys)
    assert file.stat().st_size > 1000
    ((above, _),) = [figure.axes for figure in drawn]
    line = above.containers[0][0]
    assert list(line.get_xdata()) == [trial["cameras"] for trial in document["trials"]]
    assert list(line.get_ydata()) == pytest.approx(
        [100 * trial["violations"]["mean"] for trial in document["trials"]]
    )
    pyplot.close("all")


@pytest.mark.parametrize(
    ("app", "named"),
    [
        ("10 fps", "latency of a frame is missing"),
        ("100 ms", "rate is missing"),
        ("10 fps, 100", "'100' must be a number with a unit"),
        ("10 fps, 100 ms, min-accuracy=85", "min-accuracy"),
        ("10 fps, 100 ms, streams=4", "streams is for delen trace"),
        ("10 fps, 20 fps, 100 ms", "rate is given twice"),
        ("", "must be a number with a unit"),
    ],
)
def test_a_camera_that_makes_no_sense_is_refused(
    app: str, named: str, capacity: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        capacity(app=app)
    assert left.value.code == 2
    assert named in capsys.readouterr().err


@pytest.mark.parametrize("share", ["one", "-1%", "200%", "nan%"])
def test_violations_are_a_share(
    share: str, capacity: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        capacity("--violations", share)
    assert left.value.code == 2
    assert "--violations" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--policy", "none"], "no 'none'; installed:"),
        (["--policy", "edf", "edf"], "edf is given twice"),
        (["--duration", "10ms"], "--duration is 0.01 s"),
        (["--duration", "100h"], "--duration is 360000 s"),
        (["--plot", "nowhere/plot.png"], "--plot is nowhere/plot.png"),
        (["--plot", "plot.doc"], "must end with .png"),
    ],
)
def test_wrong_usage_ends_2(
    arguments: list[str], named: str, capacity: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert capacity(*arguments) == 2
    assert named in capsys.readouterr().err
