"""docs/configuration.md lists every key, with its default, its values and whether it reloads."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from delen.daemon.settings import PREFIX, SETTINGS, Setting

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "configuration.md").read_text("utf-8")
ROW = re.compile(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \| (yes|no) \| ([^|]+) \|$", re.MULTILINE)
SECTION = re.compile(r"^## `\[(\w+)\]`$(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
ROWS = {
    f"{section}.{key}": (default, values, reloads, meaning)
    for section, text in SECTION.findall(PAGE)
    for key, default, values, reloads, meaning in ROW.findall(text)
}
OF_THE_MACHINE = {"server.socket", "device.threads", "state.path"}
BY_NAME = {setting.name: setting for setting in SETTINGS}


def test_every_key_has_a_row_and_in_their_order() -> None:
    assert [*ROWS] == [*BY_NAME]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_a_row_has_the_default_and_says_whether_it_reloads(setting: Setting) -> None:
    default, _, reloads, _ = ROWS[setting.name]
    assert reloads == ("yes" if setting.reloads else "no")
    if setting.name in OF_THE_MACHINE:
        assert default.startswith("*")
    else:
        assert default == f"`{json.dumps(setting.default)}`"


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if " to " in row[1]])
def test_a_range_is_the_one_that_is_checked(name: str) -> None:
    low, high = (float(bound) for bound in ROWS[name][1].split(" to "))
    check = BY_NAME[name].check
    assert check(low) is None
    assert check(high) is None
    assert check(low - 1e-6) is not None
    assert check(high * 1.01) is not None


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row[1].startswith("`")])
def test_choices_are_those_that_are_checked(name: str) -> None:
    listed = re.findall(r"`([^`]+)`", ROWS[name][1])
    setting = BY_NAME[name]
    if isinstance(setting.default, bool):
        assert listed == ["true", "false"]
        return
    problem = setting.check("none of them")
    assert problem is not None
    assert problem.removeprefix("must be one of ").split(", ") == listed


def test_keys_that_are_checked_say_so() -> None:
    """A key whose range the page left out would be found by a value out of any range."""
    for name, (_, values, _, _) in ROWS.items():
        setting = BY_NAME[name]
        if isinstance(setting.default, float | int) and not isinstance(setting.default, bool):
            assert " to " in values, name
        elif isinstance(setting.default, str) and setting.check("none of them") is not None:
            assert values.startswith("`"), name


def test_variables_are_named_as_the_page_says() -> None:
    assert f"`{PREFIX}SERVER__PORT=8080` sets `server.port`" in PAGE
    assert BY_NAME["server.port"].variable == f"{PREFIX}SERVER__PORT"
