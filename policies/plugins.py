"""Plug-ins by name, found by entry point, so that an app can ship its own."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from delen.errors import ConfigError

EXIT_POLICIES = "delen.exit_policies"
DISPATCH_POLICIES = "delen.dispatch_policies"
ENERGY_CONTROLLERS = "delen.energy_controllers"


def plugin_names(group: str) -> list[str]:
    """The names of all entry points of ``group``, in alphabetical order."""
    return sorted({point.name for point in entry_points(group=group)})


def find_plugin(group: str, name: str) -> Any:
    """What the entry point ``name`` of ``group`` names.

    ConfigError lists those that there are, or says why it cannot be loaded.
    """
    found = {point.name: point for point in entry_points(group=group)}
    if name not in found:
        known = ", ".join(sorted(found)) or "none"
        raise ConfigError(f"{group} has no {name!r}; installed: {known}")
    try:
        return found[name].load()
    except Exception as error:
        raise ConfigError(f"{group} {name!r} cannot be loaded: {error}") from error
