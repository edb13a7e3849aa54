"""``delen top`` of a real daemon, on a terminal and in a pipe."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from delen.commands.main import main

if TYPE_CHECKING:
    from tests.builders.daemon import Daemon


def test_in_a_pipe_it_prints_once(
    daemon: Daemon, images: NDArray[np.uint8], capsys: pytest.CaptureFixture[str]
) -> None:
    assert daemon.api.raw(images[0], tenant="watched").status == 200
    assert main(["top", "--url", daemon.url]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "watched" in shown and "cifar10-resnet: ready, default" in shown
    assert main(["top", "--json", "--url", daemon.url]) == 0
    assert json.loads(capsys.readouterr().out)["apps"]["watched"]["answers"] == 1


@contextmanager
def _ended_by(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """One that hangs is killed, so that reading what it shows ends."""
    timer = threading.Timer(60.0, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_on_a_terminal_it_goes_on_until_it_is_ended_and_leaves_the_screen_as_it_was(
    daemon: Daemon, environment: Callable[..., dict[str, str]], end: signal.Signals
) -> None:
    ours, theirs = pty.openpty()
    command = [str(Path(sys.executable).parent / "delen"), "top", "--interval", "50ms"]
    variables = environment(DELEN_URL=daemon.url, COLUMNS="40", LINES="12")
    with (
        subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, env=variables
        ) as process,
        _ended_by(process),
    ):
        os.close(theirs)
        shown = ""
        while shown.count("\x1b[H") < 3:
            shown += os.read(ours, 65_536).decode(errors="replace")
        process.send_signal(end)
        while not shown.endswith("\x1b[?1049l"):
            shown += os.read(ours, 65_536).decode(errors="replace")
        assert process.wait(60) == 0
        assert process.stderr is not None and process.stderr.read() == b""
    os.close(ours)
    assert shown.startswith("\x1b[?1049h") and "\x1b[?25h" in shown
    frame = shown.split("\x1b[H")[1]
    assert max(len(line.split("\x1b")[0]) for line in frame.splitlines()) <= 40
