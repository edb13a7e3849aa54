"""What ends a command early: a full disk, wrong files, a reader that leaves, Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from delen.commands.main import main
from delen.daemon.main import main as daemon_main
from tests.other_user import as_other_user, open_folder

if TYPE_CHECKING:
    from tests.builders.daemon import Launcher

BIN = Path(sys.executable).parent
PROFILE = Path(__file__).parents[2] / "benchmarks" / "profiles" / "nano-resnet50.json"
SIMULATE = ["delen", "simulate", "--profile", str(PROFILE)]
TRACEBACK = "Traceback (most recent call last)"


@pytest.fixture
def variables(environment: Callable[..., dict[str, str]], state: Path) -> dict[str, str]:
    return environment(DELEN_STATE__PATH=str(state), DELEN_URL="http://127.0.0.1:1")


Ended = subprocess.CompletedProcess[str]
Run = Callable[..., Ended]


@pytest.fixture
def run(variables: dict[str, str], tmp_path: Path) -> Run:
    def run(*arguments: str | Path, stdout: int = subprocess.PIPE) -> Ended:
        command = [str(argument) for argument in arguments]
        return subprocess.run(
            [str(BIN / command[0]), *command[1:]],
            env=variables,
            cwd=tmp_path,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )

    return run


def one_sentence(ended: Ended, *named: str, status: int = 1) -> None:
    assert ended.returncode == status, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert line.startswith("delen")
    for part in named:
        assert part in line


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    file = tmp_path / "trace.csv"
    file.write_text("time_s\n0\n0.1\n")
    return file


def test_a_full_disk_is_one_sentence(run: Run, trace: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        for command in (
            [*SIMULATE, "--trace", trace, "--policy", "fifo", "--json"],
            [*SIMULATE, "--trace", trace, "--policy", "fifo"],
            ["delen", "doctor"],
            ["delen-daemon", "--print-config"],
            [sys.executable, "-m", "delen.commands.main", "doctor", "--json"],
            [sys.executable, "-m", "delen.daemon.main", "--print-config"],
        ):
            one_sentence(run(*command, stdout=full.fileno()), "No space left on device")


def test_a_reader_that_leaves_is_quiet(run: Run) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    for command in (["delen", "doctor"], ["delen-daemon", "--print-config"]):
        ended = run(*command, stdout=writing)
        assert (ended.returncode, ended.stderr) == (1, "")
    os.close(writing)


COMMANDS = {
    "a trace": [*SIMULATE, "--policy", "fifo", "--trace"],
    "a trace to replay": ["delen", "bench", "--trace"],
    "a profile": ["delen", "simulate", "--policy", "fifo", "--trace", "trace.csv", "--profile"],
    "a bundle": ["delen", "profile", "--quick", "--bundle"],
    "an input": ["delen", "infer"],
    "a configuration": ["delen", "doctor", "--config"],
    "a daemon's configuration": ["delen-daemon", "--print-config", "--config"],
    "inputs": ["delen", "bench", "--trace", "trace.csv", "--bundle", "tiny", "--inputs"],
    "data": ["delen", "build", "--output", "out", "--data"],
}


@pytest.fixture
def run_here(
    variables: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., tuple[int, str]]:
    """Runs a command in this process: its status, and what it says on stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", variables)
    mains = {"delen": main, "delen-daemon": daemon_main}

    def run(program: str, *arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        try:
            status = mains[program](arguments)
        except SystemExit as left:
            assert isinstance(left.code, int)
            status = left.code
        return status, capsys.readouterr().err

    return run


@pytest.mark.usefixtures("trace")
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_files_that_cannot_be_read_are_one_sentence(
    run_here: Callable[..., tuple[int, str]],
    command: list[str],
    tmp_path: Path,
    tiny_bundle: Path,
) -> None:
    (tmp_path / "tiny").symlink_to(tiny_bundle)
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch()
    for name in ("nowhere", "folder", "empty", "trace.csv/below", "x" * 300):
        status, said = run_here(*command, name)
        if status == 0:
            assert name == "empty", "an empty configuration is one"
            continue
        assert status in (1, 2)
        assert TRACEBACK not in said
        assert "unexpected" not in said
        assert said.splitlines()[-1].startswith("delen")


def test_a_file_that_may_not_be_read_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with open_folder() as folder:
        file = folder / "trace.csv"
        file.write_text("time_s\n0\n")
        file.chmod(0o000)
        with as_other_user():
            assert main(["simulate", "--policy", "fifo", "--trace", str(file)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert str(file) in line


def test_debug_shows_the_traceback_before_and_after_the_command(run: Run) -> None:
    for command in (
        ["delen", "--debug", "plan"],
        ["delen", "plan", "--debug"],
        ["delen-daemon", "--debug", "--config", "nowhere"],
    ):
        ended = run(*command)
        assert TRACEBACK in ended.stderr
        assert ended.stderr.splitlines()[-1].startswith("delen")
    one_sentence(run("delen", "plan"), "no daemon answers")
    one_sentence(run("delen-daemon", "--config", "nowhere"), "nowhere", status=2)


@pytest.fixture
def interrupted(variables: dict[str, str], tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Sends SIGINT to a command once it has said something."""

    def interrupted(*arguments: str | Path) -> tuple[int, str]:
        with subprocess.Popen(
            [str(BIN / "delen"), *map(str, arguments)],
            env=variables,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
        ) as process:
            assert process.stdout is not None
            said = process.stdout.read(1)
            process.send_signal(signal.SIGINT)
            said += process.stdout.read() or b""
            return process.wait(120), said.decode()

    return interrupted


def assert_interrupted(ended: tuple[int, str]) -> None:
    status, said = ended
    assert status == 130
    assert "Traceback" not in said
    assert said.endswith("delen: interrupted\n")


def test_ctrl_c_ends_a_simulation(
    interrupted: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    file = tmp_path / "long.csv"
    file.write_text("time_s\n" + "".join(f"{number / 50}\n" for number in range(15_000)))
    assert_interrupted(
        interrupted(*SIMULATE[1:], "--trace", file, "--policy", "fifo", "edf", "value", "--json",
                    "--no-upper-bound")
    )  # fmt: skip


def test_ctrl_c_ends_a_measurement(interrupted: Callable[..., tuple[int, str]]) -> None:
    assert_interrupted(interrupted("profile", "--output", "profile.json"))


def test_ctrl_c_ends_a_build(
    interrupted: Callable[..., tuple[int, str]], tmp_path: Path, png: Callable[..., bytes]
) -> None:
    pytest.importorskip("torch", reason="delen build needs torch: delen[train]")
    photos, draw = tmp_path / "photos", np.random.default_rng(0)
    for name in ("day", "night"):
        (photos / name).mkdir(parents=True)
        for number in range(40):
            pixels = draw.integers(0, 255, (32, 32, 3), np.uint8)
            (photos / name / f"{number}.png").write_bytes(png(pixels))
    assert_interrupted(interrupted("build", "--data", photos, "--output", "out", "--epochs", "50"))


def test_a_policy_that_cannot_be_made_is_named_by_every_command(
    run: Run,
    trace: Path,
    tiny_bundle: Path,
    install: Callable[..., None],
    variables: dict[str, str],
    launcher: Launcher,
) -> None:
    source = "class Unmade:\n    def __init__(self):\n        raise OSError('no such device')\n"
    install("delen.dispatch_policies", source, unmade="Unmade")
    variables["PYTHONPATH"] = os.environ["PYTHONPATH"]
    named = ("'unmade'", "strange_policies:Unmade", "strange-policies", "no such device")
    for command in (
        [*SIMULATE, "--trace", trace, "--policy", "fifo", "--policy", "unmade"],
        ["delen", "bench", "--trace", trace, "--bundle", tiny_bundle, "--policy", "unmade"],
    ):
        ended = run(*command)
        assert ended.returncode == 2
        assert TRACEBACK not in ended.stderr
        assert all(part in ended.stderr.splitlines()[-1] for part in named)
    refused = launcher.refused({"policies": {"dispatch": "unmade"}})
    assert refused.returncode == 2
    assert all(part in refused.stderr.splitlines()[-1] for part in named)


def test_policies_given_apart_are_all_compared(run: Run, trace: Path) -> None:
    ended = run(*SIMULATE, "--trace", trace, "--policy", "fifo", "--policy", "edf",
                "--json", "--no-upper-bound")  # fmt: skip
    assert [line.split('"')[3] for line in ended.stdout.splitlines()] == ["fifo", "edf"]
