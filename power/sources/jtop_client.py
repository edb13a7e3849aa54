"""jetson-stats' client, mended for a daemon. Imported only where a jtop server is to be read.

jetson-stats is under the AGPL-3.0: it is an optional extra, and nothing of it is copied here.
"""

from __future__ import annotations

import multiprocessing
import queue
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from delen.errors import MissingExtra, SensorAbsent, SensorDenied, SensorFailed

_start_method = multiprocessing.get_start_method(allow_none=True)
try:
    from jtop import JtopException, jtop
    from jtop.service import JtopManager
except ModuleNotFoundError as error:
    raise MissingExtra("jetson-stats", "jetson") from error
finally:
    # Its import makes every process of this one a fork, which is not its to decide.
    multiprocessing.set_start_method(_start_method, force=True)

_PATIENCE = 3.0
"""Seconds for the server to answer a new client. It reads the whole board once before it does."""
_SETTLING = 0.5
"""Seconds for a starting server to listen at its socket, and to let its group in."""
_PAUSE = 0.05
INSTALL = "install jetson-stats on the host and start it: sudo systemctl start jtop.service"


class JtopClient(jtop):
    """A client of the server at the socket ``pipe``, that keeps what it sent last."""

    def __init__(self, pipe: Path, interval: float) -> None:
        super().__init__(interval)
        self._broadcaster = _manager_at(pipe)
        self._arrived = threading.Condition()
        self._latest: tuple[float, Mapping[str, Any]] | None = None
        self._uptime: float | None = None
        self.all: tuple[float, Mapping[str, Any]] | None = None
        """When all that the server knows was last new (seconds, monotonic), and what it was."""
        self.attach(JtopClient._keep)

    def next(self, timeout: float) -> tuple[float, Mapping[str, Any]]:
        """What the server sent since the call before: when it came (seconds, monotonic), and
        ``jtop.power``. The first call is given nothing that the server had before it was asked.

        Raises SensorFailed when nothing new comes for ``timeout`` seconds, or the connection ends.
        """
        deadline = time.monotonic() + timeout
        with self._arrived:
            while self._latest is None:
                if not self.is_alive():
                    raise SensorFailed(f"the connection to jtop ended{self._reason()}", INSTALL)
                if time.monotonic() > deadline:
                    raise SensorFailed(
                        f"jtop has sent nothing new for {timeout:.2g} s",
                        "an invalid reading stops its server: journalctl -u jtop.service, "
                        "then sudo systemctl restart jtop.service",
                    )
                self._arrived.wait(_PAUSE)
            latest, self._latest = self._latest, None
            return latest

    def _keep(self) -> None:
        """Take what came, unless it is a repetition: the server sends its last figures for ever
        once its reading thread has died of a bad value, and only its uptime shows it."""
        with self._arrived:
            uptime = self._stats["uptime"]
            if self._uptime not in (None, uptime):
                now = time.monotonic()
                self._latest, self.all = (now, self.power), (now, self._stats)
                self._arrived.notify_all()
            self._uptime = uptime

    def _reason(self) -> str:
        try:
            self.ok(spin=True)
        except Exception as error:
            return f": {error!r}"
        return ""

    def _get_configuration(self) -> Any:
        """As the original, which asks for ever when nobody but itself takes from the queue."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            self._controller.put({"interval": self.interval_user})
            time.sleep(_PAUSE)  # the server is to take it, not this client
            try:
                answer = self._controller.get(True, _PAUSE)
            except queue.Empty:
                continue
            if "init" in answer:
                return answer["init"]
        raise JtopException("its server does not answer")

    def _load_jetson_libraries(self) -> None:
        """Not wanted: the original imports OpenCV into this process to report its version."""


def connect(pipe: Path, interval: float) -> JtopClient:
    """A started client at the server's own interval, which its first client chose.

    A client that requests less would consider the server dead. Raises SensorAbsent without a
    server at ``pipe``, SensorDenied where this user may not talk to it, SensorFailed otherwise.
    """
    began = time.monotonic()
    while True:
        client = JtopClient(pipe, interval)
        try:
            client.start()
        except (JtopException, OSError, EOFError) as error:
            problem = _translate(error, pipe)
            patience = _PATIENCE if isinstance(problem, SensorFailed) else _SETTLING
            if time.monotonic() > began + patience:
                raise problem from error
            time.sleep(_PAUSE)
            continue
        if client.interval == interval or client.interval <= 0:
            return client
        interval = client.interval
        client.close()


def _translate(error: BaseException, pipe: Path) -> SensorAbsent | SensorDenied | SensorFailed:
    cause = error.__context__ if isinstance(error, JtopException) else error
    if isinstance(cause, (FileNotFoundError, ConnectionRefusedError)):
        return SensorAbsent(f"no jtop server answers at {pipe}", INSTALL)
    if isinstance(cause, PermissionError):
        return SensorDenied(
            f"this user may not open {pipe}",
            "sudo usermod -aG jtop USER, for the user that runs the daemon, and log in again",
        )
    message = " ".join(str(error).split()) or repr(error)
    return SensorFailed(f"jtop at {pipe}: {message}", INSTALL)


def _manager_at(pipe: Path) -> Any:
    manager = JtopManager()
    manager._address = str(pipe)
    return manager
