"""Where a client looks for the daemon, and where the daemon lies."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from delen.errors import DaemonUnreachable
from delen.sdk.address import (
    SYSTEM_SOCKET,
    TCP_URL,
    default_socket,
    default_state,
    describe_sockets,
    find_url,
    user_socket,
)
from delen.sdk.client import Client
from delen.sdk.connection import Connections
from tests.other_user import NOBODY, as_other_user, open_folder

FOLDERS = ("RUNTIME_DIRECTORY", "STATE_DIRECTORY", "XDG_RUNTIME_DIR", "XDG_STATE_HOME")


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """What stands for the system's socket, which is not there yet; nothing says where else."""
    monkeypatch.delenv("DELEN_URL", raising=False)
    for name in FOLDERS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("delen.sdk.address.SYSTEM_SOCKET", str(tmp_path / "system.sock"))
    return tmp_path / "system.sock"


@pytest.fixture
def listen() -> Iterator[Callable[[Path], None]]:
    """Makes somebody listen on a Unix socket."""
    with ExitStack() as opened:

        def listen(path: Path) -> None:
            server = opened.enter_context(socket.socket(socket.AF_UNIX))
            server.bind(str(path))
            server.listen()

        yield listen


Listen = Callable[[Path], None]


def leave_behind(path: Path) -> None:
    """The socket of a daemon that is gone."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def test_the_variable_then_the_sockets_then_tcp(
    system: Path, monkeypatch: pytest.MonkeyPatch, listen: Listen
) -> None:
    user = Path(user_socket())
    assert find_url() == TCP_URL == "http://127.0.0.1:8000"
    listen(user)
    assert find_url() == f"unix://{user}"
    listen(system)
    assert find_url() == f"unix://{system}"
    monkeypatch.setenv("DELEN_URL", "http://elsewhere:1")
    assert find_url() == "http://elsewhere:1"


def test_a_socket_of_another_user_is_passed_over(
    system: Path, monkeypatch: pytest.MonkeyPatch, listen: Listen
) -> None:
    listen(Path(user_socket()))
    if os.getuid() == 0:
        os.chown(user_socket(), NOBODY, -1)
    else:
        monkeypatch.setattr(os, "getuid", lambda: NOBODY)
    assert find_url() == TCP_URL


def test_a_socket_of_root_is_everybodys(
    system: Path, monkeypatch: pytest.MonkeyPatch, listen: Listen
) -> None:
    listen(Path(user_socket()))
    if os.getuid() != 0:
        pytest.skip("only root makes sockets of root's")
    monkeypatch.setattr(os, "getuid", lambda: NOBODY)
    assert find_url() == f"unix://{user_socket()}"


def test_the_systems_socket_may_be_of_a_user_that_systemd_made_up(
    system: Path, monkeypatch: pytest.MonkeyPatch, listen: Listen
) -> None:
    listen(system)
    if os.getuid() == 0:
        os.chown(system, NOBODY, -1)
    else:
        monkeypatch.setattr(os, "getuid", lambda: NOBODY)
    assert find_url() == f"unix://{system}"


def test_a_socket_that_nobody_listens_on_hides_no_daemon(system: Path, listen: Listen) -> None:
    leave_behind(system)
    assert find_url() == TCP_URL
    listen(Path(user_socket()))
    assert find_url() == f"unix://{user_socket()}"


def test_a_socket_that_may_not_be_opened_hides_no_daemon(
    monkeypatch: pytest.MonkeyPatch, listen: Listen
) -> None:
    monkeypatch.delenv("DELEN_URL", raising=False)
    with open_folder() as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
        monkeypatch.setattr("delen.sdk.address.SYSTEM_SOCKET", f"{folder}/system.sock")
        listen(folder / "system.sock")
        (folder / "system.sock").chmod(0o600 if os.getuid() == 0 else 0)
        with as_other_user():
            assert find_url() == TCP_URL
            assert "Permission denied" in describe_sockets()


def test_who_finds_no_daemon_is_told_where_it_was_looked_for(
    system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_behind(system)
    monkeypatch.setattr("delen.sdk.address.TCP_URL", "http://127.0.0.1:9")
    with Client() as client, pytest.raises(DaemonUnreachable) as caught:
        client.models()
    for place in ("http://127.0.0.1:9", f"unix://{system}", f"unix://{user_socket()}", "DELEN_URL"):
        assert place in str(caught.value)


def test_all_threads_that_missed_the_daemon_follow_the_one_that_found_it(
    system: Path, listen: Listen
) -> None:
    connections = Connections(lambda endpoint: None, None, 1.0, None)
    tried = connections.url
    assert not connections.look_again(tried)
    listen(system)
    assert connections.look_again(tried)
    assert connections.look_again(tried)
    assert connections.url == f"unix://{system}"


def test_systemds_folders_come_before_the_users(
    system: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert default_socket() == user_socket() == f"{tmp_path}/delen.sock"
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/delen:/run/other")
    assert default_socket() == SYSTEM_SOCKET == "/run/delen/delen.sock"
    monkeypatch.setenv("XDG_STATE_HOME", "/home/u/.state")
    assert default_state() == "/home/u/.state/delen"
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/delen:/var/lib/other")
    assert default_state() == "/var/lib/delen"
