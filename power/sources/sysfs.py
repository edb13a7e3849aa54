"""Numbers in files of the kernel, with errors that name the file and say what would help."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

from delen.errors import SensorAbsent, SensorDenied, SensorFailed

ReadFile = Callable[[Path], str]
"""Gives a file's content, or raises OSError as reading it does."""

_ABSENT = {errno.ENOENT, errno.ENOTDIR}
_DENIED = {errno.EACCES, errno.EPERM}
_NUMBER = re.compile(r"([+-]?[0-9]+)(?:\s*([A-Za-z]+))?")
_LONGEST_QUOTE = 40


_LARGEST_FILE = 2**18


def read_file(path: Path) -> str:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, _LARGEST_FILE).decode("ascii", "replace")
    finally:
        os.close(descriptor)


def read_text(path: Path, read: ReadFile = read_file) -> str:
    """The content of ``path`` without white space and NUL around it.

    Raises SensorAbsent where there is no such file, SensorDenied where it may not be read, and
    SensorFailed where reading it failed (the sensor does not answer, or is gone).
    """
    try:
        return read(path).strip("\0 \t\r\n")
    except OSError as error:
        if error.errno in _ABSENT:
            raise SensorAbsent(f"there is no {path}") from error
        if error.errno in _DENIED:
            raise SensorDenied(
                f"this user may not read {path}",
                f"let the daemon's user read {path}: with a udev rule, or chgrp and chmod g+r",
            ) from error
        reason = error.strerror or type(error).__name__
        raise SensorFailed(f"reading {path} failed: {reason}") from error


def read_number(path: Path, read: ReadFile = read_file, unit: str = "") -> int:
    """The whole number in ``path``, which may be followed by its ``unit`` as in ``32760 ma``.

    Raises what ``read_text`` raises, and SensorFailed where there is something else in the file, or
    another unit.
    """
    text = read_text(path, read)
    found = _NUMBER.fullmatch(text)
    if found is None:
        raise SensorFailed(f"{path} has {text[:_LONGEST_QUOTE]!r}, which is not a whole number")
    if found[2] and found[2].lower() != unit.lower():
        wanted = f"its unit is {unit}" if unit else "it has no unit"
        raise SensorFailed(f"{path} has {text[:_LONGEST_QUOTE]!r}, but {wanted}")
    return int(found[1])
