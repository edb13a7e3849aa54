"""The table of families, and how a board is told by its device tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from delen.errors import SensorFailed
from power.sources.boards import BOARDS, identify_board, total_of
from tests.sensors import LAYOUTS, make_tree

FAMILIES = {
    "tx1": "TX1",
    "nano": "Nano",
    "nano-2gb": "Nano 2GB",
    "tx2": "TX2",
    "tx2-nx": "TX2 NX",
    "xavier-nx": "Xavier NX",
    "agx-xavier": "AGX Xavier",
    "orin-nano": "Orin Nano",
    "orin-nx": "Orin NX",
    "agx-orin": "AGX Orin",
    "thor": "Thor",
}


def device_tree(root: Path, **properties: bytes) -> Path:
    folder = root / "proc" / "device-tree"
    folder.mkdir(parents=True)
    for name, value in properties.items():
        (folder / name).write_bytes(value)
    return root


@pytest.mark.parametrize(("layout", "family"), FAMILIES.items())
def test_every_family_is_told_and_its_rails_are_known(
    layout: str, family: str, tmp_path: Path
) -> None:
    tree = make_tree(tmp_path / "root", layout)
    board = identify_board(tree.root)
    assert board is BOARDS[family]
    assert set(board.rails) == set(tree.rails)
    assert set(board.total) == set(tree.total_rails)


def test_the_layouts_are_all_the_families() -> None:
    assert set(FAMILIES.values()) == set(BOARDS)
    assert set(FAMILIES) == set(LAYOUTS) - {"unknown"}


@pytest.mark.parametrize(("layout", "family"), FAMILIES.items())
def test_the_model_tells_where_the_part_numbers_do_not(
    layout: str, family: str, tmp_path: Path
) -> None:
    model = LAYOUTS[layout].model.encode() + b"\0"
    root = device_tree(tmp_path, compatible=b"acme,carrier\0nvidia,tegra999\0", model=model)
    assert identify_board(root) is BOARDS[family]


@pytest.mark.parametrize(
    ("compatible", "family"),
    [
        (b"nvidia,p3737-0000+p3701-0004\0nvidia,p3701-0004\0nvidia,tegra234\0", "AGX Orin"),
        (b"acme,box\0nvidia,p3767-0001\0nvidia,tegra234\0", "Orin NX"),
        (b"nvidia,p3768-0000+p3767-0003\0", "Orin Nano"),
        (b"nvidia,p2771-0000\0nvidia,tegra186\0", "TX2"),
        (b"nvidia,p2822-0000+p2888-0001\0nvidia,tegra194\0", "AGX Xavier"),
        (b"nvidia,p3449-0000-b00+p3448-0002-b00\0", "Nano"),
    ],
)
def test_other_modules_of_a_family(compatible: bytes, family: str, tmp_path: Path) -> None:
    assert identify_board(device_tree(tmp_path, compatible=compatible)) is BOARDS[family]


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"compatible": b"", "model": b""},
        {"compatible": b"nvidia,tegra234\0", "model": b"Acme Carrier\0"},
        {"compatible": b"nvidia,p37670-0000\0", "model": b"A NVIDIA Jetson Nano clone\0"},
        {"compatible": b"\xff\xfe", "model": b"\xff"},
    ],
)
def test_no_board_is_guessed(properties: dict[str, bytes], tmp_path: Path) -> None:
    assert identify_board(device_tree(tmp_path, **properties)) is None


def test_a_machine_without_a_device_tree_is_no_board(tmp_path: Path) -> None:
    assert identify_board(tmp_path) is None


def test_a_rail_that_hangs_off_another_is_not_counted_twice() -> None:
    rails = {"VDD_GPU_SOC": 10.0, "VDD_CPU_CV": 3.0, "VIN_SYS_5V0": 5.0, "VDDQ_VDD2_1V8AO": 2.0}
    assert total_of(rails, BOARDS["AGX Orin"]) == 18.0


def test_a_missing_rail_of_the_total_is_named_and_the_rest_is_not_summed() -> None:
    rails = {"GPU": 5.0, "CPU": 4.0, "SOC": 3.0, "VDDRQ": 1.0}
    with pytest.raises(SensorFailed, match="but CV, SYS5V gives no reading"):
        total_of(rails, BOARDS["AGX Xavier"])


def test_names_are_compared_whole() -> None:
    with pytest.raises(SensorFailed, match="VDD_IN gives no reading"):
        total_of({"VDD_IN_5V": 5.0, "vdd_in": 5.0}, BOARDS["Orin NX"])


def test_the_configuration_overrules_the_board() -> None:
    rails = {"VDD_IN": 8.0, "VDD_SOC": 2.0, "FAN": 1.0}
    assert total_of(rails, BOARDS["Orin NX"], ["VDD_IN", "FAN"]) == 9.0


def test_the_total_of_an_unknown_board_is_unknown() -> None:
    assert total_of({"MAIN": 8.0}, None) is None
    assert total_of({"MAIN": 8.0}, None, ["MAIN"]) == 8.0


def test_igx_orin_has_the_rails_of_its_module(tmp_path: Path) -> None:
    root = device_tree(tmp_path, compatible=b"nvidia,p3740-0002+p3701-0002\0nvidia,tegra234\0")
    assert identify_board(root) is BOARDS["AGX Orin"]
