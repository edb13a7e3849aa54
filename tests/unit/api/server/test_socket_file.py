"""The file of a Unix socket: whose it is, and who may connect."""

from __future__ import annotations

import grp
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.server.socket_file import SocketFile
from delen.errors import ConfigError
from tests.other_user import as_other_user, open_folder


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder in which every user may make files, and remove only its own."""
    with open_folder() as folder:
        folder.chmod(0o1777)
        yield folder


def _leave_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))


def test_group_and_mode_say_who_may_connect(tmp_path: Path) -> None:
    group = grp.getgrgid(os.getegid()).gr_name
    bound = SocketFile(str(tmp_path / "d.sock"), 0o640, group).bind()
    assert bound is not None
    with bound:
        found = (tmp_path / "d.sock").stat()
        assert (stat.S_IMODE(found.st_mode), found.st_gid) == (0o640, os.getegid())


def test_a_socket_is_for_its_user_and_group_by_default(tmp_path: Path) -> None:
    bound = SocketFile(str(tmp_path / "d.sock")).bind()
    assert bound is not None
    with bound:
        assert stat.S_IMODE((tmp_path / "d.sock").stat().st_mode) == 0o660


def test_a_group_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"server\.socket_group 'no-such-group'"):
        SocketFile(str(tmp_path / "d.sock"), 0o660, "no-such-group").bind()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for two users")
def test_the_socket_that_another_user_left_is_named(shared: Path) -> None:
    _leave_socket(shared / "d.sock")
    with as_other_user(), pytest.raises(ConfigError, match=r"server\.socket .*d\.sock"):
        SocketFile(str(shared / "d.sock")).bind()


def test_what_was_left_by_the_same_user_is_replaced(tmp_path: Path) -> None:
    _leave_socket(tmp_path / "d.sock")
    bound = SocketFile(str(tmp_path / "d.sock")).bind()
    assert bound is not None
    bound.close()
