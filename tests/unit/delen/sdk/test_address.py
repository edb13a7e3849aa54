"""Where a client looks for the daemon, and where the daemon lies."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from delen.sdk.address import SYSTEM_SOCKET, TCP_URL, default_socket, default_state, user_socket
from delen.sdk.address import find_url
from tests.other_user import NOBODY

FOLDERS = ("RUNTIME_DIRECTORY", "STATE_DIRECTORY", "XDG_RUNTIME_DIR", "XDG_STATE_HOME")


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """What stands for the system's socket, which is not there yet; nothing says where else."""
    monkeypatch.delenv("DELEN_URL", raising=False)
    for name in FOLDERS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("delen.sdk.requests.SYSTEM_SOCKET", str(tmp_path / "system.sock"))
    return tmp_path / "system.sock"


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def test_the_variable_then_the_sockets_then_tcp(
    system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = Path(user_socket())
    assert find_url() == TCP_URL == "http://127.0.0.1:8000"
    bind(user)
    assert find_url() == f"unix://{user}"
    bind(system)
    assert find_url() == f"unix://{system}"
    monkeypatch.setenv("DELEN_URL", "http://elsewhere:1")
    assert find_url() == "http://elsewhere:1"


def test_a_socket_of_another_user_is_passed_over(
    system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bind(Path(user_socket()))
    if os.getuid() == 0:
        os.chown(user_socket(), NOBODY, -1)
    else:
        monkeypatch.setattr(os, "getuid", lambda: NOBODY)
    assert find_url() == TCP_URL


def test_a_socket_of_root_is_everybodys(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bind(system)
    if os.getuid() != 0:
        pytest.skip("only root makes sockets of root's")
    monkeypatch.setattr(os, "getuid", lambda: NOBODY)
    assert find_url() == f"unix://{system}"


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
