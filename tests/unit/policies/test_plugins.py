from __future__ import annotations

from pathlib import Path

import pytest

from delen.errors import ConfigError
from policies.exit.bounds import bounds_policy
from policies.exit.conditions import conditions_policy
from policies.plugins import DISPATCH_POLICIES, EXIT_POLICIES, find_plugin, plugin_names


def test_the_shipped_policies_are_found_by_name() -> None:
    assert find_plugin(EXIT_POLICIES, "bounds") is bounds_policy
    assert find_plugin(EXIT_POLICIES, "conditions") is conditions_policy


def test_an_unknown_name_is_answered_with_those_installed() -> None:
    with pytest.raises(ConfigError, match=r"delen\.exit_policies has no 'oracle'") as caught:
        find_plugin(EXIT_POLICIES, "oracle")
    assert "bounds, conditions" in str(caught.value)
    with pytest.raises(ConfigError, match="installed: none"):
        find_plugin("delen.no_such_group", "x")


def test_a_plugin_that_cannot_be_imported_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "broken-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(
        f"[{DISPATCH_POLICIES}]\nbroken = no_such_module:Policy\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "broken" in plugin_names(DISPATCH_POLICIES)
    with pytest.raises(ConfigError, match=r"'broken' cannot be loaded: .*no_such_module"):
        find_plugin(DISPATCH_POLICIES, "broken")
