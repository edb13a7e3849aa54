"""A link made by ``tc`` between two network namespaces, for whoever may make namespaces.

A process that ``unshare -Urn`` started is alone in the first; the link's other end is in the
second. The rate is a token bucket (tbf) of one packet; delay and loss need netem, which a kernel
may lack.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

NEAR, FAR = "10.203.0.1", "10.203.0.2"
ENTER = ("unshare", "-Urn")
"""What starts a process in namespaces of its own."""

BURST = 1600
"""Bytes that pass at once where the link was idle: a packet, for tbf passes no parts of one."""

_QUEUE = 1_000_000
"""Bytes that wait where the rate is too low; more are lost."""
_LEAST = 1000.0
"""Bits a second of a link that stands still: tbf has no rate of 0."""


def namespace_problem(delay: float = 0.0, loss: float = 0.0) -> str | None:
    """Why there can be no such link here; None where there can."""
    kind = _discipline(1e6, delay, loss)
    try:
        tried = subprocess.run(
            [*ENTER, "tc", "qdisc", "add", "dev", "lo", "root", *kind],
            capture_output=True,
            text=True,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"no namespaces and tc here: {error}"
    if tried.returncode:
        return f"{kind[0]} in a namespace: {tried.stderr.strip() or 'refused'}"
    return None


class NamespaceLink:
    """The link, and a namespace behind it; used with ``with`` in a process of ``ENTER``.

    ``delay`` is in seconds each way, ``loss`` the share of packets that are lost on the way there.
    """

    def __init__(self, delay: float = 0.0, loss: float = 0.0) -> None:
        self._delay = delay
        self._loss = loss

    def __enter__(self) -> NamespaceLink:
        self._holder = subprocess.Popen(["unshare", "-n", "sleep", "infinity"])
        own = Path("/proc/self/ns/net").readlink()
        while Path(f"/proc/{self._holder.pid}/ns/net").readlink() == own:
            time.sleep(0.005)
        _run("ip", "link", "set", "lo", "up")
        far = ["type", "veth", "peer", "name", "far", "netns", str(self._holder.pid)]
        _run("ip", "link", "add", "near", *far)
        _run("ip", "addr", "add", f"{NEAR}/24", "dev", "near")
        _run("ip", "link", "set", "near", "up")
        _run("tc", "qdisc", "add", "dev", "near", "root", *self._kind(1e9))
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "addr", "add", f"{FAR}/24", "dev", "far")
        self.run("ip", "link", "set", "far", "up")
        if self._delay:
            back = ["netem", "delay", f"{1e3 * self._delay:g}ms"]
            self.run("tc", "qdisc", "add", "dev", "far", "root", *back)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._holder.kill()
        self._holder.wait()

    def set_rate(self, bits: float) -> None:
        """Let ``bits`` a second through from now on."""
        _run("tc", "qdisc", "change", "dev", "near", "root", *self._kind(bits))

    def passed(self) -> int:
        """How many bytes it has let through, headers of packets and all."""
        shown = _run("tc", "-s", "-j", "qdisc", "show", "dev", "near")
        return sum(int(each["bytes"]) for each in json.loads(shown))

    def run(self, *command: str) -> None:
        """Run ``command`` at the far end."""
        _run(*self._at_far_end(command))

    def start(self, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start ``command`` at the far end."""
        return subprocess.Popen(self._at_far_end(command), env={**os.environ, **environment})

    def _at_far_end(self, command: Sequence[str]) -> list[str]:
        return ["nsenter", "-t", str(self._holder.pid), "-n", *command]

    def _kind(self, bits: float) -> list[str]:
        return _discipline(bits, self._delay, self._loss)


def _discipline(bits: float, delay: float, loss: float) -> list[str]:
    rate = f"{max(_LEAST, bits):.0f}bit"
    if not delay and not loss:
        return ["tbf", "rate", rate, "burst", str(BURST), "limit", str(_QUEUE)]
    wait, lost = f"{1e3 * delay:g}ms", f"{100 * loss:g}%"
    return ["netem", "rate", rate, "delay", wait, "loss", lost, "limit", str(_QUEUE // 1500)]


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
