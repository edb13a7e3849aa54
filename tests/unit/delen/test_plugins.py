from __future__ import annotations

import pytest

from delen.errors import ConfigError
from delen.plugins import EXIT_POLICIES, find_plugin
from policies.conditions import conditions_policy
from policies.exits import bounds_policy


def test_the_shipped_policies_are_found_by_name() -> None:
    assert find_plugin(EXIT_POLICIES, "bounds") is bounds_policy
    assert find_plugin(EXIT_POLICIES, "conditions") is conditions_policy


def test_an_unknown_name_is_answered_with_those_installed() -> None:
    with pytest.raises(ConfigError, match=r"delen\.exit_policies has no 'oracle'") as caught:
        find_plugin(EXIT_POLICIES, "oracle")
    assert "bounds, conditions" in str(caught.value)
    with pytest.raises(ConfigError, match="installed: none"):
        find_plugin("delen.no_such_group", "x")
