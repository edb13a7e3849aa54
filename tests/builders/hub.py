"""A hub, which is a process with a Ray of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.processes import family
from tests.builders.daemon import Answer, Api, clean_environment, wait_until

LEFT_SECONDS = 20.0


def write_config(file: Path, nodes: Mapping[str, str], **settings: Any) -> Path:
    """A hub's configuration for ``nodes``, URLs by name."""
    lines = ["[fleet]", *(f"{key} = {json.dumps(value)}" for key, value in settings.items())]
    for name, url in nodes.items():
        lines += ["[[fleet.nodes]]", f'name = "{name}"', f'url = "{url}"']
    file.write_text("\n".join(lines) + "\n")
    return file


def command(file: Path) -> list[str]:
    return [str(Path(sys.executable).parent / "delen-hub"), "--config", str(file)]


class Hub:
    """The hub of a configuration ``file``, from ``start`` on. Its log goes on after a restart."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._log = file.with_name("hub.log")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Hub:
        """Returns once its actors are there."""
        before = self.log().count("ready on")
        environment = clean_environment()
        environment.pop("RAY_ADDRESS", None)
        with self._log.open("ab") as log:
            process = subprocess.Popen(command(self._file), stderr=log, env=environment)
        self.process = process

        def is_ready() -> bool:
            assert process.poll() is None, f"the hub ended:\n{self.log()}"
            return self.log().count("ready on") > before

        wait_until(is_ready, "a hub that is ready")
        line = next(line for line in reversed(self.log().splitlines()) if "ready on" in line)
        self.api = Api(line.rpartition(" ")[2])
        return self

    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def route(self, **fields: Any) -> Answer:
        given = {"client": "camera", "model": "cifar", "fps": 10, "deadline_ms": 100}
        return self.api.as_json({**given, **fields}, "/v1/route")

    def nodes(self) -> dict[str, dict[str, Any]]:
        return {node["name"]: node for node in self.api.get("/v1/nodes").json()["nodes"]}

    def states(self) -> dict[str, str]:
        return {name: node["state"] for name, node in self.nodes().items()}

    def children(self) -> dict[int, str]:
        """Command lines of all processes below the hub."""
        assert self.process is not None
        found = family(self.process.pid)
        found.pop(self.process.pid)
        return found

    def kill_actor(self, kind: str) -> None:
        """SIGKILL the first actor whose class is named ``kind``."""
        pid = min(pid for pid, text in self.children().items() if text.startswith(f"ray::{kind}"))
        os.kill(pid, signal.SIGKILL)

    def kill(self) -> None:
        """SIGKILL: its Ray notices by itself."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        """SIGTERM, and the exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(LEFT_SECONDS)
