"""Where the daemon and its clients meet, and where state is kept, by default."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

from delen.errors import InvalidInput

URL_VARIABLE = "DELEN_URL"
SYSTEM_SOCKET = "/run/delen/delen.sock"
TCP_URL = "http://127.0.0.1:8000"
HUB_SCHEME = "hub://"


def find_url() -> str:
    """Where the daemon is: ``DELEN_URL``, else the first socket that somebody listens on, the
    system's before the user's, else TCP."""
    return os.environ.get(URL_VARIABLE) or find_socket() or TCP_URL


def given_url(url: str | None) -> str:
    """The address that a client is given, or ``DELEN_URL``; empty where neither says any."""
    if url is not None and not isinstance(url, str):
        wanted = "http://HOST:PORT, https://HOST:PORT, unix:///PATH or hub://HOST:PORT"
        raise InvalidInput(f"url is {url!r}; it must be {wanted}", "url")
    return url or os.environ.get(URL_VARIABLE, "")


def find_socket() -> str | None:
    """The URL of the first socket that somebody listens on; None where nobody does."""
    for path in (SYSTEM_SOCKET, user_socket()):
        if _problem(path) is None:
            return f"unix://{path}"
    return None


def describe_sockets() -> str:
    """Each of the sockets that ``find_url`` tries, and what is wrong with it."""
    problems = {path: _problem(path) for path in (SYSTEM_SOCKET, user_socket())}
    return "; ".join(f"unix://{path}: {why or 'answers now'}" for path, why in problems.items())


def _problem(path: str) -> str | None:
    """Why ``path`` is passed over, if it is.

    Anyone may put a file into the temp directory, so the user's socket must be the user's own or
    root's. Only root puts folders into ``/run``, so the system's may be any user's: systemd makes
    up a user for the daemon.
    """
    try:
        owner = Path(path).stat().st_uid
    except OSError as error:
        return error.strerror or str(error)
    if path != SYSTEM_SOCKET and owner not in (0, os.getuid()):
        return "it is another user's"
    return connect_problem(path)


def connect_problem(path: str) -> str | None:
    """Why the Unix socket ``path`` accepts no connection; None if it does, at once or when the
    daemon gets round to it."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except BlockingIOError:
            return None
        except OSError as error:
            return error.strerror or str(error)
    return None


def is_hub(url: str) -> bool:
    """Whether ``url`` is of a hub."""
    return url.startswith(HUB_SCHEME)


def unix_path(url: str) -> str | None:
    """The socket that ``url`` names, if it names one."""
    return url.removeprefix("unix://") if url.startswith("unix://") else None


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
