"""``delen trace``, and what it writes in ``delen simulate``."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from delen.commands.main import main
from delen.core.bounds import Bounds
from delen.simulate.trace import Trace, read_trace

NANO = Path(__file__).parents[2] / "benchmarks" / "profiles" / "nano-resnet50.json"
APPS = (
    "--app", "camera:rate=5,arrivals=camera,streams=2,max-latency=200ms",
    "--app", "search:rate=8,arrivals=bursts,part=3,min-accuracy=0.5,part=1",
    "--app", "robot:rate=20,from=4s,to=6s,priority=2,model=resnet",
)  # fmt: skip

Write = Callable[..., int]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "day.csv"


@pytest.fixture
def write(file: Path) -> Write:
    def run(*arguments: str) -> int:
        given = arguments if "--duration" in arguments else ("--duration", "20s", *arguments)
        return main(["trace", "--output", str(file), *given])

    return run


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err


def test_apps_ask_as_they_are_described(write: Write, file: Path) -> None:
    assert write(*APPS) == 0
    trace = read_trace(file)
    streams = Counter(arrival.stream for arrival in trace)
    assert (streams["camera-0"], streams["camera-1"]) == (100, 100)
    search = Counter(a.bounds for a in trace if a.tenant == "search")
    assert set(search) == {Bounds(min_accuracy=0.5), Bounds()}
    assert search[Bounds(min_accuracy=0.5)] > 1.5 * search[Bounds()]
    robot = [arrival for arrival in trace if arrival.tenant == "robot"]
    assert 20 < len(robot) < 60
    assert all(4 <= a.time < 6 and (a.priority, a.model) == (2, "resnet") for a in robot)


def test_the_example_of_the_help_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["trace", "--help"])
    example = capsys.readouterr().out.partition("example: delen ")[2].replace("\\\n", "")
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(example)) == 0
    assert read_trace(tmp_path / "day.csv").tenants == ("doorbell", "robot", "search")


def test_a_seed_gives_the_same_file_and_another_gives_another(write: Write, file: Path) -> None:
    def written(*arguments: str) -> bytes:
        assert write(*APPS, "--overwrite", *arguments) == 0
        return file.read_bytes()

    assert written() == written("--seed", "0") != written("--seed", "1")


def test_a_recording_is_followed(write: Write, file: Path, tmp_path: Path) -> None:
    record = tmp_path / "rates.txt"
    record.write_text("30\n0\n")
    assert write("--app", f"web:arrivals=recorded,record={record},step=5s") == 0
    times = [arrival.time for arrival in read_trace(file)]
    assert 200 < len(times) < 400
    assert all(time % 10 < 5 for time in times)


def test_what_was_written_is_summed_up(
    write: Write, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert write(*APPS, "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    trace: Trace = read_trace(file)
    assert summary == {
        "file": str(file),
        "seconds": 20.0,
        "requests": len(trace),
        "tenants": {
            name: {"requests": sum(arrival.tenant == name for arrival in trace)}
            for name in ("camera", "search", "robot")
        },
    }
    assert write(*APPS, "--overwrite") == 0
    head, columns, camera, *_ = capsys.readouterr().out.splitlines()
    assert head == f"{file}: {len(trace)} requests in 20 s"
    assert columns.split() == ["tenant", "requests", "a", "second"]
    assert camera.split() == ["camera", "200", "10"]


def test_the_simulator_plays_what_was_written(
    write: Write, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert write(*APPS[:4], "--json") == 0
    written = json.loads(capsys.readouterr().out)
    given = ["--profile", str(NANO), "--trace", str(file), "--policy", "value", "--json"]
    assert main(["simulate", *given]) == 0
    played = json.loads(capsys.readouterr().out)
    assert played["requests"] == written["requests"]
    assert {name: each["requests"] for name, each in played["tenants"].items()} == {
        name: each["requests"] for name, each in written["tenants"].items()
    }


def test_a_file_is_replaced_only_when_that_is_asked_for(
    write: Write, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text("mine")
    assert write(*APPS) == 1
    assert f"--output {file} exists; give another file, or --overwrite" in said(capsys)
    assert file.read_text() == "mine"
    assert write("--app", "a:rate=1e-9", "--overwrite") == 1
    assert "no requests were drawn in 20 s, and nothing is written" in said(capsys)
    assert file.read_text() == "mine"
    assert write(*APPS, "--overwrite") == 0
    assert len(read_trace(file))
    assert list(file.parent.iterdir()) == [file]


def test_a_place_that_is_none_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--duration", "1s", "--app", "a:rate=9", "--overwrite"]
    assert main(["trace", "--output", str(tmp_path), *given]) == 1
    assert f"--output {tmp_path} is not a file" in said(capsys)
    assert main(["trace", "--output", str(tmp_path / "no" / "day.csv"), *given]) == 1
    assert f"there is no folder {tmp_path / 'no'}" in said(capsys)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--app", "a:rate=1,from=20s"], "--app a: from is 20 s, after the trace's end"),
        (["--app", "a:rate=1,to=21s"], "--app a: to is 21 s, after the trace's end"),
        (["--app", "a:rate=1e9"], "about 2e+10 requests in 20 s are too many; up to 20,000,000"),
        (["--app", "a:rate=1,streams=9999999"], "lower rate or --duration"),
        (["--app", "a:rate=1,arrivals=bursts,dwell=1us"], "raise dwell or step"),
        (["--app", "a:rate=1e-9,streams=9999999"], "up to 1,000,000 changes"),
    ],
)
def test_what_does_not_fit_together_is_wrong_usage(
    write: Write, file: Path, arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert write(*arguments) == 2
    assert told in said(capsys)
    assert not file.exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--app", "a:rate=1,x=2"], "argument --app: a: unknown key 'x'; known: rate, "),
        (["--app", "a:rate=1", "--duration", "20"], "--duration: '20' must be a number with a"),
        (["--app", "a:rate=1", "--duration", "0s"], "'0s' must be finite and above 0"),
        (["--app", "a:rate=1", "--seed", "-1"], "--seed: '-1' must be a whole number"),
        ([], "the following arguments are required: --app"),
    ],
)
def test_an_option_that_is_wrong_is_named(
    write: Write, arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        write(*arguments)
    assert ended.value.code == 2
    assert told in said(capsys)
