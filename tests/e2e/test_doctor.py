"""``delen doctor`` on machines that are folders."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from delen.commands.main import main
from tests.sensors import SensorTree, make_tree

if TYPE_CHECKING:
    from tests.builders.daemon import Daemon


@dataclass(frozen=True)
class Ended:
    returncode: int
    stdout: str
    stderr: str


Doctor = Callable[..., Ended]


@pytest.fixture
def doctor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Doctor:
    """Runs it with settings, by their variables, on a machine where no daemon answers."""
    for name in [name for name in os.environ if name.startswith("DELEN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DELEN_STATE__PATH", str(tmp_path / "state"))
    monkeypatch.setenv("DELEN_SERVER__SOCKET", str(tmp_path / "none.sock"))
    monkeypatch.setenv("DELEN_SERVER__PORT", "1")
    monkeypatch.setattr("delen.measure.disturbance.is_calm", lambda: True)  # it looks for 0.3 s

    def run(*arguments: str, **variables: str) -> Ended:
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            try:
                status = main(["doctor", *arguments])
            except SystemExit as ended:
                status = int(ended.code or 0)
        return Ended(status, *capsys.readouterr())

    return run


@pytest.fixture
def orin(tmp_path: Path) -> SensorTree:
    return make_tree(tmp_path / "root", "orin-nx", {"VDD_IN": 7.2})


def examined(ended: Ended) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(ended.stdout)
    return document


def test_a_board_is_told_with_every_source(doctor: Doctor, orin: SensorTree) -> None:
    ended = doctor("--json", DELEN_POWER__ROOT=str(orin.root))
    assert ended.returncode == 0, ended.stderr
    found = examined(ended)
    assert found["board"]["family"] == "Orin NX" and found["board"]["total"] == ["VDD_IN"]
    assert "Orin NX" in found["device"]["processor"]
    sources = {source["source"]: source for source in found["sources"]}
    assert list(sources) == ["ina3221", "ina3221x", "ina238", "jtop", "nvml", "rapl", "model"]
    assert sources["ina3221"]["watts"] == pytest.approx(7.2)
    assert set(sources["ina3221"]["rails"]) == set(orin.rails)
    assert sources["jtop"]["problem"] and "jtop.service" in sources["jtop"]["remedy"]
    assert found["energy"] == {"configured": "auto", "source": "ina3221", "problem": None}
    assert found["model"]["provider"] == "cpu" and found["model"]["profile"] is None
    tried = {check["name"]: check for check in found["checks"]}
    assert list(tried) == [
        *("config", "provider", "memory", "profile", "socket", "clocks", "disk", "calm")
    ]
    assert tried["provider"]["state"] == "ok" and "all 5 segments" in tried["provider"]["found"]
    assert found["daemon"]["answers"] is False and "delen-daemon" in found["daemon"]["problem"]


def test_it_is_readable_without_json(doctor: Doctor, orin: SensorTree) -> None:
    (orin.root / "sys/class/thermal/thermal_zone0").mkdir(parents=True)
    for name, text in {
        "type": "cpu-thermal",
        "temp": "61500",
        "trip_point_0_type": "passive",
        "trip_point_0_temp": "95000",
    }.items():
        (orin.root / "sys/class/thermal/thermal_zone0" / name).write_text(f"{text}\n")
    ended = doctor(DELEN_POWER__ROOT=str(orin.root))
    assert ended.returncode == 0, ended.stderr
    for line in (
        "board       Orin NX: total is VDD_IN",
        "power mode  default",
        "thermal     33.5 degrees below cpu-thermal's trip point (passive)",
        "ok provider  cpu ran all 5 segments",
        "?? clocks    there is no nvpmodel",
        "-> ina3221   7.20 W (VDD_IN 7.20, ",
        "remedy: ",
    ):
        assert line in ended.stdout


def test_a_named_source_without_a_reading_ends_with_status_1(
    doctor: Doctor, orin: SensorTree
) -> None:
    orin.fail(orin.path("VDD_IN", "current"))
    named = {"DELEN_POWER__ROOT": str(orin.root), "DELEN_POWER__SOURCE": "ina3221"}
    ended = doctor(**named)
    assert ended.returncode == 1
    assert "Input/output error" in ended.stdout
    assert "power.source is 'ina3221', which gives no reading" in ended.stdout
    assert doctor("--json", **{**named, "DELEN_POWER__SOURCE": "auto"}).returncode == 0


def test_an_unknown_board_is_asked_for_its_total(doctor: Doctor, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "root", "unknown")
    ended = doctor(DELEN_POWER__ROOT=str(tree.root))
    assert "not a known Jetson" in ended.stdout
    assert "MAIN_IN" in ended.stdout and "power.total_rails" in ended.stdout
    found = examined(
        doctor("--json", DELEN_POWER__ROOT=str(tree.root), DELEN_POWER__TOTAL_RAILS="MAIN_IN")
    )
    assert found["energy"]["source"] == "ina3221"


def test_a_model_that_is_not_there_is_told(doctor: Doctor) -> None:
    ended = doctor("--json", DELEN_MODELS__DEFAULT="nothing")
    assert ended.returncode == 1
    assert "nothing" in examined(ended)["model"]["problem"]


def test_a_configuration_with_which_no_daemon_starts_ends_with_status_1(doctor: Doctor) -> None:
    ended = doctor(DELEN_POLICIES__EXIT="nonsense")
    assert ended.returncode == 1
    assert "!! config    DELEN_POLICIES__EXIT: policies.exit: " in ended.stdout


def test_a_wrong_configuration_ends_with_status_2(doctor: Doctor) -> None:
    ended = doctor(DELEN_POWER__SOURCE="battery")
    assert ended.returncode == 2
    assert "DELEN_POWER__SOURCE" in ended.stderr


def test_the_daemon_and_the_profile_it_measured_are_found(
    doctor: Doctor, daemon: Daemon, state: Path
) -> None:
    found = examined(doctor("--json", DELEN_URL=daemon.url, DELEN_STATE__PATH=str(state)))
    assert found["daemon"]["answers"] and "cifar10-resnet" in found["daemon"]["ready"]
    assert found["model"]["profile"]["quick"] and found["model"]["profile"]["energy"] is None
    assert daemon.unix_url is not None
    configured = {"DELEN_SERVER__SOCKET": daemon.unix_url.removeprefix("unix://")}
    assert examined(doctor("--json", **configured))["daemon"]["url"] == daemon.unix_url


@pytest.mark.usefixtures("daemon")
def test_a_profile_without_what_serving_takes_is_told_of(
    doctor: Doctor, state: Path, tmp_path: Path
) -> None:
    for file in state.rglob("profiles/cifar10-resnet-*/*.json"):
        profile = json.loads(file.read_bytes())
        del profile["host"]
        profile["measured"] = {"busy": True, "others": 0.5}
        old = tmp_path / "state" / file.relative_to(state)
        old.parent.mkdir(parents=True, exist_ok=True)
        old.write_text(json.dumps(profile))
    found = examined(doctor("--json"))["model"]["profile"]
    assert (found["host"], found["busy"]) == (False, True)
    assert "MEASURED ON A BUSY MACHINE" in doctor().stdout
    unknown = "what serving takes beside segments is unknown: delen profile measures it"
    assert unknown in doctor().stdout
    assert unknown not in doctor(DELEN_STATE__PATH=str(state)).stdout


def test_its_help_has_an_example(doctor: Doctor) -> None:
    assert "example: delen doctor" in doctor("--help").stdout
