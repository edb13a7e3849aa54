"""A daemon under a supervisor that does as the shipped unit of systemd: it holds the listening
socket, and starts the daemon again half a second after it ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

RESTARTS_AFTER = 0.5
"""Seconds, as RestartSec of the unit."""
_BACKLOG = 1024
_ACTIVATE = 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" 3<&{number}'
_STOPS = 30.0


class Supervised:
    """Used with ``with``. ``log`` is of all daemons, one after the other."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        self.starts = 0
        self._environment = dict(environment)
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
        self._is_over = threading.Event()
        self._started = threading.Condition()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._supervise, daemon=True)

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._socket.getsockname()
        return host, port

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End the daemon that runs now by this signal; the next one follows."""
        before = self.starts
        self.signal(number)
        self.wait_for_start(before)

    def wait_for_start(self, before: int) -> None:
        """Until a daemon was started after ``before`` starts."""
        with self._started:
            if not self._started.wait_for(lambda: self.starts > before, _STOPS):
                raise RuntimeError("the daemon has not ended")

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def __enter__(self) -> Supervised:
        self._thread.start()
        self.wait_for_start(0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over.set()
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(_STOPS)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._thread.join()
        self._socket.close()

    def _supervise(self) -> None:
        number = self._socket.fileno()
        daemon = str(Path(sys.executable).with_name("delen-daemon"))
        while not self._is_over.is_set():
            with self._started, self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    ["/bin/sh", "-c", _ACTIVATE.format(number=number), daemon],
                    pass_fds=[number],
                    env=self._environment,
                    stderr=log,
                )
                self.starts += 1
                self._started.notify_all()
            self._process.wait()
            self._is_over.wait(RESTARTS_AFTER)


def descriptors(pid: int) -> int:
    """How many files the process has open."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def shared_memory(pid: int) -> int:
    """How many files of memory the process has mapped."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    return sum("/memfd:" in line or "/dev/shm/" in line for line in maps.splitlines())
