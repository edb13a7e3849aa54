from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest

from delen.errors import ConfigError
from power.sources.probe import CHOICES, SOURCES, Chosen, Probe, open_source, probe_sources
from power.sources.rapl import FOLDER
from tests.sensors import make_tree


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("power.sources.probe._PAUSE", 0.0)


def choose(choice: str, root: Path, **options: Any) -> Chosen:
    return open_source(choice, root, watts_per_core=4.0, **options)


def add_package(root: Path) -> None:
    zone = root / FOLDER / "intel-rapl:0"
    zone.mkdir(parents=True)
    for name, text in {
        "name": "package-0",
        "energy_uj": "5000000",
        "max_energy_range_uj": "262143328850",
    }.items():
        (zone / name).write_text(f"{text}\n")


@pytest.mark.parametrize(
    ("family", "source"),
    [("orin-nx", "ina3221"), ("agx-orin", "ina3221"), ("nano", "ina3221x"), ("thor", "ina238")],
)
def test_auto_takes_the_boards_own_sensor(
    tmp_path: Path, family: str, source: str, caplog: pytest.LogCaptureFixture
) -> None:
    tree = make_tree(tmp_path / "root", family)
    with caplog.at_level(logging.INFO, "delen.power"):
        chosen = choose("auto", tree.root)
    assert chosen.source is not None and chosen.source.name == source
    assert chosen.probes[-1].reading is not None
    assert chosen.probes[-1].reading.total == pytest.approx(tree.total)
    [record] = caplog.records
    assert record.getMessage() == chosen.why
    assert source in chosen.why and f"{tree.total:.2f} W" in chosen.why
    assert record.levelno == logging.INFO


def test_auto_ends_at_the_model(tmp_path: Path) -> None:
    chosen = choose("auto", tmp_path)
    assert chosen.source is not None and chosen.source.kind == "estimated"
    assert [probe.source for probe in chosen.probes] == list(SOURCES)
    assert [probe.serves for probe in chosen.probes] == [False] * 6 + [True]


def test_auto_probes_a_reading_and_warns_of_a_sensor_that_has_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tree = make_tree(tmp_path / "root", "orin-nx")
    tree.fail(tree.path("VDD_IN", "current"))
    chosen = choose("auto", tree.root)
    assert chosen.source is not None and chosen.source.name == "model"
    assert "passed over ina3221" in chosen.why and "Input/output error" in chosen.why
    assert caplog.records[-1].levelno == logging.WARNING


def test_a_sensor_that_fails_once_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = make_tree(tmp_path / "root", "orin-nx")
    tree.fail(tree.path("VDD_IN", "current"))
    monkeypatch.setattr("power.sources.probe.time.sleep", lambda seconds: tree.heal())
    chosen = choose("auto", tree.root)
    assert chosen.source is not None and chosen.source.name == "ina3221"


def test_a_sensor_that_blocks_does_not_hold_up_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("power.sources.probe._PATIENCE", 0.2)
    tree = make_tree(tmp_path / "root", "orin-nx")
    pipe = tree.path("VDD_IN", "current")
    pipe.unlink()
    os.mkfifo(pipe)  # opening it to read blocks until somebody writes
    chosen = choose("auto", tree.root)
    assert chosen.source is not None and chosen.source.name == "model"
    assert "ina3221 (it has not answered for 0.2 s)" in chosen.why
    named = choose("ina3221", tree.root)
    assert named.source is not None and named.source.name == "ina3221"
    assert "it has not answered for 0.2 s" in named.why


def test_auto_does_not_guess_an_unknown_boards_total(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tree = make_tree(tmp_path / "root", "unknown")
    chosen = choose("auto", tree.root)
    assert chosen.source is not None and chosen.source.name == "model"
    assert "MAIN_IN" in caplog.records[-1].getMessage()
    assert "power.total_rails" in caplog.records[-1].getMessage()
    assert caplog.records[-1].levelno == logging.WARNING
    chosen = choose("auto", tree.root, total_rails=["MAIN_IN"])
    assert chosen.source is not None and chosen.source.name == "ina3221"
    assert chosen.source.read().total == pytest.approx(tree.watts["MAIN_IN"])


def test_rapl_serves_where_segments_run_on_the_processor(tmp_path: Path) -> None:
    add_package(tmp_path)
    on_processor, on_gpu = choose("auto", tmp_path), choose("auto", tmp_path, gpu=True)
    assert on_processor.source is not None and on_processor.source.name == "rapl"
    assert on_gpu.source is not None and on_gpu.source.name == "model"
    forced = choose("rapl", tmp_path, gpu=True)
    assert forced.source is not None and forced.source.name == "rapl"


def test_nvml_is_not_asked_where_segments_run_on_the_processor(tmp_path: Path) -> None:
    [nvml] = [probe for probe in choose("auto", tmp_path).probes if probe.source == "nvml"]
    assert "processor" in str(nvml.problem) and "nvml" in str(nvml.remedy)


def test_a_named_source_that_is_not_there_is_a_wrong_configuration(tmp_path: Path) -> None:
    for name in SOURCES[:4]:
        with pytest.raises(ConfigError, match=f"power.source is '{name}'"):
            choose(name, tmp_path)


def test_a_named_source_without_a_reading_is_opened_all_the_same(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "root", "orin-nx")
    tree.fail(tree.path("VDD_IN", "current"))
    chosen = choose("ina3221", tree.root)
    assert chosen.source is not None and "no reading yet" in chosen.why
    tree.heal()
    assert chosen.source.read().total == pytest.approx(tree.total)


def test_none_has_no_source_and_an_unknown_name_is_refused(tmp_path: Path) -> None:
    assert choose("none", tmp_path).source is None
    with pytest.raises(ConfigError, match=", ".join(CHOICES)):
        choose("battery", tmp_path)


def test_every_source_is_tried_with_its_reading_or_its_problem(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "root", "agx-xavier")
    add_package(tree.root)
    probes = {
        probe.source: probe for probe in probe_sources(tree.root, watts_per_core=4.0, gpu=True)
    }
    assert tuple(probes) == SOURCES
    assert probes["ina3221"].serves and probes["model"].serves
    assert probes["rapl"].reading is not None and "GPU" in str(probes["rapl"].problem)
    jtop: Probe = probes["jtop"]
    assert jtop.reading is None and "jtop.service" in str(jtop.remedy)
