from __future__ import annotations

import json
from pathlib import Path

import pytest

from delen.commands.main import main

PROFILE = Path(__file__).resolve().parents[4] / "benchmarks" / "profiles" / "nano-resnet50.json"
SITE = f"""
seconds = 3
[[nodes]]
name = "board"
models = [{{ name = "resnet", sizes = [{{ profile = "{PROFILE}", payload_bytes = 2e4 }}] }}]
[[places]]
name = "hall"
local = ["board"]
[[clients]]
name = "camera"
model = "resnet"
fps = 10
deadline_ms = 80
place = "hall"
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    file = tmp_path / "site.toml"
    file.write_text(SITE)
    return file


def test_each_policy_has_its_figures_by_client_and_node(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", "--fleet", str(site), "--policy", "default", "closest", "--json"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["policy"], second["policy"]) == ("default", "closest")
    assert first["clients"]["camera"]["requests"] == first["requests"] == 30
    assert first["nodes"]["board"]["energy_j"] == pytest.approx(first["energy_j"])
    assert first["effective_accuracy"] > 0.6


def test_the_table_has_a_line_a_policy_client_and_node(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", "--fleet", str(site), "--policy", "exact"]) == 0
    printed = capsys.readouterr().out
    for word in (
        "camera (largest)",
        "frames not sent",
        "switches of size",
        "exact",
        "camera",
        "board",
        "30 frames, 1 clients, 1 nodes",
    ):
        assert word in printed


def test_options_of_the_other_simulation_are_refused(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", "--fleet", str(site), "--weight", "a=2"]) == 2
    assert "--weight" in capsys.readouterr().err
    assert main(["simulate", "--fleet", str(site), "--policy", "oracle"]) == 2
    assert "default" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["simulate"])
    assert "--trace --fleet --link" in capsys.readouterr().err


def test_plots_are_written(site: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    command = ["simulate", "--fleet", str(site), "--policy", "default"]
    assert main([*command, "--plots", str(tmp_path / "plots")]) == 0
    assert (tmp_path / "plots" / "fleet-default.png").stat().st_size > 1000


def test_plots_show_the_sizes_of_clients_that_have_several(site: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    two = [
        f'{{ profile = "{PROFILE}", payload_bytes = {n}e4, pixels = [{n}, {n}] }}' for n in (1, 2)
    ]
    text = site.read_text()
    start, end = text.index("sizes = ["), text.index("] }]")
    site.write_text(f"{text[:start]}sizes = [{', '.join(two)}{text[end:]}")
    command = ["simulate", "--fleet", str(site), "--policy", "default"]
    assert main([*command, "--plots", str(tmp_path / "plots")]) == 0
    assert (tmp_path / "plots" / "fleet-default.png").stat().st_size > 1000
