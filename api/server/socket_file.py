"""The file of a Unix socket: who may connect, and what is left of a daemon that is gone."""

from __future__ import annotations

import grp
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from delen.errors import ConfigError


@dataclass(frozen=True, slots=True)
class SocketFile:
    """Where a Unix socket is bound. Its permissions are ``mode``, and its group is ``group``; the
    process's own where that is empty. Whoever may write to it may connect."""

    path: str
    mode: int = 0o660
    group: str = ""

    def bind(self) -> socket.socket | None:
        """A socket that is bound and does not listen yet; None where a daemon answers.

        A file that nobody answers on is left from a daemon that is gone, and replaced. ConfigError
        where it is something else, or the system refuses.
        """
        try:
            if self._is_taken():
                return None
            bound = socket.socket(socket.AF_UNIX)
            try:
                bound.bind(self.path)
                Path(self.path).chmod(self.mode)
                if self.group:
                    os.chown(self.path, -1, self._group_number())
            except BaseException:
                bound.close()
                raise
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"server.socket {self.path} cannot be made: {reason}") from error
        return bound

    def _is_taken(self) -> bool:
        """Whether a daemon answers; else the way is free."""
        file = Path(self.path)
        try:
            kind = file.lstat().st_mode
        except FileNotFoundError:
            if file.parent.is_dir():
                return False
            raise ConfigError(
                f"server.socket {self.path}: there is no folder {file.parent}"
            ) from None
        if not stat.S_ISSOCK(kind):
            raise ConfigError(f"server.socket {self.path} exists and is not a socket")
        try:
            if answers(self.path):
                return True
            file.unlink(missing_ok=True)
        except PermissionError as error:
            raise ConfigError(
                f"server.socket {self.path} is another user's: remove it if no daemon is there, or "
                "set another server.socket"
            ) from error
        return False

    def _group_number(self) -> int:
        try:
            number = grp.getgrnam(self.group).gr_gid
        except KeyError:
            raise ConfigError(
                f"server.socket_group {self.group!r}: there is no such group; groupadd makes it"
            ) from None
        if os.geteuid() != 0 and number not in (os.getegid(), *os.getgroups()):
            raise ConfigError(
                f"server.socket_group {self.group!r}: the daemon's user is not in this group"
            )
        return number


def answers(path: str) -> bool:
    """Whether somebody accepts connections at ``path``. PermissionError where this user may not
    ask."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except PermissionError:
            raise
        except OSError:
            return False
        return True
