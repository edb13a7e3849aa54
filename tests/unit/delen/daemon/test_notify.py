"""What systemd is told, on a real socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from delen.daemon.notify import Notifier


@pytest.fixture(params=["a path", "an abstract name"])
def supervisor(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[str, socket.socket]]:
    """What NOTIFY_SOCKET has, and the socket that is there."""
    is_path = request.param == "a path"
    address = str(tmp_path / "notify") if is_path else f"@delen-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(address if is_path else f"\0{address[1:]}")
        listening.settimeout(10.0)
        yield address, listening


def test_each_message_is_as_systemd_reads_it(supervisor: tuple[str, socket.socket]) -> None:
    address, listening = supervisor
    environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "4000000", "PATH": "/bin"}
    notifier = Notifier(environment)
    assert environment == {"PATH": "/bin"}, "no child may speak for the daemon"
    assert notifier.feeds_every == 2.0

    def heard() -> list[str]:
        return listening.recv(4096).decode().split("\n")

    notifier.starting("loading a")
    extended, status = heard()
    assert extended.startswith("EXTEND_TIMEOUT_USEC=")
    assert status == "STATUS=loading a"
    notifier.ready("ready on\nhttp://h")
    assert heard() == ["READY=1", "STATUS=ready on http://h"]
    notifier.reloading()
    reloading, moment = heard()
    assert (reloading, moment.partition("=")[0]) == ("RELOADING=1", "MONOTONIC_USEC")
    notifier.ready("ready on http://h")
    assert heard() == ["READY=1", "STATUS=ready on http://h"]
    notifier.status("ready on http://h")
    notifier.feed()
    assert heard() == ["WATCHDOG=1"], "a status that is no news is not sent"
    notifier.stopping("bye")
    assert heard() == ["STOPPING=1", "STATUS=bye"]


def test_without_a_supervisor_nothing_is_sent() -> None:
    notifier = Notifier({})
    notifier.ready("ready")
    notifier.feed()
    assert notifier.feeds_every is None


def test_another_processes_watchdog_is_not_fed() -> None:
    assert Notifier({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}).feeds_every is None


def test_a_supervisor_that_is_gone_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready("ready")
    assert "gone" in caplog.text
