"""The configuration: one TOML file, overridden by ``DELEN_SECTION__KEY`` in the environment."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from delen.core.numbers import read_number, read_whole
from delen.core.toml_file import read_toml
from delen.daemon.settings import PREFIX, SETTINGS, Setting
from delen.errors import ConfigError

SYSTEM_FILE = Path("/etc/delen/delen.toml")
FILE_VARIABLE = "DELEN_CONFIG"

_DEFAULT, _ARGUMENT = "default", "argument"
"""Origins beside files and variables."""

_BY_NAME = {setting.name: setting for setting in SETTINGS}
_BY_ONE_UNDERSCORE = {setting.variable.replace("__", "_"): setting for setting in SETTINGS}
"""The likeliest slip, which would else be a variable of somebody else's."""


@dataclass(frozen=True, slots=True)
class Config:
    """Values in force by ``section.key``, and where each came from."""

    values: Mapping[str, Any]
    origins: Mapping[str, str]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def located(self, problem: str) -> str:
        """``problem``, a sentence that names keys, after the file or the variable that set the
        first of them that is not the default."""
        for name in re.findall(r"[a-z]+\.[a-z_]+", problem):
            origin = self.origins.get(name, _DEFAULT)
            if origin not in (_DEFAULT, _ARGUMENT):
                return f"{origin}: {problem}"
        return problem

    def to_toml(self) -> str:
        """A TOML file of all that is in force, each line with its origin."""
        lines: list[str] = []
        section = ""
        for setting in SETTINGS:
            if setting.section != section:
                section = setting.section
                lines += ["", f"[{section}]"] if lines else [f"[{section}]"]
            # JSON's strings are TOML's, but for surrogates (so none are made) and a raw DEL.
            text = json.dumps(self.values[setting.name], ensure_ascii=False)
            value = text.replace("\x7f", "\\u007f")
            lines.append(f"{setting.key} = {value}  # {self.origins[setting.name]}")
        return "\n".join(lines) + "\n"


def read_config(file: Path | None, environment: Mapping[str, str]) -> Config:
    """The configuration from ``file`` (else ``DELEN_CONFIG``, else the system's, if it exists).

    Raises ConfigError naming the file and key, or the variable, that is wrong.
    """
    values = {name: setting.default for name, setting in _BY_NAME.items()}
    origins = dict.fromkeys(values, _DEFAULT)
    chosen = file or (Path(named) if (named := environment.get(FILE_VARIABLE)) else None)
    if chosen is None and SYSTEM_FILE.is_file():
        chosen = SYSTEM_FILE
    if chosen is not None:
        for name, value in _read_file(chosen).items():
            values[name] = _checked(_BY_NAME[name], value, f"{chosen}: {name}")
            origins[name] = str(chosen)
    for variable, text in environment.items():
        if (meant := _BY_ONE_UNDERSCORE.get(variable)) is not None:
            raise ConfigError(f"unknown variable {variable}; write {meant.variable}")
        if variable.startswith(PREFIX) and "__" in variable:
            setting = _setting_of(variable)
            value = _parse_text(setting, text, variable)
            values[setting.name] = _checked(setting, value, variable)
            origins[setting.name] = variable
    return Config(values, origins)


def config_of(given: Mapping[str, Any]) -> Config:
    """The defaults with ``given`` values by ``section.key``, checked like a file's."""
    values = {name: setting.default for name, setting in _BY_NAME.items()}
    origins = dict.fromkeys(values, _DEFAULT)
    for name, value in given.items():
        values[name] = _checked(_BY_NAME[name], value, name)
        origins[name] = _ARGUMENT
    return Config(values, origins)


def _read_file(file: Path) -> dict[str, Any]:
    document = read_toml(file)
    found: dict[str, Any] = {}
    sections = {setting.section for setting in SETTINGS}
    for section, table in document.items():
        if section not in sections:
            known = ", ".join(sorted(sections))
            raise ConfigError(f"{file}: unknown section [{section}]; known: {known}")
        if not isinstance(table, dict):
            raise ConfigError(f"{file}: {section} must be a section, not {table!r}")
        for key, value in table.items():
            if f"{section}.{key}" not in _BY_NAME:
                known = ", ".join(s.key for s in SETTINGS if s.section == section)
                raise ConfigError(f"{file}: unknown key {section}.{key}; known: {known}")
            found[f"{section}.{key}"] = value
    return found


def _setting_of(variable: str) -> Setting:
    for setting in SETTINGS:
        if setting.variable == variable:
            return setting
    section = variable.removeprefix(PREFIX).partition("__")[0].lower()
    known = [s.variable for s in SETTINGS if s.section == section] or [
        f"{PREFIX}{s.upper()}__..." for s in dict.fromkeys(s.section for s in SETTINGS)
    ]
    raise ConfigError(f"unknown variable {variable}; known: {', '.join(known)}")


def _parse_text(setting: Setting, text: str, where: str) -> Any:
    if isinstance(setting.default, str):
        return text
    if isinstance(setting.default, bool):
        if text.lower() not in ("true", "false"):
            raise ConfigError(f"{where} must be {_kind(setting)}, not {text!r}")
        return text.lower() == "true"
    if isinstance(setting.default, list):
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        return read_whole(text) if isinstance(setting.default, int) else read_number(text)
    except ValueError:
        raise ConfigError(f"{where} must be {_kind(setting)}, not {text!r}") from None


def _kind(setting: Setting) -> str:
    kinds = {
        str: "a string",
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        list: "a list of strings",
    }
    return kinds[type(setting.default)]


def _checked(setting: Setting, value: Any, where: str) -> Any:
    kind: type = type(setting.default)
    if kind is float and type(value) is int:
        value = float(value)
    strings_alone = not isinstance(value, list) or all(isinstance(item, str) for item in value)
    if type(value) is not kind or not strings_alone:
        raise ConfigError(f"{where} must be {_kind(setting)}, not {value!r}")
    if (problem := setting.check(value)) is not None:
        raise ConfigError(f"{where} is {value!r}; it {problem}")
    return value
