"""Fans: the speed that they are given, and how fast they turn."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from delen.core.device_status import FanStatus
from delen.errors import PowerError
from power.board.names import distinct
from power.modes.nvpmodel import number_or_none
from power.sources.sysfs import read_text

_HWMON = "sys/class/hwmon/hwmon*"
_JETPACK_4 = "sys/devices/pwm-fan"
_PWM = re.compile(r"pwm(\d+)")
_RPM = re.compile(r"fan(\d+)_input|rpm")
_FULL = 255


@dataclass(frozen=True, slots=True)
class Fan:
    """Where a fan's speed (None: nowhere) and its turns are to be read."""

    name: str
    pwm: Path | None
    rpm: Path | None

    def look(self) -> FanStatus | None:
        """None where neither can be read."""
        pwm = None if self.pwm is None else number_or_none(self.pwm)
        rpm = None if self.rpm is None else number_or_none(self.rpm)
        speed = pwm / _FULL if pwm is not None and 0 <= pwm <= _FULL else None
        rpm = rpm if rpm is not None and rpm >= 0 else None
        return None if speed is None and rpm is None else FanStatus(self.name, speed, rpm)


def find_fans(root: Path) -> list[Fan]:
    """The fans of the device under ``root``, with different names.

    A Jetson's only fan may be two devices, one that sets its speed and one that counts its turns.
    """
    found = [fan for folder in sorted(root.glob(_HWMON)) for fan in _of_chip(folder)]
    names = distinct([fan.name for fan, _ in found], [place for _, place in found])
    fans = [replace(fan, name=name) for (fan, _), name in zip(found, names, strict=True)]
    old = root / _JETPACK_4
    if not fans and old.is_dir():
        files = (old / "cur_pwm", old / "target_pwm")
        pwm = next((path for path in files if path.exists()), None)
        return [Fan("pwm-fan", pwm, old / "rpm_measured")]
    if len(fans) == 2:
        given, counted = sorted(fans, key=lambda fan: fan.pwm is None)
        if given.rpm is None and counted.pwm is None:
            return [Fan(given.name, given.pwm, counted.rpm)]
    return fans


def _of_chip(folder: Path) -> list[tuple[Fan, str]]:
    """The fans of a chip, named as it is, and the place of each."""
    try:
        chip = read_text(folder / "name")
        files = sorted(path.name for path in folder.iterdir())
    except (PowerError, OSError):
        return []
    pwm = {found[1]: folder / found[0] for name in files if (found := _PWM.fullmatch(name))}
    rpm = {found[1] or "1": folder / found[0] for name in files if (found := _RPM.fullmatch(name))}
    numbers = sorted({*pwm, *rpm}, key=int)
    return [
        (Fan(chip, pwm.get(number), rpm.get(number)), f"{folder.name}/{number}")
        for number in numbers
    ]
