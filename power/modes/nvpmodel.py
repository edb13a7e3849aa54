"""The files of nvpmodel: the power modes a Jetson has, what each sets, and which is in force.

The format is described in the head of every ``/etc/nvpmodel.conf``: PARAM blocks name the file
of each argument, POWER_MODEL blocks give the arguments' values, PM_CONFIG the mode at first boot.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from delen.errors import PowerError, SensorAbsent
from power.sources.sysfs import read_number, read_text

CONF = "etc/nvpmodel.conf"
STATUS = "var/lib/nvpmodel/status"

_HEADER = re.compile(r"<\s*(\w+)([^>]*)>")
_ATTRIBUTE = re.compile(r"(\w+)\s*=\s*(\S+)")
_STATUS = re.compile(r"\bpmode:\s*(\d+)")
_ROUNDING = 1.01


@dataclass(frozen=True, slots=True)
class Setting:
    """One argument of a parameter as a mode sets it: ``GPU MAX_FREQ 624750000``."""

    parameter: str
    argument: str
    value: str

    @property
    def number(self) -> int | None:
        try:
            return int(self.value, 0)
        except ValueError:
            return None

    @property
    def gates(self) -> bool:
        """Whether it powers parts of the GPU on or off, which takes a reboot once the GPU has
        been used since the last one (nvpmodel: "Golden image context is already created")."""
        return self.parameter.endswith("POWER_GATING") or self.argument.endswith("PG_MASK")


@dataclass(frozen=True, slots=True)
class Model:
    """One power mode of the configuration."""

    id: int
    name: str
    settings: tuple[Setting, ...]

    @property
    def gating(self) -> dict[tuple[str, str], str | int]:
        return {
            (setting.parameter, setting.argument): (
                setting.value if setting.number is None else setting.number
            )
            for setting in self.settings
            if setting.gates
        }

    @property
    def pins_clocks(self) -> bool:
        """Whether the mode itself holds a clock at one frequency, as jetson_clocks does."""
        least = {s.parameter: s.number for s in self.settings if s.argument == "MIN_FREQ"}
        most = {s.parameter: s.number for s in self.settings if s.argument == "MAX_FREQ"}
        return any(value and most.get(name) == value for name, value in least.items())


@dataclass(frozen=True, slots=True)
class Conf:
    """All modes, the id of the one at first boot, and the file of each (parameter, argument)."""

    models: tuple[Model, ...]
    default: int | None
    paths: Mapping[tuple[str, str], str]

    def model(self, mode: int | None) -> Model | None:
        return next((model for model in self.models if model.id == mode), None)


def read_conf(root: Path) -> Conf | None:
    """The configuration under ``root``; None where there is none that names a mode."""
    try:
        text = read_text(_inside(root, root / CONF))
    except PowerError:
        return None
    conf = parse_conf(text)
    return conf if conf.models else None


def mode_in_force(root: Path, conf: Conf) -> int | None:
    """The id of the mode that nvpmodel set last, the default one before it has set any; None
    where its status cannot be read."""
    try:
        found = _STATUS.search(read_text(root / STATUS))
    except SensorAbsent:
        return conf.default
    except PowerError:
        return None
    return int(found.group(1)) if found else None


def parse_conf(text: str) -> Conf:
    """The modes in ``text``. Lines and blocks of unknown form are passed over."""
    models: list[Model] = []
    paths: dict[tuple[str, str], str] = {}
    default: int | None = None
    block, parameter = "", ""
    for line in text.splitlines():
        line = line.partition("#")[0].strip()
        header = _HEADER.match(line)
        words = line.split()
        if header:
            block = header.group(1)
            attributes = dict(_ATTRIBUTE.findall(header.group(2)))
            parameter = attributes.get("NAME", "")
            if block == "POWER_MODEL" and attributes.get("ID", "").isdigit():
                models.append(Model(int(attributes["ID"]), parameter, ()))
            elif block == "PM_CONFIG" and attributes.get("DEFAULT", "").isdigit():
                default = int(attributes["DEFAULT"])
        elif block == "PARAM" and len(words) == 2:
            paths[parameter, words[0]] = words[1]
        elif block == "POWER_MODEL" and len(words) == 3 and models:
            latest = models[-1]
            models[-1] = Model(latest.id, latest.name, (*latest.settings, Setting(*words)))
    return Conf(tuple(models), default, paths)


def not_in_force(root: Path, conf: Conf, model: Model) -> str | None:
    """The first setting of ``model`` that the device does not show, None if there is none.

    Compared are the cores and the highest clocks, where their files can be read: in a container
    nvpmodel may write its status without being able to set anything.
    """
    for setting in model.settings:
        wanted = setting.number
        shown = _shown(root, conf, setting)
        if wanted is None or shown is None:
            continue
        core_differs = setting.parameter == "CPU_ONLINE" and shown != wanted
        capped = setting.argument == "MAX_FREQ" and wanted > 0
        if core_differs or (capped and shown > wanted * _ROUNDING):
            return f"{setting.parameter} {setting.argument} is {shown:g} instead of {wanted}"
    return None


def number_or_none(path: Path) -> float | None:
    """The number in a file; None where it cannot be read."""
    try:
        return read_number(path)
    except PowerError:
        return None


def _shown(root: Path, conf: Conf, setting: Setting) -> float | None:
    for argument in (f"{setting.argument}_KNEXT", setting.argument):  # KNEXT: since Linux 5.10
        path = conf.paths.get((setting.parameter, argument))
        shown = None if path is None else number_or_none(root / path.lstrip("/"))
        if shown is not None:
            return shown
    return None


def _inside(root: Path, path: Path) -> Path:
    """``path``, its link followed as if ``root`` were ``/``: the file is a link to the board's."""
    if not path.is_symlink():
        return path
    target = path.readlink()
    return root / target.relative_to("/") if target.is_absolute() else path
