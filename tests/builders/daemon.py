"""Daemons, each a process of its own, and requests to them."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import numpy as np
from numpy.typing import NDArray

from benchmarks.state import state_sharing

DEADLINE = 120.0
_URL = re.compile(r"(?:https?|unix|grpcs?)://[^\s\"]+")

Config = Mapping[str, Mapping[str, Any]]


def wait_until(holds: Callable[[], Any], what: str, deadline: float = DEADLINE) -> Any:
    """Ask again and again until ``holds`` gives something true, which is returned."""
    end = time.monotonic() + deadline
    while not (found := holds()):
        if time.monotonic() > end:
            raise AssertionError(f"after {deadline:g} s there is still not: {what}")
        time.sleep(0.02)
    return found


@dataclass(frozen=True)
class Answer:
    """What came back over HTTP."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def error(self, status: int, code: str) -> dict[str, Any]:
        """The error document, checked to be one of this status and code."""
        assert self.headers.get_content_type() == "application/json", self.body
        document: dict[str, Any] = self.json()
        assert (self.status, document["code"]) == (status, code), document
        assert document["error"].strip(), "the error says nothing"
        return document


class Api:
    """Requests to one daemon, each on a connection of its own."""

    def __init__(self, url: str) -> None:
        self.url = url

    def connect(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        if parts.scheme == "unix":
            return _UnixConnection(parts.path)
        assert parts.hostname is not None
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=DEADLINE)

    def socket(self) -> socket.socket:
        """A bare TCP connection, for what an HTTP library would not send."""
        parts = urlsplit(self.url)
        return socket.create_connection((parts.hostname, parts.port), timeout=DEADLINE)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, Any] | list[tuple[str, Any]] | None = None,
    ) -> Answer:
        sent = dict(headers or {})
        if content_type is None and body is None and method in ("POST", "PUT"):
            content_type = "application/json"  # which addresses that change something demand
        if content_type is not None:
            sent["Content-Type"] = content_type
        target = f"{path}?{urlencode(query)}" if query else path
        connection = self.connect()
        try:
            connection.request(method, target, body, sent)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def get(self, path: str, **arguments: Any) -> Answer:
        return self.request("GET", path, **arguments)

    def post(self, path: str, **arguments: Any) -> Answer:
        return self.request("POST", path, **arguments)

    def put(self, path: str, document: Any) -> Answer:
        """PUT ``document`` as JSON."""
        body = json.dumps(document).encode()
        return self.request("PUT", path, body=body, content_type="application/json")

    def raw(self, image: NDArray[np.uint8], path: str = "/v1/infer", **query: Any) -> Answer:
        """Infer one image as raw bytes, bounds and options in the query string."""
        return self.post(
            path, body=image.tobytes(), content_type="application/octet-stream", query=query
        )

    def as_json(self, document: Any, path: str = "/v1/infer") -> Answer:
        return self.post(path, body=json.dumps(document).encode(), content_type="application/json")

    def plan(self, **bounds: Any) -> dict[str, Any]:
        answer = self.post("/v1/plan", query=bounds)
        assert answer.status == 200, answer.body
        document: dict[str, Any] = answer.json()
        return document

    def deepest_useful(self) -> int:
        """The last exit that no earlier one matches in accuracy."""
        pareto = self.plan()["pareto"]
        return int(max(point["exit"] for point in pareto if not point["dominated"]))


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=DEADLINE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@dataclass
class Daemon:
    """A running daemon: its addresses, its log, its configuration file."""

    process: subprocess.Popen[bytes]
    config_file: Path
    log_file: Path
    config: dict[str, dict[str, Any]]
    url: str = ""
    unix_url: str | None = None
    grpc_url: str | None = None
    api: Api = field(init=False)

    def log(self) -> str:
        return self.log_file.read_text()

    def wait_for_log(self, text: str, times: int = 1) -> str:
        """The log once ``text`` has appeared in it ``times`` times."""

        def found() -> str:
            log = self.log()
            if log.count(text) < times and self.process.poll() is not None:
                raise AssertionError(f"the daemon ended without {text!r} in its log:\n{log}")
            return log if log.count(text) >= times else ""

        return str(wait_until(found, f"{text!r} in the log", DEADLINE))

    def configure(self, changes: Config) -> None:
        """Change the configuration file; SIGHUP makes the daemon read it."""
        for section, values in changes.items():
            self.config.setdefault(section, {}).update(values)
        self.config_file.write_text(to_toml(self.config))

    def reload(self) -> str:
        """Send SIGHUP and return what the daemon logged about it."""
        before = len(self.log())
        self.process.send_signal(signal.SIGHUP)
        wait_until(
            lambda: re.search(r"SIGHUP: (re|nothing re)loaded", self.log()[before:]),
            "the end of the reload in the log",
        )
        return self.log()[before:]

    def terminate(self) -> int:
        """SIGTERM, and the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE)


def to_toml(config: Config) -> str:
    return "\n".join(
        f"[{section}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
        for section, keys in config.items()
    )


def clean_environment(**more: str) -> dict[str, str]:
    """The environment without the variables that delen reads."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DELEN_")}
    return {**kept, **more}


class Launcher:
    """Starts daemons that share the profiles of one state folder, and ends them all at last."""

    def __init__(self, folder: Path, state: Path) -> None:
        self._folder = folder
        self.state = state
        self._count = 0
        self._started: list[Daemon] = []

    def _prepare(self, config: Config) -> tuple[Path, dict[str, dict[str, Any]]]:
        self._count += 1
        folder = self._folder / f"daemon{self._count}"
        folder.mkdir()
        whole: dict[str, dict[str, Any]] = {
            "server": {"port": 0, "socket": str(folder / "d.sock"), "grpc_port": -1},
            "state": {"path": str(state_sharing(self.state, folder / "state"))},
        }
        for section, values in config.items():
            whole.setdefault(section, {}).update(values)
        file = folder / "delen.toml"
        file.write_text(to_toml(whole))
        return file, whole

    @staticmethod
    def command(config_file: Path) -> list[str]:
        return [str(Path(sys.executable).parent / "delen-daemon"), "--config", str(config_file)]

    def launch(self, config: Config) -> Daemon:
        """A daemon that may not be ready yet, whose addresses are not known."""
        file, whole = self._prepare(config)
        log_file = file.with_name("log")
        with log_file.open("wb") as log:
            process = subprocess.Popen(
                self.command(file), stderr=log, env=clean_environment(), cwd=file.parent
            )
        daemon = Daemon(process, file, log_file, whole)
        self._started.append(daemon)
        return daemon

    def start(self, config: Config | None = None) -> Daemon:
        """A daemon that is ready; its addresses are those that its log names."""
        daemon = self.launch(config or {})
        line = next(
            line for line in daemon.wait_for_log("ready on").splitlines() if "ready on" in line
        )
        urls = _URL.findall(line)
        daemon.url = next(url for url in urls if url.startswith("http"))
        daemon.unix_url = next((url for url in urls if url.startswith("unix://")), None)
        daemon.grpc_url = next((url for url in urls if url.startswith("grpc")), None)
        daemon.api = Api(daemon.url)
        return daemon

    def refused(self, config: Config) -> subprocess.CompletedProcess[str]:
        """Run a daemon that does not start, to its end."""
        file, _ = self._prepare(config)
        return subprocess.run(
            self.command(file),
            env=clean_environment(),
            cwd=file.parent,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )

    def stop(self, daemon: Daemon) -> None:
        if daemon.process.poll() is None:
            daemon.process.terminate()
            try:
                daemon.process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                daemon.process.kill()
                daemon.process.wait()

    def stop_all(self) -> None:
        for daemon in self._started:
            if daemon.process.poll() is None:
                daemon.process.terminate()
        for daemon in self._started:
            self.stop(daemon)
