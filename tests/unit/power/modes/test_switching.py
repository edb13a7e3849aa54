from __future__ import annotations

import re
from pathlib import Path

import pytest

from delen.errors import Forbidden, InvalidInput, PowerError
from power.modes.modes import read_mode
from power.modes.switching import ModeSwitcher
from tests.nvpmodel import ModeTree


@pytest.fixture
def tree(tmp_path: Path) -> ModeTree:
    return ModeTree(tmp_path, mode=1)


def test_it_lists_the_modes(tree: ModeTree, tmp_path: Path) -> None:
    modes = ModeSwitcher(tree.root, allowed=False).modes()
    assert [(mode.id, mode.name) for mode in modes][:2] == [(0, "MAXN"), (1, "MODE_15W")]
    assert ModeSwitcher(tmp_path / "nowhere", allowed=True).modes() == ()


@pytest.mark.parametrize("wanted", ["MODE_7W", "7w", "2", 2])
def test_it_switches_by_name_or_id(tree: ModeTree, wanted: str | int) -> None:
    mode = ModeSwitcher(tree.root, allowed=True).switch(wanted)
    assert (mode.id, mode.name) == (2, "MODE_7W")
    assert mode == read_mode(tree.root)
    assert tree.mode == 2


def test_it_waits_until_the_mode_shows(tree: ModeTree) -> None:
    tree.install("is slow")
    assert ModeSwitcher(tree.root, allowed=True).switch("7W").id == 2


def test_the_mode_it_is_in_already_needs_no_switch(tree: ModeTree) -> None:
    tree.install("fails")
    assert ModeSwitcher(tree.root, allowed=True).switch("15W").id == 1


def test_restoring_puts_back_what_the_first_switch_found(tree: ModeTree) -> None:
    switcher = ModeSwitcher(tree.root, allowed=True)
    switcher.restore()
    assert tree.mode == 1
    switcher.switch("7W")
    switcher.switch("MAXN")
    switcher.restore()
    assert tree.mode == 1
    tree.set(2)
    switcher.restore()
    assert tree.mode == 2


def test_restoring_leaves_a_mode_that_somebody_else_has_set(tree: ModeTree) -> None:
    switcher = ModeSwitcher(tree.root, allowed=True)
    switcher.switch("7W")
    tree.set(0)
    switcher.restore()
    assert tree.mode == 0


def refused(switcher: ModeSwitcher, wanted: str, match: str) -> PowerError:
    before = read_mode(switcher._root)
    with pytest.raises(PowerError, match=match) as refusal:
        switcher.switch(wanted)
    assert read_mode(switcher._root) == before
    return refusal.value


def test_switching_must_be_allowed(tree: ModeTree) -> None:
    before = read_mode(tree.root)
    with pytest.raises(Forbidden, match=r"not allowed: set power\.switch_modes"):
        ModeSwitcher(tree.root, allowed=False).switch("7W")
    assert read_mode(tree.root) == before


def test_an_unknown_mode_is_refused_with_those_there_are(tree: ModeTree) -> None:
    switcher, before = ModeSwitcher(tree.root, allowed=True), read_mode(tree.root)
    with pytest.raises(InvalidInput, match=r"50W.*MODE_15W \(1\)") as refusal:
        switcher.switch("50W")
    assert refusal.value.field == "mode"
    assert read_mode(tree.root) == before


def test_a_device_without_modes_is_told(tmp_path: Path) -> None:
    refused(ModeSwitcher(tmp_path, allowed=True), "7W", "no power modes")


def test_a_mode_that_powers_other_parts_of_the_gpu_is_refused(tree: ModeTree) -> None:
    error = refused(ModeSwitcher(tree.root, allowed=True), "10W_1TPC", "reboot")
    assert error.remedy == "run: sudo nvpmodel -m 3"


def test_a_mode_for_which_nvpmodel_wants_a_reboot_is_refused(tree: ModeTree) -> None:
    tree.install("asks to reboot")
    error = refused(ModeSwitcher(tree.root, allowed=True), "7W", "reboot")
    assert error.remedy == "run: sudo nvpmodel -m 2"


def test_jetson_clocks_are_not_ended_by_a_switch(tree: ModeTree) -> None:
    tree.pin()
    error = refused(ModeSwitcher(tree.root, allowed=True), "7W", "jetson_clocks")
    assert error.remedy == "run: sudo jetson_clocks --restore"


def test_an_unknown_present_mode_is_not_switched_from(tree: ModeTree) -> None:
    tree.write("var/lib/nvpmodel/status", "")
    error = refused(ModeSwitcher(tree.root, allowed=True), "7W", "unknown")
    assert error.remedy == "let delen read /var/lib/nvpmodel/status"


def test_what_nvpmodel_said_is_in_the_error(tree: ModeTree) -> None:
    tree.install("fails")
    error = refused(ModeSwitcher(tree.root, allowed=True), "7W", "255.*Error opening a file: 13")
    assert error.remedy == "nvpmodel works for root only"


def test_an_nvpmodel_that_is_missing_or_hangs_is_told(tree: ModeTree) -> None:
    tree.install("hangs")
    refused(ModeSwitcher(tree.root, allowed=True, timeout=0.1), "7W", "did not end within 0.1 s")
    (tree.root / "usr/sbin/nvpmodel").unlink()
    refused(ModeSwitcher(tree.root, allowed=True), "7W", "cannot be run: No such file")


def test_a_status_without_the_clocks_is_no_switch(tree: ModeTree) -> None:
    tree.install("sets nothing")
    switcher = ModeSwitcher(tree.root, allowed=True, timeout=0.1)
    with pytest.raises(PowerError, match=re.escape("CPU_ONLINE CORE_2 is 1 instead of 0")):
        switcher.switch("7W")
    tree.install("works")
    switcher.restore()
    assert tree.mode == 1
