"""The state of the device itself: its power mode, its throttling, its temperature."""

from __future__ import annotations

from pathlib import Path

from delen.core.energy_status import ModeStatus
from power.modes.modes import PowerMode, Throttling, read_mode, throttling
from power.modes.thermal import headroom, read_zones

_FEEL_EVERY = 3
"""Looks: temperatures are slow, and reading every zone with its trip points takes milliseconds."""


class ModeMonitor:
    """The device under ``root`` as it was at the last look."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.mode: PowerMode = read_mode(root)
        self._throttling: Throttling = throttling(root)
        self._looks = 0
        self._slowing: tuple[str, ...] = self._throttling.now
        self.headroom: float | None = None
        """Degrees Celsius below the nearest trip point, None where the device has none."""
        self._feel()

    @property
    def status(self) -> ModeStatus:
        mode = self.mode
        held = None if mode.id is None and not mode.clocks else mode.jetson_clocks
        return ModeStatus(mode.id, mode.name, mode.clocks, held, self._slowing)

    def look(self) -> tuple[str | None, str | None]:
        """Look again: what the mode has become, and what has begun or ended to throttle, as
        sentences; None for what is as before."""
        before, was_slowing = self.mode, self._slowing
        self.mode = read_mode(self._root)
        slowed = throttling(self._root)
        self._slowing = slowed.since(self._throttling)
        self._throttling = slowed
        self._looks += 1
        if self._looks % _FEEL_EVERY == 0:
            self._feel()
        changed = None
        if self.mode.key != before.key or self.mode.jetson_clocks != before.jetson_clocks:
            changed = f"the power mode changed from {_named(before)} to {_named(self.mode)}"
        if self._slowing == was_slowing:
            return changed, None
        return changed, "; ".join(self._slowing) or "nothing throttles the device any more"

    def _feel(self) -> None:
        nearest = headroom(read_zones(self._root))
        self.headroom = None if nearest is None else nearest.celsius


def _named(mode: PowerMode) -> str:
    return f"{mode.key} with jetson_clocks" if mode.jetson_clocks else mode.key
