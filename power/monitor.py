"""What ``GET /v1/power`` says: the source, and the latest reading taken off the request's path."""

from __future__ import annotations

from typing import Any

from power.source import PowerSource


class PowerMonitor:
    """Describes the power source of this machine, if it has one."""

    def __init__(self, source: PowerSource | None) -> None:
        self._source = source

    def describe(self) -> dict[str, Any]:
        """Watts in total and per rail, with their kind; all unknown without a source."""
        if self._source is None:
            return {"source": None, "scope": None, "kind": "unknown", "watts": None, "rails": {}}
        reading = self._source.read()
        return {
            "source": self._source.name,
            "scope": self._source.scope,
            "kind": self._source.kind,
            "watts": reading.total,
            "rails": dict(reading.rails),
        }

    def close(self) -> None:
        if self._source is not None:
            self._source.close()
