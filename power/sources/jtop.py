"""jtop: the readings of a jetson-stats server, for where its files are not this user's to read.

Optional extra ``jetson``; ``power.sources.jtop_client`` has what its client needs mended.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from delen.core.device_status import DeviceStatus
from delen.errors import DelenError, PowerError, SensorAbsent, SensorFailed
from power.board.jtop import device_of
from power.sources.boards import identify_board, total_of, total_rails
from power.sources.hwmon import INA238_RAIL
from power.sources.source import PowerReading

if TYPE_CHECKING:
    from power.sources.jtop_client import JtopClient

NAME = "jtop"
PIPE = "run/jtop.sock"
_FASTEST = 0.1
"""Seconds. A server reads all of its board each time, and has one interval for all its clients."""
_SILENCE = 5
"""Intervals without anything new after which the server is taken for dead, and the least time."""
_LEAST_SILENCE = 1.0
_OPENING = 8.0


class Jtop:
    """The rails that the jtop server at ``root/run/jtop.sock`` reports, and the board's own total.

    The server is asked for a reading every ``interval`` seconds (at least 0.1); where another
    client came first, that one's interval holds, and ``interval`` shows it. The total is that
    of the table of boards or of the ``configured`` rails, never the sum that jtop makes when the
    rail of the total is gone. A server that dies or stops reading is connected to anew by the
    next read.

    The constructor raises SensorAbsent without a server or without rails, SensorDenied where this
    user may not talk to it, PowerError where the board's total is not known, and MissingExtra
    where jetson-stats is not installed.
    """

    name = NAME
    kind: Literal["measured", "estimated"] = "measured"

    def __init__(
        self, root: Path, configured: Sequence[str] = (), interval: float = _FASTEST
    ) -> None:
        self._pipe = root / PIPE
        self._configured = tuple(configured)
        self._board = identify_board(root)
        self._counted = total_rails(self._board, configured)
        self._asked = max(interval, _FASTEST)
        self._opening: _Opening | None = None
        if not self._pipe.exists():
            raise SensorAbsent(
                f"there is no jtop server: {self._pipe} is missing",
                "install jetson-stats on the host and start it: sudo systemctl start jtop.service",
            )
        self._client: JtopClient | None = self._connect()
        self.interval: float = self._client.interval
        rails = _watts(self._client.power)
        if not rails:
            self.close()
            raise SensorAbsent("the jtop server reports no rail of this board")
        if not self._counted:
            self.close()
            raise PowerError(
                f"jtop reports the rails {', '.join(sorted(rails))}, but this board is not known",
                "name the rails whose sum is the total in power.total_rails",
            )

    @property
    def scope(self) -> str:
        return "carrier_input" if self._counted == (INA238_RAIL,) else "module_input"

    def read(self) -> PowerReading:
        """The first reading after the last one: waits for it, five intervals (1 s) at most."""
        if self._client is None:
            self._reconnect()
        assert self._client is not None
        try:
            when, power = self._client.next(self._patience)
        except SensorFailed:
            self.close()
            raise
        rails = _watts(power)
        return PowerReading(when, rails, total_of(rails, self._board, self._configured))

    def device(self) -> DeviceStatus:
        """Loads and clocks as the server last reported them."""
        client = self._client
        latest = None if client is None else client.all
        if latest is None or time.monotonic() > latest[0] + self._patience:
            return DeviceStatus()
        return device_of(latest[1])

    @property
    def _patience(self) -> float:
        return max(_LEAST_SILENCE, _SILENCE * self.interval)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _reconnect(self) -> None:
        try:
            self._client = self._connect()
        except PowerError as error:
            raise SensorFailed(f"the connection to jtop is lost: {error}", error.remedy) from error
        self.interval = self._client.interval

    def _connect(self) -> JtopClient:
        if self._opening is None:
            self._opening = _Opening(self._pipe, self._asked)
            self._opening.start()
        self._opening.join(_OPENING)
        if self._opening.is_alive():
            raise SensorFailed(
                f"jtop at {self._pipe} accepts connections but does not answer",
                "sudo systemctl restart jtop.service",
            )
        opening, self._opening = self._opening, None
        if opening.client is None:
            raise opening.problem or SensorFailed(f"jtop at {self._pipe} did not open")
        return opening.client


class _Opening(threading.Thread):
    """Connects in the background: against a server that hangs, that would block for ever."""

    def __init__(self, pipe: Path, interval: float) -> None:
        super().__init__(name="jtop-opening", daemon=True)
        self._pipe, self._interval = pipe, interval
        self.client: JtopClient | None = None
        self.problem: Exception | None = None

    def run(self) -> None:
        try:
            from power.sources.jtop_client import connect

            self.client = connect(self._pipe, self._interval)
        except DelenError as error:
            self.problem = error
        except Exception as error:  # jetson-stats' own, of whatever kind
            self.problem = SensorFailed(f"jtop at {self._pipe}: {error!r}")


def _watts(power: Mapping[str, Any]) -> dict[str, float]:
    """Watts of every rail that is there. The total is one of them only if it has a name."""
    rails = dict(power.get("rail", {}))
    total = power.get("tot", {})
    if "name" in total:
        rails[total["name"]] = total
    return {
        name: rail["power"] / 1e3
        for name, rail in rails.items()
        if rail.get("online", True) and "power" in rail
    }
