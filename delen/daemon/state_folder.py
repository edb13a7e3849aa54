"""The folder of the daemon's state: one daemon at a time has it, and nothing half written stays."""

from __future__ import annotations

import fcntl
import logging
import os
import re
from contextlib import suppress
from pathlib import Path

from delen.core.atomic_file import is_alive
from delen.errors import ConfigError

log = logging.getLogger("delen")

_UNFINISHED = re.compile(r"\..+\.unfinished-(?P<new>\d+)-\d+|.+\.(?P<old>\d+)\.tmp")
"""What a process that was killed leaves of a file that it wrote, by its own number."""


class StateFolder:
    """Holds ``path`` for this process until it is closed, or the process ends. ConfigError where
    another daemon has it. A folder that cannot be made or locked is held by nobody; what cannot be
    kept there is said by whoever would keep it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        with suppress(OSError):
            path.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        if self._descriptor is None:
            return
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise ConfigError(
                f"state.path {path}: another daemon keeps its state there; stop it, or set another "
                "state.path"
            ) from None
        except OSError as error:
            log.warning("state.path %s cannot be locked: %s", path, error)
            return
        self._clean()

    def close(self) -> None:
        """Let another daemon have the folder."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _clean(self) -> None:
        """Remove what processes that are gone have left unfinished."""
        for folder, _, names in os.walk(self._path):
            for name in names:
                found = _UNFINISHED.fullmatch(name)
                if found is None or _is_anothers(found["new"] or found["old"]):
                    continue
                with suppress(OSError):
                    Path(folder, name).unlink()
                    log.info("removed %s, which was never finished", Path(folder, name))


def _is_anothers(process: str) -> bool:
    """Whether ``process`` is alive and not this one, which has just begun: in a container each has
    the same number."""
    return int(process) != os.getpid() and is_alive(process)
