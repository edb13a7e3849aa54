"""Where the daemon and its clients meet, and where state is kept, by default."""

from __future__ import annotations

import os
import tempfile

SYSTEM_SOCKET = "/run/delen/delen.sock"
TCP_URL = "http://127.0.0.1:8000"


def user_socket() -> str:
    """The Unix socket of a daemon that a user runs."""
    folder = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    return os.path.join(folder, "delen.sock")


def default_socket() -> str:
    """Where the daemon listens: in its runtime directory under systemd, else the user's place."""
    runtime = os.environ.get("RUNTIME_DIRECTORY")
    return os.path.join(runtime.split(":")[0], "delen.sock") if runtime else user_socket()


def default_state() -> str:
    """Where profiles are kept: systemd's state directory, else the user's."""
    directory = os.environ.get("STATE_DIRECTORY")
    if directory:
        return directory.split(":")[0]
    home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(home, "delen")
