"""What the comparison knows of a server, and the environment that it is installed into."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.peers.load import Request

MAX_BATCH = 32
_INSTALL_SECONDS = 900
_COMPLETE = "complete"
_NETWORK = Path(__file__).with_name("network.py")


@dataclass(frozen=True)
class Peer:
    """``script`` is run as ``server.py`` by ``command``, whose first word is a program of its
    environment. The variables ``PORT``, ``NETWORK`` and ``MAX_BATCH`` say what to serve. "{port}"
    stands for the port in its words and ``variables``. ``request`` makes a request of an image's
    bytes, ``logits`` reads its answer. ``setting`` says how it is set, beside one worker and one
    thread."""

    name: str
    requirements: tuple[str, ...]
    setting: str
    script: str
    command: tuple[str, ...]
    request: Callable[[bytes], Request]
    logits: Callable[[bytes], Any]
    variables: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Installed:
    """A peer in its own environment under ``folder``."""

    peer: Peer
    folder: Path

    @property
    def command(self) -> list[str]:
        program, *arguments = self.peer.command
        return [str(self.folder / "bin" / program), *arguments]

    def variables(self, network: Path) -> dict[str, str]:
        return {
            "PATH": f"{self.folder / 'bin'}:{os.environ.get('PATH', '')}",
            "PYTHONPATH": "",
            "OMP_NUM_THREADS": "1",
            "PORT": "{port}",
            "NETWORK": str(network),
            "MAX_BATCH": str(MAX_BATCH),
            **self.peer.variables,
        }

    def write_files(self, folder: Path) -> None:
        """All that its command reads, into ``folder``."""
        shutil.copy(_NETWORK, folder)
        for name, text in {"server.py": self.peer.script, **self.peer.files}.items():
            (folder / name).write_text(text, encoding="utf-8")


def install(peer: Peer, workdir: Path, beside: Sequence[str]) -> Installed:
    """``peer`` and the requirements ``beside`` it in an environment under ``workdir``, which is
    kept for later runs. RuntimeError says why that failed."""
    requirements = [*peer.requirements, *beside]
    key = hashlib.sha256(" ".join([sys.version, *requirements]).encode()).hexdigest()[:10]
    folder = workdir / f"{re.split('[^a-z]', requirements[0])[0]}-{key}"
    if not (folder / _COMPLETE).exists():
        shutil.rmtree(folder, ignore_errors=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q"]
        _run([sys.executable, "-m", "venv", str(folder)])
        _run([*pip, "--disable-pip-version-check", "--no-input", *requirements])
        (folder / _COMPLETE).touch()
    return Installed(peer, folder)


def _run(command: Sequence[str]) -> None:
    try:
        subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=_INSTALL_SECONDS
        )
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if "ERROR" in line]
        raise RuntimeError(" / ".join(lines)[:400] or f"pip ended {error.returncode}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeError(str(error)) from None
