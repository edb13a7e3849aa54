"""The commands of ``delen``, as a user runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.soak import lend_profiles
from delen.bundle.calibration import Calibration
from delen.bundle.manifest import read_manifest
from tests.builders.sized_bundle import write_sized_bundle
from tests.sensors import make_tree, play

if TYPE_CHECKING:
    from tests.builders.daemon import Api, Daemon, Launcher

Image8 = NDArray[np.uint8]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def delen(environment: Callable[..., dict[str, str]], tmp_path: Path, state: Path) -> Run:
    """Runs a command that knows no daemon, and the tests' own state folder."""

    def run(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(Path(sys.executable).parent / "delen"), *map(str, arguments)],
            env=environment(**{"DELEN_STATE__PATH": str(state), **variables}),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


@pytest.fixture
def told(delen: Run, daemon: Daemon) -> Run:
    """Runs a command that finds the shared daemon by DELEN_URL."""
    return lambda *arguments: delen(*arguments, DELEN_URL=daemon.url)


@pytest.fixture
def file(tmp_path: Path, image: Image8, png: Callable[[Image8], bytes]) -> Path:
    file = tmp_path / "image.png"
    file.write_bytes(png(image))
    return file


@pytest.mark.parametrize(
    "command", [[], ["infer"], ["plan"], ["models"], ["power"], ["profile"], ["trace"]]
)
def test_help_has_an_example(delen: Run, command: list[str]) -> None:
    ended = delen(*command, "--help")
    assert ended.returncode == 0
    assert "example: delen" in ended.stdout


def test_infer_prints_the_answer(told: Run, api: Api, file: Path, image: Image8) -> None:
    ended = told("infer", file)
    assert ended.returncode == 0, ended.stderr
    label = api.raw(image).json()["predictions"][0]["label"]
    assert ended.stdout.startswith(label)
    assert "(estimated)" in ended.stdout
    assert "bounds kept" in ended.stdout


def test_infer_json_is_the_contracts(told: Run, file: Path) -> None:
    ended = told(
        "infer", file, "--json", "--max-latency", "20s", "--min-accuracy", "0.8",
        "--max-energy", "5J", "--top-k", "3", "--tenant", "shell", "--priority", "2",
    )  # fmt: skip
    answer = json.loads(ended.stdout)
    assert answer["receipt"]["latency_ms"]["bound"] == pytest.approx(20_000)
    assert answer["receipt"]["accuracy"]["bound"] == 0.8
    assert answer["receipt"]["energy_mj"]["bound"] == pytest.approx(5000)
    assert len(answer["predictions"]) == 3
    assert answer["tenant"] == "shell"
    assert ended.returncode == 0


@pytest.mark.parametrize(
    ("option", "text", "field", "milli"),
    [
        ("--max-latency", "20000ms", "latency_ms", 20_000),
        ("--max-latency", "3e7 us", "latency_ms", 30_000),
        ("--max-energy", "5e6uJ", "energy_mj", 5000),
        ("--max-energy", "2500mJ", "energy_mj", 2500),
    ],
)
def test_units_are_understood(
    told: Run, file: Path, option: str, text: str, field: str, milli: float
) -> None:
    answer = json.loads(told("infer", file, option, text, "--json").stdout)
    assert answer["receipt"][field]["bound"] == pytest.approx(milli)


def test_infer_on_a_batch_prints_each(
    told: Run, tmp_path: Path, images: Image8, npy: Callable[[Image8], bytes]
) -> None:
    file = tmp_path / "batch.npy"
    file.write_bytes(npy(images[:3]))
    assert told("infer", file).stdout.count("exit ") == 3
    assert len(json.loads(told("infer", file, "--json").stdout)) == 3


def test_infer_on_another_model_and_url(delen: Run, daemon: Daemon, file: Path) -> None:
    answer = delen("infer", file, "--url", daemon.unix_url, "--model", "cifar10-resnet", "--json")
    assert json.loads(answer.stdout)["model"] == "cifar10-resnet"
    missing = delen("infer", file, "--url", daemon.url, "--model", "nothing")
    assert missing.returncode == 1
    assert "nothing" in missing.stderr


def test_infer_refuses_or_does_its_best(told: Run, file: Path) -> None:
    refused = told("infer", file, "--max-latency", "0.1us")
    assert refused.returncode == 1
    assert "max_latency" in refused.stderr
    assert "Traceback" not in refused.stderr
    effort = told("infer", file, "--max-latency", "0.1us", "--best-effort")
    assert effort.returncode == 0
    assert "BOUNDS MISSED" in effort.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["infer"],
        ["infer", "x.png", "--max-latency", "20"],
        ["infer", "x.png", "--max-latency", "20kg"],
        ["infer", "x.png", "--max-latency", "1.2.3ms"],
        ["infer", "x.png", "--max-energy", "20ms"],
        ["infer", "x.png", "--min-accuracy", "high"],
        ["plan", "--top-k", "3"],
        ["models", "--load", "a", "--unload", "b"],
        ["profile", "--output", "a", "--beside-bundle"],
        ["profile", "--energy", "--batches", "1,two"],
        ["profile", "--energy", "--batches", "0"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_status_2(delen: Run, arguments: list[str]) -> None:
    ended = delen(*arguments)
    assert ended.returncode == 2
    assert "usage:" in ended.stderr


def test_an_accuracy_of_90_is_told_to_be_0_9(told: Run, file: Path) -> None:
    ended = told("infer", file, "--min-accuracy", "90")
    assert ended.returncode == 2
    assert "0.9 " in ended.stderr


def test_a_file_that_is_not_there_or_no_image_fails(told: Run, tmp_path: Path) -> None:
    missing = told("infer", tmp_path / "none.png")
    assert missing.returncode == 1
    assert "none.png" in missing.stderr
    text = tmp_path / "text.png"
    text.write_text("hello")
    assert told("infer", text).returncode == 1


def test_no_daemon_fails_with_what_to_do(delen: Run, file: Path, closed_url: str) -> None:
    ended = delen("infer", file, "--url", closed_url)
    assert ended.returncode == 1
    assert closed_url in ended.stderr
    assert "delen-daemon" in ended.stderr


def test_plan_lists_the_exits(told: Run) -> None:
    ended = told("plan", "--min-accuracy", "0.85")
    assert ended.returncode == 0
    assert len([line for line in ended.stdout.splitlines() if line.strip()[:1].isdigit()]) == 15
    assert "guaranteed at level 0.95" in ended.stdout
    document = json.loads(told("plan", "--min-accuracy", "0.85", "--json").stdout)
    assert document["feasible"] is True
    assert len(document["pareto"]) == 15


def test_an_infeasible_plan_is_status_1(told: Run) -> None:
    for extra in ([], ["--json"]):
        ended = told("plan", "--max-energy", "1uJ", *extra)
        assert ended.returncode == 1
        assert "max_energy" in ended.stdout


def test_a_bundle_whose_weights_may_have_seen_the_calibration_data_claims_nothing(
    launcher: Launcher,
    make_bundle: Callable[..., Path],
    delen: Run,
    tmp_path: Path,
    file: Path,
    image: Image8,
) -> None:
    folder = make_bundle(tmp_path / "bundles" / "second", name="second", held_out="unknown")
    lend_profiles(launcher.state, "second", read_manifest(folder)[1])
    models = {"path": str(folder.parent), "default": "second", "load": ["second"]}
    daemon = launcher.start({"models": models})
    held_out = {
        model["name"]: model["held_out"] for model in daemon.api.get("/v1/models").json()["models"]
    }
    assert (held_out["second"], held_out["cifar10-resnet"]) == ("unknown", "known")
    answer = daemon.api.raw(image, min_accuracy=0.7).json()
    accuracy = answer["receipt"]["accuracy"]
    assert (accuracy["guarantee"], accuracy["met"]) == (None, False)
    assert "not known whether the weights" in accuracy["unguaranteed"]
    plan = daemon.api.plan(min_accuracy=0.7)
    assert (plan["feasible"], plan["guarantee"]) == (True, None)
    assert plan["unguaranteed"] == accuracy["unguaranteed"]
    assert "unguaranteed" not in daemon.api.plan(max_latency_ms=900)
    refused = daemon.api.plan(min_accuracy=0.9999)
    assert (refused["feasible"], refused["guarantee"]) == (False, None)
    assert accuracy["unguaranteed"] in refused["problem"]
    assert accuracy["unguaranteed"] in daemon.log()
    for command in (["plan"], ["infer", file]):
        ended = delen(*command, "--min-accuracy", "0.7", DELEN_URL=daemon.url)
        assert accuracy["unguaranteed"] in ended.stdout
    listed = delen("models", DELEN_URL=daemon.url).stdout.splitlines()
    assert [line.split()[0] for line in listed if "no floor is guaranteed" in line] == ["second"]
    launcher.stop(daemon)


def test_models_lists_loads_and_unloads(told: Run) -> None:
    ended = told("models", "--load", "second")
    assert "second 1: ready" in ended.stdout
    kind = "5 exits, uint8 32x32x3 or 24x24, 20x20"
    described = f"{kind}, 10 classes, calibrated on 4000 samples, default"
    assert f"cifar10-resnet 1: ready, {described}" in ended.stdout
    models = json.loads(told("models", "--unload", "second", "--json").stdout)
    assert {model["name"]: model["state"] for model in models} == {
        "cifar10-resnet": "ready",
        "second": "unloaded",
        "spoken-digits": "unloaded",
    }
    assert told("models", "--load", "nothing").returncode == 1


def test_profile_writes_where_it_is_told_and_shows_progress(delen: Run, tmp_path: Path) -> None:
    from delen.profile.reader import load_profile

    bundle, file = write_sized_bundle(tmp_path / "sized"), tmp_path / "deep" / "profile.json"
    ended = delen("profile", "--quick", "--output", file, "--json", "--bundle", bundle)
    assert ended.returncode == 0, ended.stderr
    profile = load_profile(file)
    if profile.host is None:  # too little was served within its second
        assert "was not found out" in ended.stderr
    else:
        assert profile.host.request > 0
        assert profile.host.batch + profile.host.task + profile.host.answer > 0
    assert [each.model.partition("@")[2] for each in profile.sizes] == ["8x8", "4x4"]
    assert profile.quick
    assert len(profile.segments) == 3
    assert json.loads(ended.stdout) == json.loads(file.read_text())
    assert "batch 1" in ended.stderr
    assert "batch 8" in ended.stderr
    assert str(file) in ended.stderr


def test_profile_goes_to_the_state_folder_by_default(
    delen: Run, tiny_bundle: Path, tmp_path: Path
) -> None:
    config = tmp_path / "delen.toml"
    config.write_text('[device]\nthreads = 1\n[log]\nlevel = "error"\n')
    state = tmp_path / "state"
    ended = delen(
        "profile", "--quick", "--config", config, "--bundle", tiny_bundle,
        DELEN_STATE__PATH=str(state),
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    written = Path(ended.stderr.rpartition("written to ")[2].strip())
    assert [written] == list(state.rglob("*.json"))
    assert "segment" in ended.stdout


def test_profile_is_not_written_into_the_installed_package(delen: Run) -> None:
    ended = delen("profile", "--quick", "--beside-bundle")
    assert ended.returncode == 2
    assert "installed package" in ended.stderr


def test_a_profile_beside_a_bundle_is_what_the_daemon_uses(
    delen: Run,
    launcher: Launcher,
    write_bundle: Callable[..., Path],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "bundles"
    bundle = write_bundle(folder / "mine", name="mine")
    ended = delen("profile", "--quick", "--beside-bundle", "--bundle", bundle)
    assert ended.returncode == 0, ended.stderr
    (file,) = (bundle / "profiles").glob("*.json")
    daemon = launcher.start(
        {
            "models": {"path": str(folder), "default": "mine", "load": ["mine"]},
            "state": {"path": str(tmp_path / "empty-state")},
        }
    )
    assert "measuring" not in daemon.log()
    profile = daemon.api.get("/v1/models/mine").json()["profile"]
    assert profile["created"] == json.loads(file.read_text())["created"]
    assert daemon.api.raw(np.zeros((4, 4, 1), np.uint8)).json()["model"] == "mine"
    launcher.stop(daemon)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--blocks", "5"], "--blocks says how to measure energy: it needs --energy"),
        (["--batches", "1"], "--batches says how"),
        (["--energy", "--blocks", "4"], "4 blocks of each are too few; 5 are needed"),
        (["--energy", "--block-seconds", "1"], "blocks of 1 s"),
        (["--energy", "--spread", "5"], "a spread of 5 cannot be accepted"),
    ],
)
def test_blocks_that_show_nothing_are_status_2(
    delen: Run, arguments: list[str], reason: str
) -> None:
    ended = delen("profile", *arguments)
    assert ended.returncode == 2
    assert reason in ended.stderr


@pytest.mark.parametrize("source", ["model", "none"])
def test_an_estimate_is_never_called_measured(delen: Run, tmp_path: Path, source: str) -> None:
    file = tmp_path / "profile.json"
    ended = delen("profile", "--energy", "--output", file, DELEN_POWER__SOURCE=source)
    assert ended.returncode == 1
    assert f"'{source}'" in ended.stderr
    assert ended.stderr.count("`delen doctor`") == 1, "the remedy is named once"
    assert "batch 1" not in ended.stderr
    assert not file.exists()


def test_clocks_that_change_while_energy_is_measured_refuse_it(
    delen: Run, tiny_bundle: Path, tmp_path: Path
) -> None:
    """Over a sensor's tree, in which the limit of a clock is lowered each second."""
    tree = make_tree(tmp_path / "root", "orin-nx", {"VDD_IN": 5.0})
    clock = tree.root / "sys" / "class" / "devfreq" / "17000000.gpu"
    clock.mkdir(parents=True)
    (clock / "min_freq").write_text("306000000")
    (clock / "max_freq").write_text("918000000")

    def play_on(elapsed: float) -> dict[str, float]:
        (clock / "max_freq").write_text(f"{918 - 25 * int(elapsed)}000000")
        return tree.spread(5.0 + elapsed % 0.1)

    with play(tree, play_on):
        ended = delen(
            "profile", "--quick", "--energy", "--block-seconds", "2", "--bundle", tiny_bundle,
            DELEN_POWER__ROOT=str(tree.root), DELEN_STATE__PATH=str(tmp_path / "state"),
        )  # fmt: skip
    assert ended.returncode == 1
    assert "the device changed while exit" in ended.stderr
    assert "default@gpu300-" in ended.stderr
    assert "2:00 min left" in ended.stderr
    assert not list((tmp_path / "state").rglob("*.json"))


def test_new_latencies_keep_the_energies_that_were_measured(
    delen: Run, tiny_bundle: Path, tmp_path: Path
) -> None:
    here = {"DELEN_STATE__PATH": str(tmp_path / "state")}
    command = ("profile", "--quick", "--bundle", tiny_bundle)
    first = json.loads(delen(*command, "--json", **here).stdout)
    (file,) = (tmp_path / "state").rglob("*.json")
    metering = {"source": "rapl", "scope": "package", "idle_w": 9.0, "blocks": 5, "block_s": 10.0}
    joules = {"marginal": 2.0, "gross": 5.0, "low": 1.9, "high": 2.1}
    for segment in first["segments"]:
        segment["batches"]["1"]["energy_mj"] = joules
    file.write_text(json.dumps({**first, "energy": metering}))
    ended = delen(*command, **here)
    assert "the energies measured on" in ended.stderr
    assert "by rapl (package), of 5 blocks of 10 s; idle takes 9.00 W" in ended.stdout
    assert "1.900 .. 2.100" in ended.stdout
    again = json.loads(file.read_text())
    assert again["energy"] == metering
    assert again["segments"][0]["batches"]["1"]["energy_mj"] == pytest.approx(joules)
    assert again["segments"][0]["batches"]["1"]["latency_ms"] != pytest.approx(
        first["segments"][0]["batches"]["1"]["latency_ms"], rel=1e-9
    )


def test_profile_of_what_is_no_bundle_fails(delen: Run, tmp_path: Path) -> None:
    ended = delen("profile", "--quick", "--bundle", tmp_path)
    assert ended.returncode == 1
    assert "manifest.json" in ended.stderr
    assert delen("profile", "--quick", "--model", "nothing").returncode == 1


LABELS = ["kůň", "猫", "Ελαφος", "🐸"]


@pytest.fixture(scope="module")
def foreign(
    launcher: Launcher,
    write_bundle: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Daemon]:
    """A daemon whose classes have names that are not ASCII, calibrated on 100 groups."""
    folder = tmp_path_factory.mktemp("foreign")

    def group(files: dict[str, bytes]) -> None:
        table = Calibration.from_npz(files["calibration.npz"], "calibration.npz")
        groups = (np.arange(table.samples) % 100).astype(np.int32)
        grouped = Calibration(table.confidence, table.correct, table.predictions, groups)
        files["calibration.npz"] = grouped.to_npz()

    manifest = write_bundle(folder / "foreign", name="foreign", edit=group) / "manifest.json"
    document = {**json.loads(manifest.read_text()), "labels": LABELS}
    manifest.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    models = {"path": str(folder), "default": "foreign", "load": ["foreign"]}
    daemon = launcher.start({"models": models})
    yield daemon
    launcher.stop(daemon)


def test_a_model_says_of_how_many_groups_its_calibration_is(delen: Run, foreign: Daemon) -> None:
    path = "/v1/models/foreign"
    calibration = foreign.api.get(path).json()["calibration"]
    assert (calibration["samples"], calibration["groups"]) == (3000, 100)
    assert 0.96 < calibration["highest_floor"] < 0.97
    beyond = foreign.api.as_json({"min_accuracy": 0.98}, f"{path}/plan").json()
    assert beyond["feasible"] is False
    assert "100 calibration groups are too few" in beyond["problem"]
    listed = delen("models", DELEN_URL=foreign.url).stdout
    assert "calibrated on 3000 samples in 100 groups" in listed


def test_labels_that_are_not_ascii_come_through(foreign: Daemon) -> None:
    from delen import Client

    image = np.zeros((4, 4, 1), np.uint8)
    answer = foreign.api.raw(image, top_k=4)
    assert answer.headers.get_content_type() == "application/json"
    by_index = {listed["index"]: listed["label"] for listed in answer.json()["predictions"]}
    assert [by_index[index] for index in range(4)] == LABELS
    with Client(foreign.url) as client:
        result = client.infer(image)
        assert result.label == LABELS[result.index]
        assert client.feedback({result.request_id: result.label}).accepted == 1


@pytest.mark.parametrize("locale", [{"LANG": "C"}, {"LC_ALL": "C"}, {"LC_ALL": "POSIX"}], ids=str)
def test_commands_speak_in_the_c_locale(
    delen: Run,
    foreign: Daemon,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    npy: Callable[[Image8], bytes],
    locale: dict[str, str],
) -> None:
    for name in ("LANG", "LC_ALL", "LC_CTYPE", "PYTHONUTF8", "PYTHONIOENCODING"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "žluťoučký.npy"
    file.write_bytes(npy(np.zeros((4, 4, 1), np.uint8)))
    ended = delen("infer", file, DELEN_URL=foreign.url, **locale)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.split()[0] in LABELS
    assert delen("--help", **locale).returncode == 0
    missing = delen("infer", tmp_path / "není.npy", DELEN_URL=foreign.url, **locale)
    assert missing.returncode == 1
    assert "není.npy" in missing.stderr


def test_a_reader_that_has_gone_does_not_make_a_traceback(daemon: Daemon) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [str(Path(sys.executable).parent / "delen"), "models", "--url", daemon.url, "--json"]
    ended = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (1, "")
