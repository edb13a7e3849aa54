"""Plug-ins by name, found by entry point, so that an app can ship its own."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from delen.errors import ConfigError

EXIT_POLICIES = "delen.exit_policies"
ENERGY_CONTROLLERS = "delen.energy_controllers"


def find_plugin(group: str, name: str) -> Any:
    """What the entry point ``name`` of ``group`` names; ConfigError lists those that there are."""
    found = {point.name: point for point in entry_points(group=group)}
    if name not in found:
        known = ", ".join(sorted(found)) or "none"
        raise ConfigError(f"{group} has no {name!r}; installed: {known}")
    return found[name].load()
