"""TOML files, read into plain values."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from delen.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # the same library, by its earlier name


def read_toml(file: Path) -> dict[str, Any]:
    """What is in ``file``; ConfigError names it where it cannot be read."""
    try:
        document: dict[str, Any] = tomllib.loads(file.read_text("utf-8"))
        return document
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror or error}") from error
    except RecursionError:
        raise ConfigError(f"{file} is nested too deeply; it has sections of keys alone") from None
    except ValueError as error:  # neither UTF-8 nor TOML, or a name that no file can have
        raise ConfigError(f"{file} is not TOML: {error}") from error
