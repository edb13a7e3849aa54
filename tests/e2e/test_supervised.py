"""A daemon that is started as systemd starts one: it says how it goes, and is watched."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.builders.daemon import DEADLINE, Api, clean_environment, to_toml
from tests.e2e.test_failures import HANGS

if TYPE_CHECKING:
    from tests.builders.daemon import Launcher

TINY_IMAGE = np.zeros((4, 4, 1), np.uint8)


class Supervisor:
    """Hears what a daemon says to NOTIFY_SOCKET."""

    def __init__(self, folder: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(folder / "notify"))
        self.environment = {"NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": "2000000"}

    def wait_for(self, wanted: str) -> str:
        """The next message that has ``wanted`` in it."""
        self._socket.settimeout(DEADLINE)
        while wanted not in (heard := self._socket.recv(4096).decode()):
            pass
        return heard

    def is_fed(self, seconds: float) -> bool:
        """Whether the watchdog is fed within ``seconds``."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                if "WATCHDOG=1" in self._socket.recv(4096).decode():
                    return True
            except TimeoutError:
                return False
        return False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    supervisor = Supervisor(tmp_path)
    yield supervisor
    supervisor.close()


@pytest.fixture
def start(
    launcher: Launcher, tmp_path: Path, supervisor: Supervisor, tiny_bundle: Path
) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts the daemon with a tiny model, at the socket ``d.sock``."""
    started = []

    def start(**sections: Any) -> subprocess.Popen[bytes]:
        server = {"port": 0, "grpc_port": -1, "socket": str(tmp_path / "d.sock")}
        models = {"path": str(tiny_bundle.parent), "default": "tiny", "load": ["tiny"]}
        state = {"path": str(tmp_path / "state")}
        config = {"server": server, "models": models, "state": state, **sections}
        file = tmp_path / "delen.toml"
        file.write_text(to_toml(config))
        environment = clean_environment(**supervisor.environment)
        started.append(subprocess.Popen(launcher.command(file), env=environment))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_daemon_says_how_it_goes(
    supervisor: Supervisor, start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    process = start()
    assert "EXTEND_TIMEOUT_USEC" in supervisor.wait_for("STATUS=")
    assert "ready on http://127.0.0.1:" in supervisor.wait_for("READY=1")
    for _ in range(3):
        assert supervisor.is_fed(DEADLINE), "an idle engine is a sound one"
    process.send_signal(signal.SIGHUP)
    supervisor.wait_for("RELOADING=1\nMONOTONIC_USEC=")
    supervisor.wait_for("READY=1")
    process.terminate()
    supervisor.wait_for("STOPPING=1")
    assert process.wait(DEADLINE) == 0


def test_a_daemon_that_is_stuck_does_not_feed_its_watchdog(
    supervisor: Supervisor,
    start: Callable[..., subprocess.Popen[bytes]],
    install: Callable[..., None],
    tmp_path: Path,
) -> None:
    install("delen.dispatch_policies", HANGS, hangs="Hangs")
    process = start(policies={"dispatch": "hangs"})
    supervisor.wait_for("READY=1")
    api = Api(f"unix://{tmp_path / 'd.sock'}")
    with ThreadPoolExecutor(1) as clients:
        clients.submit(api.raw, TINY_IMAGE)
        assert "has not returned" in supervisor.wait_for("STATUS=the dispatch policy")
        assert not supervisor.is_fed(3.0)
        process.kill()
