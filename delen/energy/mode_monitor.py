"""The state of the device itself: its power mode, its throttling, its temperature, its load."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from delen.core.device_status import DeviceStatus
from delen.core.energy_status import ModeStatus
from power.board.jtop import DeviceReporter, completed
from power.board.telemetry import Telemetry
from power.modes.modes import PowerMode, Throttling, read_mode, throttling
from power.modes.zone_monitor import ZoneMonitor
from power.sources.source import PowerSource


class ModeMonitor:
    """The device under ``root`` as it was at the last look. What no file shows is as the power
    ``source`` reports it, if it does."""

    def __init__(self, root: Path, source: PowerSource | None = None) -> None:
        self._root = root
        self._reporter = source if isinstance(source, DeviceReporter) else None
        self.mode: PowerMode = read_mode(root)
        self._throttling: Throttling = throttling(root)
        self._telemetry = Telemetry(root)
        self._slowing: tuple[str, ...] = self._throttling.now
        self.zones = ZoneMonitor(root)
        self.device = DeviceStatus()
        self._look_at_device()

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
        self.zones.look()
        self._look_at_device()
        changed = None
        if self.mode.key != before.key or self.mode.jetson_clocks != before.jetson_clocks:
            changed = f"the power mode changed from {_named(before)} to {_named(self.mode)}"
        if self._slowing == was_slowing:
            return changed, None
        return changed, "; ".join(self._slowing) or "nothing throttles the device any more"

    def _look_at_device(self) -> None:
        device = replace(self._telemetry.look(), zones=self.zones.zones)
        other = self._reporter
        self.device = device if other is None else completed(device, other.device())


def _named(mode: PowerMode) -> str:
    return f"{mode.key} with jetson_clocks" if mode.jetson_clocks else mode.key
