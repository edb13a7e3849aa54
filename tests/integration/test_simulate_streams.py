"""``delen simulate --link`` on a file of sizes, and on a tiny bundle."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from delen.bundle.manifest import load_bundle
from delen.commands.main import main
from delen.profile.profile import Profile
from tests.builders.sized_bundle import write_sized_bundle

Simulate = Callable[..., int]
SIZES = """height,width,payload_bytes,encoding_ms,latency_ms,accuracy
128,128,10000,1,2,0.6
256,256,40000,2,4,0.8
"""


@pytest.fixture
def link(tmp_path: Path) -> Path:
    file = tmp_path / "link.txt"
    file.write_text("16\n8\n0\n12\n")
    return file


@pytest.fixture
def sizes(tmp_path: Path) -> Path:
    file = tmp_path / "sizes.csv"
    file.write_text(SIZES)
    return file


@pytest.fixture
def simulate(link: Path, sizes: Path) -> Simulate:
    def run(*arguments: str | Path, link: str | Path = link) -> int:
        given = ["--link", link, "--sizes", sizes, "--duration", "4s", *arguments]
        return main(["simulate", *map(str, given)])

    return run


def objects(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_json_has_the_figures_of_the_contract_and_those_of_streams(
    simulate: Simulate, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulate("--controller", "expected", "mpc", "--streams", "2", "--json") == 0
    expected, mpc = objects(capsys)
    assert (expected["controller"], mpc["controller"]) == ("expected", "mpc")
    assert {
        "policy", "requests", "answered", "refused", "missed", "effective_accuracy", "upper_bound",
        "latency_ms", "energy_j", "exits", "decision_us", "sizes", "switches", "dropped",
    } <= set(expected)  # fmt: skip
    assert expected["requests"] == 240
    assert set(expected["streams"]) == {"camera-0", "camera-1"}
    camera = expected["streams"]["camera-1"]
    assert camera["requests"] == 120
    assert set(camera["sizes"]) == {"128x128", "256x256"}
    assert expected["effective_accuracy"] > mpc["effective_accuracy"]
    # a second of four carries nothing
    assert camera["dropped"]["unanswered"] + camera["dropped"]["replaced"] >= 10


def test_the_table_names_each_controller(
    simulate: Simulate, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulate() == 0
    printed = capsys.readouterr().out
    for name in ("expected", "fixed", "jellyfish", "mpc", "pid", "threshold", "upper bound"):
        assert f"\n{name}" in printed
    assert "unanswered" in printed


def test_the_same_seed_gives_the_same_run(
    simulate: Simulate, capsys: pytest.CaptureFixture[str], link: Path
) -> None:
    noisy = f"{link},delay=5ms,jitter=1ms,loss=0.01,variation=0.2,fades=0.1"

    def figures(seed: str) -> dict[str, Any]:
        given = ["--controller", "pid", "--seed", seed, "--json"]
        assert simulate(*given, link=noisy) == 0
        (found,) = objects(capsys)
        del found["decision_us"]
        return found

    assert figures("1") == figures("1")
    assert figures("1") != figures("2")


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (",linear", "effective_accuracy"),
        (",delay=50ms", "latency_ms"),
        (",loss=0.1", "latency_ms"),
        (",variation=0.5", "latency_ms"),
        (",fades=1", "effective_accuracy"),
        (",jitter=20ms", "latency_ms"),
    ],
)
def test_every_part_of_a_link_changes_the_run(
    change: str, key: str, simulate: Simulate, link: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--controller", "fixed", "--no-upper-bound", "--json"]
    for where in (link, f"{link}{change}"):
        assert simulate(*given, link=where) == 0
    plain, changed = objects(capsys)
    assert plain[key] != changed[key]


@pytest.mark.parametrize(
    "arguments",
    [["--fps", "10"], ["--deadline", "30ms"], ["--in-flight", "1"], ["--slowdown", "0:4:10"]],
)
def test_every_option_of_a_stream_changes_the_run(
    arguments: list[str], simulate: Simulate, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--controller", "fixed", "--no-upper-bound", "--json"]
    for more in ([], arguments):
        assert simulate(*given, *more) == 0
    plain, changed = objects(capsys)
    for found in (plain, changed):
        del found["decision_us"]
    assert plain != changed


def test_a_bundle_is_sent_frames_of_its_size(
    tiny_bundle: Path,
    tmp_path: Path,
    link: Path,
    make_profile: Callable[..., Profile],
    capsys: pytest.CaptureFixture[str],
) -> None:
    digest = load_bundle(tiny_bundle).digest
    file = tmp_path / "profile.json"
    file.write_text(
        make_profile(0.004, 0.004, 0.004, spread=0.1, bundle=digest, model="tiny").to_json()
    )
    given = ["--bundle", tiny_bundle, "--profile", file, "--link", link, "--duration", "2s"]
    assert main(["simulate", *map(str, given), "--controller", "expected", "--json"]) == 0
    (found,) = objects(capsys)
    assert found["answered"] == 60
    assert len(found["sizes"]) == 1
    assert 0 < found["effective_accuracy"] <= 1


def test_a_bundle_of_two_sizes_is_sent_frames_of_both(
    tmp_path: Path,
    link: Path,
    make_profile: Callable[..., Profile],
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = write_sized_bundle(tmp_path / "sized")
    digest = load_bundle(bundle).digest

    def profile(seconds: float, size: str) -> Profile:
        return make_profile(seconds, seconds, seconds, bundle=digest, model=f"sized@{size}")

    file = tmp_path / "profile.json"
    file.write_text(replace(profile(0.02, "8x8"), smaller=(profile(0.002, "4x4"),)).to_json())
    given = ["--bundle", bundle, "--profile", file, "--link", link, "--duration", "2s", "--json"]

    def sizes(deadline: str) -> dict[str, int]:
        assert main(["simulate", *map(str, given), "--deadline", deadline]) == 0
        found = next(each for each in objects(capsys) if each["controller"] == "expected")
        return found["sizes"]  # type: ignore[no-any-return]

    assert sizes("100ms")["8x8"] > 50
    assert sizes("30ms")["4x4"] > 50


def test_plots_are_written(simulate: Simulate, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    folder = tmp_path / "plots"
    assert simulate("--controller", "pid", "fixed", "--plots", folder) == 0
    assert sorted(file.name for file in folder.iterdir()) == ["stream-fixed.png", "stream-pid.png"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--controller", "oracle"], "no 'oracle'; installed: expected"),
        (["--controller", "pid", "pid"], "pid is given twice with --controller"),
        (["--policy", "fixed"], "give --controller fixed"),
        (["--fps", "1e9"], "--fps, --duration and --streams make 4e+09 frames"),
        (["--network", "5ms"], "--network goes with --trace"),
        (["--weight", "camera=2"], "--weight goes with --trace"),
        (["--policy", "value", "fifo"], "give one with --link"),
        (["--model", "cifar10-resnet"], "--sizes stands for the model"),
    ],
)
def test_wrong_usage_ends_2(
    arguments: list[str], named: str, simulate: Simulate, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulate(*arguments) == 2
    assert named in capsys.readouterr().err


def test_one_of_trace_and_link_must_be_given(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["simulate"])
    assert "one of the arguments --trace --fleet --link" in capsys.readouterr().err
    assert main(["simulate", "--trace", "x.csv", "--fps", "10"]) == 2
    assert "--fps goes with --link" in capsys.readouterr().err


@pytest.mark.parametrize(
    "link",
    [
        "x,fast",
        "x,linear,linear",
        "x,hold,linear",
        "x,delay=5",
        "x,loss=2",
        "x,delay=1ms,delay=2ms",
        ",linear",
        "x,burst=0ms",
    ],
)
def test_wrong_links_are_wrong_usage(link: str, simulate: Simulate) -> None:
    with pytest.raises(SystemExit) as caught:
        simulate(link=link)
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "line 1: it is empty"),
        ("8\nfast\n", "line 2: mbps"),
        ("8\n-1\n", "line 2: mbps"),
        ("time_s,mbps\n0,1\n9,1\n5,1\n", "line 4: time_s 5"),
    ],
)
def test_bad_links_are_named_with_file_and_line(
    text: str, named: str, simulate: Simulate, link: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link.write_text(text)
    assert simulate() == 1
    assert f"{link}, {named}" in capsys.readouterr().err


def test_bad_sizes_are_named_with_file_and_line(
    simulate: Simulate, sizes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes.write_text(SIZES + "512,512,x,1,1,0.9\n")
    assert simulate() == 1
    assert f"{sizes}, line 4: payload_bytes" in capsys.readouterr().err
