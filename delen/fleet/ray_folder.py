"""The folder of a Ray's sockets and logs, which is gone with its hub, or at the latest with the
next one."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

_PREFIX = "delen-hub-"


class RayFolder:
    """A new folder, locked by this process. Those that a dead hub left behind are removed."""

    def __init__(self) -> None:
        for old in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
            _remove_unlocked(old)
        self.path = tempfile.mkdtemp(prefix=_PREFIX)
        self._lock = _lock(self.path)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)


def _remove_unlocked(folder: Path) -> None:
    lock = _lock(str(folder))
    if lock is not None:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _lock(folder: str) -> int | None:
    """A lock that ends with this process; None where another one has it, or the folder is not
    ours."""
    try:
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return opened
    except OSError:
        os.close(opened)
        return None
