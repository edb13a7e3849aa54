"""A daemon that is started with sockets that already listen, as systemd starts it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.builders.daemon import Api, clean_environment, wait_until

if TYPE_CHECKING:
    from tests.builders.daemon import Launcher

PASS = """
import os, sys
sockets = [os.dup(int(number)) for number in sys.argv[1].split(",")]
held = [os.dup2(each, 50 + place) for place, each in enumerate(sockets)]
for place, each in enumerate(held):
    os.dup2(each, 3 + place)
    os.close(each)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(held)), LISTEN_FDNAMES="a:b")
os.execv(sys.argv[2], sys.argv[2:])
"""


@contextmanager
def activated(
    launcher: Launcher, folder: Path, sockets: list[socket.socket]
) -> Iterator[subprocess.Popen[bytes]]:
    numbers = ",".join(str(each.fileno()) for each in sockets)
    daemon = str(Path(sys.executable).parent / "delen-daemon")
    own = {"DELEN_SERVER__SOCKET": str(folder / "own.sock"), "DELEN_SERVER__PORT": "0"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", PASS, numbers, daemon],
            pass_fds=[each.fileno() for each in sockets],
            env=clean_environment(DELEN_STATE__PATH=str(folder / "state"), **own),
            cwd=folder,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def listening(family: socket.AddressFamily, address: object) -> socket.socket:
    made = socket.socket(family)
    made.bind(address)
    made.listen(16)
    return made


def test_passed_sockets_are_used_and_clients_wait_for_the_start(
    launcher: Launcher, tmp_path: Path
) -> None:
    path = str(tmp_path / "passed.sock")
    with ExitStack() as opened:
        tcp = opened.enter_context(listening(socket.AF_INET, ("127.0.0.1", 0)))
        unix = opened.enter_context(listening(socket.AF_UNIX, path))
        apis = Api(f"http://127.0.0.1:{tcp.getsockname()[1]}"), Api(f"unix://{path}")
        for _ in range(2):  # and it is no less able to start again
            with activated(launcher, tmp_path, [tcp, unix]) as process:
                for api in apis:
                    assert api.get("/healthz").status == 200
                ready = (tmp_path / "log").read_text()
                assert f"ready on {apis[0].url} and {apis[1].url}" in ready
                assert not (tmp_path / "own.sock").exists()
                process.terminate()
                assert process.wait(60) == 0
            assert Path(path).exists(), "whoever made the socket removes it"


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_what_does_not_listen_is_refused(
    launcher: Launcher, tmp_path: Path, kind: socket.SocketKind
) -> None:
    with (
        socket.socket(socket.AF_INET, kind) as wrong,
        activated(launcher, tmp_path, [wrong]) as process,
    ):
        assert wait_until(lambda: process.poll() is not None, "it ends")
        assert process.returncode == 2
        assert "LISTEN_FDS: descriptor 3" in (tmp_path / "log").read_text()


def test_sockets_that_were_passed_to_another_process_are_left_alone(launcher: Launcher) -> None:
    os.environ.update(LISTEN_PID="1", LISTEN_FDS="1")
    try:
        daemon = launcher.start()
        assert daemon.api.get("/healthz").status == 200
        launcher.stop(daemon)
    finally:
        del os.environ["LISTEN_PID"], os.environ["LISTEN_FDS"]
