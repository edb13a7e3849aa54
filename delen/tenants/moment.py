"""When something was kept, and how long ago that is at the least, whatever the clock did meanwhile.

A board without a battery for its clock starts in 1970 and jumps once the network gives it the time.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

EARLIEST = 1_767_225_600.0
"""2026-01-01: delen did not exist before, so a clock that shows an earlier time is wrong."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Moment:
    """``wall`` is the time that the clock showed, in seconds since 1970. ``uptime`` are the seconds
    since the start of the machine, sleep included, and ``boot`` identifies this start; None where
    it is unknown."""

    wall: float
    boot: str | None = None
    uptime: float = 0.0

    def since(self, earlier: Moment) -> float:
        """Seconds that passed since ``earlier``; where the clocks do not say it, no more than
        certainly passed.

        Within one boot the uptime is exact. After another boot, at least the uptime has passed. The
        walls are compared only if both may be right, or both started wrong: a clock that starts
        again at the same wrong time shows too little, never too much.
        """
        if self.boot is not None and self.boot == earlier.boot:
            return max(0.0, self.uptime - earlier.uptime)
        is_other_boot = self.boot is not None and earlier.boot is not None
        passed = self.uptime if is_other_boot else 0.0
        if (self.wall < EARLIEST) == (earlier.wall < EARLIEST):
            passed = max(passed, self.wall - earlier.wall)
        return passed


def read_moment() -> Moment:
    """The present moment."""
    wall = time.time()
    try:
        boot = _BOOT_ID.read_text(encoding="ascii").strip()
        return Moment(wall, boot, time.clock_gettime(time.CLOCK_BOOTTIME))
    except (OSError, AttributeError):
        return Moment(wall)
