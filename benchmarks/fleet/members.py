"""Daemons and a hub, each a process that may be killed and is started again where it was."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from benchmarks.state import state_sharing, wait_measured

MODEL = "cifar10-resnet"
HUB = "hub"
_START_SECONDS = 120.0
_STOP_SECONDS = 30.0
_POLL = 0.05


@dataclass(frozen=True, slots=True)
class Address:
    """Where a member listens."""

    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @classmethod
    def here(cls) -> Address:
        """A free port of this machine."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            return cls("127.0.0.1", free.getsockname()[1])


class Member:
    """One process of a site. ``before`` is what starts the command elsewhere."""

    def __init__(
        self,
        name: str,
        address: Address,
        command: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        before: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.address = address
        self._command = [*before, *command]
        self._environment = {**os.environ, **environment}
        self._log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=log
            )

    def kill(self) -> None:
        """End it as a power cut would, without a last word."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def check(self) -> None:
        """RuntimeError where it ended by itself."""
        if self._process is not None and (status := self._process.poll()) is not None:
            raise RuntimeError(f"{self.name} ended with status {status}:\n{self.log}")

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def make_daemon(
    name: str, address: Address, state: Path, folder: Path, before: Sequence[str] = ()
) -> Member:
    """A daemon of the shipped models, whose profiles are under ``state``."""
    named = {
        "DELEN_SERVER__HOST": address.host,
        "DELEN_SERVER__INSECURE": "true",
        "DELEN_SERVER__PORT": str(address.port),
        "DELEN_SERVER__SOCKET": "",
        "DELEN_SERVER__GRPC_PORT": "-1",
        "DELEN_STATE__PATH": str(state_sharing(state, folder / f"{name}-state")),
    }
    return Member(name, address, [_script("delen-daemon")], named, folder, before)


def make_hub(address: Address, nodes: Sequence[Member], folder: Path) -> Member:
    """The hub of ``nodes``."""
    config = folder / "hub.toml"
    tables = [f'[fleet]\nhost = "{address.host}"\nport = {address.port}\ninsecure = true\n']
    tables += [
        f'[[fleet.nodes]]\nname = "{node.name}"\nurl = "{node.address.url}"\n' for node in nodes
    ]
    config.write_text("\n".join(tables))
    return Member(HUB, address, [_script("delen-hub"), "--config", str(config)], {}, folder)


def wait_ready(daemon: Member) -> None:
    """Wait until it serves, by a measured profile. RuntimeError where it ends first."""
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        daemon.check()
        with suppress(OSError), urlopen(f"{daemon.address.url}/readyz", timeout=1.0):
            wait_measured(daemon.address.url)
            return
        time.sleep(_POLL)
    raise RuntimeError(f"{daemon.name} is not ready after {_START_SECONDS:g} s:\n{daemon.log}")


def wait_up(hub: Member, nodes: Sequence[Member]) -> None:
    """Wait until the hub has a standing of every node. RuntimeError where a member ends first."""
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        for member in (hub, *nodes):
            member.check()
        with suppress(OSError), urlopen(f"{hub.address.url}/v1/nodes", timeout=1.0) as answer:
            said = json.load(answer)["nodes"]
            if all(node["state"] == "up" and MODEL in node["models"] for node in said):
                return
        time.sleep(_POLL)
    raise RuntimeError(f"the site is not up after {_START_SECONDS:g} s:\n{hub.log}")


def _script(name: str) -> str:
    return str(Path(sys.executable).with_name(name))
